"""A Dynamo without Dynamo: what the wrapper calls of its runtime, a frontend, a worker's page; in this process."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from rapidctl.engines.dynamo_worker.control import Control
from rapidctl.engines.dynamo_worker.half import Half
from rapidctl.engines.dynamo_worker.steps import Steps
from rapidctl.engines.dynamo_worker.worker import Worker
from tests.engines.bench import serving

REGISTERED = "dynamo_component_router_worker_registered"
ENDPOINTS = {"prefill": "dynamo.prefill.generate", "decode": "dynamo.backend.generate"}


@dataclass
class FakeDynamo:
    """Discovery, a frontend that shows it, and the faults that a test wants.

    refuses   roles in which no engine can be built
    deaf      the frontend never learns what is withdrawn or published
    peers     workers that are always there: endpoint by id
    kv        the frontend's router tells in which role it has registered a worker
    status    the frontend answers this instead
    """

    listed: dict[str, str] = field(default_factory=dict)  # endpoint by worker id
    cards: set[str] = field(default_factory=set)  # workers that have published a model card
    peers: dict[str, str] = field(default_factory=dict)
    held: int = 0
    refuses: set[str] = field(default_factory=set)
    deaf: bool = False
    kv: bool = True
    status: int = 200
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(101))
    built: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.forget()

    async def build(self, words: Sequence[str], role: str) -> Half:
        if role in self.refuses:
            raise RuntimeError(f"no memory for {role}")
        self.built.append(role)
        runtime = FakeRuntime(self, str(next(self.ids)), ENDPOINTS[role])
        return Half(runtime, ENDPOINTS[role], runtime.serve, runtime.withdraw, runtime.publish)

    def forget(self) -> None:
        """The leases of all but the peers have run out."""
        self.listed, self.cards = dict(self.peers), set(self.peers)

    def app(self) -> web.Application:
        """The frontend, and at /metrics of a worker its page."""
        app = web.Application()
        app.add_routes([web.get("/health", self._health), web.get("/metrics", self._metrics)])
        return app

    async def _health(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({"error": "no"}, status=self.status)
        rows = []
        for worker, path in self.listed.items():
            namespace, component, endpoint = path.split(".")
            rows.append(
                {"namespace": namespace, "component": component, "endpoint": endpoint, "instance_id": int(worker)}
            )
        return web.json_response({"instances": rows})

    async def _metrics(self, request: web.Request) -> web.Response:
        lines = []
        if self.kv:
            lines.append(f'{REGISTERED}{{router_worker_id="0",worker_type="prefill"}} 1')  # one that has long gone
        for worker, path in self.listed.items():
            if not self.kv or worker not in self.cards:
                continue
            role = next(role for role, endpoint in ENDPOINTS.items() if endpoint == path)
            labels = f'router_worker_id="{worker}",worker_type="{role}"'
            lines.append(f"{REGISTERED}{{{labels}}} 1")
        lines.append(f'dynamo_component_inflight_requests{{dynamo_endpoint="generate",worker_id="a"}} {self.held}')
        return web.Response(text="\n".join(lines) + "\n")


@dataclass
class FakeRuntime:
    """Of one half; its own endpoint too."""

    dynamo: FakeDynamo
    id: str
    path: str
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def endpoint(self, path: str) -> "FakeRuntime":
        assert path == self.path
        return self

    def connection_id(self) -> int:
        return int(self.id)

    async def serve(self) -> None:
        await self.register_endpoint_instance()
        await self.publish()
        await self.over.wait()
        raise RuntimeError("Endpoint service completed unexpectedly")  # as Dynamo's does, also when asked to

    async def register_endpoint_instance(self) -> None:
        if not self.dynamo.deaf:
            self.dynamo.listed[self.id] = self.path

    async def unregister_endpoint_instance(self) -> None:
        if self.id not in self.dynamo.listed:
            raise RuntimeError("Unable to unregister endpoint instance from discovery")
        if not self.dynamo.deaf:
            del self.dynamo.listed[self.id]

    async def withdraw(self) -> None:
        if not self.dynamo.deaf:
            self.dynamo.cards.discard(self.id)

    async def publish(self) -> None:
        if not self.dynamo.deaf:
            self.dynamo.cards.add(self.id)

    def shutdown(self) -> None:
        self.dynamo.listed.pop(self.id, None)
        self.dynamo.cards.discard(self.id)
        self.over.set()


class NoEars:
    """An engine that reports no forward pass."""

    def stop(self) -> None:
        pass


@asynccontextmanager
async def fake_worker(dynamo: FakeDynamo, control: Path, role: str = "prefill") -> AsyncIterator[tuple[Worker, str]]:
    """A worker in service behind its real control socket, and the URL of its page and of the frontend."""
    async with serving(dynamo.app()) as url, asyncio.TaskGroup() as tasks:
        worker = Worker(dynamo.build, (), role, f"{url}/metrics", tasks, no_ears)
        async with Control(worker).serving(control):
            await worker.open()
            try:
                yield worker, url
            finally:
                await worker.leave()


def no_ears(half: Half, steps: Steps) -> NoEars:
    return NoEars()


@dataclass
class Caller:
    """Somebody at the control socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @asynccontextmanager
    async def at(cls, control: Path) -> AsyncIterator["Caller"]:
        reader, writer = await asyncio.open_unix_connection(control)
        with contextlib.closing(writer):
            yield cls(reader, writer)

    async def say(self, line: bytes) -> dict[str, Any]:
        self.writer.write(line + b"\n")
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer
