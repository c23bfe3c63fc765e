"""Which requests of a trace a run gets: a window of it, one per seed, at a rate.

A window is so many requests that come one after another in the trace, sped up so that they come at the rate. What is
left of the trace in it is the order of prompts and answers and the shape of the gaps. `rapidctl sim run --rate` takes
its requests in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from rapid.sim.model.requests import Request
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.loader import open_trace
from rapid.sim.traces.reading import Reading, read

# A window of a trace that changes once must lie around the change, or most would see nothing of what the trace is for.
CHANGES = {"sonnet": 0.5}  # where it is, as a share of the requests
NEAREST = 0.3  # to the ends of a window, as a share of it, that the change comes


@dataclass(frozen=True, slots=True)
class Window:
    """The seed's, of so many seeds whose windows are spread over the trace. speed: the same requests, faster.

    Requests of more than max_tokens are left out: no engine could hold them.
    """

    trace: str
    max_tokens: int
    rate_rps: float
    seconds: float
    seed: int
    seeds: int
    speed: float = 1.0

    @property
    def place(self) -> range:
        """Its requests, counted in the trace. All of them, if there are too few; it is then shorter than `seconds`."""
        total = len(arrivals_of(self.trace, self.max_tokens))
        count = min(total, max(1, round(self.rate_rps * self.seconds)))
        along = self.seed / max(1, self.seeds - 1)  # from 0, the first window, to 1, the last
        first = round(along * (total - count))
        if self.trace in CHANGES:
            before = (1 - NEAREST) - along * (1 - 2 * NEAREST)  # the share of the window that lies before the change
            first = min(max(0, round(CHANGES[self.trace] * total - before * count)), total - count)
        return range(first, first + count)

    def requests(self) -> list[Request]:
        """From time 0 on."""
        arrivals = arrivals_of(self.trace, self.max_tokens)
        chosen = self.place
        start_s = arrivals[chosen.start - 1].arrival_s if chosen.start else 0.0
        scale = self.speed * self.rate_rps * (arrivals[chosen.stop - 1].arrival_s - start_s) / len(chosen)
        return [
            Request(number, (each.arrival_s - start_s) / scale, each.input_tokens, each.output_tokens)
            for number, each in enumerate(arrivals[chosen.start : chosen.stop])
        ]


def apart(windows: Sequence[Window]) -> bool:
    """No request is in two of them."""
    places = [window.place for window in windows]
    return all(one.stop <= other.start for one, other in pairwise(places))


@lru_cache(maxsize=32)
def arrivals_of(trace: str, max_tokens: int) -> tuple[Arrival, ...]:
    """All of the trace that an engine can hold; read once by each process."""
    return tuple(read(open_trace(trace), Reading(max_tokens=max_tokens, skip_bad=True)))
