"""What waits to be sent on a stream: bounded, and with an end that has a reason."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from rapid.core.errors import RapidError
from rapid.streams import Ended

Message = TypeVar("Message")


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
