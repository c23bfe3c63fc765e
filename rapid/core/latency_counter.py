"""Counts durations as engines export them: a cumulative histogram."""

from bisect import bisect_left

from rapid.core.cluster import Histogram


def _bounds_s() -> tuple[float, ...]:
    """12 bounds per decade from 1 ms to 60 s, rounded to four digits, and the SLO targets in use: 25 ms, 40 ms, 1 s.

    A target must be a bound itself, else the share of requests that meet it could only be guessed from the histogram.
    """
    grid = {float(f"{10 ** (step / 12):.4g}") for step in range(-36, 22)}
    return tuple(sorted(grid | {0.025, 0.040, 1.0, 60.0}))


BOUNDS_S = _bounds_s()


class LatencyCounter:
    """Counts durations into BOUNDS_S; only grows."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._histogram: Histogram | None = None  # of these counts, once somebody has asked

    def copy(self) -> "LatencyCounter":
        other = LatencyCounter.__new__(LatencyCounter)
        other._counts, other._histogram = self._counts.copy(), self._histogram
        return other

    def observe(self, duration_s: float) -> None:
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self._histogram = None

    def histogram(self) -> Histogram:
        if self._histogram is None:
            self._histogram = Histogram(BOUNDS_S, tuple(self._counts))
        return self._histogram
