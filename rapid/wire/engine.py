"""EngineControl: hellos, progress and loads up; role orders down."""

from dataclasses import dataclass

from rapid.core.cluster import EngineHello, PhaseLoad, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.errors import WireInvalid
from rapid.v1 import engine_pb2
from rapid.wire import fields
from rapid.wire.common import (
    ENGINE_PHASES,
    PHASE_VALUES,
    ROLE_VALUES,
    ROLES,
    decode_load,
    decode_mark,
    encode_load,
    encode_mark,
    encode_role,
)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """A load as its engine sent it, and the engine's own time of sending."""

    engine_time_s: float
    load: PhaseLoad


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last word of an engine that stops in order."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The controller's first word; load_interval_s is how often it wants a load (zero: never, rapidd reports it)."""

    epoch: int
    load_interval_s: float


Said = EngineHello | RoleProgress | EngineLoad | Goodbye
Told = Welcome | OrderRole | CancelRole


# ---- from the engine to the controller ----


def encode_hello(hello: EngineHello) -> engine_pb2.AttachRequest:
    return engine_pb2.AttachRequest(
        hello=engine_pb2.EngineHello(
            instance=hello.instance,
            incarnation=hello.incarnation,
            node=hello.node,
            gpus=hello.gpus,
            role=ROLE_VALUES[hello.role],
            roles=[ROLE_VALUES[role] for role in hello.roles],
            phase=PHASE_VALUES[hello.phase],
            mark=encode_mark(hello.mark),
            engine_time_s=hello.engine_time_s,
            switch_s=hello.switch_s,
            engine=fields.line(hello.engine),
            from_role=encode_role(hello.from_role),
            to_role=encode_role(hello.to_role),
            parks=hello.parks,
            reads_role=hello.reads_role,
        )
    )


def encode_progress(progress: RoleProgress) -> engine_pb2.AttachRequest:
    """Instance and incarnation are not sent: the hello of the stream has said them."""
    return engine_pb2.AttachRequest(
        progress=engine_pb2.RoleProgress(
            mark=encode_mark(progress.mark),
            phase=PHASE_VALUES[progress.phase],
            role=ROLE_VALUES[progress.role],
            requests_left=progress.requests_left,
            error=fields.line(progress.error),
            noticed=fields.line(progress.noticed),
        )
    )


def encode_engine_load(load: EngineLoad) -> engine_pb2.AttachRequest:
    return engine_pb2.AttachRequest(
        load=engine_pb2.EngineLoad(engine_time_s=load.engine_time_s, load=encode_load(load.load))
    )


def encode_goodbye(goodbye: Goodbye) -> engine_pb2.AttachRequest:
    return engine_pb2.AttachRequest(goodbye=engine_pb2.Goodbye(reason=fields.line(goodbye.reason)))


def decode_attach(message: engine_pb2.AttachRequest, *, hello: EngineHello | None) -> Said:
    """What an engine says. `hello` is None for the first request of a stream, which must be one, and no other may be.

    Raises WireInvalid, also for the load of another instance than the one that said hello.
    """
    body = message.WhichOneof("body")
    if hello is None:
        if body != "hello":
            raise WireInvalid("hello", f"missing; the first request of a stream must be a hello, not {body or 'empty'}")
        return fields.inner(message.hello, "hello", _hello)
    match body:
        case "progress":
            return fields.inner(message.progress, "progress", lambda progress: _progress(progress, hello))
        case "load":
            return fields.inner(message.load, "load", lambda load: _engine_load(load, hello))
        case "goodbye":
            return Goodbye(reason=fields.text(message.goodbye.reason, "goodbye.reason"))
        case "hello":
            raise WireInvalid("hello", "comes twice; only the first request of a stream may be a hello")
        case _:
            raise WireInvalid("body", "missing; one of progress, load and goodbye")


def _hello(message: engine_pb2.EngineHello) -> EngineHello:
    fields.present(message, "mark")
    gpus = _names(message)
    role = fields.choice(message.role, "role", ROLES)
    fields.size(message.roles, "roles", len(ROLES), 1)
    roles = tuple(fields.choice(value, "roles", ROLES) for value in message.roles)
    fields.distinct([each.value for each in roles], "roles")
    if role not in roles:
        raise WireInvalid("roles", f"does not hold {role.value}, the role served now")
    return EngineHello(
        instance=fields.name(message.instance, "instance"),
        incarnation=fields.name(message.incarnation, "incarnation"),
        node=fields.name(message.node, "node"),
        gpus=gpus,
        role=role,
        roles=roles,
        phase=fields.choice(message.phase, "phase", ENGINE_PHASES),
        mark=fields.inner(message.mark, "mark", decode_mark),
        engine_time_s=fields.seconds(message.engine_time_s, "engine_time_s"),
        switch_s=fields.seconds(message.switch_s, "switch_s"),
        engine=fields.text(message.engine, "engine"),
        from_role=fields.choice(message.from_role, "from_role", ROLES) if message.from_role else None,
        to_role=fields.choice(message.to_role, "to_role", ROLES) if message.to_role else None,
        parks=message.parks,
        reads_role=message.reads_role,
    )


def _names(message: engine_pb2.EngineHello) -> tuple[str, ...]:
    fields.size(message.gpus, "gpus", fields.GPUS_MAX, 1)
    gpus = tuple(fields.name(gpu, "gpus") for gpu in message.gpus)
    fields.distinct(gpus, "gpus")
    return gpus


def _progress(message: engine_pb2.RoleProgress, hello: EngineHello) -> RoleProgress:
    fields.present(message, "mark")
    return RoleProgress(
        instance=hello.instance,
        incarnation=hello.incarnation,
        mark=fields.inner(message.mark, "mark", decode_mark),
        phase=fields.choice(message.phase, "phase", ENGINE_PHASES),
        role=fields.choice(message.role, "role", ROLES),
        requests_left=message.requests_left,
        error=fields.text(message.error, "error"),
        noticed=fields.text(message.noticed, "noticed"),
    )


def _engine_load(message: engine_pb2.EngineLoad, hello: EngineHello) -> EngineLoad:
    fields.present(message, "load")
    load = fields.inner(message.load, "load", decode_load)
    if load.instance != hello.instance:
        raise WireInvalid("load.instance", f"{load.instance!r} is not {hello.instance!r}, which said hello")
    return EngineLoad(engine_time_s=fields.seconds(message.engine_time_s, "engine_time_s"), load=load)


# ---- from the controller to the engine ----


def encode_welcome(welcome: Welcome) -> engine_pb2.AttachResponse:
    return engine_pb2.AttachResponse(
        welcome=engine_pb2.Welcome(epoch=welcome.epoch, load_interval_s=welcome.load_interval_s)
    )


def encode_order(order: OrderRole) -> engine_pb2.AttachResponse:
    """The instance is not sent: the stream leads to it."""
    return engine_pb2.AttachResponse(
        order=engine_pb2.RoleOrder(
            incarnation=order.incarnation,
            mark=encode_mark(order.mark),
            role=ROLE_VALUES[order.role],
            drain_s=order.drain_s,
            not_after_s=order.not_after_s,
            quiet_s=order.quiet_s,
            park=order.park,
        )
    )


def encode_cancel(cancel: CancelRole) -> engine_pb2.AttachResponse:
    """The instance is not sent: the stream leads to it."""
    return engine_pb2.AttachResponse(
        cancel=engine_pb2.RoleCancel(incarnation=cancel.incarnation, mark=encode_mark(cancel.mark))
    )


def decode_told(message: engine_pb2.AttachResponse, *, instance: str) -> Told:
    """What the controller tells `instance`. Raises WireInvalid."""
    match message.WhichOneof("body"):
        case "welcome":
            return fields.inner(message.welcome, "welcome", _welcome)
        case "order":
            return fields.inner(message.order, "order", lambda order: _order(order, instance))
        case "cancel":
            return fields.inner(message.cancel, "cancel", lambda cancel: _cancel(cancel, instance))
        case _:
            raise WireInvalid("body", "missing; one of welcome, order and cancel")


def _welcome(message: engine_pb2.Welcome) -> Welcome:
    return Welcome(
        epoch=fields.count(message.epoch, "epoch", 1),
        load_interval_s=fields.seconds(message.load_interval_s, "load_interval_s"),
    )


def _order(message: engine_pb2.RoleOrder, instance: str) -> OrderRole:
    fields.present(message, "mark")
    return OrderRole(
        instance=instance,
        incarnation=fields.name(message.incarnation, "incarnation"),
        mark=fields.inner(message.mark, "mark", decode_mark),
        role=fields.choice(message.role, "role", ROLES),
        drain_s=fields.seconds(message.drain_s, "drain_s"),
        not_after_s=fields.seconds(message.not_after_s, "not_after_s"),
        quiet_s=fields.seconds(message.quiet_s, "quiet_s"),
        park=message.park,
    )


def _cancel(message: engine_pb2.RoleCancel, instance: str) -> CancelRole:
    fields.present(message, "mark")
    return CancelRole(
        instance=instance,
        incarnation=fields.name(message.incarnation, "incarnation"),
        mark=fields.inner(message.mark, "mark", decode_mark),
    )
