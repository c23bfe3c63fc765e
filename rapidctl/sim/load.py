"""Which requests of a trace a run replays, and how fast. One pass over the stretch, which also finds its bad lines."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from rapid.core.errors import TraceInvalid
from rapid.sim.model.requests import Request
from rapid.sim.traces.loader import open_trace
from rapid.sim.traces.reading import Omitted, Reading, read
from rapid.sim.traces.replay import Replay, requests
from rapidctl.sim.options import TraceChoice

LEAST_SPAN_S = 1e-9


@dataclass(frozen=True, slots=True)
class Load:
    """A stretch of a trace at a speed; frozen, so that it can be handed to another process, which reads it again.

    offered    requests in it
    span_s     from its start to its last arrival, at this speed
    scale      by which the trace's times are divided
    whole      whether nothing of the trace comes after it
    left_out   in words; empty: nothing
    """

    trace: str
    reading: Reading
    replay: Replay
    offered: int
    span_s: float
    scale: float
    whole: bool
    left_out: str
    mean_input: float
    mean_output: float

    @property
    def rate_rps(self) -> float:
        return self.offered / self.span_s

    def requests(self) -> Iterator[Request]:
        """In order of arrival. Raises TraceInvalid if the trace is not any more what it was."""
        return requests(open_trace(self.trace), self.reading, self.replay)


def measure(choice: TraceChoice, max_tokens: int, most_s: float | None = None) -> Load:
    """The load that was asked for, at most most_s long unless the choice says how long; no request of it holds more
    than max_tokens.

    A rate is what the stretch itself then has: the stretch is so long, and so fast, that it offers rate_rps for so many
    seconds; a trace that is over sooner is replayed to its end. Raises TraceInvalid.
    """
    seconds = choice.seconds if choice.seconds is not None else most_s
    count = choice.limit
    if choice.rate_rps is not None and seconds is not None:
        wanted = max(1, round(choice.rate_rps * seconds))
        count = wanted if count is None else min(wanted, count)
    reading = Reading(
        max_tokens=max_tokens, max_input=choice.max_input, skip_bad=choice.skip_bad, jitter_s=choice.jitter_s
    )
    scale = choice.rate_scale or 1.0
    by_rate = choice.rate_rps is not None
    found = _count(choice, reading, count, None if seconds is None or by_rate else seconds * scale)
    if choice.rate_rps is not None:
        scale = choice.rate_rps * found.span_s / found.offered
    replay = Replay(rate_scale=scale, start_s=choice.start_s, seconds=None if by_rate else seconds, limit=found.offered)
    return Load(
        trace=choice.name,
        reading=reading,
        replay=replay,
        offered=found.offered,
        span_s=found.span_s / scale,
        scale=scale,
        whole=found.whole,
        left_out=found.left_out,
        mean_input=found.input_tokens / found.offered,
        mean_output=found.output_tokens / found.offered,
    )


def at_rate(load: Load, rate_rps: float) -> Load:
    """The same requests at another rate."""
    factor = rate_rps / load.rate_rps
    scale = load.scale * factor
    pace = Replay(rate_scale=scale, start_s=load.replay.start_s, limit=load.offered)
    return replace(load, replay=pace, span_s=load.span_s / factor, scale=scale)


@dataclass(slots=True)
class _Found:
    offered: int = 0
    span_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    whole: bool = True
    left_out: str = ""


def _count(choice: TraceChoice, reading: Reading, count: int | None, end_s: float | None) -> _Found:
    """What is in the first `count` requests, or those before end_s of the trace's own time; None: all."""
    found, omitted = _Found(), Omitted()
    arrivals = read(open_trace(choice.name), reading, omitted=omitted)
    stretch = (arrival for arrival in arrivals if arrival.arrival_s >= choice.start_s)
    for arrival in islice(stretch, None if count is None else count + 1):
        at_s = arrival.arrival_s - choice.start_s
        if found.offered == count or (end_s is not None and at_s >= end_s):
            found.whole = False
            break
        found.offered += 1
        found.span_s = at_s
        found.input_tokens += arrival.input_tokens
        found.output_tokens += arrival.output_tokens
    found.left_out = omitted.words()
    if not found.offered:
        left_out = f" ({found.left_out})" if found.left_out else ""
        raise TraceInvalid(f"trace {choice.name}: no request from {choice.start_s:g} s on{left_out}; take another part")
    if found.span_s < LEAST_SPAN_S:
        raise TraceInvalid(
            f"trace {choice.name}: all {found.offered:,} requests come at {choice.start_s:g} s, so they have no rate; "
            "take a longer part"
        )
    return found
