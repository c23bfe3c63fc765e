"""The numbers of the document, as Markdown tables. Attainments are per cent, differences are points of them."""

from collections.abc import Callable, Iterable, Sequence

from bench.evaluation.grid import Cell
from bench.evaluation.results import Entry, Results, Roles
from bench.evaluation.tell import PLAIN, Record, Rows, attained, curves, joules, lead, of, regret, where
from rapid.sim.study import LEVELS, Interval
from rapid.sim.world.scenario import ORACLE

NOTHING = "-"
ROLES = Roles._fields


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is words and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def level(value: Interval) -> str:
    """A mean with its interval."""
    return percent(value.mean) + ("" if value.half is None else f" ± {percent(value.half)}")


def gain(value: Interval) -> str:
    """A difference, bold when it is more than chance."""
    text = f"{100 * value.mean:+.1f}" + ("" if value.half is None else f" ± {percent(value.half)}")
    return f"**{text}**" if value.excludes_zero else text


def overall(table: Rows, records: Sequence[Record]) -> str:
    """A row per policy."""
    head = ("policy", "attained", *(f"minus `{other}`" for other in PLAIN), "best", "best split", "harm", "worst cell")
    lines = []
    for each in records:
        leads = [NOTHING if each.policy == other else gain(lead(table, each.policy, other)) for other in PLAIN]
        lines.append(
            (
                f"`{each.policy}`",
                level(each.attained),
                *leads,
                f"{percent(each.best, 0)} %",
                NOTHING if each.best_split is None else f"{percent(each.best_split, 0)} %",
                NOTHING if each.policy in PLAIN else f"{percent(each.harm, 0)} %",
                f"{percent(each.worst.mean)}: {each.worst.cell}",
            )
        )
    return markdown(head, lines)


def by_part(results: Results, table: Rows, title: str, parts: Sequence[tuple[str, Callable[[Cell], bool]]]) -> str:
    """A row per part of the grid, a column per policy; the greatest mean is bold."""
    policies = results.grid.policies
    lines = []
    for name, fits in parts:
        found = [attained(of(table, policy, fits)) for policy in policies]
        greatest = max(each.mean for each in found)
        cells = [f"**{level(each)}**" if each.mean == greatest else level(each) for each in found]
        lines.append((name, *cells))
    return markdown((title, *(f"`{policy}`" for policy in policies)), lines)


def by_budget(results: Results, table: Rows) -> str:
    parts = [(f"{percent(share, 0)} %", where(share=share)) for share in results.grid.shares]
    return by_part(results, table, "budget", parts)


def by_trace(results: Results, table: Rows) -> str:
    return by_part(results, table, "trace", [(f"`{trace}`", where(trace=trace)) for trace in results.grid.traces])


def by_engine(results: Results, table: Rows) -> str:
    parts = [(f"`{profile}`", where(profile=profile)) for profile in results.grid.profiles]
    return by_part(results, table, "engine", parts)


def by_corner(results: Results, table: Rows) -> str:
    parts = [(corner.replace(",", ", "), where(corner=corner)) for corner in results.grid.corners]
    return by_part(results, table, "prefill, decode", parts)


def harms(records: Sequence[Record]) -> str:
    """Where a policy that moves something does worst against those that do not."""
    lines = [
        (
            f"`{each.policy}`",
            f"{percent(each.harm, 0)} %",
            percent(each.greatest_harm_by) if each.greatest_harm_by > 0 else "none",
            str(each.greatest_harm.cell),
        )
        for each in records
        if each.policy not in PLAIN
    ]
    return markdown(("policy", "cells with harm", "points lost at worst", "where it does worst"), lines)


def rates(results: Results) -> str:
    """The sustained rate of each policy by trace and level."""
    policies = results.grid.policies
    lines = []
    for trace in results.grid.sweep.traces:
        found = {curve.policy: curve for curve in curves(results, trace)}
        for share in LEVELS:
            values = [found[policy].sustained(share) for policy in policies]
            texts = [
                NOTHING if each.rate_rps is None else f"{'over ' * (each.high_rps is None)}{each.rate_rps:.1f}"
                for each in values
            ]
            lines.append((f"`{trace}` at {percent(share, 0)} %", *texts))
    return markdown(("requests/s", *(f"`{policy}`" for policy in policies)), lines)


def effort(results: Results, table: Rows) -> str:
    """What moves cost and energy buys: means over all cells."""
    lines = []
    for policy in results.grid.policies:
        entries = of(table, policy)
        watts = [" / ".join(_role_means(entries, role)) or NOTHING for role in ROLES]
        moves = f"{sum(each.role_moves for each in entries) / len(entries):.1f}"
        moved = f"{sum(each.watts_moved for each in entries) / len(entries):,.0f}"
        lines.append((f"`{policy}`", *watts, f"{joules(entries):.2f}", moves, moved))
    return markdown(
        ("policy", *(f"{role} limit / draw" for role in ROLES), "J per token", "role moves", "watts moved"), lines
    )


def regrets(results: Results, table: Rows) -> str:
    """A row per trace and budget, and their mean."""
    grid = results.grid
    lines = []
    for share in grid.oracle_shares:
        for trace in grid.traces:
            own = attained([table[Cell(grid.shown(trace), share)][ORACLE]])
            texts = [gain(regret(results, table, policy, trace, share)) for policy in grid.policies]
            lines.append((f"`{trace}`, {percent(share, 0)} %", level(own), *texts))
    everywhere = {cell: table[cell] for cell in grid.oracle_cells}
    means = [gain(lead(everywhere, ORACLE, policy)) for policy in grid.policies]
    lines.append(("mean", level(attained(of(everywhere, ORACLE))), *means))
    return markdown(("trace, budget", "`oracle` attains", *(f"`{policy}`" for policy in grid.policies)), lines)


def loads(results: Results) -> str:
    """The rates that were chosen, over the corners, and what the uniform host attains at them."""
    lines = []
    for trace in results.grid.traces:
        texts = []
        for profile in results.grid.profiles:
            found = [each for each in results.loads if (each.setting.trace, each.setting.profile) == (trace, profile)]
            rate = _span([each.load.rate_rps for each in found], 1)
            share = _span([100 * each.load.attainment for each in found], 0)
            texts.append(f"{rate} ({share} %)" + ("" if all(each.apart for each in found) else " *"))
        lines.append((f"`{trace}`", *texts))
    return markdown(("requests/s", *(f"`{profile}`" for profile in results.grid.profiles)), lines)


def _span(values: Sequence[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _role_means(entries: Sequence[Entry], role: str) -> list[str]:
    """Limit and draw of a GPU of the role, in watts; empty: nobody had it."""
    columns = [[getattr(each.limit_w, role) for each in entries], [getattr(each.draw_w, role) for each in entries]]
    measured = [[value for value in column if value is not None] for column in columns]
    return [f"{sum(values) / len(values):.0f}" for values in measured if values]
