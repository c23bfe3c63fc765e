"""What became of every request of one host: the source of every number about requests in the demo."""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from rapid.core.cluster import SloTargets
from rapid.sim.model.requests import Finished, Request

RATE_OVER_S = 5.0  # over which the rate of arrivals is taken
RECENT = 100  # requests over which `recent` is taken


@dataclass(frozen=True, slots=True)
class Attainment:
    """Shares of requests that met their targets; None: none has been judged yet."""

    both: float | None = None
    ttft: float | None = None
    tpot: float | None = None
    recent: float | None = None  # of both, over the last RECENT to finish


class Record:
    """Every request from its arrival on. One that never finishes has missed.

    A request that an engine took with it when it died runs again and keeps its arrival: its last first token counts.
    """

    def __init__(self, slo: SloTargets) -> None:
        self.slo = slo
        self.offered: dict[int, Request] = {}
        self.finished: dict[int, Finished] = {}
        self._ttft_s: dict[int, float] = {}
        self._mute: dict[int, float] = {}  # arrival of those without a first token
        self._late: set[int] = set()  # first token came late, and they have not finished
        self._met = 0
        self._tpot_met = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def offer(self, request: Request) -> None:
        """The request has arrived."""
        assert request.request_id not in self.offered, f"request {request.request_id} came twice"
        self.offered[request.request_id] = request
        self._mute[request.request_id] = request.arrival_s

    def first_token(self, request_id: int, ttft_s: float) -> None:
        """The first token exists."""
        self._mute.pop(request_id, None)
        self._ttft_s[request_id] = ttft_s
        if ttft_s > self.slo.ttft_s:
            self._late.add(request_id)

    def end(self, finished: Finished) -> None:
        """The last token exists."""
        number = finished.request.request_id
        assert number in self.offered and number not in self.finished, f"request {number} ended twice, or never came"
        self.finished[number] = finished
        self.first_token(number, finished.ttft_s)
        self._late.discard(number)
        ttft_met, tpot_met = verdict(finished, self.slo)
        self._met += ttft_met and tpot_met
        self._tpot_met += tpot_met
        self._recent.append(ttft_met and tpot_met)

    def arriving_rps(self, now_s: float) -> float:
        """Requests per second that have arrived of late."""
        recent = takewhile(lambda request: request.arrival_s > now_s - RATE_OVER_S, reversed(self.offered.values()))
        return sum(1 for _ in recent) / RATE_OVER_S

    def anew(self) -> "Record":
        """A record that knows only what has not finished yet."""
        record = Record(self.slo)
        for number, request in self.offered.items():
            if number not in self.finished:
                record.offer(request)
        return record

    @property
    def unfinished(self) -> int:
        return len(self.offered) - len(self.finished)

    def so_far(self, now_s: float) -> Attainment:
        """What is known now. A request that has waited longer than TTFT allows has missed, whatever comes."""
        late = sum(now_s - arrival_s > self.slo.ttft_s for arrival_s in self._mute.values())
        return Attainment(
            both=_share(self._met, len(self.finished) + len(self._late) + late),
            ttft=_share(sum(ttft_s <= self.slo.ttft_s for ttft_s in self._ttft_s.values()), len(self._ttft_s) + late),
            tpot=_share(self._tpot_met, len(self.finished)),
            recent=_share(sum(self._recent), len(self._recent)),
        )


def verdict(finished: Finished, slo: SloTargets) -> tuple[bool, bool]:
    """Whether it met its TTFT, and its TPOT. A request of one token has no TPOT to miss."""
    return finished.ttft_s <= slo.ttft_s, finished.tpot_s is None or finished.tpot_s <= slo.tpot_s


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
