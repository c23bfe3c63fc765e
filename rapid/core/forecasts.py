"""What decisions predicted, held against what came of it.

A decision may predict the SLO attainment of the next seconds. When they have passed, it is compared with what was
measured in them: the share of TTFTs times the share of TPOTs that met their targets, of the requests that had their
first, resp. last token then. The product is exact when the two are missed independently of each other, which the
histograms that engines report cannot tell. Where one of the two was not measured, the other counts alone. What other
decisions do in the meantime is in the measure as well.
"""

from collections import deque
from dataclasses import dataclass

from rapid.core.cluster import Targets
from rapid.core.commands import Scored
from rapid.core.events import ForecastSnapshot, Pending
from rapid.core.slo import Slo

PENDING_MAX = 64  # predictions under way; the oldest is given up for a newer one
RECENT_MAX = 8  # scores that the policy gets to see
CANDIDATES_MAX = 8  # of one decision

_Totals = tuple[float, float]  # requests, and those that met the target


@dataclass(frozen=True, slots=True)
class _Forecast:
    decision: str
    predicted: float
    due_s: float
    ttft: _Totals
    tpot: _Totals


class Forecasts:
    """The predictions of one policy, from life to life."""

    def __init__(self, slo: Slo) -> None:
        self.scored = 0
        self.error_sum = 0.0
        self._slo = slo
        self._pending: deque[_Forecast] = deque(maxlen=PENDING_MAX)
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT_MAX)

    @property
    def recent(self) -> tuple[tuple[float, float], ...]:
        """(predicted, measured) of the last that were scored, oldest first."""
        return tuple(self._recent)

    @property
    def error(self) -> float | None:
        """The mean absolute error of all that were scored (None: none yet)."""
        return self.error_sum / self.scored if self.scored else None

    def predict(self, decision: str, predicted: float, horizon_s: float, at_s: float) -> None:
        """A decision expects this SLO attainment over the next horizon_s."""
        ttft, tpot, _ = self._slo.totals()
        self._pending.append(_Forecast(decision, predicted, at_s + horizon_s, ttft, tpot))

    def score(self, at_s: float) -> list[Scored]:
        """Those whose time is up. One in whose time no request was measured is given up."""
        scores: list[Scored] = []
        waiting: list[_Forecast] = []
        for forecast in self._pending:
            if forecast.due_s > at_s:
                waiting.append(forecast)
            elif (measured := self._measured(forecast)) is not None:
                scores.append(Scored(forecast.decision, forecast.predicted, measured))
        if len(waiting) < len(self._pending):
            self._pending = deque(waiting, maxlen=PENDING_MAX)
        for each in scores:
            self.scored += 1
            self.error_sum += abs(each.predicted - each.measured)
            self._recent.append((each.predicted, each.measured))
        return scores

    def snapshot(self, at_s: float) -> ForecastSnapshot:
        """What the next life goes on with."""
        pending = tuple(Pending(it.decision, it.predicted, it.due_s - at_s, it.ttft, it.tpot) for it in self._pending)
        return ForecastSnapshot(pending, self.scored, self.error_sum, self.recent)

    def go_on_from(self, kept: ForecastSnapshot, at_s: float, *, same_process: bool) -> None:
        """Count on from an earlier life under the same policy. How long a process before this one has been gone is not
        known, so what it had under way is given up."""
        self.scored, self.error_sum = kept.scored, kept.error_sum
        self._recent.extend(kept.recent)
        if same_process:
            self._pending.extend(
                _Forecast(it.decision, it.predicted, at_s + it.left_s, it.ttft, it.tpot) for it in kept.pending
            )

    def _measured(self, forecast: _Forecast) -> float | None:
        ttft, tpot, _ = self._slo.totals()
        shares = [share for share in (_share(forecast.ttft, ttft), _share(forecast.tpot, tpot)) if share is not None]
        if not shares:
            return None
        return shares[0] if len(shares) == 1 else shares[0] * shares[1]


def check(wanted: Targets) -> None:
    """A policy that predicts what cannot be has a mistake of its own."""
    for share in (wanted.predicted, wanted.held, *(each.predicted for each in wanted.candidates)):
        assert share is None or 0.0 <= share <= 1.0, f"an SLO attainment of {share} is predicted, outside 0..1"
    assert wanted.predicted is None or wanted.horizon_s > 0, f"a prediction for {wanted.horizon_s:g} s"
    assert len(wanted.candidates) <= CANDIDATES_MAX, f"{len(wanted.candidates)} candidates, at most {CANDIDATES_MAX}"


def _share(before: _Totals, after: _Totals) -> float | None:
    """The share that met the target of the requests counted in between; None: there were none."""
    counted = after[0] - before[0]
    return min(1.0, max(0.0, (after[1] - before[1]) / counted)) if counted > 0 else None
