"""The decode phase of an engine: continuous batching under a bound on sequences and on KV tokens.

Steps are not simulated one by one. Between two events the batch is constant and the context grows by one token per
sequence and step, so step k of such a run takes first + k * growth seconds, and the end of step n is a closed form. A
run costs the same however many steps it has, and a sequence is filed under the step at which it finishes.
"""

from collections import deque
from heapq import heappop, heappush
from math import inf, sqrt

from rapid.core.cluster import Role
from rapid.sim.power import LimitCurve
from rapid.sim.profile import Profile
from rapid.sim.requests import Activity, Backlog, Die, EngineSettings, Finished, Output, PrefillDone
from rapid.sim.tally import Tally


def boundary_s(first_s: float, growth_s: float, steps: int) -> float:
    """How long `steps` steps take when the first takes first_s and each later one growth_s more than the one before."""
    return steps * first_s + growth_s * (steps * (steps - 1) // 2)


def steps_until(first_s: float, growth_s: float, duration_s: float) -> int:
    """The least number of steps, at least one, that take duration_s or longer."""
    half = growth_s / 2
    slope = first_s - half
    # The root of half n^2 + slope n = duration, in the form that survives growth_s = 0; rounding is repaired below.
    steps = max(1, int(2 * duration_s / (slope + sqrt(slope * slope + 4 * half * max(0.0, duration_s)))))
    while boundary_s(first_s, growth_s, steps) < duration_s:
        steps += 1
    while steps > 1 and boundary_s(first_s, growth_s, steps - 1) >= duration_s:
        steps -= 1
    return steps


class DecodePhase:
    """A sequence waits for room, pulls its KV cache, joins at the next end of a step, and leaves with its last token.

    Room for all its tokens is reserved before the pull, so capacity is never exceeded and nothing is ever preempted.
    How long a step takes is fixed at its start, by the limit in effect then.
    """

    role = Role.DECODE

    def __init__(self, profile: Profile, settings: EngineSettings, die: Die, tally: Tally) -> None:
        self._profile, self._settings, self._die, self._tally = profile, settings, die, tally
        self._waiting: deque[PrefillDone] = deque()
        self._pulling: list[tuple[float, int, PrefillDone]] = []  # heap by the time the pull ends
        self._pulls = 0
        self._ends: dict[int, list[PrefillDone]] = {}  # by the step that makes the last token
        self._end_steps: list[int] = []  # heap of the keys of _ends
        self._reserved_tokens = 0  # <= profile.kv_capacity_tokens
        self._step, self._batch, self._context = 0, 0, 0
        self._run_from_s, self._first_s, self._growth_s, self._run_steps = 0.0, 0.0, 0.0, 0
        self._fastest_s = 0.0  # no step of this batch takes less; 0: to be found out
        self._base_ms, self._host_s = 0.0, 0.0  # of a step of this batch, without its context
        self._idle_mw = profile.idle_mw * die.idle
        self.natural_mw = self._idle_mw
        self.next_s = inf  # when the present run of steps ends, or a pull that an idle engine waits for
        self.output_s = inf  # nothing comes out before this time, unless the caller does something
        self.waiting_tokens = 0  # the prompts of all that wait or pull

    def receive(self, done: PrefillDone, now_s: float, curve: LimitCurve) -> None:
        self._waiting.append(done)
        self.waiting_tokens += done.request.input_tokens
        self._tally.arrived += 1
        self._pull(now_s)
        self._cut_run_for_pull()

    def complete(self, curve: LimitCurve) -> list[Output]:
        """What has finished at next_s; the next run of steps starts."""
        at_s, batch = self.next_s, self._batch
        outputs: list[Output] = []
        if batch:
            self._step += self._run_steps
            self._context += self._run_steps * self._batch
            self._tally.output_tokens += self._run_steps * self._batch
            if self._end_steps[0] == self._step:
                heappop(self._end_steps)
                outputs = [self._finish(done, at_s) for done in self._ends.pop(self._step)]
                self._pull(at_s)
        self._admit(at_s)
        if outputs or self._batch != batch:
            self._reshape()
        self._start_run(at_s, curve)
        return outputs

    def hand_back(self) -> Backlog:
        kvs = tuple(self._waiting)
        self._waiting.clear()
        self.waiting_tokens -= sum(done.request.input_tokens for done in kvs)
        return Backlog(kvs=kvs)

    def limit_changed(self, now_s: float, curve: LimitCurve) -> None:
        """The step that runs keeps its pace; the ones after it do not."""
        if self._batch:
            self._fastest_s = self._step_s(curve.greatest_mw(now_s))
            self._cut_run(now_s)

    def output_tokens(self, now_s: float) -> int:
        """All tokens made so far, those of the present run included."""
        if not self._batch or now_s <= self._run_from_s:
            return self._tally.output_tokens
        steps = steps_until(self._first_s, self._growth_s, now_s - self._run_from_s)
        if boundary_s(self._first_s, self._growth_s, steps) > now_s - self._run_from_s:
            steps -= 1
        return self._tally.output_tokens + min(steps, self._run_steps) * self._batch

    @property
    def activity(self) -> Activity | None:
        """None: idle."""
        if not self._batch:
            return None
        return Activity(Role.DECODE, self._batch, int(self.natural_mw), self._run_from_s, self.output_s)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._pulling)

    @property
    def running(self) -> int:
        return self._batch

    @property
    def oldest_arrival_s(self) -> float:
        """When the head of the queue arrived; infinite with an empty queue. A pull is no wait."""
        return self._waiting[0].request.arrival_s if self._waiting else inf

    @property
    def kv_used_fraction(self) -> float:
        """The share of the KV capacity that is reserved."""
        return self._reserved_tokens / self._profile.kv_capacity_tokens

    def _pull(self, now_s: float) -> None:
        """Starts the pulls for which there is room, first come first served."""
        while self._waiting and self._batch + len(self._pulling) < self._settings.max_sequences:
            request = self._waiting[0].request
            reserved = self._reserved_tokens + request.input_tokens + request.output_tokens
            if reserved > self._profile.kv_capacity_tokens:
                return
            self._reserved_tokens = reserved
            self._pulls += 1  # first started is first in among pulls that end together
            ready_s = now_s + self._profile.pull_s(request.input_tokens)
            heappush(self._pulling, (ready_s, self._pulls, self._waiting.popleft()))

    def _admit(self, now_s: float) -> None:
        while self._pulling and self._pulling[0][0] <= now_s:
            done = heappop(self._pulling)[2]
            request = done.request
            self.waiting_tokens -= request.input_tokens
            self._batch += 1
            self._context += request.input_tokens + 1
            last_step = self._step + request.output_tokens - 1
            if last_step in self._ends:
                self._ends[last_step].append(done)
            else:
                self._ends[last_step] = [done]
                heappush(self._end_steps, last_step)

    def _finish(self, done: PrefillDone, at_s: float) -> Finished:
        request = done.request
        tokens = request.input_tokens + request.output_tokens
        self._batch -= 1
        self._context -= tokens
        self._reserved_tokens -= tokens
        tpot_s = (at_s - done.at_s) / (request.output_tokens - 1)
        self._tally.finished += 1
        self._tally.tpot.observe(tpot_s)
        return Finished(request, at_s, done.ttft_s, tpot_s)

    def _reshape(self) -> None:
        """The batch is another one: what follows from its size alone."""
        profile, batch = self._profile, self._batch
        self.natural_mw = profile.decode_draw_mw(batch) if batch else self._idle_mw
        self._base_ms = profile.decode_ms + profile.decode_sequence_ms * batch
        self._host_s = profile.host_s(batch)
        self._fastest_s = 0.0

    def _start_run(self, now_s: float, curve: LimitCurve) -> None:
        if not self._batch:
            self._wait_for_pull()
            return
        limit_mw = curve.at(now_s)
        self._run_from_s = now_s
        self._first_s = self._step_s(limit_mw)
        self._growth_s = self._profile.decode_context_ms * self._batch / (1e3 * self._speed(limit_mw))
        if now_s >= curve.settled_s:
            self._run_steps = self._end_steps[0] - self._step
            self._fastest_s = self._first_s
        else:
            self._run_steps = 1  # every step has a pace of its own
            # A longer context only slows the steps down, so what was found for this batch before still holds.
            self._fastest_s = self._fastest_s or self._step_s(curve.greatest_mw(now_s))
        self._set_run_end()
        self._cut_run_for_pull()

    def _step_s(self, limit_mw: float) -> float:
        """How long the next step takes under this limit."""
        work_ms = self._base_ms + self._profile.decode_context_ms * self._context
        return work_ms / (1e3 * self._speed(limit_mw)) + self._host_s

    def _speed(self, limit_mw: float) -> float:
        return self._profile.decode_curve.speed(limit_mw / self.natural_mw) * self._die.speed

    def _wait_for_pull(self) -> None:
        self.next_s = self.output_s = self._pulling[0][0] if self._pulling else inf

    def _cut_run_for_pull(self) -> None:
        """The run ends where the first pull can join."""
        if not self._batch:
            self._wait_for_pull()
        elif self._pulling:
            self._cut_run(self._pulling[0][0])

    def _cut_run(self, at_s: float) -> None:
        """The run ends with the step that is running at at_s."""
        if at_s < self.next_s:
            self._run_steps = steps_until(self._first_s, self._growth_s, at_s - self._run_from_s)
        self._set_run_end()

    def _set_run_end(self) -> None:
        self.next_s = self._run_from_s + boundary_s(self._first_s, self._growth_s, self._run_steps)
        steps_left = self._end_steps[0] - self._step - self._run_steps
        self.output_s = self.next_s + steps_left * self._fastest_s
        if self._pulling:  # what joins may be done first
            self.output_s = min(self.output_s, max(self.next_s, self._pulling[0][0]))
