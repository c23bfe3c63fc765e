"""NodeService: greetings, grants and renewals down; reports up; the inventory for tools."""

from collections.abc import Mapping
from dataclasses import dataclass

from rapid.core.cluster import GpuHealth, GpuReport, GrantAnswer, GrantBatch, Greeting, NodeReport, Renewal
from rapid.core.errors import WireInvalid
from rapid.v1 import node_pb2
from rapid.wire import fields
from rapid.wire.common import decode_load, decode_mark, encode_load, encode_mark
from rapid.wire.watched import decode_gpu_watch, decode_node_watch, encode_gpu_watch, encode_node_watch

REPORT_INTERVAL_S = (0.1, 10.0)  # the least and the greatest interval that a greeting may ask for

_LINES_MAX = 64  # abilities, or warnings, of one GPU

HEALTHS: Mapping[node_pb2.GpuHealth, GpuHealth] = {
    node_pb2.GPU_HEALTH_OK: GpuHealth.OK,
    node_pb2.GPU_HEALTH_DENIED: GpuHealth.DENIED,
    node_pb2.GPU_HEALTH_LOST: GpuHealth.LOST,
    node_pb2.GPU_HEALTH_MISMATCH: GpuHealth.MISMATCH,
}
_VERDICTS: Mapping[node_pb2.Verdict, str] = {
    node_pb2.VERDICT_APPLIED: "applied",
    node_pb2.VERDICT_CLAMPED: "clamped",
    node_pb2.VERDICT_REFUSED: "refused",
    node_pb2.VERDICT_FAILED: "failed",
}
HEALTH_VALUES = {health: value for value, health in HEALTHS.items()}
_VERDICT_VALUES = {verdict: value for value, verdict in _VERDICTS.items()}


@dataclass(frozen=True, slots=True)
class Greeted:
    """A greeting, and how often its sender wants a report."""

    greeting: Greeting
    report_interval_s: float


@dataclass(frozen=True, slots=True)
class GpuDescription:
    """One GPU that the driver shows; floor and ceiling bound the limits that it accepts. `unmanageable` says why rapidd
    never sets one (empty: it does), `lacks` what the driver or GPU cannot do, `warnings` what should be put right."""

    gpu: str
    index: int
    name: str
    driver: str
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    bus: str = ""
    unmanageable: str = ""
    lacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """The inventory of a host. hard_budget_mw is the host's own bound (None: none configured), wall_s its clock when it
    answered (None: not told)."""

    node: str
    version: str
    backend: str
    incarnation: str
    hard_budget_mw: int | None
    gpus: tuple[GpuDescription, ...]
    wall_s: float | None = None


# ---- from the controller to the node ----


def encode_greeting(greeting: Greeting, *, report_interval_s: float) -> node_pb2.EnforceRequest:
    return node_pb2.EnforceRequest(
        greeting=node_pb2.Greeting(
            epoch=greeting.epoch, controller_id=greeting.controller_id, report_interval_s=report_interval_s
        )
    )


def encode_grants(batch: GrantBatch) -> node_pb2.EnforceRequest:
    """The node's name is not sent: the stream leads to it."""
    return node_pb2.EnforceRequest(
        grants=node_pb2.GrantBatch(
            incarnation=batch.incarnation,
            controller_id=batch.controller_id,
            mark=encode_mark(batch.mark),
            not_after_s=batch.not_after_s,
            grants=[node_pb2.Grant(gpu=gpu, limit_mw=limit_mw) for gpu, limit_mw in batch.limits_mw],
        )
    )


def encode_renewal(renewal: Renewal) -> node_pb2.EnforceRequest:
    """The node's name is not sent: the stream leads to it."""
    return node_pb2.EnforceRequest(
        renewal=node_pb2.Renewal(
            incarnation=renewal.incarnation,
            controller_id=renewal.controller_id,
            epoch=renewal.epoch,
            not_after_s=renewal.not_after_s,
        )
    )


def decode_enforce(message: node_pb2.EnforceRequest, *, node: str) -> Greeted | GrantBatch | Renewal:
    """What the controller says to `node`. Raises WireInvalid."""
    match message.WhichOneof("body"):
        case "greeting":
            return fields.inner(message.greeting, "greeting", _greeting)
        case "grants":
            return fields.inner(message.grants, "grants", lambda grants: _grants(grants, node))
        case "renewal":
            return fields.inner(message.renewal, "renewal", lambda renewal: _renewal(renewal, node))
        case _:
            raise WireInvalid("body", "missing; one of greeting, grants and renewal")


def _greeting(message: node_pb2.Greeting) -> Greeted:
    least_s, most_s = REPORT_INTERVAL_S
    return Greeted(
        greeting=Greeting(
            epoch=fields.count(message.epoch, "epoch", 1),
            controller_id=fields.name(message.controller_id, "controller_id"),
        ),
        report_interval_s=fields.seconds(message.report_interval_s, "report_interval_s", least_s, most_s),
    )


def _grants(message: node_pb2.GrantBatch, node: str) -> GrantBatch:
    fields.present(message, "mark")
    limits_mw = fields.each(message.grants, "grants", _grant, fields.GPUS_MAX, 1)
    fields.distinct([gpu for gpu, _ in limits_mw], "grants")
    return GrantBatch(
        node=node,
        incarnation=fields.name(message.incarnation, "incarnation"),
        controller_id=fields.name(message.controller_id, "controller_id"),
        mark=fields.inner(message.mark, "mark", decode_mark),
        not_after_s=fields.seconds(message.not_after_s, "not_after_s"),
        limits_mw=limits_mw,
    )


def _grant(message: node_pb2.Grant) -> tuple[str, int]:
    return fields.name(message.gpu, "gpu"), fields.power(message.limit_mw, "limit_mw")


def _renewal(message: node_pb2.Renewal, node: str) -> Renewal:
    return Renewal(
        node=node,
        incarnation=fields.name(message.incarnation, "incarnation"),
        controller_id=fields.name(message.controller_id, "controller_id"),
        epoch=fields.count(message.epoch, "epoch", 1),
        not_after_s=fields.seconds(message.not_after_s, "not_after_s"),
    )


# ---- from the node to the controller ----


def encode_report(report: NodeReport) -> node_pb2.EnforceResponse:
    return node_pb2.EnforceResponse(
        report=node_pb2.NodeReport(
            node=report.node,
            incarnation=report.incarnation,
            report_seq=report.report_seq,
            node_time_s=report.node_time_s,
            mark=encode_mark(report.mark),
            lease_left_s=report.lease_left_s,
            gpus=[_gpu_message(gpu) for gpu in report.gpus],
            loads=[encode_load(load) for load in report.loads],
            answers=[_answer_message(answer) for answer in report.answers],
            watch=encode_node_watch(report.watch),
            load_problems=[
                node_pb2.LoadProblem(instance=instance, problem=fields.line(problem))
                for instance, problem in report.load_problems
            ],
        )
    )


def _gpu_message(gpu: GpuReport) -> node_pb2.GpuReport:
    return node_pb2.GpuReport(
        gpu=gpu.gpu,
        index=gpu.index,
        floor_mw=gpu.floor_mw,
        ceiling_mw=gpu.ceiling_mw,
        fallback_mw=gpu.fallback_mw,
        limit_mw=gpu.limit_mw,
        limit_since_s=gpu.limit_since_s,
        grant_mw=gpu.grant_mw,
        void=gpu.void,
        draw_mw=gpu.draw_mw,
        draw_at_s=gpu.draw_at_s,
        energy_mj=gpu.energy_mj,
        requested_mw=gpu.requested_mw,
        health=HEALTH_VALUES[gpu.health],
        problem=fields.line(gpu.problem),
        watch=encode_gpu_watch(gpu.watch),
    )


def _answer_message(answer: GrantAnswer) -> node_pb2.GrantAnswer:
    return node_pb2.GrantAnswer(
        mark=encode_mark(answer.mark),
        gpu=answer.gpu,
        verdict=_VERDICT_VALUES[answer.verdict],
        detail=fields.line(answer.detail),
    )


def decode_report(message: node_pb2.EnforceResponse) -> NodeReport:
    """Raises WireInvalid."""
    fields.present(message, "report")
    return fields.inner(message.report, "report", _report)


def _report(message: node_pb2.NodeReport) -> NodeReport:
    fields.present(message, "mark")
    gpus = fields.each(message.gpus, "gpus", _gpu, fields.GPUS_MAX, 1)
    fields.distinct([gpu.gpu for gpu in gpus], "gpus")
    loads = fields.each(message.loads, "loads", decode_load, fields.LOADS_MAX)
    fields.distinct([load.instance for load in loads], "loads")
    return NodeReport(
        node=fields.name(message.node, "node"),
        incarnation=fields.name(message.incarnation, "incarnation"),
        report_seq=fields.count(message.report_seq, "report_seq", 1),
        node_time_s=fields.seconds(message.node_time_s, "node_time_s"),
        mark=fields.inner(message.mark, "mark", decode_mark),
        lease_left_s=fields.seconds(message.lease_left_s, "lease_left_s"),
        gpus=gpus,
        loads=loads,
        answers=fields.each(message.answers, "answers", _answer, fields.ANSWERS_MAX),
        load_problems=fields.each(message.load_problems, "load_problems", _load_problem, fields.LOADS_MAX),
        watch=fields.inner(message.watch, "watch", decode_node_watch),
    )


def _gpu(message: node_pb2.GpuReport) -> GpuReport:
    floor_mw, ceiling_mw = _range(message.floor_mw, message.ceiling_mw)
    has = message.HasField
    return GpuReport(
        gpu=fields.name(message.gpu, "gpu"),
        index=message.index,
        floor_mw=floor_mw,
        ceiling_mw=ceiling_mw,
        fallback_mw=fields.power(message.fallback_mw, "fallback_mw"),
        limit_mw=fields.power(message.limit_mw, "limit_mw"),
        limit_since_s=fields.seconds(message.limit_since_s, "limit_since_s"),
        grant_mw=fields.power(message.grant_mw, "grant_mw", 0),
        void=message.void,
        draw_mw=fields.power(message.draw_mw, "draw_mw", 0) if has("draw_mw") else None,
        draw_at_s=fields.seconds(message.draw_at_s, "draw_at_s"),
        energy_mj=fields.count(message.energy_mj, "energy_mj") if has("energy_mj") else None,
        requested_mw=fields.power(message.requested_mw, "requested_mw", 0) if has("requested_mw") else None,
        health=fields.choice(message.health, "health", HEALTHS),
        problem=fields.text(message.problem, "problem"),
        watch=fields.inner(message.watch, "watch", decode_gpu_watch),
    )


def _range(floor_mw: int, ceiling_mw: int) -> tuple[int, int]:
    fields.power(floor_mw, "floor_mw")
    fields.power(ceiling_mw, "ceiling_mw")
    if floor_mw > ceiling_mw:
        raise WireInvalid("floor_mw", f"{floor_mw} mW is above ceiling_mw, {ceiling_mw} mW")
    return floor_mw, ceiling_mw


def _answer(message: node_pb2.GrantAnswer) -> GrantAnswer:
    fields.present(message, "mark")
    return GrantAnswer(
        mark=fields.inner(message.mark, "mark", decode_mark),
        gpu=fields.name_or_empty(message.gpu, "gpu"),
        verdict=fields.choice(message.verdict, "verdict", _VERDICTS),
        detail=fields.text(message.detail, "detail"),
    )


def _load_problem(message: node_pb2.LoadProblem) -> tuple[str, str]:
    return fields.name(message.instance, "instance"), fields.words(message.problem, "problem")


# ---- the inventory ----


def encode_description(description: NodeDescription) -> node_pb2.DescribeResponse:
    return node_pb2.DescribeResponse(
        node=description.node,
        version=description.version,
        backend=description.backend,
        incarnation=description.incarnation,
        hard_budget_mw=description.hard_budget_mw or 0,
        gpus=[
            node_pb2.GpuDescription(
                gpu=gpu.gpu,
                index=gpu.index,
                name=fields.line(gpu.name),
                driver=fields.line(gpu.driver),
                floor_mw=gpu.floor_mw,
                ceiling_mw=gpu.ceiling_mw,
                fallback_mw=gpu.fallback_mw,
                bus=fields.line(gpu.bus),
                unmanageable=fields.line(gpu.unmanageable),
                lacks=[fields.line(each) for each in gpu.lacks[:_LINES_MAX]],
                warnings=[fields.line(each) for each in gpu.warnings[:_LINES_MAX]],
            )
            for gpu in description.gpus
        ],
        wall_s=description.wall_s,
    )


def decode_description(message: node_pb2.DescribeResponse) -> NodeDescription:
    """Raises WireInvalid."""
    hard_budget_mw = fields.power(message.hard_budget_mw, "hard_budget_mw", 0, fields.POWER_MAX_MW)
    return NodeDescription(
        node=fields.name(message.node, "node"),
        version=fields.name(message.version, "version"),
        backend=fields.name(message.backend, "backend"),
        incarnation=fields.name(message.incarnation, "incarnation"),
        hard_budget_mw=hard_budget_mw or None,
        gpus=fields.each(message.gpus, "gpus", _gpu_description, fields.GPUS_MAX),
        wall_s=fields.seconds(message.wall_s, "wall_s") if message.HasField("wall_s") else None,
    )


def _gpu_description(message: node_pb2.GpuDescription) -> GpuDescription:
    floor_mw, ceiling_mw = _range(message.floor_mw, message.ceiling_mw)
    return GpuDescription(
        gpu=fields.name(message.gpu, "gpu"),
        index=message.index,
        name=fields.words(message.name, "name"),
        driver=fields.words(message.driver, "driver"),
        floor_mw=floor_mw,
        ceiling_mw=ceiling_mw,
        fallback_mw=fields.power(message.fallback_mw, "fallback_mw"),
        bus=fields.text(message.bus, "bus"),
        unmanageable=fields.text(message.unmanageable, "unmanageable"),
        lacks=fields.each(message.lacks, "lacks", _line, _LINES_MAX),
        warnings=fields.each(message.warnings, "warnings", _line, _LINES_MAX),
    )


def _line(text: str) -> str:
    return fields.text(text, "line")
