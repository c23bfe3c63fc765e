"""What users ask for: offered work, never served work, because served work collapses when a phase is starved.

Everything is a sum of counters over all instances, so that prompts which a closing engine hands back, and requests that
move from prefill to decode, count once. Requests that wait are offered, too.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from math import exp
from typing import Any

from rapid.core.cluster import PhaseLoad, Role, View

SHORT_S, LONG_S = 2.5, 6.0  # the two windows of offered work (policies after DOPD; assumed)
LENGTH_S = 10.0  # over which answers are measured
PAST_S = 120.0  # how long bursts are remembered
BURST_SHARE = 0.97  # the reserve is sized for this quantile of what was offered in PAST_S
LEAST_ANSWERS = 2.0  # in a window, before it says anything
MOST_AGE = 3.0  # by which age may exceed what finishes
SLOW_S = 40.0  # over which the length that answers are first taken to have follows what is seen
PRIOR_ANSWERS = 10.0  # so many answers of that length are added to those seen (assumed)
AGE_WEIGHT = 0.8  # of the length that the sequences now running suggest (Little's law), which knows a shift sooner
FIRST_LENGTH = 300.0  # tokens in an answer, before one was seen: rather long, as answers to finish bind an instance
UNFINISHED = 0.15  # of an answer, that one more which still runs counts as: who has made much may be far from its end
FIRST_PROMPT = 1000.0
OfferedState = tuple[Any, ...]  # plain values, nested

MAX_MARKS, MAX_PAST, MAX_COUNTS = 64, 256, 16_384


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for now. Rates are per second over all instances.

    prompt_rps, prompt_tokens   offered requests, and their mean prompt
    output_tokens               the mean answer
    queued_tokens, resident     prompts that wait, in tokens; requests that decode or are about to
    reserve_tps, reserve_output_tps   prompt tokens and output tokens that a burst like those of the past would bring
    """

    prompt_rps: float = 0.0
    prompt_tokens: float = FIRST_PROMPT
    output_tokens: float = FIRST_LENGTH
    queued_tokens: float = 0.0
    resident: float = 0.0
    reserve_tps: float = 0.0
    reserve_output_tps: float = 0.0

    @property
    def prompt_tps(self) -> float:
        """Offered prompt tokens."""
        return self.prompt_rps * self.prompt_tokens

    @property
    def context_tokens(self) -> float:
        """What a sequence holds on average: its prompt and half of its answer."""
        return self.prompt_tokens + self.output_tokens / 2


@dataclass(frozen=True, slots=True)
class _Count:
    """The counters of one instance that matter here."""

    tokens: int
    firsts: int
    outputs: int
    lasts: int

    @classmethod
    def of(cls, load: PhaseLoad) -> "_Count":
        return cls(load.prompt_tokens, sum(load.ttft.counts), load.output_tokens, sum(load.tpot.counts))

    def since(self, before: "_Count | None") -> "_Count":
        """What was added; everything, when a counter fell (a new life of the engine); nothing, at first sight."""
        if before is None:
            return _Count(0, 0, 0, 0)
        if self.tokens < before.tokens or self.outputs < before.outputs or self.firsts < before.firsts:
            return self
        lasts = max(0, self.lasts - before.lasts)
        return _Count(self.tokens - before.tokens, self.firsts - before.firsts, self.outputs - before.outputs, lasts)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Sums since the beginning: prompt tokens and requests offered, output tokens made, answers finished. And how many
    requests decode now."""

    at_s: float
    tokens: float
    requests: float
    outputs: float
    lasts: float
    resident: float


class Offered:
    """Follows the demand from tick to tick."""

    def __init__(self) -> None:
        self.now = Demand()
        self._counts: dict[str, _Count] = {}  # by instance, as last heard; bounded
        self._tokens = self._firsts = self._outputs = self._lasts = 0.0  # served since the beginning
        self._marks: deque[_Mark] = deque(maxlen=MAX_MARKS)
        self._past: deque[tuple[float, float, float]] = deque(maxlen=MAX_PAST)  # at_s, prompt and output tokens/s
        self._length = FIRST_LENGTH

    def observe(self, view: View, step_s: float) -> Demand:
        """Take a view. step_s: how long a decode step takes now."""
        loads = [one.load for one in view.instances if one.load is not None]
        self._count(loads)
        prefill = [load for load in loads if load.role is not Role.DECODE]
        queued = float(sum(load.waiting_tokens for load in prefill))
        begun = sum(load.running_requests * _mean_prompt(load) for load in prefill)
        held = sum(load.waiting_requests + load.running_requests for load in prefill)
        resident = float(
            sum(load.running_requests + load.waiting_requests for load in loads if load.role is Role.DECODE)
        )
        tokens, requests = self._tokens + queued + begun, self._firsts + held
        self._marks.append(_Mark(view.at_s, tokens, requests, self._outputs, self._lasts, resident))
        rate_rps = max(self._rate("requests", LONG_S), self._rate("requests", SHORT_S))
        rate_tps = max(self._rate("tokens", LONG_S), self._rate("tokens", SHORT_S))
        prompt_tokens = self.now.prompt_tokens
        if rate_rps > 0 and rate_tps > 0:
            prompt_tokens = max(1.0, rate_tps / rate_rps)
        output_tokens = self._output_tokens(resident, rate_rps, step_s)
        self._past.append((view.at_s, rate_tps, rate_rps * output_tokens))
        while self._past[0][0] < view.at_s - PAST_S:
            self._past.popleft()
        self.now = Demand(
            rate_rps,
            prompt_tokens,
            output_tokens,
            queued,
            resident,
            max(rate_tps, _quantile([tps for _, tps, _ in self._past])),
            max(rate_rps * output_tokens, _quantile([tps for _, _, tps in self._past])),
        )
        return self.now

    @property
    def answers(self) -> float:
        """How many have finished since the beginning."""
        return self._lasts

    def state(self) -> OfferedState:
        """All that restore() needs."""
        return (
            astuple(self.now),
            tuple((name, *astuple(count)) for name, count in self._counts.items()),
            (self._tokens, self._firsts, self._outputs, self._lasts, self._length),
            tuple(astuple(mark) for mark in self._marks),
            tuple(self._past),
        )

    def restore(self, state: OfferedState) -> None:
        """Go on from there."""
        now, counts, sums, marks, past = state
        self.now = Demand(*now)
        self._counts = {name: _Count(*count) for name, *count in counts}
        self._tokens, self._firsts, self._outputs, self._lasts, self._length = sums
        self._marks.extend(_Mark(*mark) for mark in marks)
        self._past.extend(past)

    def _count(self, loads: Iterable[PhaseLoad]) -> None:
        for load in loads:
            count = _Count.of(load)
            more = count.since(self._counts.pop(load.instance, None))
            if len(self._counts) >= MAX_COUNTS:
                del self._counts[next(iter(self._counts))]
            self._counts[load.instance] = count
            self._tokens += more.tokens
            self._firsts += more.firsts
            self._outputs += more.outputs
            self._lasts += more.lasts

    def _rate(self, what: str, window_s: float) -> float:
        """Per second, over the last window_s or what there is of it."""
        last, first = self._marks[-1], self._since(window_s)
        lived_s = last.at_s - first.at_s
        if lived_s <= 0:
            return 0.0
        grown: float = getattr(last, what) - getattr(first, what)
        return max(0.0, grown) / lived_s

    def _since(self, window_s: float) -> _Mark:
        """The last mark that is so old, or the first."""
        last = self._marks[-1]
        return next((mark for mark in reversed(self._marks) if last.at_s - mark.at_s >= window_s), self._marks[0])

    def _output_tokens(self, resident: float, rate_rps: float, step_s: float) -> float:
        """Answers that finish lag a change of mix by a whole request, so those that run have a say, too.

        What was made in a window is the answers that finished in it and a part of those that are there more at its end:
        a half if all were equally long; less, as the long ones are what is left running. Too long is the lesser error:
        decode that fills up at the beginning of a load is seen in seconds, not when the first answer has finished.
        """
        last, first = self._marks[-1], self._since(LENGTH_S)
        before = self._marks[-2] if len(self._marks) > 1 else last
        finished = last.lasts - first.lasts
        whole = max(0.0, finished + UNFINISHED * max(last.resident - first.resident, -finished))
        length = (last.outputs - first.outputs + PRIOR_ANSWERS * self._length) / (whole + PRIOR_ANSWERS)
        if whole >= LEAST_ANSWERS:
            self._length += (1.0 - exp(-(last.at_s - before.at_s) / SLOW_S)) * (length - self._length)
        by_age = AGE_WEIGHT * resident / (rate_rps * step_s) if rate_rps > 0.2 and step_s > 0 else 0.0
        return max(2.0, length, min(by_age, MOST_AGE * length))


def _mean_prompt(load: PhaseLoad) -> float:
    """What a prompt of this instance was long, so far."""
    firsts = sum(load.ttft.counts)
    return load.prompt_tokens / firsts if firsts else FIRST_PROMPT


def _quantile(values: list[float]) -> float:
    values.sort()
    return values[int(BURST_SHARE * (len(values) - 1))]


__all__ = ["Demand", "Offered"]
