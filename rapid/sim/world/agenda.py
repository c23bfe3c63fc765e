"""What is to happen when, and messages that take their time."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from random import Random

Action = Callable[[float], None]  # is told the time


class Agenda:
    """Actions in order of time; at equal times in the order in which they were put down."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    @property
    def next_s(self) -> float:
        """When the next action is due; infinite: none is."""
        return self._heap[0][0] if self._heap else inf

    def put(self, at_s: float, action: Action) -> None:
        self._count += 1
        heappush(self._heap, (at_s, self._count, action))

    def act(self) -> None:
        """Does what is due next."""
        at_s, _, action = heappop(self._heap)
        action(at_s)

    def __len__(self) -> int:
        return len(self._heap)


class Link:
    """One way of a connection: every message arrives, late by a throw of the dice, and never before an earlier one."""

    __slots__ = ("_agenda", "_delay_s", "_dice", "_last_s")

    def __init__(self, agenda: Agenda, dice: Random, delay_s: tuple[float, float]) -> None:
        self._agenda, self._dice, self._delay_s = agenda, dice, delay_s
        self._last_s = -inf

    def send(self, arrive: Action, at_s: float) -> None:
        """`arrive` is called when the message is there."""
        self._last_s = max(self._last_s, at_s + self._dice.uniform(*self._delay_s))
        self._agenda.put(self._last_s, arrive)
