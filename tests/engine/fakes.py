"""A controller that says what a test wants it to, a rapidd that takes loads, and an engine that does as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from rapid.core.cluster import EngineHello, Mark, Phase, PhaseLoad, Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.errors import RapidError
from rapid.rpc import start_server
from rapid.tls import TlsConfig
from rapid.v1 import engine_pb2_grpc, load_pb2, load_pb2_grpc
from rapid.wire.common import decode_push
from rapid.wire.engine import (
    EngineLoad,
    Goodbye,
    Welcome,
    decode_attach,
    encode_cancel,
    encode_order,
    encode_welcome,
)
from rapid.wire.errors import status_of

SOON_S = 10.0
STEPS = ("close", "switch", "open")


class FakeController(engine_pb2_grpc.EngineControlServicer):
    """Welcomes everybody, remembers what it hears, and says what the test wants to."""

    def __init__(self, load_interval_s: float = 0.0, epoch: int = 1) -> None:
        self.hellos: list[EngineHello] = []
        self.heard: list[RoleProgress | EngineLoad | Goodbye] = []
        self.refuse: RapidError | None = None
        self.epoch = epoch
        self._load_interval_s = load_interval_s
        self._contexts: list[Any] = []

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        if self.refuse is not None:
            status = status_of(self.refuse)
            await context.abort(status.code, status.message, status.trailers)
        hello = None
        async for message in request_iterator:
            said = decode_attach(message, hello=hello)
            if isinstance(said, EngineHello):
                hello = said
                self.hellos.append(said)
                self._contexts.append(context)
                await context.write(encode_welcome(Welcome(self.epoch, self._load_interval_s)))
            else:
                self.heard.append(said)

    async def order(
        self,
        role: Role,
        *,
        seq: int = 1,
        late_s: float = 0.0,
        drain_s: float = 5.0,
        quiet_s: float = 0.0,
        park: bool = False,
    ) -> None:
        hello = self.hellos[-1]
        not_after_s = time.monotonic() + 5.0 - late_s
        mark = Mark(self.epoch, seq)
        order = OrderRole(hello.instance, hello.incarnation, mark, role, drain_s, not_after_s, quiet_s, park)
        await self._contexts[-1].write(encode_order(order))

    async def cancel(self, *, seq: int = 1) -> None:
        hello = self.hellos[-1]
        cancel = CancelRole(hello.instance, hello.incarnation, Mark(self.epoch, seq))
        await self._contexts[-1].write(encode_cancel(cancel))

    @property
    def progress(self) -> list[RoleProgress]:
        return [said for said in self.heard if isinstance(said, RoleProgress)]

    @property
    def phases(self) -> list[Phase]:
        return [progress.phase for progress in self.progress]

    @property
    def loads(self) -> list[PhaseLoad]:
        return [said.load for said in self.heard if isinstance(said, EngineLoad)]


class FakeDaemon(load_pb2_grpc.LoadServiceServicer):
    """Takes loads."""

    def __init__(self) -> None:
        self.loads: list[PhaseLoad] = []

    async def Push(self, request_iterator: Any, context: Any) -> load_pb2.PushResponse:
        async for message in request_iterator:
            load = decode_push(message)
            assert load.at_s <= time.monotonic()
            self.loads.append(load)
        return load_pb2.PushResponse(taken=len(self.loads))


@asynccontextmanager
async def served(
    where: Path | str, servicer: FakeController | FakeDaemon, tls: TlsConfig | None = None
) -> AsyncIterator[str]:
    """The address. A path is a Unix socket."""

    def add(server: grpc.aio.Server) -> None:
        if isinstance(servicer, FakeController):
            engine_pb2_grpc.add_EngineControlServicer_to_server(servicer, server)
        else:
            load_pb2_grpc.add_LoadServiceServicer_to_server(servicer, server)

    at = f"unix:{where}" if isinstance(where, Path) else where
    server = await start_server({"at": at}, add, services=(), tls=tls)
    try:
        yield server.addresses["at"]
    finally:
        await server.stop(0.0)


@dataclass
class ScriptedEngine:
    """Does what it is asked to and notes it. `raises` says with what a step fails, the first time; a step named in
    `holds` waits until the test lets it go."""

    role: Role = Role.PREFILL
    left: int = 0
    raises: dict[str, Exception] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    asked: int = 0  # how often it was asked what is left

    def __post_init__(self) -> None:
        self.released = {step: asyncio.Event() for step in STEPS}

    async def close(self) -> None:
        await self._step("close")

    async def drained(self) -> int:
        self.asked += 1
        if error := self.raises.get("drained"):
            raise error
        return self.left

    async def switch(self, role: Role) -> None:
        await self._step("switch", role)
        self.role = role

    async def open(self, role: Role) -> None:
        await self._step("open", role)

    def load(self) -> PhaseLoad:
        return PhaseLoad("p0", self.role, time.monotonic(), running_requests=self.left)

    async def _step(self, step: str, role: Role | None = None) -> None:
        self.calls.append(step if role is None else f"{step} {role.value}")
        if step in self.holds:
            await self.released[step].wait()
        if error := self.raises.pop(step, None):
            raise error


@dataclass
class ReadableEngine(ScriptedEngine):
    """One whose role can be read: what it really has, or (`live_roles` first) what the test says."""

    live_roles: list[Role | Exception | None] = field(default_factory=list)

    async def live_role(self) -> Role | None:
        self.calls.append("read")
        live = self.live_roles.pop(0) if self.live_roles else self.role
        if isinstance(live, Exception):
            raise live
        return live


@dataclass
class RoutedEngine(ScriptedEngine):
    """One that sees at its router who else serves."""

    seen: int | None = None

    async def others(self) -> int | None:
        return self.seen


@dataclass
class BusyEngine(ScriptedEngine):
    """One that takes requests of its new role while those of the old one run on."""

    def serves_on(self) -> bool:
        return True
