"""The answer of sweep for a person."""

from collections.abc import Mapping, Sequence

from rapid.sim.study import LEVELS, Sustained
from rapid.sim.world.scenario import Scenario
from rapidctl.output import Block, Cell, Column, Line, Table, Tone, line
from rapidctl.sim.load import Load
from rapidctl.sim.rates import Curve, ranked
from rapidctl.sim.report import judged, seeds_line, site_line, static_lines
from rapidctl.sim.words import NOTHING, number, percent

PLAIN = "uniform"  # what others are held against


def sweep_blocks(
    everybody: Sequence[Curve], load: Load, scenarios: Mapping[str, Scenario], seeds: int, *, cut: bool
) -> list[Block]:
    """The whole report of a sweep. scenarios: one of each policy. cut: nobody asked for so few requests."""
    scenario = next(iter(scenarios.values()))
    runs = [run for curve in everybody for run in curve.runs()]
    blocks: list[Block] = [
        line(
            f"load: {load.trace}, the same {load.offered:,} requests at every rate, {load.mean_input:,.0f} tokens in "
            f"and {load.mean_output:,.0f} out"
        ),
        site_line(scenario),
    ]
    if cut and not load.whole:
        blocks.append(line("only the first part of the trace was taken; --limit or --seconds for more", Tone.DIM))
    if load.left_out:
        blocks.append(line(f"left out: {load.left_out}", Tone.WARN))
    blocks += [*static_lines(scenarios), seeds_line(scenario.seed, seeds), line()]
    if everybody[0].given is not None:
        blocks += [_grid(everybody), line()]
    return [*blocks, sustained_table(everybody), line(), *_verdict(everybody), judged(runs, scenario.budget_mw)]


def sustained_table(everybody: Sequence[Curve]) -> Table:
    """Requests per second that each policy sustains at each level."""
    base = next((curve for curve in everybody if curve.policy == PLAIN), None)
    best = ranked(everybody)[0]
    columns = [Column("sustains requests/s at", elastic=True)]
    columns += [Column(f"{percent(level, 0)} %", right=True) for level in LEVELS]
    if base is not None and len(everybody) > 1:
        columns.append(Column(f"against {PLAIN}", right=True))
    rows = []
    for curve in everybody:
        tone = Tone.GOOD if curve is best else Tone.PLAIN
        cells = [Cell(curve.policy, Tone.STRONG if curve is best else Tone.PLAIN)]
        cells += [Cell(_rate(curve.sustained(level)), tone) for level in LEVELS]
        if base is not None and len(everybody) > 1:
            cells.append(Cell(_times(curve.sustained(LEVELS[0]), base.sustained(LEVELS[0]))))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _grid(everybody: Sequence[Curve]) -> Table:
    """Attainment at each of the rates that were asked for."""
    columns = [Column("requests/s", right=True), *(Column(curve.policy, right=True) for curve in everybody)]
    rows = []
    for points in zip(*(curve.points for curve in everybody), strict=True):
        cells = [Cell(f"{points[0].rate_rps:g}")]
        for point in points:
            half = point.attainment.half
            mean = percent(point.attainment.mean)
            cells.append(Cell(mean if half is None else f"{mean} ± {percent(half)}"))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _verdict(everybody: Sequence[Curve]) -> list[Line]:
    best = ranked(everybody)[0]
    found = best.sustained(LEVELS[0])
    level = percent(LEVELS[0], 0)
    if found.rate_rps is None:
        said = f"No policy attains {level} % at any rate tried: some requests miss their targets even alone."
    else:
        rate = _rate(found).replace(">", "more than")
        said = f"{best.policy} sustains most: {rate} requests/s at {level} % attainment."
        beyond = [each for each in LEVELS if all(curve.sustained(each).rate_rps is None for curve in everybody)]
        if beyond:
            said += f" None attains {percent(beyond[0], 0)} % at any rate tried."
    return [line(said)]


def _rate(found: Sustained) -> str:
    """ ">": every rate tried was sustained."""
    if found.rate_rps is None:
        return NOTHING
    return f"{'> ' if found.high_rps is None else ''}{number(found.rate_rps, 2 if found.rate_rps < 100 else 1)}"


def _times(mine: Sustained, base: Sustained) -> str:
    if mine.rate_rps is None or base.rate_rps is None:
        return NOTHING
    return f"{mine.rate_rps / base.rate_rps:.2f}x"
