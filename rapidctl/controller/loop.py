"""The control loop in four words: take events, step, journal, perform.

A step's commands are performed only when the journal holds the step. What happens in between, a crash or a full disk,
leaves the journal ahead of the world and never behind it: the next life books what may have been sent.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rapid.core.cluster import Decision, Greeting
from rapid.core.commands import Command
from rapid.core.events import ControlSnapshot, EngineCame, Event, Started
from rapid.core.status import Status
from rapidctl.controller.decided import Decided
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.journal import row
from rapidctl.controller.roster import Roster
from rapidctl.controller.store import Life, Row

BATCH = 64  # events that share one commit


class Brain(Protocol):
    """Who decides: rapid.core.control.Control, or a stand-in in tests."""

    def step(self, event: Event) -> list[Command]: ...
    def status(self, at_s: float) -> Status: ...
    def plan(self) -> Decision: ...
    def snapshot(self) -> ControlSnapshot: ...
    @property
    def greeting(self) -> Greeting: ...


class Writer(Protocol):
    """Where steps become durable: rapidctl.controller.journal.Journal."""

    @property
    def entries(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...

    async def begin(self, life: Life, rows: Sequence[Row]) -> None: ...
    async def append(self, rows: Sequence[Row]) -> None: ...


class Performer(Protocol):
    """Who carries commands out. Never waits: what cannot be delivered now is dropped and commanded anew later."""

    def perform(self, command: Command) -> None: ...


class Meter(Protocol):
    """Who counts how long things take, in seconds."""

    def stepped(self, event: Event, took_s: float) -> None: ...
    def committed(self, took_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """How far a life of the journal may grow after its beginning until a new one begins: replaying it takes time."""

    entries: int
    size_bytes: int


class Loop:
    """One controller life after another in one process: `life` is the first, later ones differ in when they began.

    `pet` is called after every turn, of which there is at least one per tick.
    """

    def __init__(
        self,
        inbox: Inbox,
        journal: Writer,
        performer: Performer,
        meter: Meter,
        *,
        make: Callable[[], Brain],
        life: Life,
        limits: LifeLimits,
        clock: Callable[[], float],
        pet: Callable[[], None] = lambda: None,
        decisions: Iterable[Decision] = (),
    ) -> None:
        self._inbox, self._journal, self._performer, self._meter = inbox, journal, performer, meter
        self._make, self._life, self._limits, self._clock = make, life, limits, clock
        self._pet = pet
        self._brain: Brain
        self._started_s = 0.0
        self._grown_entries = self._grown_bytes = 0  # where the journal must be for a new life to begin
        self._roster = Roster()
        self._at_s = 0.0
        self._picture: Status | None = None
        self._decided = Decided(decisions)

    async def begin(self, snapshot: ControlSnapshot | None) -> None:
        """Start the first life; the journal holds its beginning before anything else happens."""
        self._started_s = self._clock()
        await self._begin(snapshot, self._started_s)

    async def run(self) -> None:
        """Turn until the inbox is closed. Raises JournalFailed, SteppedDown, and whatever is our own mistake."""
        while await self.turn():
            self._pet()

    async def turn(self) -> bool:
        """Wait for events, and take as many as share a commit all the way. False: the inbox is closed."""
        batch = await self._inbox.take(BATCH)
        if not batch:
            return False
        steps = [(taken, self._step(taken.event)) for taken in batch]
        began_s = time.perf_counter()
        await self._journal.append([row(taken.event, commands) for taken, commands in steps])
        self._meter.committed(time.perf_counter() - began_s)
        for taken, commands in steps:
            self._perform(commands)
            taken.resolve(commands)
        if self._journal.entries >= self._grown_entries or self._journal.size_bytes >= self._grown_bytes:
            await self._begin(self._brain.snapshot(), self._at_s)
        return True

    # ---- what others read ----

    @property
    def greeting(self) -> Greeting:
        """The first word on every node's stream."""
        return self._brain.greeting

    def status(self) -> Status:
        """The whole picture as of the last event."""
        if self._picture is None:
            # Never a later time than that of the last event: looking must not change what the next step will see.
            self._picture = self._brain.status(self._at_s)
        return self._picture

    def plan(self) -> Decision:
        """What the policy would decide as of the last event."""
        return self._brain.plan()

    def decisions(self, limit: int, about: str = "") -> tuple[Decision, ...]:
        """The last decisions, of earlier lives too, newest first; `about` an id or what a decision has changed."""
        return self._decided.last(limit, about)

    # ---- helpers ----

    async def _begin(self, snapshot: ControlSnapshot | None, at_s: float) -> None:
        """A new life, from the snapshot of the one before it, with the engines that are attached."""
        wall_s = self._life.started_wall_s + at_s - self._started_s
        life = replace(self._life, started_wall_s=wall_s)
        self._brain = self._make()
        events: list[Event] = [Started(at_s, wall_s, life.epoch, life.controller_id, snapshot)]
        events += [EngineCame(at_s, hello) for hello in self._roster.hellos(at_s)]
        steps = [(event, self._step(event)) for event in events]
        await self._journal.begin(life, [row(event, commands) for event, commands in steps])
        # Counted from here: however many engines there are to introduce, a life has room for as many events again.
        self._grown_entries = self._journal.entries + self._limits.entries
        self._grown_bytes = self._journal.size_bytes + self._limits.size_bytes
        for _, commands in steps:
            self._perform(commands)

    def _step(self, event: Event) -> list[Command]:
        began_s = time.perf_counter()
        commands = self._brain.step(event)
        self._meter.stepped(event, time.perf_counter() - began_s)
        self._at_s, self._picture = event.at_s, None
        self._roster.follow(event, commands)
        return commands

    def _perform(self, commands: Sequence[Command]) -> None:
        self._decided.follow(commands)
        for command in commands:
            self._performer.perform(command)
