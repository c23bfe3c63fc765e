"""The one queue through which everything reaches the control loop. It is bounded, and it stamps the time.

Events get their time when they enter, so that time never goes back in the order in which they are taken. While the
queue is full, whoever brings an event waits; only a newer report of a node takes the place of its older one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from rapid.core.cluster import NodeReport
from rapid.core.commands import Command
from rapid.core.errors import Unreachable
from rapid.core.events import EngineGone, Event, NodeGone, NodeHeard, Ticked

ANSWERS_MAX = 4096  # of one report, as on the wire; the oldest are forgotten first


@dataclass(slots=True)
class Taken:
    """An event on its way through the loop, and who waits for what comes of it."""

    event: Event
    asker: "asyncio.Future[list[Command]] | None" = None

    def resolve(self, commands: list[Command]) -> None:
        """The step is in the journal and performed."""
        if self.asker is not None and not self.asker.done():
            self.asker.set_result(commands)

    def fail(self, why: Exception) -> None:
        """The step will not be taken."""
        if self.asker is not None and not self.asker.done():
            self.asker.set_exception(why)


class Inbox:
    """Holds at most `size` events, and beside them one tick and one last word of every stream that has ended.

    `at_s` of what is put in is replaced by the clock's time.
    """

    def __init__(self, clock: Callable[[], float], size: int) -> None:
        self._clock = clock
        self._room = asyncio.Semaphore(size)
        self._news = asyncio.Event()
        self._waiting: dict[int, tuple[Taken, bool]] = {}  # by order of arrival; True: it takes room
        self._reports: dict[str, int] = {}  # where the report of a node waits
        self._arrived = 0
        self._tick: int | None = None
        self._closed = False
        self.replaced = 0  # reports that a newer one has replaced while they waited

    def __len__(self) -> int:
        return len(self._waiting)

    async def put(self, event: Event) -> None:
        """Leave an event; waits while the queue is full."""
        await self._room.acquire()
        self._enter(Taken(event), True)

    async def ask(self, event: Event) -> list[Command]:
        """Leave an event and wait for what came of it, journaled and performed. Raises Unreachable at the end."""
        asker: asyncio.Future[list[Command]] = asyncio.get_running_loop().create_future()
        await self._room.acquire()
        self._enter(Taken(event, asker), True)
        return await asker

    async def put_report(self, report: NodeReport) -> None:
        """Leave a node's report. While the queue is full it takes the place of an older one of this node."""
        key = self._reports.get(report.node)
        if self._room.locked() and key is not None:
            older, _ = self._waiting.pop(key)
            assert isinstance(older.event, NodeHeard)
            report = _joined(older.event.report, report)
            self.replaced += 1
        else:
            await self._room.acquire()
        self._reports[report.node] = self._enter(Taken(NodeHeard(0.0, report)), True)

    def put_end(self, event: NodeGone | EngineGone) -> None:
        """Leave the last word of a stream; never waits, for nobody may be there to wait."""
        self._enter(Taken(event), False)

    def put_tick(self, wall_s: float | None = None) -> None:
        """It is time to decide, unless the tick before still waits; wall_s is what the host's clock shows."""
        if self._tick is None:
            self._tick = self._enter(Taken(Ticked(0.0, wall_s)), False)

    async def take(self, most: int) -> list[Taken]:
        """The oldest events, at most so many; waits for the first. Empty: the queue is closed."""
        while not self._waiting and not self._closed:
            self._news.clear()
            await self._news.wait()
        if self._closed:
            return []
        taken = []
        for key in list(islice(self._waiting, most)):
            item, takes_room = self._waiting.pop(key)
            if takes_room:
                self._room.release()
            if key == self._tick:
                self._tick = None
            if isinstance(item.event, NodeHeard) and self._reports.get(item.event.report.node) == key:
                del self._reports[item.event.report.node]
            taken.append(item)
        return taken

    def close(self) -> None:
        """Take nothing more, and tell those who wait for an answer that none will come."""
        self._closed = True
        self._news.set()
        for item, _ in self._waiting.values():
            item.fail(_stopping())

    def _enter(self, item: Taken, takes_room: bool) -> int:
        item.event = replace(item.event, at_s=self._clock())
        self._arrived += 1
        self._waiting[self._arrived] = (item, takes_room)
        self._news.set()
        if self._closed:
            item.fail(_stopping())
        return self._arrived


def _stopping() -> Unreachable:
    return Unreachable("the controller stops; ask again when it is back")


def _joined(older: NodeReport, newer: NodeReport) -> NodeReport:
    """The newer report with the answers of the one that it replaces, if they come from the same life of the node."""
    if older.incarnation != newer.incarnation:
        return newer
    return replace(newer, answers=(*older.answers, *newer.answers)[-ANSWERS_MAX:])
