"""The decode phase of an engine: continuous batching under a bound on sequences and on KV tokens."""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from rapid.core.cluster import Role
from rapid.sim.model.power import Pace
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Activity, Backlog, Die, EngineSettings, Output, PrefillDone, Pulled
from rapid.sim.model.steps import RunningSequences
from rapid.sim.model.tally import Tally


class DecodePhase:
    """A sequence waits for room, pulls its KV cache, joins at the next end of a step, and leaves with its last token.

    Room for all its tokens is reserved before the pull, so capacity is never exceeded and nothing is ever preempted.
    Like the engines it stands for, it sees between two steps which pulls have ended: only then does Pulled come out.
    """

    role = Role.DECODE

    def __init__(self, name: str, profile: Profile, settings: EngineSettings, die: Die, tally: Tally) -> None:
        self._profile, self._settings, self._tally = profile, settings, tally
        self._waiting: deque[tuple[PrefillDone, float]] = deque()  # with the length of the pull
        self._pulling: list[tuple[float, int, PrefillDone]] = []  # heap by the time the pull ends
        self._pulls = 0
        self._running = RunningSequences(profile, die, tally)
        self._reserved_tokens = 0  # <= profile.kv_capacity_tokens
        self.idle_mw = profile.idle_mw * die.idle
        self.natural_mw = self.idle_mw
        self.next_s = inf  # when the present run of steps ends, or a pull that an idle engine waits for
        self.output_s = inf  # nothing comes out before this time, unless the caller does something
        self.waiting_tokens = 0  # the prompts of all that wait or pull

    def copy(self, tally: Tally) -> "DecodePhase":
        other = DecodePhase.__new__(DecodePhase)
        other.__dict__.update(self.__dict__)
        other._tally, other._running = tally, self._running.copy(tally)
        other._waiting, other._pulling = self._waiting.copy(), self._pulling.copy()
        return other

    def receive(self, done: PrefillDone, now_s: float, pull_s: float) -> None:
        self._waiting.append((done, pull_s))
        self.waiting_tokens += done.request.input_tokens
        self._tally.arrived += 1
        self._pull(now_s)
        self._set_next()

    def complete(self, pace: Pace) -> list[Output]:
        """What comes out at next_s; the next run of steps starts."""
        at_s, running = self.next_s, self._running
        outputs: list[Output] = []
        if running.size:
            for finished in running.end_run():
                request = finished.request
                self._reserved_tokens -= request.input_tokens + request.output_tokens
                outputs.append(finished)
            if outputs:
                self._pull(at_s)
        self._admit(at_s, outputs)
        if running.size:
            running.start_run(at_s, pace)
            self.natural_mw = running.natural_mw
        else:
            self.natural_mw = self.idle_mw
        self._set_next()
        return outputs

    def hand_back(self) -> Backlog:
        """What has not begun to be pulled; it still lies in the ring of its source."""
        kvs = tuple([done for done, _ in self._waiting])
        self._waiting.clear()
        self.waiting_tokens -= sum([done.request.input_tokens for done in kvs])
        return Backlog(kvs=kvs)

    def pace_changed(self, now_s: float, pace: Pace) -> None:
        """The step that runs keeps its pace; the ones after it do not."""
        if self._running.size:
            self._running.pace_changed(now_s, pace)
            self._set_next()

    def output_tokens(self, now_s: float) -> int:
        """All tokens made so far, those of the present run included."""
        return self._tally.output_tokens + self._running.made(now_s)

    @property
    def activity(self) -> Activity | None:
        """None: idle."""
        running = self._running
        if not running.size:
            return None
        return Activity(Role.DECODE, running.size, int(self.natural_mw), running.run_from_s, self.output_s)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._pulling)

    @property
    def running(self) -> int:
        return self._running.size

    @property
    def left(self) -> int:
        """Requests that keep it from being drained."""
        return self.waiting + self.running

    @property
    def oldest_arrival_s(self) -> float:
        """When the head of the queue arrived; infinite with an empty queue. A pull is no wait."""
        return self._waiting[0][0].request.arrival_s if self._waiting else inf

    @property
    def kv_used_fraction(self) -> float:
        """The share of the KV capacity that is reserved."""
        return self._reserved_tokens / self._profile.kv_capacity_tokens

    def under_way(self, now_s: float) -> Iterator[tuple[PrefillDone, int]]:
        """Each request that it has, with how many tokens it has made here."""
        for done, _ in self._waiting:
            yield done, 0
        for _, _, done in self._pulling:
            yield done, 0
        yield from self._running.under_way(now_s)

    def _pull(self, now_s: float) -> None:
        """Starts the pulls for which there is room, first come first served."""
        while self._waiting and self._running.size + len(self._pulling) < self._settings.max_sequences:
            done, pull_s = self._waiting[0]
            reserved = self._reserved_tokens + done.request.input_tokens + done.request.output_tokens
            if reserved > self._profile.kv_capacity_tokens:
                return
            self._reserved_tokens = reserved
            self._waiting.popleft()
            self._pulls += 1  # first started is first in among pulls that end together
            heappush(self._pulling, (now_s + pull_s, self._pulls, done))

    def _admit(self, now_s: float, outputs: list[Output]) -> None:
        """What has been pulled joins."""
        while self._pulling and self._pulling[0][0] <= now_s:
            done = heappop(self._pulling)[2]
            self.waiting_tokens -= done.request.input_tokens
            self._running.join(done)
            outputs.append(Pulled(done, now_s))

    def _set_next(self) -> None:
        """The run ends where the first pull can join."""
        running = self._running
        pulled_s = self._pulling[0][0] if self._pulling else inf
        if not running.size:
            self.next_s = self.output_s = pulled_s
            return
        running.cut(pulled_s)
        self.next_s = running.next_s
        self.output_s = min(running.output_s, max(running.next_s, pulled_s))
