"""The second pass over a trace: a stretch of it becomes the requests of a run.

A trace is sped up by dividing its arrival times, which keeps the shape of its gaps; leaving requests out would not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, dropwhile, islice, takewhile
from math import inf

from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.model.requests import Request
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.reading import Reading, Trace, read
from rapid.sim.traces.stats import TraceStats


@dataclass(frozen=True, slots=True)
class Replay:
    """Which stretch of a trace, and how fast. At most one of rate_rps and rate_scale; neither: as fast as it was."""

    rate_rps: float | None = None  # what the mean rate of the whole trace becomes
    rate_scale: float | None = None  # by which arrival times are divided
    start_s: float = 0.0  # of the trace's own time: what is before is not replayed
    seconds: float | None = None  # of the replay: how long requests arrive; None: until the trace is over
    limit: int | None = None  # of requests; None: none

    def scale(self, stats: TraceStats | None) -> float:
        """By what arrival times are divided. rate_rps needs the statistics. Raises UsageError for what cannot be."""
        if self.rate_rps is not None and self.rate_scale is not None:
            raise UsageError(f"rate {self.rate_rps:g} requests/s and rate scale {self.rate_scale:g}: give one of them")
        for name, value in (("rate", self.rate_rps), ("rate scale", self.rate_scale)):
            if value is not None and not 0 < value < inf:
                raise UsageError(f"{name} {value:g} is not above 0")
        if self.rate_rps is None:
            return 1.0 if self.rate_scale is None else self.rate_scale
        assert stats is not None, "a rate needs the trace's own"
        return self.rate_rps / stats.rate_rps


def requests(trace: Trace, reading: Reading, replay: Replay, stats: TraceStats | None = None) -> Iterator[Request]:
    """The requests of a run, numbered from 0, streamed from the trace; arrival_s is the time of the run.

    Raises UsageError at once, and TraceInvalid while it is read: as reading does, and if the stretch has no request.
    """
    found = replayed(read(trace, reading), replay, replay.scale(stats))
    return _some(found, f"trace {trace.name}: no request in the stretch from {replay.start_s:g} s")


def replayed(arrivals: Iterable[Arrival], replay: Replay, scale: float) -> Iterator[Request]:
    """The stretch of the arrivals, sped up by scale."""
    start_s, end_s = replay.start_s, inf if replay.seconds is None else replay.seconds
    stretch = dropwhile(lambda arrival: arrival.arrival_s < start_s, arrivals)
    moved = (
        Request(number, (arrival.arrival_s - start_s) / scale, arrival.input_tokens, arrival.output_tokens)
        for number, arrival in enumerate(islice(stretch, replay.limit))
    )
    return takewhile(lambda request: request.arrival_s < end_s, moved)


def _some(found: Iterator[Request], otherwise: str) -> Iterator[Request]:
    first = next(found, None)
    if first is None:
        raise TraceInvalid(otherwise)
    yield from chain((first,), found)
