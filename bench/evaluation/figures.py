"""Plots of the results. Colours are those of `rapidctl sim`: one per policy, one per role."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.grid import LOAD_SHARE, budget_mw
from bench.evaluation.results import Results
from bench.evaluation.tell import (
    HARM,
    PLAIN,
    Rows,
    attained,
    curves,
    joules,
    margin,
    of,
    regret,
    role_watts,
    rows,
    where,
)
from rapid.core.cluster import Role
from rapid.sim.study import LEVELS, falling
from rapidctl.sim.canvas import ALARM, FAINT, INK, ROLES, colours, figure_at, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4  # of panels
ATTAINED, HARMED, RATES, WATTS, REGRET = "attainment.png", "harm.png", "rates.png", "watts.png", "regret.png"
LINE: Any = {"linewidth": 1.7, "markersize": 4}
BEYOND = 10  # points shown on both sides of all means; an interval may go on
ORDER = (Role.PREFILL, Role.DECODE, Role.MIXED)  # as the fields of Roles


def draw_all(results: Results, folder: Path) -> None:
    """Every figure but the films. Raises UsageError if one cannot be written."""
    table = rows(results)
    draw_attained(results, table, folder / ATTAINED)
    draw_harm(results, table, folder / HARMED)
    draw_rates(results, folder / RATES)
    draw_watts(results, table, folder / WATTS)
    draw_regret(results, table, folder / REGRET)


def draw_attained(results: Results, table: Rows, path: Path) -> None:
    """Against the budget, a panel per trace. Intervals would hide the lines; the tables have them."""
    grid, paint = results.grid, colours(list(results.grid.policies))
    title = "Attainment against budget, mean over engines and corners"
    shown = [100 * share for share in grid.shares]
    with figure_at(path, title, _size(len(grid.traces))) as figure:
        for axes, trace in zip(_panels(figure, len(grid.traces)), grid.traces, strict=True):
            for policy in grid.policies:
                found = [attained(of(table, policy, where(trace=trace, share=share))).mean for share in grid.shares]
                axes.plot(shown, [100 * mean for mean in found], color=paint[policy], label=policy, marker="o", **LINE)
            axes.set_title(trace, loc="left", fontsize=11, fontweight="bold")
            axes.set_ylim(0, 102)
            axes.set_xticks(shown)
        _label(figure, "budget (% of the ceilings)", "requests that meet both targets (%)")


def draw_harm(results: Results, table: Rows, path: Path) -> None:
    """All cells of a policy in the order of what it gains over the better of the two that never move anything."""
    paint = colours(list(results.grid.policies))
    movers = [policy for policy in results.grid.policies if policy not in PLAIN]
    title = f"Gain over the better of {' and '.join(PLAIN)}, cell by cell"
    with figure_at(path, title, (9.5, 5.6)) as figure:
        axes = figure.subplots()
        for policy in movers:
            gains = sorted(100 * margin(row, policy) for row in table.values())
            share = [100 * (number + 0.5) / len(gains) for number in range(len(gains))]
            harmed = sum(gain < -100 * HARM for gain in gains) / len(gains)
            label = f"{policy}: harm in {100 * harmed:.0f} % of the cells"
            axes.plot(share, gains, color=paint[policy], linewidth=2.0, label=label)
        axes.axhline(0, color=INK, linewidth=1.0)
        low, high = axes.get_ylim()
        axes.axhspan(min(low, -100 * HARM), -100 * HARM, color=ALARM, alpha=0.06, linewidth=0)
        axes.set_ylim(low, high)
        axes.set_xlim(0, 100)
        axes.set_xlabel("cells, the worst first (%)", color=INK)
        axes.set_ylabel("gain (points of attainment)")
        axes.legend(loc="upper left", fontsize=9.5, frameon=False)
        tidy(axes)


def draw_rates(results: Results, path: Path) -> None:
    """Attainment against rate, a panel per trace of the sweep."""
    grid, sweep, paint = results.grid, results.grid.sweep, colours(list(results.grid.policies))
    setting = grid.shown(sweep.traces[0])
    title = f"Attainment against rate: {setting.profile} ({setting.corner}), budget {100 * LOAD_SHARE:.0f} %"
    with figure_at(path, title, _size(len(sweep.traces), each=4.0)) as figure:
        for axes, trace in zip(_panels(figure, len(sweep.traces), sharex=False), sweep.traces, strict=True):
            for level in LEVELS:
                axes.axhline(100 * level, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
            for curve in curves(results, trace):
                colour, means = paint[curve.policy], curve.means
                line = falling(means)
                axes.plot([at for at, _ in line], [100 * share for _, share in line], color=colour, **LINE)
                axes.scatter(list(means), [100 * share for share in means.values()], color=colour, s=14)
                axes.plot([], [], color=colour, label=curve.policy, marker="o", **LINE)
            axes.set_title(trace, loc="left", fontsize=11, fontweight="bold")
            axes.set_ylim(0, 103)
            axes.set_xlim(0, None)
        _label(figure, "requests/s", "requests that meet both targets (%)")


def draw_watts(results: Results, table: Rows, path: Path) -> None:
    """Limits and draws by role, a row per budget and a column per engine; the energy of a token on top."""
    grid = results.grid
    shares = tuple(dict.fromkeys((min(grid.shares), LOAD_SHARE)))
    title = "Where the watts went: pale the limits, full the draw"
    with figure_at(path, title, (4.4 * max(2, len(grid.profiles)), 1.0 + 3.6 * len(shares))) as figure:
        panels = figure.subplots(len(shares), len(grid.profiles), sharex=True, squeeze=False)
        for line, share in zip(panels, shares, strict=True):
            for axes, profile in zip(line, grid.profiles, strict=True):
                _draw_watts(results, table, profile, share, axes)
        for role in ORDER:
            panels[0][0].bar(0, 0, color=ROLES[role], label=role.value)
        panels[0][0].plot([], [], color=ALARM, label="budget")
        _legend(figure)


def _draw_watts(results: Results, table: Rows, profile: str, share: float, axes: "Axes") -> None:
    here = where(profile=profile, share=share)
    total_w = budget_mw(next(filter(here, table))) / 1e3
    for place, policy in enumerate(results.grid.policies):
        entries = of(table, policy, here)
        below_w = 0.0
        for role in ORDER:
            limit_w, draw_w = role_watts(entries, role)
            axes.bar(place, limit_w, bottom=below_w, color=ROLES[role], alpha=0.28, width=0.74)
            axes.bar(place, draw_w, bottom=below_w, color=ROLES[role], alpha=0.95, width=0.42)
            below_w += limit_w
        text = f"{joules(entries):.2f} J"
        axes.text(place, max(below_w, total_w) + 0.015 * total_w, text, ha="center", fontsize=8.5)
    axes.axhline(total_w, color=ALARM, linewidth=1.3)
    axes.set_ylim(0, 1.12 * total_w)
    axes.set_xticks(range(len(results.grid.policies)), results.grid.policies, rotation=30, ha="right", color=INK)
    title = f"{profile}, budget {total_w:,.0f} W ({100 * share:.0f} %)"
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_ylabel("watts, all GPUs" if profile == results.grid.profiles[0] else "")
    tidy(axes)


def draw_regret(results: Results, table: Rows, path: Path) -> None:
    """What a policy attains less than the oracle, a panel per budget, a row per trace."""
    grid, paint = results.grid, colours(list(results.grid.policies))
    setting = grid.shown(grid.traces[0])
    title = f"Regret: the oracle's attainment less the policy's; {setting.profile} ({setting.corner})"
    with figure_at(path, title, (5.6 * max(2, len(grid.oracle_shares)), 1.4 + 0.75 * len(grid.traces))) as figure:
        panels = figure.subplots(1, len(grid.oracle_shares), sharex=True, sharey=True, squeeze=False)[0]
        means: list[float] = []
        for axes, share in zip(panels, grid.oracle_shares, strict=True):
            for place, policy in enumerate(grid.policies):
                apart = 0.12 * (place - (len(grid.policies) - 1) / 2)
                found = [regret(results, table, policy, trace, share) for trace in grid.traces]
                means += [100 * each.mean for each in found]
                axes.errorbar(
                    [100 * each.mean for each in found],
                    [line + apart for line in range(len(grid.traces))],
                    xerr=[100 * (each.half or 0.0) for each in found],
                    color=paint[policy],
                    label=policy,
                    fmt="o",
                    markersize=5,
                    elinewidth=0.9,
                )
            axes.axvline(0, color=INK, linewidth=1.0)
            for line in range(0, len(grid.traces), 2):
                axes.axhspan(line - 0.5, line + 0.5, color=FAINT, alpha=0.10, linewidth=0)
            axes.set_title(f"budget {100 * share:.0f} %", loc="left", fontsize=10.5, fontweight="bold")
            axes.set_yticks(range(len(grid.traces)), grid.traces, color=INK)
            tidy(axes, along="x")
        panels[0].set_xlim(min(means) - BEYOND, max(means) + BEYOND)
        panels[0].set_ylim(len(grid.traces) - 0.5, -0.5)
        _label(figure, "regret (points of attainment)", "")


# ---- small parts ----


def _size(count: int, each: float = 3.1) -> tuple[float, float]:
    columns, lines = _shape(count)
    return max(8.0, 3.5 * columns), 1.2 + each * lines


def _shape(count: int) -> tuple[int, int]:
    """Columns and lines of so many panels."""
    lines = -(-count // COLUMNS)
    return -(-count // lines), lines


def _panels(figure: "Figure", count: int, *, sharex: bool = True) -> "list[Axes]":
    """So many; a place that is left over stays empty."""
    columns, lines = _shape(count)
    found: list[Axes] = list(figure.subplots(lines, columns, sharex=sharex, sharey=True, squeeze=False).flat)
    for axes in found[:count]:
        tidy(axes)
    for axes in found[count:]:
        axes.set_axis_off()
    return found[:count]


def _label(figure: "Figure", along: str, up: str) -> None:
    """Labels at the edge of the panels, and one legend below all."""
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is not None and place.is_last_row():
            axes.set_xlabel(along, color=INK)
        if place is not None and place.is_first_col():
            axes.set_ylabel(up)
    _legend(figure)


def _legend(figure: "Figure") -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9.5)
