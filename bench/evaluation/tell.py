"""What the entries say: means with intervals, worst cells, who is best, and who does harm.

A mean over cells is taken seed by seed; the interval is that of the seeds' means (Student's t, 95 %). Seeds differ in
requests, dies, sensors and delays, but not in cells, so the interval says how sure the mean over these cells is, and
nothing about other traces.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from bench.evaluation.grid import Cell
from bench.evaluation.results import Entry, Results
from rapid.core.cluster import Role
from rapid.sim.study import Interval, Sustained, interval, paired, sustained
from rapid.sim.world.scenario import COLOCATED, ORACLE

PLAIN = ("uniform", "static")  # they never move anything: who does worse than both does harm
HARM = 0.01  # of attainment below the better of them
LEVEL = 0.002  # of attainment; nearer to the best counts as best, too

Rows = Mapping[Cell, Mapping[str, Entry]]  # by cell and policy


@dataclass(frozen=True, slots=True)
class Record:
    """How a policy does over all cells. Shares are of cells.

    best         no other but the oracle is better by more than LEVEL
    best_split   the same among those that split prefill and decode; None: it is not one of them
    harm         below the better of PLAIN by more than HARM; greatest_harm: by how much at worst
    """

    policy: str
    attained: Interval
    worst: Entry
    best: float
    best_split: float | None
    harm: float
    greatest_harm: Entry
    greatest_harm_by: float


def rows(results: Results) -> Rows:
    """Every cell of the grid with its policies, the oracle's too where it ran."""
    found: dict[Cell, dict[str, Entry]] = {cell: {} for cell in results.grid.cells}
    for entry in results.entries:
        found[entry.cell][entry.policy] = entry
    return found


def where(
    *, trace: str | None = None, profile: str | None = None, corner: str | None = None, share: float | None = None
) -> Callable[[Cell], bool]:
    """The cells that have all that is given."""

    def fits(cell: Cell) -> bool:
        setting = cell.setting
        asked = ((trace, setting.trace), (profile, setting.profile), (corner, setting.corner), (share, cell.share))
        return all(want is None or want == have for want, have in asked)

    return fits


def attained(entries: Iterable[Entry]) -> Interval:
    """The mean over the entries, which are of one policy."""
    return interval(by_seed(entries))


def by_seed(entries: Iterable[Entry]) -> list[float]:
    """The mean of each seed."""
    seeds = list(zip(*(entry.attainment for entry in entries), strict=True))
    return [sum(values) / len(values) for values in seeds]


def of(table: Rows, policy: str, fits: Callable[[Cell], bool] = lambda cell: True) -> list[Entry]:
    """The policy's entries in these cells."""
    return [row[policy] for cell, row in table.items() if fits(cell)]


def lead(table: Rows, one: str, other: str, fits: Callable[[Cell], bool] = lambda cell: True) -> Interval:
    """By how much more the one attains, seed by seed, over these cells."""
    return paired(by_seed(of(table, one, fits)), by_seed(of(table, other, fits)))


def regret(results: Results, table: Rows, policy: str, trace: str, share: float) -> Interval:
    """By how much more the oracle attains in the trace's cell with that budget."""
    row = table[Cell(results.grid.shown(trace), share)]
    return paired(row[ORACLE].attainment, row[policy].attainment)


def margin(row: Mapping[str, Entry], policy: str) -> float:
    """By how much more it attains in this cell than the better of the two that never move anything."""
    return row[policy].mean - max(row[plain].mean for plain in PLAIN)


def record(table: Rows, policy: str) -> Record:
    """Over all cells."""
    split = [name for name in next(iter(table.values())) if name not in (COLOCATED, ORACLE)]
    everyone = [*split, COLOCATED]
    margins = {cell: margin(row, policy) for cell, row in table.items()}
    lowest = min(margins, key=lambda cell: margins[cell])
    return Record(
        policy=policy,
        attained=attained(of(table, policy)),
        worst=min(of(table, policy), key=lambda entry: entry.mean),
        best=_share([_is_best(row, policy, everyone) for row in table.values()]),
        best_split=_share([_is_best(row, policy, split) for row in table.values()]) if policy in split else None,
        harm=_share([value < -HARM for value in margins.values()]),
        greatest_harm=table[lowest][policy],
        greatest_harm_by=-margins[lowest],
    )


def _is_best(row: Mapping[str, Entry], policy: str, among: Sequence[str]) -> bool:
    return row[policy].mean >= max(row[name].mean for name in among if name in row) - LEVEL


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


# ---- watts ----


def role_watts(entries: Sequence[Entry], role: Role) -> tuple[float, float]:
    """Limit and draw of all GPUs of the role, in watts: means over the entries, which are of one fleet."""
    limits_w, draws_w = [], []
    for entry in entries:
        instances, limit_w, draw_w = (
            getattr(each, role.value) for each in (entry.instances, entry.limit_w, entry.draw_w)
        )
        gpus = (instances or 0.0) * entry.cell.setting.engine.gpus
        limits_w.append(gpus * (limit_w or 0.0))
        draws_w.append(gpus * (draw_w or 0.0))
    return mean(limits_w), mean(draws_w)


def joules(entries: Sequence[Entry]) -> float:
    """Per output token: the mean over the entries."""
    return mean([entry.joules_per_output_token for entry in entries if entry.joules_per_output_token is not None])


# ---- attainment against rate ----


@dataclass(frozen=True, slots=True)
class Curve:
    """A policy's attainment by rate, in one cell."""

    policy: str
    points: Mapping[float, Interval]

    @property
    def means(self) -> dict[float, float]:
        return {rate_rps: point.mean for rate_rps, point in self.points.items()}

    def sustained(self, level: float) -> Sustained:
        return sustained(self.means, level)


def curves(results: Results, trace: str) -> list[Curve]:
    """One per policy, from the sweep."""
    setting = results.grid.shown(trace)
    load_rps = next(each.load.rate_rps for each in results.loads if each.setting == setting)
    return [
        Curve(
            policy,
            {
                load_rps * entry.speed: interval(entry.attainment)
                for entry in results.sweep
                if entry.policy == policy and entry.trace == trace
            },
        )
        for policy in results.grid.policies
    ]
