"""NodeService over real gRPC on loopback: greeting, grants, reports, and every way in which a stream ends."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rapid.core.cluster import GrantAnswer, Greeting
from rapid.core.errors import DeviceLost
from rapid.core.guard import GuardMemory
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_description, encode_greeting
from tests.node.caller import DEADLINE_S, LONG_S, end_of, grants, next_report, renewal, report_with
from tests.node.live import LiveNode, live_node
from tests.node.rig import FALLBACK_MW, GPUS
from tests.wait import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def node() -> AsyncIterator[LiveNode]:
    async with live_node() as node:
        yield node


async def test_describe_tells_the_inventory(node: LiveNode) -> None:
    described = decode_description(
        await node_pb2_grpc.NodeServiceStub(node.channel).Describe(node_pb2.DescribeRequest(), timeout=DEADLINE_S)
    )
    assert (described.node, described.version, described.incarnation) == ("node-1", "1.2.3", "1-life")
    assert [(gpu.gpu, gpu.fallback_mw) for gpu in described.gpus] == [(gpu, FALLBACK_MW) for gpu in GPUS]


async def test_the_first_report_comes_at_once_and_shows_the_fallback(node: LiveNode) -> None:
    report = await next_report(await node.greeted())
    assert (report.node, report.incarnation, report.mark.epoch) == ("node-1", "1-life", 1)
    assert [gpu.limit_mw for gpu in report.gpus] == [FALLBACK_MW, FALLBACK_MW]
    assert all(gpu.void for gpu in report.gpus)


async def test_a_grant_is_set_read_back_and_answered_long_before_the_next_interval(node: LiveNode) -> None:
    call = await node.greeted(interval_s=LONG_S)
    await next_report(call)
    await call.write(grants(1, 600_000))
    report = await report_with(call, 600_000)
    assert report.mark.seq == 1
    assert 4.0 < report.lease_left_s <= 5.0
    answers = list(report.answers)
    while len(answers) < len(GPUS):
        answers += (await next_report(call)).answers
    assert sorted((answer.gpu, answer.verdict) for answer in answers) == [(gpu, "applied") for gpu in GPUS]
    await node.holds(600_000)


async def test_reports_come_at_the_interval_asked_for(node: LiveNode) -> None:
    call = await node.greeted(interval_s=0.1)
    times_s = [(await next_report(call)).node_time_s for _ in range(8)]  # some of the first come at once, with news
    assert times_s[-1] - times_s[-4] >= 0.29


async def test_the_end_of_a_lease_lands_the_node_and_is_reported(node: LiveNode) -> None:
    call = await node.greeted()
    await call.write(grants(1, 600_000, lease_s=0.3))
    await report_with(call, 600_000)
    report = await report_with(call, FALLBACK_MW)
    assert report.lease_left_s == 0
    assert all(gpu.void for gpu in report.gpus)


async def test_a_renewal_holds_the_grant_longer(node: LiveNode) -> None:
    call = await node.greeted(interval_s=0.1)
    await call.write(grants(1, 600_000, lease_s=1.0))
    await call.write(renewal(lease_s=30.0))
    report = await report_with(call, 600_000)
    while report.lease_left_s < 20.0:
        report = await next_report(call)
    await node.holds(600_000)


async def test_a_doubled_batch_is_refused_and_changes_nothing(node: LiveNode) -> None:
    call = await node.greeted()
    batch = grants(1, 600_000)
    await call.write(batch)
    await report_with(call, 600_000)
    await call.write(batch)
    refused: list[GrantAnswer] = []
    while not refused:
        refused = [answer for answer in (await next_report(call)).answers if answer.verdict == "refused"]
    assert "seq 1 is not above seq 1" in refused[0].detail
    await node.holds(600_000)


# ---- ways to begin wrong ----


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (grants(1, 600_000), "message field greeting: missing; the first message of a stream is grants"),
        (node_pb2.EnforceRequest(), "message field body: missing; one of greeting, grants and renewal"),
        (encode_greeting(Greeting(0, "x"), report_interval_s=1.0), "message field greeting.epoch: 0 is outside"),
        (encode_greeting(Greeting(1, ""), report_interval_s=1.0), "message field greeting.controller_id: missing"),
        (
            encode_greeting(Greeting(1, "x"), report_interval_s=0.05),
            "message field greeting.report_interval_s: 0.05 s is outside 0.1..10 s",
        ),
    ],
)
async def test_a_stream_begins_with_a_valid_greeting(
    node: LiveNode, request_: node_pb2.EnforceRequest, text: str
) -> None:
    call = node.call()
    await call.write(request_)
    code, details = await end_of(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(text)
    assert node.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_a_stream_that_ends_before_its_greeting_is_told_so(node: LiveNode) -> None:
    call = node.call()
    await call.done_writing()
    assert await end_of(call) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "message field greeting: missing; the stream ended before it",
    )


async def test_an_invalid_message_ends_the_stream_and_names_the_field(node: LiveNode) -> None:
    call = await node.greeted()
    wrong = grants(1, 600_000)
    wrong.grants.grants[1].limit_mw = 0
    await call.write(wrong)
    code, details = await end_of(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("message field grants.grants[1].limit_mw: 0 mW is outside")
    assert node.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_a_second_greeting_ends_the_stream(node: LiveNode) -> None:
    call = await node.greeted()
    await call.write(encode_greeting(Greeting(1, "controller-a"), report_interval_s=1.0))
    assert await end_of(call) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "message field greeting: only the first message of a stream may be one",
    )


# ---- who leads ----


async def test_a_lower_epoch_is_refused_with_the_epoch_seen() -> None:
    async with live_node(GuardMemory(7, "controller-b")) as node:
        assert await end_of(await node.greeted(epoch=6)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "node node-1: epoch 6 is lower than epoch 7, which it has seen",
        )


async def test_a_second_controller_in_the_same_epoch_is_refused_and_the_first_goes_on(node: LiveNode) -> None:
    first = await node.greeted()
    await next_report(first)
    assert await end_of(await node.greeted(controller_id="controller-b")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "node node-1: epoch 1 belongs to controller controller-a, not to controller-b",
    )
    await first.write(grants(1, 600_000))
    await report_with(first, 600_000)


async def test_a_newer_stream_of_the_same_controller_ends_the_older(node: LiveNode) -> None:
    older = await node.greeted()
    await next_report(older)
    newer = await node.greeted()
    await next_report(newer)
    assert await end_of(older) == (
        grpc.StatusCode.ABORTED,
        "node node-1: a newer stream of controller controller-a took over",
    )
    await newer.write(grants(1, 600_000))
    await report_with(newer, 600_000)


async def test_a_new_controller_life_ends_the_stream_of_the_old_one(node: LiveNode) -> None:
    old = await node.greeted(epoch=1)
    await next_report(old)
    new = await node.greeted(epoch=2, controller_id="controller-b")
    await next_report(new)
    assert await end_of(old) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "node node-1: epoch 1 is lower than epoch 2, which it has seen",
    )


async def test_a_full_disk_refuses_the_greeting_and_no_limit_rises(node: LiveNode) -> None:
    node.memory.error = OSError(errno.ENOSPC, "No space left on device")
    call = await node.greeted(then=[grants(1, 600_000)])
    code, details = await end_of(call)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "epoch 1 is not taken" in details
    assert "No space left on device" in details
    assert node.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_what_is_no_message_is_refused_as_the_callers_fault_and_the_next_call_is_answered(node: LiveNode) -> None:
    describe: Any = node.channel.unary_unary("/rapid.v1.NodeService/Describe", request_serializer=bytes)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await describe(b"\xff", timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "what came is no message of this call"
    assert node_pb2.DescribeResponse.FromString(await describe(b"", timeout=DEADLINE_S)).node == "node-1"


# ---- ways to end ----


async def test_a_stream_ends_in_order_when_the_controller_has_no_more_to_say(node: LiveNode) -> None:
    call = await node.greeted()
    await next_report(call)
    await call.done_writing()
    code, _ = await end_of(call)
    assert code is grpc.StatusCode.OK
    await wait_until(lambda: node.agent.snapshot.streams == 0, DEADLINE_S, "no stream left")


async def test_a_controller_that_vanishes_leaves_a_node_that_lands(node: LiveNode) -> None:
    call = await node.greeted(interval_s=0.1)
    await call.write(grants(1, 600_000, lease_s=0.5))
    await report_with(call, 600_000)
    call.cancel()
    await wait_until(lambda: node.limits_mw() == (FALLBACK_MW, FALLBACK_MW), DEADLINE_S, "landed")


async def test_a_stopping_daemon_ends_the_stream_and_takes_no_other(node: LiveNode) -> None:
    call = await node.greeted()
    await next_report(call)
    node.service.stop()
    stopped = (grpc.StatusCode.UNAVAILABLE, "node node-1: the daemon stops")
    assert await end_of(call) == stopped
    assert await end_of(await node.greeted()) == stopped


async def test_a_reader_that_is_slow_finds_the_newest_and_no_queue(node: LiveNode) -> None:
    call = await node.greeted(interval_s=LONG_S)
    await next_report(call)
    for seq in range(1, 2001):
        await call.write(grants(seq, 500_000 + seq, lease_s=60.0))
    await wait_until(lambda: node.limits_mw() == (502_000, 502_000), DEADLINE_S, "all grants taken")
    # Every grant asked for a report or three; what nobody reads fills gRPC's window, and then no more are made.
    assert node.agent.snapshot.reports_sent < 500
    assert (await report_with(call, 502_000)).mark.seq == 2000


async def test_a_lost_gpu_is_in_the_next_report_and_the_other_goes_on(node: LiveNode) -> None:
    call = await node.greeted(interval_s=0.1)
    node.devices[0].error = DeviceLost(GPUS[0], "has fallen off the bus")
    report = await next_report(call)
    while report.gpus[0].problem == "":
        report = await next_report(call)
    assert report.gpus[0].problem == "gpu GPU-a: has fallen off the bus"
    await call.write(grants(1, 600_000))
    await wait_until(lambda: node.devices[1].limit_mw == 600_000, DEADLINE_S, "the healthy one")
    assert node.devices[0].limit_mw == FALLBACK_MW


async def test_reflection_names_the_services(node: LiveNode) -> None:
    connect: Any = reflection_pb2_grpc.ServerReflectionStub  # its annotations know synchronous channels only
    call = connect(node.channel).ServerReflectionInfo(timeout=DEADLINE_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    services = {service.name for service in (await call.read()).list_services_response.service}
    assert {"rapid.v1.NodeService", "grpc.health.v1.Health"} <= services
    # What engines may call is served on their socket alone, and what a controller may call is not served there.
    assert "rapid.v1.LoadService" not in services
    await call.done_writing()


async def test_health_says_not_serving_until_told_otherwise(node: LiveNode) -> None:
    checker: Any = health_pb2_grpc.HealthStub(node.channel)
    answer = await checker.Check(health_pb2.HealthCheckRequest(service="rapid.v1.NodeService"), timeout=DEADLINE_S)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_many_streams_at_once_leave_one(node: LiveNode) -> None:
    calls = await asyncio.gather(*(node.greeted() for _ in range(20)))
    async with asyncio.TaskGroup() as tasks:
        ends = [tasks.create_task(end_of(call)) for call in calls]
        await wait_until(lambda: sum(call.done() for call in calls) == 19, DEADLINE_S, "all but one ended")
        await next(call for call in calls if not call.done()).done_writing()
    assert sorted(end.result()[0].name for end in ends) == ["ABORTED"] * 19 + ["OK"]
