"""What the demo hears of a host while it runs: READY of its programs, and the picture that its controller draws."""

import asyncio
import contextlib
import socket
import time
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path

from rapid.core.errors import RapidError
from rapid.core.status import Status
from rapidctl.client import Client

WATCH_INTERVAL_S = 0.5
AGAIN_AFTER_S = 0.25
DATAGRAM_MAX = 4096


class Readiness:
    """Hears READY=1 on a NOTIFY_SOCKET, as systemd would. Keeps when that was first, and how often."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.first_s: float | None = None
        self.count = 0
        self._socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        self._socket.bind(str(path))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._read)
        stack.callback(loop.remove_reader, self._socket)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if b"READY=1" in self._socket.recv(DATAGRAM_MAX).split(b"\n"):
                self.count += 1
                if self.first_s is None:
                    self.first_s = time.monotonic()


class Follower:
    """The newest picture that a controller has drawn; None: none yet. Comes back by itself when it is away."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.status: Status | None = None
        self.heard_s = -inf

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            with contextlib.suppress(RapidError):
                async with Client(self._address) as client:
                    async for status in client.watch(WATCH_INTERVAL_S):
                        self.status, self.heard_s = status, time.monotonic()
            await asyncio.sleep(AGAIN_AFTER_S)
