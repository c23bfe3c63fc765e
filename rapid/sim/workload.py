"""What users ask for: traces as data, and the rule by which a stretch of one becomes the requests of a run.

No stretch is picked by taste: a run always starts at the start of its trace, and a trace is sped up by dividing its
arrival times, which keeps the shape of its gaps.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import count, takewhile
from math import isfinite
from typing import Protocol

from rapid.core.errors import TraceInvalid
from rapid.sim.requests import Request

HEADER = "arrival_s,input_tokens,output_tokens"
MAX_REQUESTS = 5_000_000  # of one trace; about 1 GB of memory


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One line of a trace."""

    arrival_s: float
    input_tokens: int
    output_tokens: int


class Workload(Protocol):
    """Something that can be asked for requests at a speed."""

    @property
    def name(self) -> str: ...

    def requests(self, rate_scale: float, seconds: float) -> tuple[Request, ...]:
        """The requests that arrive in the first `seconds`, with arrivals rate_scale times as fast as in the trace.

        Raises TraceInvalid if the trace is over before that.
        """

    def max_rate_scale(self, seconds: float) -> float:
        """The greatest speed at which the trace lasts for `seconds`."""


@dataclass(frozen=True, slots=True)
class TraceWorkload:
    """A trace as it is, from its start."""

    name: str
    arrivals: tuple[Arrival, ...]  # sorted by arrival_s, not empty

    def requests(self, rate_scale: float, seconds: float) -> tuple[Request, ...]:
        _check_lasts(self, rate_scale, seconds)
        return _numbered(_sped_up(self.arrivals, rate_scale, 0.0, seconds))

    def max_rate_scale(self, seconds: float) -> float:
        return self.arrivals[-1].arrival_s / seconds


@dataclass(frozen=True, slots=True)
class ShiftWorkload:
    """Two steady loads, one after the other: half of the time belongs to each, whatever the speed.

    A load that is over before its half is repeated from its start; steady ones lose nothing by it.
    """

    name: str
    first: tuple[Arrival, ...]
    second: tuple[Arrival, ...]  # both from time 0, sorted by arrival_s, not empty

    def requests(self, rate_scale: float, seconds: float) -> tuple[Request, ...]:
        _check_lasts(self, rate_scale, seconds)
        half_s = seconds / 2
        first = _sped_up(_repeated(self.first), rate_scale, 0.0, half_s)
        return _numbered(first + _sped_up(_repeated(self.second), rate_scale, half_s, half_s))

    def max_rate_scale(self, seconds: float) -> float:
        """Only the bound on requests ends a load that repeats."""
        rate_rps = max(len(trace) / trace[-1].arrival_s for trace in (self.first, self.second))
        return MAX_REQUESTS / (seconds * rate_rps)


def parse_trace(source: str, lines: Iterable[str], max_tokens: int) -> tuple[Arrival, ...]:
    """The arrivals of a CSV trace with the header `arrival_s,input_tokens,output_tokens`.

    Raises TraceInvalid, naming source and line, for anything but sorted finite times from 0 on and at least one token
    on either side, at most max_tokens together (what the KV cache of an instance holds).
    """
    numbered = enumerate((line.strip() for line in lines), start=1)
    header = next(numbered, (1, ""))[1]
    if header != HEADER:
        raise TraceInvalid(f"trace {source}, line 1: header {header[:60]!r} is not {HEADER!r}")
    arrivals: list[Arrival] = []
    earlier_s = 0.0
    for number, line in numbered:
        arrival = _parse_line(source, number, line)
        problem = _problem(arrival, earlier_s, max_tokens)
        if len(arrivals) == MAX_REQUESTS:
            problem = f"more than {MAX_REQUESTS:,} requests"
        if problem:
            raise TraceInvalid(f"trace {source}, line {number}: {problem}")
        earlier_s = arrival.arrival_s
        arrivals.append(arrival)
    if not arrivals or arrivals[-1].arrival_s == 0.0:
        raise TraceInvalid(f"trace {source}: no request arrives after 0 s, so it cannot be replayed")
    return tuple(arrivals)


def mixed(name: str, *traces: tuple[Arrival, ...]) -> TraceWorkload:
    """Several traces at once, each by its own arrival times from its own start, until the shortest is over."""
    end_s = min(trace[-1].arrival_s for trace in traces)
    return TraceWorkload(name, tuple(takewhile(lambda arrival: arrival.arrival_s <= end_s, merge(*traces))))


def split_shift(name: str, trace: tuple[Arrival, ...]) -> ShiftWorkload:
    """A trace whose second half is another load, as a workload of two halves."""
    middle = len(trace) // 2
    start_s = trace[middle - 1].arrival_s  # so that the second half keeps its first gap
    second = (Arrival(item.arrival_s - start_s, item.input_tokens, item.output_tokens) for item in trace[middle:])
    return ShiftWorkload(name, trace[:middle], tuple(second))


def _parse_line(source: str, number: int, line: str) -> Arrival:
    fields = line.split(",")
    try:
        arrival_s, input_tokens, output_tokens = fields
        return Arrival(float(arrival_s), int(input_tokens), int(output_tokens))
    except ValueError:
        raise TraceInvalid(
            f"trace {source}, line {number}: {line[:60]!r} is not a number of seconds and two whole numbers of tokens"
        ) from None


def _problem(arrival: Arrival, earlier_s: float, max_tokens: int) -> str:
    """Empty: the arrival may follow one at earlier_s."""
    tokens = arrival.input_tokens + arrival.output_tokens
    if not isfinite(arrival.arrival_s) or arrival.arrival_s < 0:
        return f"arrival_s {arrival.arrival_s} is not a time from 0 on"
    if arrival.arrival_s < earlier_s:
        return f"arrival_s {arrival.arrival_s} is before {earlier_s} of the line before; sort the trace"
    if arrival.input_tokens < 1 or arrival.output_tokens < 1:
        return f"{arrival.input_tokens} input and {arrival.output_tokens} output tokens; at least 1 of each is needed"
    if tokens > max_tokens:
        return f"{tokens:,} tokens together; the KV cache of an instance holds {max_tokens:,}"
    return ""


def _check_lasts(workload: Workload, rate_scale: float, seconds: float) -> None:
    if not rate_scale <= workload.max_rate_scale(seconds):
        raise TraceInvalid(
            f"trace {workload.name}: at rate scale {rate_scale:g} it is over before {seconds:g} s; "
            f"the greatest scale for that is {workload.max_rate_scale(seconds):.2f}"
        )


def _repeated(trace: tuple[Arrival, ...]) -> Iterator[Arrival]:
    for lap in count():
        start_s = lap * trace[-1].arrival_s
        for item in trace:
            yield Arrival(start_s + item.arrival_s, item.input_tokens, item.output_tokens)


def _sped_up(trace: Iterable[Arrival], rate_scale: float, start_s: float, seconds: float) -> list[Arrival]:
    sped_up = ((item.arrival_s / rate_scale, item) for item in trace)
    return [
        Arrival(start_s + arrival_s, item.input_tokens, item.output_tokens)
        for arrival_s, item in takewhile(lambda pair: pair[0] < seconds, sped_up)
    ]


def _numbered(arrivals: list[Arrival]) -> tuple[Request, ...]:
    return tuple(
        Request(number, item.arrival_s, item.input_tokens, item.output_tokens) for number, item in enumerate(arrivals)
    )
