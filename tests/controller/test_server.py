"""What an operator asks goes through the loop and comes back answered; a refusal keeps its class and its words."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rapid.core.cluster import Decision, Role
from rapid.core.commands import Announce, Answer, Command, Notice
from rapid.core.errors import BudgetRefused, NotFound, RapidError, Refused, RoleRefused, Unreachable, WireInvalid
from rapid.core.events import BudgetAsked, Event, PauseAsked, ReleaseAsked, RoleAsked, Ticked
from rapid.rpc import open_channel, start_server
from rapid.v1 import controller_pb2 as v1
from rapid.v1 import controller_pb2_grpc, types_pb2
from rapid.wire.errors import error_of
from rapid.wire.operator import decode_decisions, decode_plan
from rapid.wire.status import decode_status
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.server import ControllerService
from tests.controller.fakes import HandClock
from tests.controller.stack import WITHIN_S, Stack, operator_stub
from tests.wait import wait_until

Asked = BudgetAsked | RoleAsked | PauseAsked | ReleaseAsked


def answering(event: Event) -> list[Command]:
    if not isinstance(event, Asked):
        return []
    return [Notice("info", "x", "first"), Answer(event.request, f"{type(event).__name__} by {event.by}")]


def refusing(kind: str) -> Callable[[Event], list[Command]]:
    def script(event: Event) -> list[Command]:
        return [Answer(event.request, "", "because", kind)] if isinstance(event, Asked) else []

    return script


REQUESTS: dict[str, tuple[Any, Event]] = {
    "SetBudget": (
        v1.SetBudgetRequest(domain="host", budget_mw=5, force=True, by="me"),
        BudgetAsked(100.0, "?", "host", 5, True, "me"),
    ),
    "SetRole": (
        v1.SetRoleRequest(instance="e1", role=types_pb2.ROLE_DECODE, by="me"),
        RoleAsked(100.0, "?", "e1", Role.DECODE, "me"),
    ),
    "Pause": (v1.PauseRequest(by="me"), PauseAsked(100.0, "?", True, "me")),
    "Resume": (v1.ResumeRequest(by="me"), PauseAsked(100.0, "?", False, "me")),
    "ReleaseNode": (v1.ReleaseNodeRequest(node="n1", by="me"), ReleaseAsked(100.0, "?", "n1", "me")),
}


async def call(channel: grpc.aio.Channel, name: str, request: Any) -> Any:
    return await getattr(operator_stub(channel), name)(request, timeout=WITHIN_S)


async def failure(channel: grpc.aio.Channel, name: str, request: Any) -> tuple[grpc.StatusCode, RapidError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, name, request)
    return caught.value.code(), error_of(caught.value, address="controller")


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_becomes_an_event_and_its_answer_the_response(name: str) -> None:
    request, event = REQUESTS[name]
    stack = Stack(answering)
    async with stack.serving() as channel:
        response = await call(channel, name, request)
        assert response.text == f"{type(event).__name__} by me"
        (taken,) = stack.of(type(event))
        assert isinstance(taken, Asked)
        assert taken.request
        assert repr(taken) == repr(event).replace("'?'", repr(taken.request))


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        ("BudgetRefused", grpc.StatusCode.FAILED_PRECONDITION, BudgetRefused),
        ("RoleRefused", grpc.StatusCode.FAILED_PRECONDITION, RoleRefused),
        ("NotFound", grpc.StatusCode.NOT_FOUND, NotFound),
        ("Refused", grpc.StatusCode.FAILED_PRECONDITION, Refused),
    ],
)
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_refusal_keeps_its_class_and_its_words(
    name: str, kind: str, code: grpc.StatusCode, error: type[RapidError]
) -> None:
    async with Stack(refusing(kind)).serving() as channel:
        got_code, got = await failure(channel, name, REQUESTS[name][0])
        assert (got_code, type(got), str(got)) == (code, error, "because")


async def test_a_request_that_makes_no_sense_never_reaches_the_core() -> None:
    stack = Stack(answering)
    async with stack.serving() as channel:
        for name, request in [
            ("SetBudget", v1.SetBudgetRequest(domain="host")),
            ("SetRole", v1.SetRoleRequest(role=types_pb2.ROLE_DECODE)),
            ("ReleaseNode", v1.ReleaseNodeRequest()),
            ("ListDecisions", v1.ListDecisionsRequest(limit=10_001)),
        ]:
            code, error = await failure(channel, name, request)
            assert (code, type(error)) == (grpc.StatusCode.INVALID_ARGUMENT, WireInvalid)
        assert len(stack.brain.events) == 1, "only Started"


async def test_when_the_controller_stops_nobody_waits_for_an_answer() -> None:
    stack = Stack(answering)
    async with stack.serving() as channel:
        stack.inbox.close()
        code, error = await failure(channel, "Pause", v1.PauseRequest())
        assert (code, type(error)) == (grpc.StatusCode.UNAVAILABLE, Unreachable)


async def test_an_operator_does_not_wait_for_ever() -> None:
    inbox = Inbox(HandClock(), 4)  # from which nobody takes
    service = ControllerService(inbox, Stack().loop, answer_s=0.05)

    def add(server: grpc.aio.Server) -> None:
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(service, server)

    server = await start_server({"listen.address": "127.0.0.1:0"}, add, services=["rapid.v1.ControllerService"])
    async with open_channel(server.addresses["listen.address"]) as channel:
        code, error = await failure(channel, "Pause", v1.PauseRequest())
    await server.stop(0.0)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert str(error) == "the controller did not answer within 0.05 s; it may still do as asked"


async def test_the_picture_comes_once_or_again_and_again() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        once = decode_status(await call(channel, "GetStatus", v1.GetStatusRequest()))
        assert (once.at_s, once.policy) == (100.0, "uniform")
        watch: Any = operator_stub(channel).Watch(v1.WatchRequest(interval_s=0.1), timeout=WITHIN_S)
        pictures = [decode_status(await watch.read()) for _ in range(3)]
        assert pictures == [once] * 3
        assert stack.brain.pictures == 1, "nothing has happened, so it was drawn once"
        watch.cancel()


async def test_a_watch_ends_with_a_reason_when_the_controller_stops() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        watch: Any = operator_stub(channel).Watch(v1.WatchRequest(interval_s=60.0), timeout=WITHIN_S)
        await watch.read()
        stack.service.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the controller stops; watch again when it is back"


async def test_watching_too_often_is_refused() -> None:
    async with Stack().serving() as channel:
        watch: Any = operator_stub(channel).Watch(v1.WatchRequest(interval_s=0.01), timeout=WITHIN_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_decisions_are_listed_newest_first() -> None:
    def script(event: Event) -> list[Command]:
        if not isinstance(event, Ticked):
            return []
        return [
            Announce(Decision(f"d{n}", event.at_s, 1.0, "rapid", "why", (), (("g1", "a", "b"),))) for n in (1, 2, 3)
        ]

    stack = Stack(script)
    async with stack.serving() as channel:
        stack.inbox.put_tick()
        await wait_until(lambda: stack.of(Ticked), WITHIN_S, "the tick")
        for request, ids in [
            (v1.ListDecisionsRequest(), ["d3", "d2", "d1"]),
            (v1.ListDecisionsRequest(limit=2), ["d3", "d2"]),
            (v1.ListDecisionsRequest(about="d1"), ["d1"]),
            (v1.ListDecisionsRequest(about="g2"), []),
        ]:
            found = decode_decisions(await call(channel, "ListDecisions", request))
            assert [decision.id for decision in found] == ids


async def test_a_plan_is_told() -> None:
    stack = Stack()
    async with stack.serving() as channel:
        assert decode_plan(await call(channel, "Plan", v1.PlanRequest())) == stack.brain.plan()


async def test_health_is_told_per_service() -> None:
    async with Stack().serving() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="rapid.v1.ControllerService")
        answer = await stub.Check(request, timeout=WITHIN_S)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING, "until the process says so"
