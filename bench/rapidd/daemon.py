"""The real rapidd as a process of its own, and the controller that grants to it over loopback gRPC."""

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import psutil

from bench.rapidd.host import FALLBACK_MW, Host, Keeper, Usage
from rapid.core.cluster import GrantBatch, Greeting, Mark, Renewal
from rapid.rpc import open_channel
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_report, encode_grants, encode_greeting, encode_renewal

SAMPLE_S, REPORT_S = 0.1, 0.5
START_S, ORDER_S = 20.0, 10.0  # how long to wait at most
NODE = CONTROLLER = "bench"

Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the daemon writes down about itself when it listens."""

    incarnation: str
    address: str
    metrics: str


@asynccontextmanager
async def daemon(host: Host) -> AsyncIterator[Keeper]:
    """A daemon that is ready, and a controller that it listens to; no TLS, no engines."""
    config = host.folder / "rapidd.toml"
    # A foreign writer is a trial here and not an enemy, so it is never fenced.
    config.write_text(
        f"""
        node = {{ name = "{NODE}", state_dir = "state" }}
        power = {{ fallback = "{FALLBACK_MW // 1000}W" }}
        device = {{ backend = "nvml" }}
        fence = {{ repairs = 1000 }}
        report = {{ sample_interval = "{SAMPLE_S}s" }}
        listen = {{ address = "127.0.0.1:0", load_socket = "{host.folder}/run/load.sock", metrics = "127.0.0.1:0" }}
        """
    )
    command = (sys.executable, "-m", "rapidd", "--config", str(config))
    env = {**os.environ, **host.gpus.env(host.library)} | await compiled(host.folder / "bytecode")
    with (host.folder / "rapidd.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=env, stderr=log)
        try:
            endpoints = await started(host, process)
            async with open_channel(endpoints.address) as channel, asyncio.TaskGroup() as tasks:
                controller = Controller(host, process.pid, endpoints, channel)
                await controller.greet()
                listening = tasks.create_task(controller.listen())
                yield controller
                listening.cancel()
        finally:
            process.terminate()
            await process.wait()


async def compiled(folder: Path) -> dict[str, str]:
    """The environment of an installed Python program: one that is compiled when it starts takes 10 MB more for ever."""
    env = {"PYTHONPYCACHEPREFIX": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    once = (sys.executable, "-c", "import pynvml, rapidd.__main__")
    await (await asyncio.create_subprocess_exec(*once, env={**os.environ, **env})).wait()
    return env


async def started(host: Host, process: asyncio.subprocess.Process) -> Endpoints:
    until_s, path = time.monotonic() + START_S, host.folder / "state" / "endpoints.json"
    while not path.exists():
        if process.returncode is not None or time.monotonic() > until_s:
            raise SystemExit(f"rapidd did not start within {START_S:g} s:\n{(host.folder / 'rapidd.log').read_text()}")
        await asyncio.sleep(0.05)
    said = json.loads(path.read_text())
    return Endpoints(said["incarnation"], said["address"], said["metrics"])


class Controller:
    """Says what a controller says to one node, and reads all that it answers."""

    look_s = SAMPLE_S

    def __init__(self, host: Host, pid: int, endpoints: Endpoints, channel: grpc.aio.Channel) -> None:
        self._names = [gpu.uuid for gpu in host.gpus.gpus]
        self._pid, self._process, self._endpoints = pid, psutil.Process(pid), endpoints
        self._call: Call = node_pb2_grpc.NodeServiceStub(channel).Enforce()
        self._speaking = asyncio.Lock()
        self._seq = 0
        self._applied: set[str] = set()
        self._all_applied = asyncio.Event()

    def usage(self) -> Usage:
        # The kernel's clock of the process: nanoseconds, where /proc has hundredths of a second.
        cpu_s = time.clock_gettime(~self._pid << 3 | 2)
        return Usage(cpu_s, self._process.memory_info().rss / 2**20, self._process.num_fds())

    async def order(self, limit_mw: int, until_s: float) -> None:
        self._seq += 1
        self._applied.clear()
        self._all_applied.clear()
        limits_mw = tuple((gpu, limit_mw) for gpu in self._names)
        batch = GrantBatch(NODE, self._endpoints.incarnation, CONTROLLER, Mark(1, self._seq), until_s, limits_mw)
        await self._say(encode_grants(batch))
        async with asyncio.timeout(ORDER_S):
            await self._all_applied.wait()

    async def renew(self, until_s: float) -> None:
        renewal = Renewal(NODE, self._endpoints.incarnation, CONTROLLER, 1, until_s)
        await self._say(encode_renewal(renewal))

    async def serve(self) -> None:
        await asyncio.to_thread(self._scrape)

    async def _say(self, request: node_pb2.EnforceRequest) -> None:
        async with self._speaking:  # a stream takes one message at a time
            await self._call.write(request)

    def _scrape(self) -> None:
        with urllib.request.urlopen(f"http://{self._endpoints.metrics}/metrics", timeout=START_S) as page:
            page.read()

    async def greet(self) -> None:
        await self._say(encode_greeting(Greeting(1, CONTROLLER), report_interval_s=REPORT_S))

    async def listen(self) -> None:
        """Read on for ever; it is this that ends an order."""
        async for response in self._call:
            for answer in decode_report(response).answers:
                if answer.mark.seq == self._seq and answer.verdict == "applied":
                    self._applied.add(answer.gpu)
            if len(self._applied) == len(self._names):
                self._all_applied.set()
