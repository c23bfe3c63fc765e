"""What the requests of a run got, counted as they finish: nothing is kept of a request but the counts."""

from collections import Counter
from math import ceil, log

from rapid.core.cluster import SloTargets
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world.outcome import Spot

_RATIO = 1.005  # of a bucket's bounds: a quantile is at most 0.25 % off
_LOG_RATIO = log(_RATIO)
_LEAST_S = 1e-6  # anything shorter counts as this


class Spread:
    """How durations are spread, in buckets of equal ratio: 461 per decade at most."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    @property
    def remembered(self) -> int:
        """How many buckets it keeps."""
        return len(self._counts)

    def add(self, duration_s: float) -> None:
        self._counts[int(log(max(duration_s, _LEAST_S) / _LEAST_S) / _LOG_RATIO)] += 1
        self._total += 1

    def quantile(self, share: float) -> float | None:
        """By nearest rank: the middle (in ratio) of the bucket that it falls in. None: nothing was measured."""
        rank = max(1, ceil(share * self._total))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return float(_LEAST_S * _RATIO ** (bucket + 0.5))
        return None

    def spot(self) -> Spot:
        return Spot(*(self.quantile(share) for share in (0.50, 0.90, 0.99)))


class Score:
    """SLO attainment so far. A request of one token has no TPOT to miss."""

    def __init__(self, slo: SloTargets) -> None:
        self._slo = slo
        self.requests = 0
        self.finished = 0
        self.attained = 0
        self.missed_ttft = 0  # and met TPOT
        self.missed_tpot = 0  # and met TTFT
        self.missed_both = 0
        self.output_tokens = 0  # of finished requests
        self.ttft = Spread()
        self.tpot = Spread()

    def offer(self, request: Request) -> None:
        """A request has arrived."""
        del request
        self.requests += 1

    def finish(self, finished: Finished) -> None:
        """A request has finished."""
        self.finished += 1
        self.output_tokens += finished.request.output_tokens
        self.ttft.add(finished.ttft_s)
        on_time = finished.ttft_s <= self._slo.ttft_s
        steady = True
        if finished.tpot_s is not None:
            self.tpot.add(finished.tpot_s)
            steady = finished.tpot_s <= self._slo.tpot_s
        if on_time and steady:
            self.attained += 1
        elif on_time:
            self.missed_tpot += 1
        elif steady:
            self.missed_ttft += 1
        else:
            self.missed_both += 1

    @property
    def unfinished(self) -> int:
        return self.requests - self.finished

    def share(self, count: int) -> float:
        """Of all requests that have arrived."""
        return count / self.requests if self.requests else 0.0
