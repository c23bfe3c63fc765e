"""The sequences that an engine decodes together, one token each per step.

Steps are not simulated one by one. Between two events the batch is constant and the context grows by one token per
sequence and step, so step k of such a run takes first + k * growth seconds, and the end of step n is a closed form. A
run costs the same however many steps it has, and a sequence is filed under the step at which it finishes.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf, sqrt

from rapid.sim.model.power import Pace
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Die, Finished, PrefillDone
from rapid.sim.model.tally import Tally


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


class RunningSequences:
    """A run of steps at a time; whoever owns it says what joins between two runs, and may end a run early.

    How long a step takes is fixed at its start, by the limit in effect then.
    """

    def __init__(self, profile: Profile, die: Die, tally: Tally) -> None:
        self._profile, self._die, self._tally = profile, die, tally
        self._speed_curve = profile.decode_curve
        self._joined = 0
        self._ends: list[tuple[int, int, PrefillDone]] = []  # heap by the step that makes the last token, then joining
        self._step, self._context = 0, 0
        self._run_from_s, self._first_s, self._growth_s, self._run_steps = 0.0, 0.0, 0.0, 0
        self._reshaped = False  # the batch is another one since the last start of a run
        self._fastest_s = 0.0  # no step of this batch takes less; 0: to be found out
        self._base_ms, self._host_s = 0.0, 0.0  # of a step of this batch, without its context
        self.size = 0
        self.natural_mw = 0.0  # of a run; binds only while one goes on
        self.next_s = inf  # when the present run ends
        self.output_s = inf  # no sequence finishes before

    def copy(self, tally: Tally) -> "RunningSequences":
        other = RunningSequences.__new__(RunningSequences)
        other.__dict__.update(self.__dict__)
        other._tally, other._ends = tally, self._ends.copy()
        return other

    @property
    def context_tokens(self) -> int:
        """What all sequences hold together, at the start of the present run."""
        return self._context

    @property
    def run_from_s(self) -> float:
        """When the present run began."""
        return self._run_from_s

    # ---- between two runs ----

    def join(self, done: PrefillDone) -> None:
        """One more sequence, of at least two tokens, whose first one exists."""
        request = done.request
        self.size += 1
        self._joined += 1
        self._context += request.input_tokens + 1
        self._reshaped = True
        heappush(self._ends, (self._step + request.output_tokens - 1, self._joined, done))

    def start_run(self, now_s: float, pace: Pace) -> None:
        """Steps until a sequence finishes, or one step if the speed still changes; never with an empty batch."""
        if self._reshaped:
            self._reshape()
        limit_mw = pace.at(now_s)
        speed = self._speed(limit_mw)
        self._run_from_s = now_s
        self._first_s = self._step_s(speed)
        self._growth_s = self._profile.decode_context_ms * self.size / (1e3 * speed)
        if now_s >= pace.settled_s or self._is_at_full_speed(now_s, pace, speed):
            self._run_steps = self._ends[0][0] - self._step
            self._fastest_s = self._first_s
        else:
            self._run_steps = 1  # every step has a pace of its own
            # A longer context only slows the steps down, so what was found for this batch before still holds.
            self._fastest_s = self._fastest_s or self._step_s(self._speed(pace.greatest_mw(now_s)))
        self._set_run_end()

    def start_step(self, now_s: float, duration_s: float) -> None:
        """One step of a length that the caller knows, even with an empty batch."""
        self._run_from_s, self._first_s, self._growth_s, self._run_steps = now_s, duration_s, 0.0, 1
        self.next_s = self.output_s = now_s + duration_s

    def end_run(self) -> list[Finished]:
        """What has finished when the run ends, at next_s."""
        at_s, made = self.next_s, self._run_steps * self.size
        self._step += self._run_steps
        self._context += made
        self._tally.output_tokens += made
        self.next_s = self.output_s = inf
        ends, finished = self._ends, []
        while ends and ends[0][0] == self._step:
            finished.append(self._finish(heappop(ends)[2], at_s))
        return finished

    # ---- during a run ----

    def cut(self, at_s: float) -> None:
        """The run ends with the step that is running at at_s, if it would not end before."""
        if at_s < self.next_s and self._run_steps > 1:
            self._run_steps = steps_until(self._first_s, self._growth_s, at_s - self._run_from_s)
            self._set_run_end()

    def pace_changed(self, now_s: float, pace: Pace) -> None:
        """The step that runs keeps its pace; the ones after it do not."""
        self._fastest_s = self._step_s(self._speed(pace.greatest_mw(now_s)))
        if now_s < self.next_s:
            self._run_steps = steps_until(self._first_s, self._growth_s, now_s - self._run_from_s)
        self._set_run_end()

    def made(self, now_s: float) -> int:
        """Tokens made so far in the present run."""
        if not self.size or now_s <= self._run_from_s:
            return 0
        steps = steps_until(self._first_s, self._growth_s, now_s - self._run_from_s)
        if boundary_s(self._first_s, self._growth_s, steps) > now_s - self._run_from_s:
            steps -= 1
        return min(steps, self._run_steps) * self.size

    def under_way(self, now_s: float) -> Iterator[tuple[PrefillDone, int]]:
        """Each sequence with how many tokens it has made after its first one."""
        step = self._step + (self.made(now_s) // self.size if self.size else 0)
        for last_step, _, done in self._ends:
            yield done, done.request.output_tokens - 1 - (last_step - step)

    # ---- inside ----

    def _finish(self, done: PrefillDone, at_s: float) -> Finished:
        request, tally = done.request, self._tally
        self.size -= 1
        self._context -= request.input_tokens + request.output_tokens
        self._reshaped = True
        tpot_s = (at_s - done.at_s) / (request.output_tokens - 1)
        tally.finished += 1
        tally.tpot.observe(tpot_s)
        return Finished(request, at_s, done.ttft_s, tpot_s)

    def _reshape(self) -> None:
        """What follows from the size of the batch alone."""
        profile, size = self._profile, self.size
        self.natural_mw = profile.decode_draw_mw(size)
        self._base_ms = profile.decode_ms + profile.decode_sequence_ms * size
        self._host_s = profile.host_s(size)
        self._fastest_s, self._reshaped = 0.0, False

    def _step_s(self, speed: float) -> float:
        """How long the next step takes at this speed."""
        return (self._base_ms + self._profile.decode_context_ms * self._context) / (1e3 * speed) + self._host_s

    def _speed(self, limit_mw: float) -> float:
        return self._speed_curve.speed(limit_mw / self.natural_mw) * self._die.speed

    def _is_at_full_speed(self, now_s: float, pace: Pace, speed: float) -> bool:
        """Whether the limit may move as it will and this speed stays: above the draw it changes nothing."""
        full = self._die.speed
        return speed == full and self._speed(pace.least_mw(now_s)) == full

    def _set_run_end(self) -> None:
        self.next_s = self._run_from_s + boundary_s(self._first_s, self._growth_s, self._run_steps)
        self.output_s = self.next_s + (self._ends[0][0] - self._step - self._run_steps) * self._fastest_s
