"""The prefill phase of an engine: a FIFO queue, served in batches that are limited in tokens."""

from collections import deque
from math import inf

from rapid.core.cluster import Role
from rapid.sim.power import LimitCurve
from rapid.sim.profile import Profile
from rapid.sim.requests import Activity, Backlog, Die, EngineSettings, Finished, Output, PrefillDone, Request
from rapid.sim.tally import Tally


class PrefillPhase:
    """One batch at a time. How long a batch takes is fixed at its start, by the limit in effect then."""

    role = Role.PREFILL

    def __init__(self, profile: Profile, settings: EngineSettings, die: Die, tally: Tally) -> None:
        self._profile, self._settings, self._die, self._tally = profile, settings, die, tally
        self._queue: deque[Request] = deque()
        self._batch: list[Request] = []
        self._started_s = 0.0  # when the running batch began
        self._idle_mw = profile.idle_mw * die.idle
        self.natural_mw = self._idle_mw
        self.next_s = inf  # when the running batch ends
        self.waiting_tokens = 0  # the prompts in the queue
        self.kv_used_fraction = 0.0  # what waits to be pulled is not modelled: decode pulls as soon as it has room

    def submit(self, request: Request, now_s: float, curve: LimitCurve) -> None:
        self._queue.append(request)
        self.waiting_tokens += request.input_tokens
        self._tally.arrived += 1
        if not self._batch:
            self._start(now_s, curve)

    def complete(self, curve: LimitCurve) -> list[Output]:
        """What comes out of the batch that ends at next_s; the next one starts."""
        at_s = self.next_s
        outputs = [self._done(request, at_s) for request in self._batch]
        self._start(at_s, curve)
        return outputs

    def hand_back(self) -> Backlog:
        requests = tuple(self._queue)
        self._queue.clear()
        self.waiting_tokens = 0
        return Backlog(requests=requests)

    def limit_changed(self, now_s: float, curve: LimitCurve) -> None:
        """The running batch keeps its pace."""

    def output_tokens(self, now_s: float) -> int:
        return self._tally.output_tokens

    @property
    def activity(self) -> Activity | None:
        """None: idle."""
        if not self._batch:
            return None
        return Activity(Role.PREFILL, len(self._batch), int(self.natural_mw), self._started_s, self.next_s)

    @property
    def output_s(self) -> float:
        """Nothing comes out before this time, unless the caller does something."""
        return self.next_s

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._batch)

    @property
    def oldest_arrival_s(self) -> float:
        """When the head of the queue arrived; infinite with an empty queue."""
        return self._queue[0].arrival_s if self._queue else inf

    def _start(self, now_s: float, curve: LimitCurve) -> None:
        self._batch, tokens, squares = [], 0, 0
        while self._queue and len(self._batch) < self._settings.max_batch_requests:
            length = self._queue[0].input_tokens
            if self._batch and tokens + length > self._settings.max_batch_tokens:
                break
            self._batch.append(self._queue.popleft())
            tokens += length
            squares += length * length
        if not self._batch:
            self.next_s, self.natural_mw = inf, self._idle_mw
            return
        self.waiting_tokens -= tokens
        self.next_s = now_s + self._profile.prefill_s(tokens, squares, curve.at(now_s)) / self._die.speed
        self._started_s, self.natural_mw = now_s, self._profile.prefill_natural_mw

    def _done(self, request: Request, at_s: float) -> Output:
        ttft_s = at_s - request.arrival_s + self._profile.front_s
        tally = self._tally
        tally.prompt_tokens += request.input_tokens
        tally.output_tokens += 1
        tally.finished += 1
        tally.ttft.observe(ttft_s)
        if request.output_tokens == 1:
            return Finished(request, at_s, ttft_s, tpot_s=None)
        return PrefillDone(request, at_s, ttft_s)
