"""HTTP on loopback as a test scripts it: byte by byte, so that it can be as wrong as the world."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Answers every request as `answer` says at that moment."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[bytes] = []  # as they came, up to their empty line
        self.url = ""
        self._answering: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        # The caller may have had enough, or the test has.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            await self.answer(writer)
        writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        self._answering.discard(task)

    async def stop(self) -> None:
        """Let go of everybody."""
        for task in self._answering:
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering)


@asynccontextmanager
async def metrics_server(answer: Answer, port: int = 0) -> AsyncIterator[MetricsServer]:
    """On a free port of loopback, until this ends; who hangs in an answer is let go then."""
    served = MetricsServer(answer)
    server = await asyncio.start_server(served.handle, "127.0.0.1", port)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    try:
        yield served
    finally:
        server.close()
        await served.stop()


# ---- answers ----


def raw(*pieces: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return answer


def page(make: Callable[[], bytes], kind: str = TEXT) -> Answer:
    """What `make` says at the time."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        body = make()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


def chunked(body: bytes, size: int) -> Answer:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return raw(head, *(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces), b"0\r\n\r\n")


def endless(line: bytes = b"other_total 1\n", megabytes: int = 50) -> Answer:
    """A page of so many megabytes, which says so at the end only."""
    block = line * (2**20 // len(line))
    return raw(f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n\r\n".encode(), *[block] * megabytes)


async def hang(writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing, for ever."""
    await asyncio.Event().wait()
