"""TTFT and TPOT as the control loop judges them: quantiles over a sliding window, and SLO attainment since start.

Engines report cumulative histograms. Only what was added since their report before counts, so reports may be lost or
doubled, and engines with different bucket bounds may be mixed.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from rapid.core.cluster import Histogram, PhaseLoad, SloTargets

_SLOTS = 10  # the window slides in tenths of its length
_SLOWER_S = 1.0  # assumed: the ways that a load takes, through rapidd and by the engine's own stream, differ by less
Bucket = tuple[float, float]  # (lower bound, upper bound], seconds


@dataclass(slots=True)
class Durations:
    """One kind of duration over all instances."""

    target_s: float
    window_s: float
    total: float = 0.0
    attained: float = 0.0
    _slots: deque[tuple[int, dict[Bucket, int]]] = field(default_factory=deque)

    def add(self, before: Histogram, after: Histogram, at_s: float) -> None:
        """Count what `after` has more than `before`, two cumulative histograms of one life with equal bounds."""
        if before.counts == after.counts:
            return  # an engine of the other phase, or one without news: most of them
        slot = self._slot(at_s)
        lower_s = 0.0
        for index, count in enumerate(after.counts):
            upper_s = after.bounds_s[index] if index < len(after.bounds_s) else float("inf")
            more = count - before.counts[index]
            if more > 0:
                slot[lower_s, upper_s] = slot.get((lower_s, upper_s), 0) + more
                self.total += more
                self.attained += more * _share_below(lower_s, upper_s, self.target_s)
            lower_s = upper_s

    def attainment(self) -> float | None:
        """The share at or below the target since start; exact where the target is a bucket bound. None: none yet."""
        return self.attained / self.total if self.total else None

    def quantile(self, share: float, at_s: float) -> float | None:
        """The quantile over the window, requests spread evenly inside their buckets. Where it lies above all bounds of
        an engine it may be any time, and is given as the greatest bound. None: no request in the window."""
        self._forget(at_s)
        merged: dict[Bucket, int] = {}
        for _, slot in self._slots:
            for bucket, count in slot.items():
                merged[bucket] = merged.get(bucket, 0) + count
        if not merged:
            return None
        # Buckets of different engines overlap, so the sum of what lies below is followed from bound to bound.
        wanted = share * sum(merged.values())
        bounds_s = sorted({bound_s for bucket in merged for bound_s in bucket if bound_s != float("inf")})
        below = 0.0
        for start_s, end_s in pairwise(bounds_s):
            before = below
            below = sum(count * _share_below(*bucket, end_s) for bucket, count in merged.items())
            if wanted <= below:
                return start_s + (end_s - start_s) * (wanted - before) / (below - before)
        return bounds_s[-1]

    def _slot(self, at_s: float) -> dict[Bucket, int]:
        self._forget(at_s)
        number = int(at_s / self.window_s * _SLOTS)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, {}))
        return self._slots[-1][1]

    def _forget(self, at_s: float) -> None:
        oldest = int(at_s / self.window_s * _SLOTS) - _SLOTS
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()


class Slo:
    """What the latency of all instances says about the targets."""

    def __init__(self, targets: SloTargets, window_s: float) -> None:
        self.targets = targets
        self.ttft = Durations(targets.ttft_s, window_s)
        self.tpot = Durations(targets.tpot_s, window_s)
        self.finished = 0
        self._last: dict[str, tuple[PhaseLoad, float]] = {}

    def take(self, load: PhaseLoad, at_s: float) -> None:
        """Take a load report. The first of an instance is the base; counts that have fallen are a new life of the
        engine, or, right after higher ones, an older report that came the slower way and counts nothing."""
        before, before_s = self._last.get(load.instance, (None, at_s))
        fallen = before is not None and _has_fallen(before, load)
        if fallen and at_s - before_s < _SLOWER_S:
            return
        self._last[load.instance] = load, at_s
        if before is None:
            return
        if fallen:
            before = PhaseLoad(load.instance, load.role, load.at_s)
        self.finished += load.finished - before.finished
        self.ttft.add(_base(before.ttft, load.ttft), load.ttft, at_s)
        self.tpot.add(_base(before.tpot, load.tpot), load.tpot, at_s)

    def totals(self) -> tuple[tuple[float, float], tuple[float, float], int]:
        """(requests, attained) of TTFT and of TPOT, and the requests finished."""
        return (self.ttft.total, self.ttft.attained), (self.tpot.total, self.tpot.attained), self.finished

    def go_on_from(self, ttft: tuple[float, float], tpot: tuple[float, float], finished: int) -> None:
        """Count on from the totals of an earlier life."""
        self.ttft.total, self.ttft.attained = ttft
        self.tpot.total, self.tpot.attained = tpot
        self.finished = finished

    def forget(self, instance: str) -> None:
        """The instance has left."""
        self._last.pop(instance, None)


def _has_fallen(before: PhaseLoad, after: PhaseLoad) -> bool:
    """Some count is lower than it was, which one life of an engine never reports."""
    pairs = ((before.ttft, after.ttft), (before.tpot, after.tpot))
    return (
        after.arrived < before.arrived
        or after.finished < before.finished
        or any(
            now < then
            for old, new in pairs
            if old.bounds_s == new.bounds_s and old.counts != new.counts
            for then, now in zip(old.counts, new.counts, strict=True)
        )
    )


def _base(before: Histogram, after: Histogram) -> Histogram:
    """`before`, or nothing if it has other bounds."""
    return before if before.bounds_s == after.bounds_s else Histogram(after.bounds_s, (0,) * len(after.counts))


def _share_below(lower_s: float, upper_s: float, target_s: float) -> float:
    """The share of a bucket at or below the target, taken as evenly spread inside the bucket."""
    if upper_s <= target_s:
        return 1.0
    if lower_s >= target_s or upper_s == float("inf"):
        return 0.0
    return (target_s - lower_s) / (upper_s - lower_s)
