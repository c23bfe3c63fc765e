"""A node in this process: real workers, agent and gRPC on loopback, around devices that live in memory."""

import time
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import structlog

from rapid.core.errors import DeviceError
from rapid.core.guard import Guard, GuardedGpu, GuardMemory
from rapid.rpc import open_channel
from rapid.v1 import node_pb2
from rapid.wire.node import (
    GpuDescription,
    NodeDescription,
)
from rapidd.agent import Agent, first_limits
from rapidd.device.base import DeviceInfo, Holder, LimitReading, PowerReading
from rapidd.inbox import Inbox
from rapidd.load.push import LoadTable
from rapidd.rounds import Rounds
from rapidd.server import NodeService, serving_node
from rapidd.talk import Talk
from rapidd.worker import Worker
from tests.node.caller import DEADLINE_S, LONG_S, NODE, Call, enforce, greet
from tests.node.rig import CEILING_MW, CONTROLLER, FALLBACK_MW, FLOOR_MW, GPUS, ScriptedMemory
from tests.wait import wait_until


class MemoryDevice:
    """A GPU that does what it is told at once; obeys `Device`."""

    def __init__(self, index: int) -> None:
        self.info = DeviceInfo(GPUS[index], index, "memory", "1", FLOOR_MW, CEILING_MW)
        self.limit_mw = CEILING_MW
        self.writes_mw: list[int] = []
        self.error: DeviceError | None = None

    def set_limit(self, limit_mw: int) -> None:
        self._answer()
        self.info.check_range(limit_mw)
        self.limit_mw = limit_mw
        self.writes_mw.append(limit_mw)

    def read_limit(self) -> LimitReading:
        self._answer()
        return LimitReading(self.limit_mw, self.limit_mw)

    def read_power(self) -> PowerReading:
        self._answer()
        return PowerReading(min(150_000, self.limit_mw), 1)

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        return self.read_limit(), self.read_power()

    def processes(self) -> tuple[int, ...]:
        return ()

    def holders(self) -> tuple[Holder, ...]:
        return ()

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class LiveNode:
    """What a test needs of the node: how to call it, and what stands behind it."""

    address: str
    channel: grpc.aio.Channel
    devices: list[MemoryDevice]
    agent: Agent
    service: NodeService
    memory: ScriptedMemory

    def call(self) -> Call:
        return enforce(self.channel)

    async def greeted(
        self,
        epoch: int = 1,
        controller_id: str = CONTROLLER,
        interval_s: float = LONG_S,
        then: Sequence[node_pb2.EnforceRequest] = (),
    ) -> Call:
        return await greet(self.channel, epoch, controller_id, interval_s, then)

    def limits_mw(self) -> tuple[int, ...]:
        return tuple(device.limit_mw for device in self.devices)

    async def holds(self, limit_mw: int) -> None:
        """Wait until every device holds this limit: a report counts it from the moment it is being written."""
        await wait_until(lambda: set(self.limits_mw()) == {limit_mw}, DEADLINE_S, f"every limit at {limit_mw} mW")


@asynccontextmanager
async def live_node(memory: GuardMemory | None = None, kind: type[Guard] = Guard) -> AsyncIterator[LiveNode]:
    """Two GPUs, every one landed before this begins; the node is stopped in order at the end."""
    devices = [MemoryDevice(index) for index in range(len(GPUS))]
    inbox, loads, keeper = Inbox(len(devices)), LoadTable(4), ScriptedMemory()
    workers = [Worker(device, inbox.deliver, time.monotonic) for device in devices]
    rounds = Rounds(time.monotonic, interval_s=0.1)
    for worker in workers:
        worker.start()
        rounds.add(worker)
    limits_mw = await first_limits(workers, inbox)
    rounds.start()
    specs = [
        GuardedGpu(gpu, index, FLOOR_MW, CEILING_MW, FALLBACK_MW, limits_mw[gpu]) for index, gpu in enumerate(GPUS)
    ]
    guard = kind(node=NODE, incarnation="life", gpus=specs, memory=memory or GuardMemory())
    log = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[])
    agent = Agent(
        guard,
        workers,
        inbox,
        loads=loads,
        memory=keeper,
        talk=Talk(log, time.monotonic),
        clock=time.monotonic,
        rescue=rounds.rescue,
    )
    gpus = tuple(GpuDescription(gpu, i, "memory", "1", FLOOR_MW, CEILING_MW, FALLBACK_MW) for i, gpu in enumerate(GPUS))
    description = NodeDescription(NODE, "1.2.3", "memory", guard.incarnation, None, gpus)
    service = NodeService(agent, lambda: description, log)
    async with TaskGroup() as tasks:
        running = tasks.create_task(agent.run(lambda: None))
        await agent.ready.wait()
        async with serving_node(service, "127.0.0.1:0", None, "listen.address") as server:
            address = server.addresses["listen.address"]
            async with open_channel(address) as channel:
                yield LiveNode(address, channel, devices, agent, service, keeper)
        agent.stop()
        await running
    assert all([rounds.stop(DEADLINE_S), *(worker.stop(DEADLINE_S) for worker in workers)])
