"""An engine that has to be started anew to change its role, as small as it can be, for tests of `exec`.

GET /work?ms=200 works that long and answers with the role. /health, /left and /metrics say what an operator asks an
engine. SIGTERM: no new request, those that run are finished, exit. In its folder a test may put

    slow     seconds from the start until /health answers
    refuse   roles, one per line, in which it exits with code 3 at once
    deaf     it does not obey SIGTERM
    brood    it has a child, which does not obey SIGTERM either
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

REASON = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class Toy:
    """What it has of requests, and whether it takes more."""

    def __init__(self, role: str) -> None:
        self.role, self.running, self.ready = role, 0, False
        self.stopping, self.idle = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError, IndexError), contextlib.closing(writer):
            target = (await reader.readline()).decode().split()[1]
            while await reader.readline() not in (b"\r\n", b""):
                pass
            status, body = await self.answer(target)
            head = f"HTTP/1.1 {status} {REASON[status]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
            await writer.drain()

    async def answer(self, target: str) -> tuple[int, str]:
        path, _, query = target.partition("?")
        if path == "/health":
            return (200, "ok") if self.ready else (503, "loading")
        if path == "/left":
            return 200, str(self.running)
        if path == "/metrics":
            return 200, f"toy:running {self.running}\ntoy:waiting 0\n"
        if path == "/work":
            return 200, await self.work(int(query.partition("=")[2]))
        return 404, ""

    async def work(self, work_ms: int) -> str:
        self.running += 1
        await lasting(work_ms / 1000)
        self.running -= 1
        if not self.running:
            self.idle.set()
        return self.role


def have_a_child(note: Path) -> None:
    note.write_text(str(subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 600 & wait; wait"]).pid))


async def lasting(for_s: float) -> None:
    """What takes a while: a model does not answer at once."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await asyncio.Event().wait()


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--role", default=os.environ.get("RAPID_ROLE"))
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--folder", type=Path, required=True)
    given = options.parse_args()
    slow, refuse = given.folder / "slow", given.folder / "refuse"
    if refuse.exists() and given.role in refuse.read_text().split():
        sys.stderr.write("cannot allocate the KV cache\n")
        sys.exit(3)
    toy = Toy(given.role)
    deaf = (given.folder / "deaf").exists()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, (lambda: None) if deaf else toy.stopping.set)
    if (given.folder / "brood").exists():
        have_a_child(given.folder / "brood")
    server = await asyncio.start_server(toy.serve, "127.0.0.1", given.port)
    sys.stderr.write(f"serves {given.role}\n")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(toy.stopping.wait(), float(slow.read_text()) if slow.exists() else 0)
    toy.ready = True
    await toy.stopping.wait()
    server.close()
    if toy.running:
        await toy.idle.wait()
    await lasting(0.01)  # for the last answer to be on its way


if __name__ == "__main__":
    asyncio.run(main())
