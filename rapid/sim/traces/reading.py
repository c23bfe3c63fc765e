"""Traces as streams of arrivals: checked line by line, so that memory is flat however long a trace is.

A trace is read as often as it is asked for, each time from its start and with the same result: once for its
statistics (trace_stats), then once for each run (trace_replay).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain
from math import inf
from random import Random
from typing import Protocol

from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.traces.forms import Arrival, BadLine, Columns, Fault, Form, shown

MAX_TOKENS = 10_000_000  # of one request, where nobody says what an instance can hold (assumed)
MAX_GAP_S = 86_400.0  # between two requests, or before the first: more is another clock, or damage (assumed)
MAX_HELD_BACK = 200_000  # requests that wait for their jitter at once; some 20 MB


@dataclass(frozen=True, slots=True)
class Reading:
    """The rules by which a trace is read."""

    max_tokens: int = MAX_TOKENS  # prompt and answer of one request: what the KV cache of an instance holds
    max_input: int | None = None  # requests with longer prompts are left out and counted; None: none are
    skip_bad: bool = False  # bad lines are left out and counted; otherwise the first one is an error
    jitter_s: float | None = None  # each arrival is put off by uniform(0, jitter_s); None: by the trace's own step
    seed: int = 0  # of the jitter


@dataclass(slots=True)
class Omitted:
    """What a reading has left out so far."""

    long_prompts: int = 0
    bad: dict[Fault, int] = field(default_factory=dict)

    def words(self) -> str:
        """Empty if nothing was left out."""
        parts = [f"{_count(self.long_prompts, 'long prompt')} left out"] if self.long_prompts else []
        parts += [f"{_count(number, 'line')} skipped ({fault.value})" for fault, number in self.counted()]
        return ", ".join(parts)

    def counted(self) -> tuple[tuple[Fault, int], ...]:
        """The bad lines by fault, in the order of Fault."""
        return tuple((fault, self.bad[fault]) for fault in Fault if fault in self.bad)


class LineInvalid(TraceInvalid):
    """A bad line; with Reading.skip_bad it is left out."""


Progress = Callable[[float], None]  # takes the share of the trace that has been read, 0 to 1


def unheard(share: float) -> None:
    """A progress that nobody follows."""


class Trace(Protocol):
    """A named stream of arrivals, sorted by time, that can be read again and again."""

    @property
    def name(self) -> str: ...

    @property
    def step_s(self) -> float:
        """To how many seconds the arrivals were rounded down at their source; 0: they were not."""

    def arrivals(self, reading: Reading, omitted: Omitted, progress: Progress) -> Iterator[Arrival]:
        """All arrivals by the rules, but for the jitter; tells `omitted` what was left out.

        Raises LineInvalid at a bad line, and TraceInvalid if the trace cannot be read any further.
        """


def read(
    trace: Trace, reading: Reading, *, omitted: Omitted | None = None, progress: Progress = unheard
) -> Iterator[Arrival]:
    """All arrivals of the trace by the rules, sorted by time. Raises as Trace.arrivals does."""
    found = trace.arrivals(reading, Omitted() if omitted is None else omitted, progress)
    jitter_s = jitter_of(trace, reading)
    return _jittered(trace.name, found, jitter_s, Random(f"jitter, seed {reading.seed}")) if jitter_s else found


def jitter_of(trace: Trace, reading: Reading) -> float:
    """The seconds over which the arrivals of the trace are spread. Raises UsageError for a number that is no time."""
    jitter_s = trace.step_s if reading.jitter_s is None else reading.jitter_s
    if not 0 <= jitter_s < inf:
        raise UsageError(f"jitter {jitter_s:g} s is not a time from 0 on")
    return jitter_s


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines of a text, and the share of the text that ends with them."""

    lines: list[str]
    share: float


@dataclass(frozen=True, slots=True)
class TextTrace:
    """A trace as lines of text. `pieces` begins anew at each call."""

    name: str
    form: Form
    pieces: Callable[[], Iterable[Piece]]
    step_s: float

    def arrivals(self, reading: Reading, omitted: Omitted, progress: Progress) -> Iterator[Arrival]:
        longest = reading.max_tokens if reading.max_input is None else reading.max_input
        read_line = self.form.reader()
        earlier_s = 0.0
        for number, line in self._lines(progress):
            try:
                arrival = read_line(line)
                _check_order(arrival, earlier_s, line, self.form.columns)
                _check_tokens(arrival, reading, self.form.columns)
            except BadLine as bad:
                if not reading.skip_bad:
                    raise LineInvalid(f"trace {self.name}, line {number}: {bad}") from None
                omitted.bad[bad.fault] = omitted.bad.get(bad.fault, 0) + 1
                continue
            earlier_s = arrival.arrival_s
            if arrival.input_tokens > longest:
                omitted.long_prompts += 1
            else:
                yield arrival

    def _lines(self, progress: Progress) -> Iterator[tuple[int, str]]:
        """Lines that may hold a request, with their numbers."""

        def told() -> Iterator[list[str]]:
            for piece in self.pieces():
                yield piece.lines
                progress(piece.share)

        lines = enumerate(chain.from_iterable(told()), start=1)
        if self.form.has_header:
            next(lines, None)
        return lines


@dataclass(frozen=True, slots=True)
class MixedTrace:
    """Several traces at once, each by its own arrival times from its own start, until the shortest is over."""

    name: str
    parts: tuple[Trace, ...]  # at least one

    @property
    def step_s(self) -> float:
        return max(part.step_s for part in self.parts)

    def arrivals(self, reading: Reading, omitted: Omitted, progress: Progress) -> Iterator[Arrival]:
        """The progress is that of the first part."""
        streams = [
            part.arrivals(reading, omitted, unheard if number else progress) for number, part in enumerate(self.parts)
        ]
        firsts = [next(stream, None) for stream in streams]
        heads = [(arrival, number) for number, arrival in enumerate(firsts) if arrival is not None]
        heapify(heads)
        end_s = inf if len(heads) == len(streams) else 0.0  # A part without a request is over at once.
        while heads and heads[0][0].arrival_s <= end_s:
            arrival, number = heads[0]
            yield arrival
            following = next(streams[number], None)
            if following is None:
                heappop(heads)
                end_s = min(end_s, arrival.arrival_s)
            else:
                heapreplace(heads, (following, number))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _check_order(arrival: Arrival, earlier_s: float, line: str, columns: Columns) -> None:
    gap_s = arrival.arrival_s - earlier_s
    if gap_s < 0:
        raise BadLine(
            Fault.UNSORTED,
            f"{columns[0]} is {-gap_s:g} s before that of an earlier line; sort the trace: {shown(line)}",
        )
    if gap_s > MAX_GAP_S:
        raise BadLine(
            Fault.GAP,
            f"{columns[0]} is {gap_s:g} s after the line before, or the start; more than {MAX_GAP_S:g} s is taken for "
            f"damage, or for another clock than the trace's own: {shown(line)}",
        )


def _check_tokens(arrival: Arrival, reading: Reading, columns: Columns) -> None:
    tokens = (arrival.input_tokens, arrival.output_tokens)
    if min(tokens) < 1:
        column, number = next(pair for pair in zip(columns[1:], tokens, strict=True) if pair[1] < 1)
        raise BadLine(Fault.NEGATIVE, f"{column} {number} is less than 1 token")
    if reading.max_input is not None and arrival.input_tokens > reading.max_input:
        return  # It is left out in any case.
    if sum(tokens) > reading.max_tokens:
        raise BadLine(
            Fault.CAPACITY,
            f"{arrival.input_tokens:,} input and {arrival.output_tokens:,} output tokens; "
            f"the KV cache of an instance holds {reading.max_tokens:,}",
        )


def _jittered(name: str, arrivals: Iterator[Arrival], jitter_s: float, dice: Random) -> Iterator[Arrival]:
    """Every arrival put off by uniform(0, jitter_s), sorted again. Holds back what arrives within jitter_s."""
    held_back: list[Arrival] = []
    for arrival in arrivals:
        while held_back and held_back[0].arrival_s <= arrival.arrival_s:
            yield heappop(held_back)
        if len(held_back) == MAX_HELD_BACK:
            raise TraceInvalid(f"trace {name}: more than {MAX_HELD_BACK:,} requests within {jitter_s:g} s of jitter")
        later_s = arrival.arrival_s + dice.uniform(0.0, jitter_s)
        heappush(held_back, Arrival(later_s, arrival.input_tokens, arrival.output_tokens))
    while held_back:
        yield heappop(held_back)
