"""The prefill phase of an engine: a FIFO queue, served in batches that are limited in tokens, in front of a ring.

A KV cache lies in a ring buffer of GPU memory until a decode instance has pulled it. The ring is bounded, so a decode
side that cannot keep up stops prefill (back-pressure): a batch takes only prompts for which the ring has room now.

Why nothing waits for ever: the ring waits for decode, and decode waits for nobody. A decode instance finishes what it
has, so it gets room for the head of its queue, which fits the capacity, and pulls it. A prompt longer than the ring
counts as the whole of it, so it goes when the ring is empty. What must hold outside is that some decode instance takes
KV caches, now or later; one that closes hands back what it has not pulled, and that goes to the next one. Where no one
does, a prefill instance with a full ring cannot be drained either: its drain ends by its deadline, and is rolled back.
"""

from collections import deque
from collections.abc import Iterator
from math import inf

from rapid.core.cluster import Role
from rapid.sim.model.power import Pace
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Activity, Backlog, Die, EngineSettings, Finished, Output, PrefillDone, Request
from rapid.sim.model.tally import Tally


class PrefillPhase:
    """One batch at a time. How long a batch takes is fixed at its start, by the limit in effect then."""

    role = Role.PREFILL

    def __init__(self, name: str, profile: Profile, settings: EngineSettings, die: Die, tally: Tally) -> None:
        self._name, self._profile, self._settings, self._die, self._tally = name, profile, settings, die, tally
        self._queue: deque[Request] = deque()
        self._batch: list[Request] = []
        self._unpulled: dict[int, PrefillDone] = {}  # by request, in the order of their batches
        self._ring_tokens = 0  # of the batch and of what is unpulled; <= settings.ring_tokens
        self._started_s = 0.0  # when the running batch began
        self.idle_mw = profile.idle_mw * die.idle
        self.natural_mw = self.idle_mw
        self.next_s = inf  # when the running batch ends
        self.waiting_tokens = 0  # the prompts in the queue

    def copy(self, tally: Tally) -> "PrefillPhase":
        other = PrefillPhase.__new__(PrefillPhase)
        other.__dict__.update(self.__dict__)
        other._tally, other._queue, other._unpulled = tally, self._queue.copy(), self._unpulled.copy()
        return other  # a batch never changes, the next one is another list

    def submit(self, request: Request, now_s: float, pace: Pace) -> None:
        self._queue.append(request)
        self.waiting_tokens += request.input_tokens
        self._tally.arrived += 1
        if not self._batch:
            self._start(now_s, pace)

    def complete(self, pace: Pace) -> list[Output]:
        """What comes out of the batch that ends at next_s; the next one starts."""
        at_s = self.next_s
        outputs = [self._done(request, at_s) for request in self._batch]
        self._start(at_s, pace)
        return outputs

    def release(self, done: PrefillDone, now_s: float, pace: Pace) -> None:
        """The KV cache has left the ring; a batch that waited for the room starts."""
        del self._unpulled[done.request.request_id]
        self._ring_tokens -= self._ring_share(done.request)
        if not self._batch:
            self._start(now_s, pace)

    def hand_back(self) -> Backlog:
        requests = tuple(self._queue)
        self._queue.clear()
        self.waiting_tokens = 0
        return Backlog(requests=requests)

    def pace_changed(self, now_s: float, pace: Pace) -> None:
        """The running batch keeps its pace."""

    def output_tokens(self, now_s: float) -> int:
        return self._tally.output_tokens

    @property
    def activity(self) -> Activity | None:
        """None: idle, for want of prompts or of room in the ring."""
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
    def prompts(self) -> Iterator[Request]:
        """Those whose first token does not exist yet."""
        yield from self._batch
        yield from self._queue

    @property
    def unpulled(self) -> tuple[PrefillDone, ...]:
        """What lies in the ring."""
        return tuple(self._unpulled.values())

    def holds(self, done: PrefillDone) -> bool:
        return self._unpulled.get(done.request.request_id) == done

    @property
    def left(self) -> int:
        """Requests that keep it from being drained."""
        return len(self._queue) + len(self._batch) + len(self._unpulled)

    @property
    def oldest_arrival_s(self) -> float:
        """When the head of the queue arrived; infinite with an empty queue."""
        return self._queue[0].arrival_s if self._queue else inf

    @property
    def kv_used_fraction(self) -> float:
        """How full the ring is, with the room that the running batch has taken."""
        return self._ring_tokens / self._settings.ring_tokens

    def _start(self, now_s: float, pace: Pace) -> None:
        self._batch, tokens, squares = [], 0, 0
        queue, settings = self._queue, self._settings
        while queue and len(self._batch) < settings.max_batch_requests:
            request = queue[0]
            length = request.input_tokens
            ring_tokens = self._ring_tokens + self._ring_share(request)
            if ring_tokens > settings.ring_tokens or (self._batch and tokens + length > settings.max_batch_tokens):
                break
            self._ring_tokens = ring_tokens
            self._batch.append(queue.popleft())
            tokens += length
            squares += length * length
        if not self._batch:
            self.next_s, self.natural_mw = inf, self.idle_mw
            return
        self.waiting_tokens -= tokens
        self.next_s = now_s + self._profile.prefill_s(tokens, squares, pace.at(now_s)) / self._die.speed
        self._started_s, self.natural_mw = now_s, self._profile.prefill_natural_mw

    def _ring_share(self, request: Request) -> int:
        """The room that its KV cache takes in the ring; an answer of one token needs no decode, hence no cache."""
        return 0 if request.output_tokens == 1 else min(request.input_tokens, self._settings.ring_tokens)

    def _done(self, request: Request, at_s: float) -> Output:
        ttft_s = at_s - request.arrival_s + self._profile.front_s
        self._tally.first_token(request.input_tokens, ttft_s)
        self._tally.finished += 1
        if request.output_tokens == 1:
            return Finished(request, at_s, ttft_s, tpot_s=None)
        self._unpulled[request.request_id] = done = PrefillDone(request, at_s, ttft_s, self._name)
        return done
