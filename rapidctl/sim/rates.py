"""Attainment against rate: which runs a sweep needs, and what they show. Nothing here runs anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from rapid.sim.study import LEVELS, Interval, RateSearch, Sustained, interval, sustained
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import Scenario

SHARE = 0.7  # of the rough capacity, where a search begins
TARGET_SHARE = 0.8  # of the TPOT target that a decode step may take in the rough capacity
MOST_RATES = 200  # that may be asked for


@dataclass(frozen=True, slots=True)
class Point:
    """What the runs at one rate attained, one run per seed."""

    rate_rps: float
    runs: tuple[Outcome, ...]

    @property
    def attainment(self) -> Interval:
        return interval([run.attainment for run in self.runs])


@dataclass(slots=True)
class Curve:
    """The points of one policy, by a search or at the rates given."""

    policy: str
    search: RateSearch
    given: tuple[float, ...] | None
    points: list[Point] = field(default_factory=list)

    def wanted(self) -> tuple[float, ...]:
        """Rates to run next; empty: the curve is done."""
        if self.given is None:
            return self.search.next_rates()
        return () if self.points else self.given

    def add(self, point: Point) -> None:
        self.search.tell(point.rate_rps, point.attainment.mean)
        self.points = sorted([*self.points, point], key=lambda each: each.rate_rps)

    def sustained(self, level: float) -> Sustained:
        return sustained(self.search.points, level)

    def runs(self) -> list[Outcome]:
        return [run for point in self.points for run in point.runs]


def curves(policies: Iterable[str], first_rps: float, given: tuple[float, ...] | None) -> tuple[Curve, ...]:
    """One for each policy, without a point yet."""
    return tuple(Curve(policy, RateSearch(first_rps), given) for policy in policies)


def ranked(everybody: Sequence[Curve]) -> tuple[Curve, ...]:
    """By what they sustain at the first level, most first; equals stay in the order given."""
    return tuple(sorted(everybody, key=lambda curve: -(curve.sustained(LEVELS[0]).rate_rps or 0.0)))


def parse_rates(text: str) -> tuple[float, ...]:
    """ "8,12,16" or "8:16:2" (both ends included), rising. Raises ValueError with half a sentence for the user."""
    try:
        if ":" in text:
            low, high, step = (float(part) for part in text.split(":"))
            ranged = all(isfinite(value) for value in (low, high, step)) and 0 < low <= high and step > 0
            count = int((high - low) / step + 1e-9) + 1 if ranged else 0
            rates = tuple(low + step * number for number in range(min(count, MOST_RATES + 1)))
        else:
            rates = tuple(sorted(dict.fromkeys(float(part) for part in text.split(","))))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"{text!r} are no rates above 0; write 8,12,16 or LOW:HIGH:STEP as in 8:16:2")
    if len(rates) > MOST_RATES:
        raise ValueError(f"{text!r} are more than {MOST_RATES} rates")
    return rates


def first_rate(scenario: Scenario, mean_input: float, mean_output: float) -> float:
    """Where to begin: a share of the rate that either phase can carry by a rough account, in requests per second.

    Prefill one prompt at a time, decode in the largest batch whose step is well within the TPOT target; all GPUs at
    their share of the budget, half of the instances in either role. A search mends what is wrong with it.
    """
    profile, limit_mw = scenario.profile, scenario.fallback_mw
    each = scenario.instances * scenario.nodes / 2
    prefill_rps = each / profile.prefill_s(round(mean_input), round(mean_input**2), limit_mw)
    batch, context = 1, mean_input + mean_output / 2
    while batch < scenario.engine.max_sequences:
        if profile.decode_step_s(2 * batch, round(2 * batch * context), limit_mw) > TARGET_SHARE * scenario.slo.tpot_s:
            break
        batch *= 2
    step_s = profile.decode_step_s(batch, round(batch * context), limit_mw)
    return SHARE * min(prefill_rps, each * batch / step_s / mean_output)
