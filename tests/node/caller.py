"""What a controller says to a node, and how a test hears the answer."""

import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from rapid.core.cluster import GrantBatch, Greeting, Mark, NodeReport, Renewal
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_report, encode_grants, encode_greeting, encode_renewal
from tests.node.rig import CONTROLLER, GPUS, INCARNATION

NODE = "node-1"
DEADLINE_S = 20.0  # no test waits this long unless it fails
LONG_S = 10.0  # a report interval that no test waits for

Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


def enforce(channel: grpc.aio.Channel) -> Call:
    stub: Any = node_pb2_grpc.NodeServiceStub(channel)
    call: Call = stub.Enforce(timeout=DEADLINE_S)
    return call


async def greet(
    channel: grpc.aio.Channel,
    epoch: int = 1,
    controller_id: str = CONTROLLER,
    interval_s: float = LONG_S,
    then: Sequence[node_pb2.EnforceRequest] = (),
) -> Call:
    """A stream that has been greeted, and told what comes `then`; its first report is still to be read."""
    greeting = encode_greeting(Greeting(epoch, controller_id), report_interval_s=interval_s)
    for _ in range(5):
        call = enforce(channel)
        try:
            for request in (greeting, *then):
                await call.write(request)
        except grpc.aio.AioRpcError as failure:
            # A refusal that overtakes the write is lost in gRPC, which then says only that the write failed; a
            # controller dials again, and so do we.
            if failure.code() is not grpc.StatusCode.INTERNAL:
                raise
            continue
        return call
    raise AssertionError("five greetings in a row were overtaken by their refusals")


def grants(
    seq: int,
    limit_mw: int,
    *,
    lease_s: float = 5.0,
    epoch: int = 1,
    incarnation: str = INCARNATION,
    gpus: Sequence[str] = GPUS,
) -> node_pb2.EnforceRequest:
    """The same limit for every GPU, from now on; node and test share one clock."""
    limits_mw = tuple((gpu, limit_mw) for gpu in gpus)
    until_s = time.monotonic() + lease_s
    return encode_grants(GrantBatch(NODE, incarnation, CONTROLLER, Mark(epoch, seq), until_s, limits_mw))


def renewal(*, lease_s: float = 5.0, epoch: int = 1, incarnation: str = INCARNATION) -> node_pb2.EnforceRequest:
    return encode_renewal(Renewal(NODE, incarnation, CONTROLLER, epoch, time.monotonic() + lease_s))


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
