"""How policies stand against each other over the same seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapid.sim.study import Interval, interval, paired
from rapid.sim.world.outcome import Outcome

ORACLE = "oracle"
Measure = Callable[[Outcome], float | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """A policy's runs, one per seed in the same order as everybody's. regret: to the oracle; None: it did not run."""

    policy: str
    runs: tuple[Outcome, ...]
    attainment: Interval
    regret: Interval | None = None

    def mean(self, measure: Measure) -> float | None:
        """Over the runs that have the measure; None: none has."""
        values = [value for run in self.runs if (value := measure(run)) is not None]
        return sum(values) / len(values) if values else None

    def sum(self, measure: Callable[[Outcome], float]) -> float:
        """Of a measure that every run has."""
        return sum(measure(run) for run in self.runs)

    def share(self, measure: Callable[[Outcome], float]) -> float:
        """The mean of a measure that every run has."""
        return self.sum(measure) / len(self.runs)

    @property
    def foresees(self) -> bool:
        """It looks at the future, so nobody can have it."""
        return self.policy.partition(":")[0] == ORACLE


def standings(runs: Sequence[tuple[Outcome, ...]]) -> tuple[Standing, ...]:
    """Of each policy's runs, in the order given."""
    found = [Standing(mine[0].policy, mine, interval([run.attainment for run in mine])) for mine in runs]
    oracle = next((each for each in found if each.foresees), None)
    if oracle is None:
        return tuple(found)
    return tuple(Standing(each.policy, each.runs, each.attainment, lead(oracle, each)) for each in found)


def lead(one: Standing, other: Standing) -> Interval:
    """By how much more attainment the one is ahead of the other, seed by seed."""
    return paired([run.attainment for run in one.runs], [run.attainment for run in other.runs])


def ranked(all_of_them: Sequence[Standing]) -> tuple[Standing, ...]:
    """Best first, without those that nobody can have; equals stay in the order given."""
    able = [each for each in all_of_them if not each.foresees]
    return tuple(sorted(able, key=lambda each: -each.attainment.mean))
