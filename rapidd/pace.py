"""When a GPU is sampled: on every multiple of the interval, so that the threads of all GPUs wake together.

Processors that sleep are slow to wake, and caches are cold then: eight threads at once cost half of eight one by one.
"""

from dataclasses import dataclass, field
from typing import Protocol

_EARLY = 0.001  # of an interval: a sample that rounding lets begin so much before its time is no other one
CLOCK_S = 1.0  # how often a GPU's clock is read: that takes more calls of its driver, and serves to judge ten seconds


class Pace(Protocol):
    """When the next sample is due. Its user is one thread."""

    def left_s(self, at_s: float) -> float:
        """Until the next sample; 0 or less: it is due."""

    def begin(self, at_s: float) -> bool:
        """A sample is taken now; whether with the clock."""


@dataclass(slots=True)
class Every:
    """Once in each interval; those that were missed are not made up for. `number` tells GPUs apart: each has its clock
    read in another round than the next."""

    interval_s: float
    number: int
    _due_s: float = field(init=False, default=float("-inf"))

    def left_s(self, at_s: float) -> float:
        return self._due_s - at_s

    def begin(self, at_s: float) -> bool:
        rounds = int(at_s / self.interval_s + _EARLY) + 1
        self._due_s = rounds * self.interval_s
        return (rounds + self.number) % max(1, round(CLOCK_S / self.interval_s)) == 0
