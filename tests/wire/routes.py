"""Every way over the wire: the message type, how a noun becomes one, and how it comes back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from rapid.core.cluster import EngineHello, Role
from rapid.v1 import controller_pb2, engine_pb2, load_pb2, node_pb2
from rapid.wire import common, engine, node, operator, schedule, status
from tests.wire import nouns

HELLO = EngineHello("i1", "life", "h1", ("GPU-1",), Role.PREFILL, (Role.PREFILL,))


@dataclass(frozen=True)
class Route:
    """`decode` undoes `encode`; what the stream itself knows comes from the noun, or from HELLO for a stray message."""

    name: str
    nouns: st.SearchStrategy[Any]
    message: type[Message]
    encode: Callable[[Any], Message]
    decode: Callable[[Any, Any], Any]  # (message, noun or None)


def _hello_of(noun: Any) -> EngineHello:
    """A hello with the identity that this noun takes from its stream."""
    if noun is None or isinstance(noun, engine.Goodbye):
        return HELLO
    instance = noun.load.instance if isinstance(noun, engine.EngineLoad) else noun.instance
    incarnation = getattr(noun, "incarnation", "life")
    return EngineHello(instance, incarnation, "h1", ("GPU-1",), Role.PREFILL, (Role.PREFILL,))


def _enforce(message: Any, noun: Any) -> Any:
    return node.decode_enforce(message, node=getattr(noun, "node", "h1"))


def _attach(message: Any, noun: Any) -> Any:
    return engine.decode_attach(message, hello=_hello_of(noun))


def _told(message: Any, noun: Any) -> Any:
    return engine.decode_told(message, instance=getattr(noun, "instance", "i1"))


REQUEST = node_pb2.EnforceRequest
ATTACH = engine_pb2.AttachRequest
TOLD = engine_pb2.AttachResponse

ROUTES = [
    Route(
        "greeting",
        st.builds(node.Greeted, nouns.greetings, st.floats(*node.REPORT_INTERVAL_S)),
        REQUEST,
        lambda noun: node.encode_greeting(noun.greeting, report_interval_s=noun.report_interval_s),
        _enforce,
    ),
    Route("grants", nouns.batches, REQUEST, node.encode_grants, _enforce),
    Route("renewal", nouns.renewals, REQUEST, node.encode_renewal, _enforce),
    Route("report", nouns.reports, node_pb2.EnforceResponse, node.encode_report, lambda m, _: node.decode_report(m)),
    Route(
        "description",
        nouns.descriptions,
        node_pb2.DescribeResponse,
        node.encode_description,
        lambda m, _: node.decode_description(m),
    ),
    Route("push", nouns.loads, load_pb2.PushRequest, common.encode_push, lambda m, _: common.decode_push(m)),
    Route("hello", nouns.hellos(), ATTACH, engine.encode_hello, lambda m, _: engine.decode_attach(m, hello=None)),
    Route("progress", nouns.progresses, ATTACH, engine.encode_progress, _attach),
    Route("engine load", nouns.engine_loads, ATTACH, engine.encode_engine_load, _attach),
    Route("goodbye", nouns.goodbyes, ATTACH, engine.encode_goodbye, _attach),
    Route("welcome", nouns.welcomes, TOLD, engine.encode_welcome, _told),
    Route("order", nouns.orders, TOLD, engine.encode_order, _told),
    Route("cancel", nouns.cancels, TOLD, engine.encode_cancel, _told),
    Route(
        "decisions",
        st.lists(nouns.decisions, max_size=3).map(tuple),
        controller_pb2.ListDecisionsResponse,
        operator.encode_decisions,
        lambda m, _: operator.decode_decisions(m),
    ),
    Route(
        "plan",
        nouns.decisions,
        controller_pb2.PlanResponse,
        operator.encode_plan,
        lambda m, _: operator.decode_plan(m),
    ),
    Route(
        "schedules",
        nouns.schedules,
        controller_pb2.ListSchedulesResponse,
        schedule.encode_schedules,
        lambda m, _: schedule.decode_schedules(m),
    ),
    Route(
        "status",
        nouns.statuses,
        controller_pb2.GetStatusResponse,
        lambda noun: controller_pb2.GetStatusResponse(status=status.encode_status(noun)),
        lambda m, _: status.decode_status(m),
    ),
    Route(
        "look",
        nouns.looks,
        controller_pb2.GetStatusResponse,
        lambda noun: controller_pb2.GetStatusResponse(
            status=status.encode_status(noun.status), version=noun.version, wall_s=noun.wall_s
        ),
        lambda m, _: status.decode_look(m),
    ),
]

# What an operator asks goes one way only: the client fills the message in, the server decodes it.
ASKED: dict[type[Message], Callable[[Any], Any]] = {
    controller_pb2.SetBudgetRequest: lambda m: operator.decode_set_budget(m, at_s=1.0, request="r1"),
    controller_pb2.SetRoleRequest: lambda m: operator.decode_set_role(m, at_s=1.0, request="r1"),
    controller_pb2.PauseRequest: lambda m: operator.decode_pause(m, at_s=1.0, request="r1"),
    controller_pb2.ResumeRequest: lambda m: operator.decode_pause(m, at_s=1.0, request="r1"),
    controller_pb2.ReleaseNodeRequest: lambda m: operator.decode_release(m, at_s=1.0, request="r1"),
    controller_pb2.AddScheduleRequest: lambda m: schedule.decode_add_schedule(m, at_s=1.0, request="r1"),
    controller_pb2.RemoveScheduleRequest: lambda m: schedule.decode_remove_schedule(m, at_s=1.0, request="r1"),
    controller_pb2.WatchRequest: operator.decode_watch,
    controller_pb2.ListDecisionsRequest: operator.decode_list_decisions,
}
