"""The paper's figures as we measure them, a PNG each, in the profile's own corner."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rapid.core.cluster import Role
from rapid.sim.claims.claims import CORNERS, Measured, Scope, mean, measured_in
from rapid.sim.claims.runs import (
    COLOCATED,
    EVEN_600,
    EVEN_750,
    FIVE_600,
    LEVEL,
    SPLIT_675,
    SPLIT_750,
    TIGHT_TPOT_S,
    TPOT_S,
    Answer,
    ShiftTask,
    Split,
    Task,
    shift_scenario,
)
from rapid.sim.claims.table import POLICY_NAMES
from rapid.sim.study import falling
from rapidctl.sim.canvas import FAINT, INK, OTHERS, POLICIES, ROLES, figure_at, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATED_QPS_PER_WATT = {SPLIT_750: 1.7, EVEN_750: 1.5, EVEN_600: 1.2 * 6000 / 4800}  # R3, R1, R2: times colocated's
SPLITS = (COLOCATED, EVEN_750, EVEN_600, FIVE_600, SPLIT_750, SPLIT_675)
COLOURS = {
    COLOCATED: POLICIES["colocated"],
    EVEN_750: INK,
    EVEN_600: POLICIES["uniform"],
    FIVE_600: POLICIES["power"],
    SPLIT_750: POLICIES["rapid"],
    SPLIT_675: OTHERS[1],
}
ROLE_MOVERS = ("roles", "rapid")
FILMED = ("power", "rapid")  # the policies whose shift is drawn over time, at the rate with the clearest difference


def draw_claims(scope: Scope, answers: Sequence[tuple[Task, Answer]], folder: Path) -> list[Path]:
    """Draws every figure for which there is something, and returns the files. Raises UsageError if one cannot be."""
    measured = measured_in(scope.profile, scope.own, answers)
    return list(_drawn(scope, measured, folder))


def _drawn(scope: Scope, measured: Measured, folder: Path) -> Iterator[Path]:
    figures: tuple[tuple[str, bool, Callable[[Measured, Path], None]], ...] = (
        ("splits.png", bool(measured.splits), _draw_splits),
        ("efficiency.png", _has(measured, COLOCATED), _draw_efficiency),
        ("prefill-at-600W.png", bool(measured.gaps), _draw_gap),
        ("speeds.png", True, _draw_speeds),
        ("shift.png", bool(measured.policies), _draw_shift),
        ("shift-roles.png", set(ROLE_MOVERS) <= set(measured.policies), _draw_roles),
    )
    for name, there_is, draw in figures:
        if there_is:
            draw(measured, folder / name)
            yield folder / name
    for policy in FILMED:
        if policy in measured.policies:
            _draw_over_time(scope, measured, policy, folder / f"shift-over-time-{policy}.png")
            yield folder / f"shift-over-time-{policy}.png"


def _has(measured: Measured, split: Split) -> bool:
    return (split, TPOT_S) in measured.splits


# ---- LongBench ----


def _draw_splits(measured: Measured, path: Path) -> None:
    """Attainment against rate, for either TPOT target."""
    targets_s = [tpot_s for tpot_s in (TPOT_S, TIGHT_TPOT_S) if any(each == tpot_s for _, each in measured.splits)]
    with figure_at(
        path, "LongBench: attainment of fixed splits against rate (a line per seed)", (5.6 * len(targets_s), 4.8)
    ) as figure:
        for axes, tpot_s in zip(figure.subplots(1, len(targets_s), squeeze=False)[0], targets_s, strict=True):
            for split in SPLITS:
                if (split, tpot_s) in measured.splits:
                    _draw_split(axes, measured, split, tpot_s)
            axes.axhline(100 * LEVEL, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.set_title(f"TTFT 1 s, TPOT {1e3 * tpot_s:.0f} ms", fontsize=10, color=INK)
            axes.set_xlabel("requests/s")
            axes.set_ylabel("SLO attainment (%)")
            axes.set_ylim(0, 103)
            place = "lower left" if tpot_s == TPOT_S else "upper right"
            axes.legend(loc=place, fontsize=8, framealpha=0.9, edgecolor="none")
            tidy(axes)


def _draw_split(axes: "Axes", measured: Measured, split: Split, tpot_s: float) -> None:
    for curve in measured.curves(split, tpot_s):
        line = falling(curve.attainments())
        axes.plot([rate for rate, _ in line], [100 * share for _, share in line], color=COLOURS[split], linewidth=1.2)
    rate_rps = measured.sustained_rps(split, tpot_s)
    label = f"{split.name}, {split.budget_w:,} W: {rate_rps:.1f}/s"
    axes.plot([rate_rps], [100 * LEVEL], "D", color=COLOURS[split], markeredgecolor="white", markersize=7, label=label)


def _draw_efficiency(measured: Measured, path: Path) -> None:
    """Sustained rate per watt of budget, as bars; what the paper states as marks."""
    splits = [split for split in SPLITS if _has(measured, split)]
    base = measured.qps_per_watt(COLOCATED)
    title = "LongBench: sustained requests/s per watt of budget, against non-disaggregated"
    with figure_at(path, title, (9.0, 4.8)) as figure:
        axes = figure.subplots()
        values = [measured.qps_per_watt(split) / base for split in splits]
        bars = axes.bar(range(len(splits)), values, color=[COLOURS[split] for split in splits], width=0.62)
        axes.bar_label(
            bars,
            [
                f"{value:.2f}x\n{measured.sustained_rps(split):.1f}/s"
                for value, split in zip(values, splits, strict=True)
            ],
            label_type="center",
            color="white",
            fontsize=9,
        )
        stated = [
            (number, STATED_QPS_PER_WATT[split]) for number, split in enumerate(splits) if split in STATED_QPS_PER_WATT
        ]
        for number, (place, value) in enumerate(stated):
            label = "stated by the paper" if number == 0 else None
            axes.plot([place - 0.36, place + 0.36], [value, value], color="black", linewidth=2.2, label=label)
        axes.set_xticks(range(len(splits)), [f"{split.name}\n{split.budget_w:,} W" for split in splits], fontsize=8)
        axes.set_ylabel("times non-disaggregated")
        if stated:
            axes.legend(loc="upper left", fontsize=9, edgecolor="none")
        tidy(axes)


def _draw_gap(measured: Measured, path: Path) -> None:
    """A little longer prefill, a much lower attainment."""
    title = "4P4D-750W against 4P4D-600W at the rate that 750 W sustains"
    with figure_at(path, title, (7.5, 3.8)) as figure:
        times, shares = figure.subplots(1, 2)
        _pair(times, [1e3 * mean([gap.prefill_s[number] for gap in measured.gaps]) for number in (0, 1)], "{:.0f} ms")
        times.set_ylabel("prefill GPU time per request (ms)")
        _pair(shares, [100 * mean([gap.attainment[number] for gap in measured.gaps]) for number in (0, 1)], "{:.0f} %")
        shares.set_ylabel("SLO attainment (%)")
        shares.set_ylim(0, 100)


def _pair(axes: "Axes", values: list[float], form: str) -> None:
    bars = axes.bar(("750 W", "600 W"), values, color=[COLOURS[EVEN_750], COLOURS[EVEN_600]], width=0.55)
    axes.bar_label(bars, [form.format(value) for value in values], padding=2, fontsize=9)
    tidy(axes)


def _draw_speeds(measured: Measured, path: Path) -> None:
    """Speed under a limit, of either phase, in every corner."""
    profile, batch, context = measured.profile, 32, 32 * 4200
    limits_w = np.linspace(profile.floor_mw, profile.ceiling_mw, 141) / 1e3
    own = (profile.prefill_corner, profile.decode_corner)
    with figure_at(path, "Speed under a power limit, relative to 750 W", (10.5, 4.4)) as figure:
        prefill, decode = figure.subplots(1, 2, sharey=True)
        for corner in CORNERS:
            there = profile.with_corners(*corner)
            full_s = there.decode_step_s(batch, context, profile.ceiling_mw)
            if corner[1] is own[1]:
                speeds = [there.prefill_speed(1e3 * limit_w) for limit_w in limits_w]
                _speed(prefill, limits_w, speeds, corner[0].value, chosen=corner == own, shade=ROLES[Role.PREFILL])
            if corner[0] is own[0]:
                speeds = [full_s / there.decode_step_s(batch, context, 1e3 * limit_w) for limit_w in limits_w]
                _speed(decode, limits_w, speeds, corner[1].value, chosen=corner == own, shade=ROLES[Role.DECODE])
        prefill.set_title("prefill", fontsize=10, color=INK)
        decode.set_title("decode step of 32 sequences with 4,200 tokens each, host included", fontsize=10, color=INK)
        for axes in (prefill, decode):
            axes.set_xlabel("limit (W)")
            axes.legend(loc="lower right", fontsize=9, edgecolor="none", title="corner (bold: the profile's own)")
            tidy(axes)
        prefill.set_ylabel("relative speed")


def _speed(
    axes: "Axes",
    limits_w: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    speeds: list[float],
    name: str,
    *,
    chosen: bool,
    shade: str,
) -> None:
    width, style = (2.6, "-") if chosen else (1.4, {"steep": "--", "shallow": "--", "gentle": "--"}.get(name, ":"))
    axes.plot(limits_w, speeds, color=shade, linewidth=width, linestyle=style, label=name)


# ---- the Sonnet shift ----

_PARTS = ("the whole", "first half: 8K in, 128 out", "second half: 512 in, 512 out")


def _draw_shift(measured: Measured, path: Path) -> None:
    """Attainment against rate by policy: of all, and of either half. Bands reach from the worst to the best seed."""
    title = "Sonnet shift under 4,800 W: attainment by policy (bands: seeds)"
    rates = measured.shift_rates_rps
    with figure_at(path, title, (13.0, 4.6)) as figure:
        for part, axes in enumerate(figure.subplots(1, 3, sharey=True)):
            for policy in measured.policies:
                runs = [measured.shifts(policy, rate_rps) for rate_rps in rates]
                shares = [[run.attainment if part == 0 else run.halves[part - 1] for run in each] for each in runs]
                means = [100 * mean(each) for each in shares]
                shade = POLICIES[policy]
                axes.plot(
                    rates, means, color=shade, marker="o", markersize=4, linewidth=1.8, label=POLICY_NAMES[policy]
                )
                axes.fill_between(
                    rates,
                    [100 * min(each) for each in shares],
                    [100 * max(each) for each in shares],
                    color=shade,
                    alpha=0.12,
                    linewidth=0,
                )
            axes.set_title(_PARTS[part], fontsize=10, color=INK)
            axes.set_xlabel("requests/s")
            axes.set_ylim(0, 103)
            tidy(axes)
            if part == 0:
                axes.set_ylabel("SLO attainment (%)")
                axes.legend(loc="lower left", fontsize=8.5, framealpha=0.9, edgecolor="none")


def _draw_roles(measured: Measured, path: Path) -> None:
    """How far roles move: prefill GPUs in the first half, decode GPUs in the second, the most over the seeds."""
    rates = measured.shift_rates_rps
    with figure_at(path, "Sonnet shift: the most GPUs in a role at once (over the seeds)", (9.0, 4.2)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, role, stated in zip(panels, (Role.PREFILL, Role.DECODE), (6, 7), strict=True):
            first = role is Role.PREFILL
            for policy in ROLE_MOVERS:
                most = [
                    max(run.most_prefill if first else run.most_decode for run in measured.shifts(policy, rate_rps))
                    for rate_rps in rates
                ]
                axes.plot(rates, most, color=POLICIES[policy], marker="o", linewidth=1.8, label=POLICY_NAMES[policy])
            axes.axhline(stated, color="black", linewidth=1.4, linestyle=(0, (4, 3)), label="stated by the paper")
            axes.set_title(f"{role.value} GPUs in the {'first' if first else 'second'} half", fontsize=10, color=INK)
            axes.set_xlabel("requests/s")
            axes.set_ylim(3.5, 8)
            axes.set_yticks(range(4, 9))
            tidy(axes)
        panels[0].legend(loc="upper left", fontsize=8.5, framealpha=0.9, edgecolor="none")


def _draw_over_time(scope: Scope, measured: Measured, policy: str, path: Path) -> None:
    """One run, at the rate at which RAPID does most better than 4P4D-600W, or the greatest."""
    from rapidctl.sim.film import Film
    from rapidctl.sim.load import at_rate, measure
    from rapidctl.sim.options import TraceChoice
    from rapidctl.sim.picture_run import draw_run
    from rapidctl.sim.question import Question, answer

    task = ShiftTask(policy, _clearest_rps(measured), scope.profile, scope.own, 0)
    scenario = shift_scenario(task)
    load = at_rate(measure(TraceChoice("sonnet"), scope.profile.kv_capacity_tokens), task.rate_rps)
    film = Film(scenario.slo)
    draw_run(film, answer(Question(policy, scenario, load), lambda share: None, film), load, scenario, path)


def _clearest_rps(measured: Measured) -> float:
    if not {"rapid", "uniform"} <= set(measured.policies):
        return measured.shift_rates_rps[-1]
    dynamic, static = measured.shift_attainments("rapid"), measured.shift_attainments("uniform")
    return max(measured.shift_rates_rps, key=lambda rate_rps: dynamic[rate_rps] - static[rate_rps])
