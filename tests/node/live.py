"""A node in this process: real workers, agent and gRPC on loopback, around devices that live in memory."""

import time
from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import structlog

from rapid.core.cluster import GrantBatch, Greeting, Mark, NodeReport, Renewal
from rapid.core.errors import DeviceError
from rapid.core.guard import Guard, GuardedGpu, GuardMemory
from rapid.rpc import open_channel
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import (
    GpuDescription,
    NodeDescription,
    decode_report,
    encode_grants,
    encode_greeting,
    encode_renewal,
)
from rapidd.agent import Agent, first_limits
from rapidd.device.base import DeviceInfo, LimitReading, PowerReading
from rapidd.inbox import Inbox
from rapidd.load.push import LoadTable
from rapidd.server import NodeService, serving_node
from rapidd.talk import Talk
from rapidd.worker import Worker
from tests.node.rig import CEILING_MW, CONTROLLER, FALLBACK_MW, FLOOR_MW, GPUS, INCARNATION, ScriptedMemory

NODE = "node-1"
DEADLINE_S = 20.0  # no test waits this long unless it fails
LONG_S = 10.0  # a report interval that no test waits for

Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


class MemoryDevice:
    """A GPU that does what it is told at once; obeys `Device`."""

    def __init__(self, index: int) -> None:
        self.info = DeviceInfo(GPUS[index], index, "memory", "1", FLOOR_MW, CEILING_MW)
        self.limit_mw = CEILING_MW
        self.error: DeviceError | None = None

    def set_limit(self, limit_mw: int) -> None:
        self._answer()
        self.info.check_range(limit_mw)
        self.limit_mw = limit_mw

    def read_limit(self) -> LimitReading:
        self._answer()
        return LimitReading(self.limit_mw, self.limit_mw)

    def read_power(self) -> PowerReading:
        self._answer()
        return PowerReading(min(150_000, self.limit_mw), 1)

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
        stub: Any = node_pb2_grpc.NodeServiceStub(self.channel)
        call: Call = stub.Enforce(timeout=DEADLINE_S)
        return call

    async def greeted(self, epoch: int = 1, controller_id: str = CONTROLLER, interval_s: float = LONG_S) -> Call:
        """A stream that has been greeted; its first report is still to be read."""
        call = self.call()
        await call.write(encode_greeting(Greeting(epoch, controller_id), report_interval_s=interval_s))
        return call

    def limits_mw(self) -> tuple[int, ...]:
        return tuple(device.limit_mw for device in self.devices)


@asynccontextmanager
async def live_node(memory: GuardMemory | None = None) -> AsyncIterator[LiveNode]:
    """Two GPUs, every one landed before this begins; the node is stopped in order at the end."""
    devices = [MemoryDevice(index) for index in range(len(GPUS))]
    inbox, loads, keeper = Inbox(len(devices)), LoadTable(4), ScriptedMemory()
    workers = [Worker(device, inbox.deliver, time.monotonic) for device in devices]
    for worker in workers:
        worker.start()
    limits_mw = await first_limits(workers, inbox)
    specs = [
        GuardedGpu(gpu, index, FLOOR_MW, CEILING_MW, FALLBACK_MW, limits_mw[gpu]) for index, gpu in enumerate(GPUS)
    ]
    guard = Guard(node=NODE, incarnation="life", gpus=specs, memory=memory or GuardMemory())
    log = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[])
    agent = Agent(
        guard,
        workers,
        inbox,
        loads=loads,
        memory=keeper,
        talk=Talk(log, time.monotonic),
        clock=time.monotonic,
        sample_interval_s=0.1,
    )
    gpus = tuple(GpuDescription(gpu, i, "memory", "1", FLOOR_MW, CEILING_MW, FALLBACK_MW) for i, gpu in enumerate(GPUS))
    service = NodeService(agent, NodeDescription(NODE, "1.2.3", "memory", guard.incarnation, None, gpus), log)
    async with TaskGroup() as tasks:
        running = tasks.create_task(agent.run(lambda: None))
        await agent.ready.wait()
        async with serving_node(service, "127.0.0.1:0", None, "listen.address") as server:
            address = server.addresses["listen.address"]
            async with open_channel(address) as channel:
                yield LiveNode(address, channel, devices, agent, service, keeper)
        agent.stop()
        await running
    for worker in workers:
        assert worker.stop(DEADLINE_S)


def grants(seq: int, limit_mw: int, *, lease_s: float = 5.0, epoch: int = 1) -> node_pb2.EnforceRequest:
    """The same limit for every GPU, from now on; node and test share one clock."""
    limits_mw = tuple((gpu, limit_mw) for gpu in GPUS)
    until_s = time.monotonic() + lease_s
    return encode_grants(GrantBatch(NODE, INCARNATION, CONTROLLER, Mark(epoch, seq), until_s, limits_mw))


def renewal(*, lease_s: float = 5.0, epoch: int = 1) -> node_pb2.EnforceRequest:
    return encode_renewal(Renewal(NODE, INCARNATION, CONTROLLER, epoch, time.monotonic() + lease_s))


async def next_report(call: Call) -> NodeReport:
    response = await call.read()
    assert isinstance(response, node_pb2.EnforceResponse), (
        f"the stream ended: {await call.code()} {await call.details()}"
    )
    return decode_report(response)


async def report_with(call: Call, limit_mw: int) -> NodeReport:
    """The first report that shows this limit on every GPU, and nothing outstanding."""
    while True:
        report = await next_report(call)
        if all(gpu.limit_mw == limit_mw for gpu in report.gpus):
            return report


async def end_of(call: Call) -> tuple[grpc.StatusCode, str]:
    """How the stream ends, after whatever reports are still under way."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass  # The same as what code() and details() tell.
    return await call.code(), await call.details()
