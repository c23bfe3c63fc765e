"""What users ask for: traces held in memory, so that they can be asked for requests at one speed after another.

No stretch is picked by taste: a run always starts at the start of its trace.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from rapid.core.errors import TraceInvalid
from rapid.sim.model.requests import Request
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.replay import Replay, replayed

MAX_REQUESTS = 5_000_000  # of one workload, which is held in memory: about 1 GB


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
        return tuple(replayed(self.arrivals, Replay(seconds=seconds), rate_scale))

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
        half = Replay(seconds=seconds / 2)
        first = tuple(replayed(_repeated(self.first), half, rate_scale))
        second = replayed(_repeated(self.second), half, rate_scale)
        return first + tuple(
            Request(number, seconds / 2 + item.arrival_s, item.input_tokens, item.output_tokens)
            for number, item in enumerate(second, start=len(first))
        )

    def max_rate_scale(self, seconds: float) -> float:
        """Only the bound on requests ends a load that repeats."""
        rate_rps = max(len(trace) / trace[-1].arrival_s for trace in (self.first, self.second))
        return MAX_REQUESTS / (seconds * rate_rps)


def split_shift(name: str, trace: tuple[Arrival, ...]) -> ShiftWorkload:
    """A trace whose second half is another load, as a workload of two halves."""
    middle = len(trace) // 2
    start_s = trace[middle - 1].arrival_s  # so that the second half keeps its first gap
    second = (Arrival(item.arrival_s - start_s, item.input_tokens, item.output_tokens) for item in trace[middle:])
    return ShiftWorkload(name, trace[:middle], tuple(second))


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
