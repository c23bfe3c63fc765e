"""A NodeService that does as the test says: reports, keeps silent, refuses, hangs up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from rapid.core.cluster import GrantBatch, NodeReport, Renewal
from rapid.rpc import Context, start_server
from rapid.tls import TlsConfig
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import Greeted, decode_enforce, encode_report

Behaviour = Callable[["FakeNode", Context], Awaitable[None]]


@dataclass
class FakeNode(node_pb2_grpc.NodeServiceServicer):
    """Greetings and orders as they came; `behaviour` runs after each greeting, until the stream ends."""

    behaviour: Behaviour
    greeted: list[Greeted] = field(default_factory=list)
    orders: list[GrantBatch | Renewal] = field(default_factory=list)
    streams: int = 0

    async def Describe(self, request: node_pb2.DescribeRequest, context: object) -> node_pb2.DescribeResponse:
        return node_pb2.DescribeResponse(node="n1")

    async def Enforce(self, requests: object, context: Context) -> None:  # type: ignore[override]
        first = await context.read()
        assert isinstance(first, node_pb2.EnforceRequest)
        greeted = decode_enforce(first, node="n1")
        assert isinstance(greeted, Greeted)
        self.greeted.append(greeted)
        self.streams += 1
        try:
            await self.behaviour(self, context)
        finally:
            self.streams -= 1

    async def send(self, context: Context, report: NodeReport) -> None:
        await context.write(encode_report(report))

    async def take_orders(self, context: Context) -> None:
        """Write down what the controller says until it hangs up."""
        while isinstance(request := await context.read(), node_pb2.EnforceRequest):
            order = decode_enforce(request, node="n1")
            assert not isinstance(order, Greeted)
            self.orders.append(order)


@asynccontextmanager
async def serving(node: FakeNode, address: str = "127.0.0.1:0", tls: TlsConfig | None = None) -> AsyncIterator[str]:
    """Serve it; yields the address."""

    def add(server: grpc.aio.Server) -> None:
        node_pb2_grpc.add_NodeServiceServicer_to_server(node, server)

    server = await start_server({"listen.address": address}, add, services=["rapid.v1.NodeService"], tls=tls)
    try:
        yield server.addresses["listen.address"]
    finally:
        await server.stop(0.0)


async def for_ever(node: FakeNode, context: Context) -> None:
    """Say nothing, and never hang up."""
    await asyncio.Event().wait()
