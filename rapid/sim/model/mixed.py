"""Both phases in one engine (colocated): chunks of prompts are processed in the steps that decode the others.

Every step gives each running sequence its next token, and fills what is left of EngineSettings.chunk_tokens with the
queue's prompts, in order, cut into chunks where they do not fit: the chunked prefill of serving engines.

A step with a chunk of T prompt tokens beside B sequences runs the weights' multiplications once for all T + B tokens.
The GPU is bound by memory there (reading the weights: the decode step's decode_ms + decode_sequence_ms B) or by
arithmetic (the prefill's prefill_ms + prefill_token_ms (T + B)): the slower of the two counts. Attention is each one's
own and adds up: decode_context_ms C over the running context, and prefill_square_ms (end^2 - start^2) for a chunk from
token start to token end, which sums to the length squared over a prompt. A power limit slows arithmetic like prefill
and memory like decode. The model is an assumption between two that are measured: without a chunk it is the decode step
exactly, and a whole prompt without sequences is the prefill batch, plus the host's part of a step, unless it is shorter
than reading the weights takes.
"""

from collections import deque
from math import inf

from rapid.core.cluster import Role
from rapid.sim.model.power import Pace
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Activity, Backlog, Die, EngineSettings, Finished, Output, PrefillDone, Request
from rapid.sim.model.steps import RunningSequences
from rapid.sim.model.tally import Tally


def fused_step_s(
    profile: Profile, *, tokens: int, squares: int, batch: int, context_tokens: int, limit_mw: float, die_speed: float
) -> float:
    """Seconds for a step: `tokens` of prompts, whose end^2 - start^2 sum to `squares`, beside `batch` sequences."""
    arithmetic_speed, memory_speed = profile.prefill_speed(limit_mw), profile.decode_speed(limit_mw, batch)
    arithmetic_ms = (profile.prefill_ms + profile.prefill_token_ms * (tokens + batch)) / arithmetic_speed
    memory_ms = (profile.decode_ms + profile.decode_sequence_ms * batch) / memory_speed
    context_ms = profile.decode_context_ms * context_tokens / memory_speed
    prompt_ms = profile.prefill_square_ms * squares / arithmetic_speed
    work_ms = max(arithmetic_ms, memory_ms) + context_ms + prompt_ms
    return work_ms / (1e3 * die_speed) + profile.host_s(batch)


class MixedPhase:
    """A prompt waits for a place in the batch and room for all its tokens; from its first chunk on it stays.

    Steps without a chunk run in closed form. One prompt at most is cut: the one that the next step goes on with.
    """

    role = Role.MIXED

    def __init__(self, name: str, profile: Profile, settings: EngineSettings, die: Die, tally: Tally) -> None:
        assert settings.chunk_tokens > settings.max_sequences, "a full batch would leave no room for any prompt"
        self._name, self._profile, self._settings, self._die, self._tally = name, profile, settings, die, tally
        self._queue: deque[Request] = deque()
        self._cut: Request | None = None  # the prompt that was begun and goes on
        self._cut_tokens = 0  # how much of it will have been processed when the present step ends
        self._ending: list[Request] = []  # prompts whose last chunk is in the present step; each step has its own list
        self._has_chunk = False  # the present step is one of its own
        self._running = RunningSequences(profile, die, tally)
        self._reserved_tokens = 0  # <= profile.kv_capacity_tokens
        self.idle_mw = profile.idle_mw * die.idle
        self.natural_mw = self.idle_mw
        self.next_s = inf  # when the present step, or run of steps, ends
        self.output_s = inf  # nothing comes out before this time, unless the caller does something
        self.waiting_tokens = 0  # the prompts in the queue

    def copy(self, tally: Tally) -> "MixedPhase":
        other = MixedPhase.__new__(MixedPhase)
        other.__dict__.update(self.__dict__)
        other._tally, other._running, other._queue = tally, self._running.copy(tally), self._queue.copy()
        return other

    def submit(self, request: Request, now_s: float, pace: Pace) -> None:
        self._queue.append(request)
        self.waiting_tokens += request.input_tokens
        self._tally.arrived += 1
        if self.next_s == inf:
            self._start(now_s, pace)
        elif not self._has_chunk and len(self._queue) == 1 and self._fits(request):
            self._running.cut(now_s)
            self._set_next()

    def complete(self, pace: Pace) -> list[Output]:
        """What comes out at next_s; the next step, or run of steps, starts."""
        at_s = self.next_s
        outputs: list[Output] = [*self._running.end_run()]
        outputs += [done for request in self._ending if (done := self._first_token(request, at_s))]
        for output in outputs:
            if isinstance(output, Finished):
                self._reserved_tokens -= output.request.input_tokens + output.request.output_tokens
        self._start(at_s, pace)
        return outputs

    def hand_back(self) -> Backlog:
        requests = tuple(self._queue)
        self._queue.clear()
        self.waiting_tokens = 0
        return Backlog(requests=requests)

    def pace_changed(self, now_s: float, pace: Pace) -> None:
        """The step that runs keeps its pace; the ones after it do not."""
        if self._running.size and not self._has_chunk:
            self._running.pace_changed(now_s, pace)
            self._set_next()

    def output_tokens(self, now_s: float) -> int:
        """All tokens made so far, those of the present run included."""
        return self._tally.output_tokens + self._running.made(now_s)

    @property
    def activity(self) -> Activity | None:
        """None: idle."""
        if self.next_s == inf:
            return None
        return Activity(Role.MIXED, self.running, int(self.natural_mw), self._running.run_from_s, self.output_s)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        """Sequences, and prompts that have been begun."""
        return self._running.size + len(self._ending) + (self._cut is not None)

    @property
    def left(self) -> int:
        """Requests that keep it from being drained."""
        return self.waiting + self.running

    @property
    def oldest_arrival_s(self) -> float:
        """When the head of the queue arrived; infinite with an empty queue."""
        return self._queue[0].arrival_s if self._queue else inf

    @property
    def kv_used_fraction(self) -> float:
        """The share of the KV capacity that is reserved."""
        return self._reserved_tokens / self._profile.kv_capacity_tokens

    def _first_token(self, request: Request, at_s: float) -> Finished | None:
        """The prompt is processed and becomes a sequence, unless it has its only token."""
        ttft_s = at_s - request.arrival_s + self._profile.front_s
        self._tally.first_token(request.input_tokens, ttft_s)
        if request.output_tokens > 1:
            self._running.join(PrefillDone(request, at_s, ttft_s, self._name))
            return None
        self._tally.finished += 1
        return Finished(request, at_s, ttft_s, tpot_s=None)

    def _start(self, now_s: float, pace: Pace) -> None:
        running = self._running
        tokens, squares = self._fill()
        self._has_chunk = tokens > 0
        if tokens:
            limit_mw = pace.at(now_s)
            step_s = fused_step_s(
                self._profile,
                tokens=tokens,
                squares=squares,
                batch=running.size,
                context_tokens=running.context_tokens,
                limit_mw=limit_mw,
                die_speed=self._die.speed,
            )
            running.start_step(now_s, step_s)
            self.natural_mw = self._profile.prefill_natural_mw
        elif running.size:
            running.start_run(now_s, pace)
            self.natural_mw = running.natural_mw
        else:
            self.natural_mw = self.idle_mw
        self._set_next()

    def _set_next(self) -> None:
        self.next_s, self.output_s = self._running.next_s, self._running.output_s
        if self._queue and self._fits(self._queue[0]):  # it joins at next_s, and may be done first
            self.output_s = self.next_s

    def _fill(self) -> tuple[int, int]:
        """Chunks for the next step: their tokens, and the sum of their end^2 - start^2."""
        tokens, squares, room = 0, 0, self._settings.chunk_tokens - self._running.size
        self._ending = []
        while room > 0 and (request := self._cut or self._begin()):
            start = self._cut_tokens
            end = min(request.input_tokens, start + room)
            tokens += end - start
            squares += end * end - start * start
            room -= end - start
            if end < request.input_tokens:
                self._cut, self._cut_tokens = request, end
            else:
                self._cut, self._cut_tokens = None, 0
                self._ending.append(request)
        return tokens, squares

    def _begin(self) -> Request | None:
        """The head of the queue, with its room reserved; None: it has to wait."""
        if not self._queue or not self._fits(self._queue[0]):
            return None
        request = self._queue.popleft()
        self.waiting_tokens -= request.input_tokens
        self._reserved_tokens += request.input_tokens + request.output_tokens
        return request

    def _fits(self, request: Request) -> bool:
        tokens = self._reserved_tokens + request.input_tokens + request.output_tokens
        return self.running < self._settings.max_sequences and tokens <= self._profile.kv_capacity_tokens
