"""The journal as the loop sees it: rows that are durable once the await is over, written by one thread of its own."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence

from rapid.core.commands import Command
from rapid.core.events import Event
from rapidctl.controller import codec
from rapidctl.controller.damage import JournalFailed
from rapidctl.controller.store import JournalFile, Life, Row

COMMIT_DEADLINE_S = 10.0  # a disk that takes longer than any lease is as good as gone

_Job = tuple[Callable[[], None], "asyncio.Future[None]", asyncio.AbstractEventLoop]


def row(event: Event, commands: Sequence[Command]) -> Row:
    """One step as the journal keeps it."""
    return Row(event.at_s, codec.kind_of(event), codec.encode(event).decode(), codec.encode_commands(commands).decode())


class Journal:
    """Writes to an open JournalFile from one thread. Raises JournalFailed; then what was passed must not be acted on.

    entries, size_bytes   of the life begun last
    """

    def __init__(self, file: JournalFile, *, deadline_s: float = COMMIT_DEADLINE_S) -> None:
        self._file, self._deadline_s = file, deadline_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A daemon thread: a write that hangs in the kernel must not keep the process from ending.
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()
        self.entries = 0
        self.size_bytes = 0

    async def begin(self, life: Life, rows: Sequence[Row]) -> None:
        """Durably begin a new life with its first rows."""
        self.entries = self.size_bytes = 0
        await self._do(lambda: self._file.begin(life, rows))
        self._count(rows)

    async def append(self, rows: Sequence[Row]) -> None:
        """Durably add rows to the life begun last: all of them, in one commit, or none."""
        await self._do(lambda: self._file.append(rows))
        self._count(rows)

    def close(self) -> None:
        """Finish what was begun, then close the file. A write that hangs is left behind."""
        self._jobs.put(None)
        self._thread.join(self._deadline_s)
        if not self._thread.is_alive():
            self._file.close()

    def _count(self, rows: Sequence[Row]) -> None:
        self.entries += len(rows)
        self.size_bytes += sum(len(row.event) + len(row.commands) for row in rows)

    async def _do(self, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put((work, done, loop))
        try:
            async with asyncio.timeout(self._deadline_s):
                await done
        except TimeoutError as error:
            raise JournalFailed(
                f"journal {self._file.path}: not written within {self._deadline_s:g} s; check the disk"
            ) from error

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done, loop = job
            problem: Exception | None = None
            try:
                work()
            except Exception as error:
                problem = error
            # Nobody waits any more when the loop has gone, or has given up on this write.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, problem)


def _settle(done: "asyncio.Future[None]", problem: Exception | None) -> None:
    if done.done():
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)
