"""The controller's services over loopback, with a scripted mind behind them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from rapid.core.commands import Command
from rapid.core.events import Event
from rapid.rpc import open_channel, start_server
from rapid.v1 import controller_pb2_grpc, engine_pb2_grpc
from rapid.v1.controller_pb2_grpc import ControllerServiceStub
from rapid.v1.engine_pb2_grpc import EngineControlStub
from rapidctl.controller.engines import EngineService
from rapidctl.controller.hands import Hands
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.loop import LifeLimits, Loop
from rapidctl.controller.nodes import Nodes
from rapidctl.controller.server import ControllerService
from tests.controller.fakes import LIFE, FakeBrain, HandClock, MemoryJournal, Recorder

WITHIN_S = 10.0


@dataclass
class Stack:
    """What a test may look at. The loop does not run before `go`; the inbox holds what comes until then."""

    script: Callable[[Event], list[Command]] = lambda event: []
    load_interval_s: float = 0.0
    brain: FakeBrain = field(init=False)

    def __post_init__(self) -> None:
        self.brain = FakeBrain(self.script)
        self.inbox = Inbox(HandClock(), 64)
        self.engines = EngineService(self.inbox, lambda: 3, rpc_timeout_s=0.5, load_interval_s=self.load_interval_s)
        self.loop = Loop(
            self.inbox,
            MemoryJournal(),
            Hands(Nodes({}), self.engines, structlog.get_logger()),
            Recorder(),
            make=lambda: self.brain,
            life=LIFE,
            limits=LifeLimits(10_000, 2**30),
            clock=HandClock(),
        )
        self.service = ControllerService(self.inbox, self.loop)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of a kind that the mind was given."""
        return [event for event in self.brain.events if isinstance(event, kind)]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[grpc.aio.Channel]:
        """Serve and turn; yields a channel to it."""

        def add(server: grpc.aio.Server) -> None:
            controller_pb2_grpc.add_ControllerServiceServicer_to_server(self.service, server)
            engine_pb2_grpc.add_EngineControlServicer_to_server(self.engines, server)

        services = ["rapid.v1.ControllerService", "rapid.v1.EngineControl"]
        await self.loop.begin(None)
        server = await start_server({"listen.address": "127.0.0.1:0"}, add, services=services)
        running = asyncio.ensure_future(self.loop.run())
        try:
            async with open_channel(server.addresses["listen.address"]) as channel:
                yield channel
        finally:
            self.inbox.close()
            await running
            await server.stop(0.0)


def engine_stub(channel: grpc.aio.Channel) -> Any:
    """Of EngineControl; its type knows neither read() nor write()."""
    return EngineControlStub(channel)


def operator_stub(channel: grpc.aio.Channel) -> Any:
    """Of ControllerService."""
    return ControllerServiceStub(channel)
