"""What waits to go out, bounded, whatever the broker does.

Answers that are kept (by number) wait until they are delivered. Of a state only the newest waits. Refusals and events
give way to newer ones; how many events did is told with the next.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import msgspec

from rapidctl.controller.facility.messages import Event, Result, encode

REFUSALS_MAX = 64
POWER_STATES_MAX = 64
EVENTS_MAX = 256


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to publish; `number` of an answer that is kept until it is delivered, else 0."""

    topic: str
    payload: bytes
    retain: bool = False
    number: int = 0


class Postbag:
    """Taken in this order: answers, refusals, power states, states, events."""

    def __init__(self) -> None:
        self._answers: dict[int, Letter] = {}
        self._sent: set[int] = set()  # answers that are on their way
        self._refusals: deque[Letter] = deque(maxlen=REFUSALS_MAX)
        self._power_states: deque[Letter] = deque(maxlen=POWER_STATES_MAX)
        self._states: dict[str, Letter] = {}
        self._events: deque[tuple[str, Event]] = deque()
        self._news = asyncio.Event()
        self.dropped = 0  # events that gave way since the last that went out

    def __len__(self) -> int:
        waiting = (self._answers, self._refusals, self._power_states, self._states, self._events)
        return sum(len(each) for each in waiting)

    def put_answer(self, topic: str, result: Result) -> None:
        """One that has a number is taken once, and stays until delivered() names it."""
        letter = Letter(topic, encode(result), number=result.number)
        if result.number == 0:
            self._refusals.append(letter)
        elif result.number not in self._answers:
            self._answers[result.number] = letter
        self._news.set()

    def put_state(self, topic: str, payload: bytes) -> None:
        self._states[topic] = Letter(topic, payload, retain=True)
        self._news.set()

    def put_power_state(self, topic: str, payload: bytes) -> None:
        """Every transition of DSX Flex is told by itself; each is a whole picture, so the oldest gives way."""
        self._power_states.append(Letter(topic, payload))
        self._news.set()

    def put_event(self, topic: str, event: Event) -> None:
        if len(self._events) >= EVENTS_MAX:
            self._events.popleft()
            self.dropped += 1
        self._events.append((topic, event))
        self._news.set()

    async def take(self) -> Letter:
        """The next to go out; waits for one."""
        while True:
            letter = self._next()
            if letter is not None:
                return letter
            self._news.clear()
            await self._news.wait()

    def delivered(self, number: int) -> None:
        self._answers.pop(number, None)
        self._sent.discard(number)

    def again(self) -> None:
        """The connection is new: what was on its way may not have come."""
        self._sent.clear()
        self._states.clear()  # the board hangs everything anew

    def _next(self) -> Letter | None:
        for number, letter in self._answers.items():
            if number not in self._sent:
                self._sent.add(number)
                return letter
        if self._refusals:
            return self._refusals.popleft()
        if self._power_states:
            return self._power_states.popleft()
        if self._states:
            return self._states.pop(next(iter(self._states)))
        if self._events:
            topic, event = self._events.popleft()
            dropped, self.dropped = self.dropped, 0
            return Letter(topic, encode(msgspec.structs.replace(event, dropped=dropped)))
        return None
