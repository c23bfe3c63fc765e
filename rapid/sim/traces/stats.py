"""What a trace is like: the first pass over it, in flat memory.

Rates and minutes count from the first request. Only whole minutes count for peak and Fano factor: a last one that is
cut short would look like a calm one.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, sqrt

from rapid.core.errors import TraceInvalid
from rapid.sim.traces.reading import Omitted, Progress, Reading, Trace, jitter_of, read, unheard

MINUTE_S = 60.0
LEAST_MINUTES = 2  # fewer have no variance


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the prompts or of the answers. Quantiles are interpolated between the two nearest lengths."""

    mean: float
    p50: float
    p95: float
    p99: float
    most: int


@dataclass(frozen=True, slots=True)
class TraceStats:
    """A trace by a reading's rules."""

    name: str
    requests: int
    duration_s: float  # from the first to the last request
    rate_rps: float  # requests / duration_s
    gap_cv: float  # standard deviation / mean of the gaps between arrivals; 1 for Poisson
    peak_to_mean: float | None  # requests of the busiest minute / of the mean one; None: shorter than two minutes
    fano: float | None  # variance / mean of the requests per minute; 1 for Poisson; None: as above
    input: Lengths
    output: Lengths
    in_out_ratio: float  # all input tokens / all output tokens
    jitter_s: float  # by which each arrival was put off, at most
    long_prompts: int  # left out
    skipped: tuple[tuple[str, int], ...]  # bad lines left out: why, how many


def scan(trace: Trace, reading: Reading, *, progress: Progress = unheard) -> TraceStats:
    """Read the trace from end to end, check every line, and say what it is like.

    Raises TraceInvalid as reading does, and for a trace that has no rate: without requests, or with all at once.
    """
    omitted, pace = Omitted(), _Pace()
    inputs: dict[int, int] = {}
    outputs: dict[int, int] = {}
    for arrival in read(trace, reading, omitted=omitted, progress=progress):
        pace.add(arrival.arrival_s)
        inputs[arrival.input_tokens] = inputs.get(arrival.input_tokens, 0) + 1
        outputs[arrival.output_tokens] = outputs.get(arrival.output_tokens, 0) + 1
    if pace.duration_s == 0.0:
        what = "all requests arrive at once, so it has no rate" if pace.requests else "it has no request"
        left_out = omitted.words()
        raise TraceInvalid(f"trace {trace.name}: {what}{'; ' if left_out else ''}{left_out}")
    return TraceStats(
        name=trace.name,
        requests=pace.requests,
        duration_s=pace.duration_s,
        rate_rps=pace.requests / pace.duration_s,
        gap_cv=pace.gap_cv(),
        peak_to_mean=pace.peak_to_mean(),
        fano=pace.fano(),
        input=_lengths(inputs),
        output=_lengths(outputs),
        in_out_ratio=_total(inputs) / _total(outputs),
        jitter_s=jitter_of(trace, reading),
        long_prompts=omitted.long_prompts,
        skipped=tuple((fault.value, number) for fault, number in omitted.counted()),
    )


class _Pace:
    """Counts arrivals, gaps and whole minutes as they come by."""

    def __init__(self) -> None:
        self.requests = 0
        self._first_s = 0.0
        self._last_s = 0.0
        self._gap_squares = 0.0
        self._minute = 0  # the one that is running
        self._in_minute = 0
        self._ended = 0  # requests of the minutes before; their squares, and the most of one
        self._ended_squares = 0
        self._peak = 0

    def add(self, arrival_s: float) -> None:
        if self.requests == 0:
            self._first_s = self._last_s = arrival_s
        self.requests += 1
        self._gap_squares += (arrival_s - self._last_s) ** 2
        self._last_s = arrival_s
        minute = int((arrival_s - self._first_s) // MINUTE_S)
        if minute > self._minute:
            self._ended += self._in_minute
            self._ended_squares += self._in_minute**2
            self._peak = max(self._peak, self._in_minute)
            self._minute, self._in_minute = minute, 0
        self._in_minute += 1

    @property
    def duration_s(self) -> float:
        return self._last_s - self._first_s

    def gap_cv(self) -> float:
        gaps = self.requests - 1
        mean_s = self.duration_s / gaps
        return sqrt(max(0.0, self._gap_squares / gaps - mean_s**2)) / mean_s

    def peak_to_mean(self) -> float | None:
        return self._peak * self._minute / self._ended if self._minute >= LEAST_MINUTES else None

    def fano(self) -> float | None:
        if self._minute < LEAST_MINUTES:
            return None
        mean = self._ended / self._minute
        return (self._ended_squares / self._minute - mean**2) / mean


def _lengths(counts: dict[int, int]) -> Lengths:
    lengths = sorted(counts)
    requests = sum(counts.values())
    until = list(accumulate(counts[length] for length in lengths))  # how many are at most so long

    def quantile(share: float) -> float:
        place = share * (requests - 1)
        low, high = (lengths[bisect_right(until, whole)] for whole in (floor(place), ceil(place)))
        return low + (high - low) * (place - floor(place))

    return Lengths(_total(counts) / requests, quantile(0.50), quantile(0.95), quantile(0.99), lengths[-1])


def _total(counts: dict[int, int]) -> int:
    return sum(length * number for length, number in counts.items())
