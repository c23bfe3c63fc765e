"""The arithmetic of comparing policies: intervals over seeds, and the rate that a policy sustains.

Every value is a mean over independent runs (seeds); attainments are shares from 0 to 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, inf, pi, sin, sqrt, tan

LEVELS = (0.80, 0.90, 0.99)  # attainments at which a rate counts as sustained; the RAPID paper's is the first
STEP = 1.6  # between the rates of the first, coarse search
PRECISION = 0.02  # a bracket narrower than this share of its rate is narrow enough
LEAST_SHARE, MOST_SHARE = 1 / 64, 64.0  # of the first rate: beyond, the search gives up
MAX_POINTS = 28  # of one search


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and half the width of its 95 % confidence interval (Student's t). half None: one value says no width."""

    mean: float
    half: float | None

    @property
    def excludes_zero(self) -> bool:
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """Of at least one value."""
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, None)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return Interval(mean, student_t(count - 1) * sqrt(variance / count))


def paired(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Of the differences values - others, seed by seed: what two policies share with a seed does not blur them."""
    return interval([value - other for value, other in zip(values, others, strict=True)])


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t that a variable of so many degrees of freedom exceeds in absolute value with 1 - confidence."""
    low, high = 0.0, pi / 2
    for _ in range(60):  # halvings of an angle: down to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|t| < tan(angle) sqrt(freedom)): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cos(angle) ** 2 * k / (k + 1)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


# ---- attainment against rate ----


@dataclass(frozen=True, slots=True)
class Sustained:
    """The greatest rate at which `level` of the requests attain their SLO.

    low_rps   the greatest rate tried that attains it; None: not even the least does
    high_rps  the least rate tried above it that does not; None: all do, so the true rate is higher than any tried
    rate_rps  in between, by linear interpolation; None exactly when low_rps is
    """

    level: float
    rate_rps: float | None
    low_rps: float | None
    high_rps: float | None


def sustained(points: Mapping[float, float], level: float) -> Sustained:
    """By attainment at each rate tried. Attainment may not rise with rate; where chance makes it, neighbours are pooled
    (isotonic regression) before the line is drawn."""
    curve = falling(points)
    above = [point for point in curve if point[1] >= level]
    if not above:
        return Sustained(level, None, None, curve[0][0] if curve else None)
    low_rps, low = above[-1]
    if len(above) == len(curve):
        return Sustained(level, low_rps, low_rps, None)
    high_rps, high = curve[len(above)]
    return Sustained(level, low_rps + (high_rps - low_rps) * (low - level) / (low - high), low_rps, high_rps)


def falling(points: Mapping[float, float]) -> tuple[tuple[float, float], ...]:
    """The points by rising rate, with the nearest values that never rise (pool adjacent violators)."""
    pools: list[tuple[list[float], float]] = []
    for rate_rps in sorted(points):
        rates, value = [rate_rps], points[rate_rps]
        while pools and pools[-1][1] < value:
            earlier, mean = pools.pop()
            value = (mean * len(earlier) + value * len(rates)) / (len(earlier) + len(rates))
            rates = earlier + rates
        pools.append((rates, value))
    return tuple((rate_rps, value) for rates, value in pools for rate_rps in rates)


class RateSearch:
    """Which rates to try, so that the sustained rates of all levels are known to PRECISION with few runs.

    First in steps of STEP from `first_rps` until the least rate attains every level and the greatest none; then the
    bracket of each level is halved. What to try next depends on what was told only, in whatever order: all rates that
    next_rates() names may be run side by side, and be told before it is asked again.
    """

    def __init__(self, first_rps: float, levels: Sequence[float] = LEVELS) -> None:
        assert first_rps > 0
        self._first_rps = first_rps
        self._levels = tuple(levels)
        self.points: dict[float, float] = {}

    def tell(self, rate_rps: float, attainment: float) -> None:
        """What a run at this rate attained."""
        self.points[rate_rps] = attainment

    def next_rates(self) -> tuple[float, ...]:
        """Rising; empty: all is known, or given up."""
        if not self.points:
            return (self._first_rps / STEP, self._first_rps, self._first_rps * STEP)
        wanted = (*self._wider(), *self._narrower())
        room = max(0, MAX_POINTS - len(self.points))
        return tuple(sorted(dict.fromkeys(wanted)))[:room]

    def _wider(self) -> Iterable[float]:
        curve = falling(self.points)
        (least_rps, best), (most_rps, worst) = curve[0], curve[-1]
        if best < max(self._levels) and least_rps / STEP >= self._first_rps * LEAST_SHARE:
            yield least_rps / STEP
        if worst >= min(self._levels) and most_rps * STEP <= self._first_rps * MOST_SHARE:
            yield most_rps * STEP

    def _narrower(self) -> Iterable[float]:
        for level in self._levels:
            found = sustained(self.points, level)
            low_rps, high_rps = found.low_rps or inf, found.high_rps or inf
            if low_rps < inf and high_rps < inf and high_rps > (1 + PRECISION) * low_rps:
                yield sqrt(low_rps * high_rps)
