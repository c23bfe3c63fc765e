"""A toy engine under RAPID's care: a hundred lines to one whose role RAPID changes without losing a request.

It answers lines on a Unix socket: "250" works for 250 ms and is answered with the role that served it, or "closed".

    python examples/engine.py --instance p0 --role prefill --node h1 --gpu GPU-1b2c... \\
        --address unix:/run/rapid/controller.sock --socket /tmp/p0.sock
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass, field

from rapid.engine import LatencyCounter, PhaseLoad, Role, attach

SWITCH_S = 0.2  # what a real engine needs to build its other half


@dataclass
class ToyEngine:
    """Works for as long as a request says."""

    name: str
    role: Role
    taking: bool = True
    running: int = 0
    arrived: int = 0
    finished: int = 0
    ttft: LatencyCounter = field(default_factory=LatencyCounter)

    async def close(self) -> None:
        self.taking = False

    async def drained(self) -> int:
        return self.running

    async def switch(self, role: Role) -> None:
        await asyncio.sleep(SWITCH_S)
        self.role = role

    async def open(self, role: Role) -> None:
        self.taking = True

    def load(self) -> PhaseLoad:
        return PhaseLoad(
            self.name,
            self.role,
            time.monotonic(),
            running_requests=self.running,
            arrived=self.arrived,
            finished=self.finished,
            ttft=self.ttft.histogram(),
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(f"{await self.work(float(line) / 1000)}\n".encode())
                await writer.drain()

    async def work(self, work_s: float) -> str:
        if not self.taking:
            return "closed"
        role, began_s = self.role, time.monotonic()
        self.arrived, self.running = self.arrived + 1, self.running + 1
        await asyncio.sleep(work_s)
        self.ttft.observe(time.monotonic() - began_s)
        self.finished, self.running = self.finished + 1, self.running - 1
        return role.value


async def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("instance", "role", "node", "gpu", "address", "socket"):
        options.add_argument(f"--{name}", required=True)
    given = options.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"{given.instance}: %(message)s")
    stopped, role = asyncio.Event(), Role(given.role)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    engine = ToyEngine(given.instance, role)
    care = attach(
        engine,
        instance=given.instance,
        node=given.node,
        gpus=(given.gpu,),
        role=role,
        roles=tuple(Role),
        address=given.address,
        switch_s=SWITCH_S,
        product="toy engine",
    )
    async with await asyncio.start_unix_server(engine.answer, given.socket), care:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
