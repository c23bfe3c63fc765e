"""What every long-lived stream of the controller needs: a bounded outbox, and an end with a reason."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

import grpc

from rapid.core.errors import RapidError

Message = TypeVar("Message")


class Ended(RapidError):
    """The stream is over, for a reason that may have a status code of its own in the RPC's table."""

    def __init__(self, text: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(text)
        self.code = code


class _Done(Exception):
    """One of several works has come to its end."""


class Outbox(Generic[Message]):
    """Messages on their way out, oldest first, at most `size`; one too many and the stream is no good any more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[tuple[Message, bool]] = deque()
        self._news = asyncio.Event()
        self._why: RapidError | None = None

    def put(self, message: Message, *, newest_only: bool = False) -> None:
        """Send it as soon as may be. With newest_only it takes the place of such a message that still waits."""
        if newest_only:
            self._messages = deque(each for each in self._messages if not each[1])
        if len(self._messages) >= self._size:
            self.end(Ended(f"{self._size} messages wait to be sent; the peer does not take them"))
            return
        self._messages.append((message, newest_only))
        self._news.set()

    def end(self, why: RapidError) -> None:
        """Whoever takes gets this error from now on."""
        self._why = self._why or why
        self._news.set()

    async def take(self) -> Message:
        """The oldest message; waits for one. Raises what the outbox was ended with."""
        while True:
            if self._why is not None:
                raise self._why
            if self._messages:
                return self._messages.popleft()[0]
            self._news.clear()
            await self._news.wait()


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run them side by side until one returns or raises, which this then does too; the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(_to_its_end(work))
    except ExceptionGroup as ends:
        if not isinstance(ends.exceptions[0], _Done):
            raise ends.exceptions[0] from None


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    await work
    raise _Done
