"""ControllerService: the whole picture, as rapid.core.status draws it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rapid.core.cluster import NodeHealth, SloTargets
from rapid.core.facility.nouns import DomainTruth
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status
from rapid.v1 import controller_pb2
from rapid.wire import fields
from rapid.wire.common import PHASE_VALUES, PHASES, ROLE_VALUES, ROLES, decode_load, encode_load
from rapid.wire.node import HEALTH_VALUES, HEALTHS
from rapid.wire.operator import decode_decision, encode_decision
from rapid.wire.watched import decode_gpu_watch, decode_node_watch, encode_gpu_watch, encode_node_watch

NODE_HEALTHS: Mapping[controller_pb2.NodeHealth, NodeHealth] = {
    controller_pb2.NODE_HEALTH_NEVER_HEARD: NodeHealth.NEVER_HEARD,
    controller_pb2.NODE_HEALTH_REPORTING: NodeHealth.REPORTING,
    controller_pb2.NODE_HEALTH_SILENT: NodeHealth.SILENT,
    controller_pb2.NODE_HEALTH_RELEASED: NodeHealth.RELEASED,
}
NODE_HEALTH_VALUES = {health: value for value, health in NODE_HEALTHS.items()}


@dataclass(frozen=True, slots=True)
class Look:
    """A controller's status, its version, and its host's clock when it answered (empty, None: not told)."""

    status: Status
    version: str = ""
    wall_s: float | None = None


# ---- noun to message ----


def encode_status(status: Status) -> controller_pb2.Status:
    """For GetStatusResponse and WatchResponse alike."""
    return controller_pb2.Status(
        at_s=status.at_s,
        wall_s=status.wall_s,
        epoch=status.epoch,
        controller_id=status.controller_id,
        policy=status.policy,
        paused=status.paused,
        domains=[_domain_message(domain) for domain in status.domains],
        nodes=[_node_message(node) for node in status.nodes],
        instances=[_instance_message(instance) for instance in status.instances],
        slo=_slo_message(status.slo),
        role_moves=status.role_moves,
        watts_moved_mw=status.watts_moved_mw,
        last_decision=None if status.last_decision is None else encode_decision(status.last_decision),
        scored=status.scored,
        prediction_error=status.prediction_error,
    )


def _domain_message(domain: DomainStatus) -> controller_pb2.DomainStatus:
    return controller_pb2.DomainStatus(
        domain=domain.domain,
        parent=domain.parent,
        budget_mw=domain.budget_mw,
        reserved_mw=domain.reserved_mw,
        held_mw=domain.held_mw,
        draw_mw=domain.draw_mw,
        over_budget=domain.over_budget,
        advice=fields.line(domain.advice),
        standing_mw=domain.truth.standing_mw,
        held_by=fields.line(domain.truth.held_by),
    )


def _node_message(node: NodeStatus) -> controller_pb2.NodeStatus:
    return controller_pb2.NodeStatus(
        node=node.node,
        domain=node.domain,
        health=NODE_HEALTH_VALUES[node.health],
        age_s=node.age_s,
        problem=fields.line(node.problem),
        gpus=[_gpu_message(gpu) for gpu in node.gpus],
        watch=encode_node_watch(node.watch),
    )


def _gpu_message(gpu: GpuStatus) -> controller_pb2.GpuStatus:
    return controller_pb2.GpuStatus(
        gpu=gpu.gpu,
        index=gpu.index,
        floor_mw=gpu.floor_mw,
        ceiling_mw=gpu.ceiling_mw,
        fallback_mw=gpu.fallback_mw,
        target_mw=gpu.target_mw,
        limit_mw=gpu.limit_mw,
        held_mw=gpu.held_mw,
        draw_mw=gpu.draw_mw,
        managed=gpu.managed,
        health=HEALTH_VALUES[gpu.health],
        problem=fields.line(gpu.problem),
        instance=gpu.instance,
        watch=encode_gpu_watch(gpu.watch),
    )


def _instance_message(instance: InstanceStatus) -> controller_pb2.InstanceStatus:
    return controller_pb2.InstanceStatus(
        instance=instance.instance,
        engine=fields.line(instance.engine),
        node=instance.node,
        gpus=instance.gpus,
        role=ROLE_VALUES[instance.role],
        phase=PHASE_VALUES[instance.phase],
        target_role=ROLE_VALUES[instance.target_role],
        pinned=instance.pinned,
        problem=fields.line(instance.problem),
        load=None if instance.load is None else encode_load(instance.load),
        cap_bound=instance.cap_bound,
    )


def _slo_message(slo: SloStatus) -> controller_pb2.SloStatus:
    return controller_pb2.SloStatus(
        ttft_target_s=slo.targets.ttft_s,
        tpot_target_s=slo.targets.tpot_s,
        ttft_attainment=slo.ttft_attainment,
        tpot_attainment=slo.tpot_attainment,
        ttft_window_s=slo.ttft_window_s,
        tpot_window_s=slo.tpot_window_s,
        finished=slo.finished,
    )


# ---- message to noun ----


def decode_status(message: controller_pb2.GetStatusResponse | controller_pb2.WatchResponse) -> Status:
    """Raises WireInvalid."""
    fields.present(message, "status")
    return fields.inner(message.status, "status", _status)


def decode_look(message: controller_pb2.GetStatusResponse) -> Look:
    """Raises WireInvalid."""
    wall_s = fields.seconds(message.wall_s, "wall_s") if message.HasField("wall_s") else None
    return Look(decode_status(message), fields.name_or_empty(message.version, "version"), wall_s)


def _status(message: controller_pb2.Status) -> Status:
    fields.present(message, "slo")
    last = fields.inner(message.last_decision, "last_decision", decode_decision) if _has_last(message) else None
    return Status(
        at_s=fields.seconds(message.at_s, "at_s"),
        wall_s=fields.seconds(message.wall_s, "wall_s"),
        epoch=fields.count(message.epoch, "epoch"),
        controller_id=fields.name(message.controller_id, "controller_id"),
        policy=fields.name(message.policy, "policy"),
        paused=message.paused,
        domains=fields.each(message.domains, "domains", _domain, fields.DOMAINS_MAX),
        nodes=fields.each(message.nodes, "nodes", _node, fields.NODES_MAX),
        instances=fields.each(message.instances, "instances", _instance, fields.INSTANCES_MAX),
        slo=fields.inner(message.slo, "slo", _slo),
        role_moves=fields.count(message.role_moves, "role_moves"),
        watts_moved_mw=fields.count(message.watts_moved_mw, "watts_moved_mw"),
        last_decision=last,
        scored=fields.count(message.scored, "scored"),
        prediction_error=(
            fields.fraction(message.prediction_error, "prediction_error")
            if message.HasField("prediction_error")
            else None
        ),
    )


def _has_last(message: controller_pb2.Status) -> bool:
    return message.HasField("last_decision")


def _domain(message: controller_pb2.DomainStatus) -> DomainStatus:
    return DomainStatus(
        domain=fields.name(message.domain, "domain"),
        parent=fields.name_or_empty(message.parent, "parent"),
        budget_mw=fields.power(message.budget_mw, "budget_mw", 0, fields.POWER_MAX_MW),
        reserved_mw=fields.power(message.reserved_mw, "reserved_mw", 0, fields.POWER_MAX_MW),
        held_mw=fields.power(message.held_mw, "held_mw", 0, fields.POWER_MAX_MW),
        draw_mw=(
            fields.power(message.draw_mw, "draw_mw", 0, fields.POWER_MAX_MW) if message.HasField("draw_mw") else None
        ),
        over_budget=message.over_budget,
        advice=fields.text(message.advice, "advice"),
        truth=DomainTruth(
            standing_mw=fields.power(message.standing_mw, "standing_mw", 0, fields.POWER_MAX_MW),
            held_by=fields.text(message.held_by, "held_by"),
        ),
    )


def _node(message: controller_pb2.NodeStatus) -> NodeStatus:
    return NodeStatus(
        node=fields.name(message.node, "node"),
        domain=fields.name(message.domain, "domain"),
        health=fields.choice(message.health, "health", NODE_HEALTHS),
        age_s=fields.seconds(message.age_s, "age_s", most_s=math.inf),
        problem=fields.text(message.problem, "problem"),
        gpus=fields.each(message.gpus, "gpus", _gpu, fields.GPUS_MAX),
        watch=fields.inner(message.watch, "watch", decode_node_watch),
    )


def _gpu(message: controller_pb2.GpuStatus) -> GpuStatus:
    return GpuStatus(
        gpu=fields.name(message.gpu, "gpu"),
        index=message.index,
        floor_mw=fields.power(message.floor_mw, "floor_mw"),
        ceiling_mw=fields.power(message.ceiling_mw, "ceiling_mw"),
        fallback_mw=fields.power(message.fallback_mw, "fallback_mw"),
        target_mw=fields.power(message.target_mw, "target_mw", 0),
        limit_mw=fields.power(message.limit_mw, "limit_mw", 0),
        held_mw=fields.power(message.held_mw, "held_mw", 0),
        draw_mw=fields.power(message.draw_mw, "draw_mw", 0) if message.HasField("draw_mw") else None,
        managed=message.managed,
        health=fields.choice(message.health, "health", HEALTHS),
        problem=fields.text(message.problem, "problem"),
        instance=fields.name_or_empty(message.instance, "instance"),
        watch=fields.inner(message.watch, "watch", decode_gpu_watch),
    )


def _instance(message: controller_pb2.InstanceStatus) -> InstanceStatus:
    fields.size(message.gpus, "gpus", fields.GPUS_MAX, 1)
    return InstanceStatus(
        instance=fields.name(message.instance, "instance"),
        engine=fields.text(message.engine, "engine"),
        node=fields.name(message.node, "node"),
        gpus=tuple(fields.name(gpu, "gpus") for gpu in message.gpus),
        role=fields.choice(message.role, "role", ROLES),
        phase=fields.choice(message.phase, "phase", PHASES),
        target_role=fields.choice(message.target_role, "target_role", ROLES),
        pinned=message.pinned,
        problem=fields.text(message.problem, "problem"),
        load=fields.inner(message.load, "load", decode_load) if message.HasField("load") else None,
        cap_bound=fields.fraction(message.cap_bound, "cap_bound") if message.HasField("cap_bound") else None,
    )


def _slo(message: controller_pb2.SloStatus) -> SloStatus:
    has = message.HasField
    return SloStatus(
        targets=SloTargets(
            ttft_s=fields.seconds(message.ttft_target_s, "ttft_target_s"),
            tpot_s=fields.seconds(message.tpot_target_s, "tpot_target_s"),
        ),
        ttft_attainment=(
            fields.fraction(message.ttft_attainment, "ttft_attainment") if has("ttft_attainment") else None
        ),
        tpot_attainment=(
            fields.fraction(message.tpot_attainment, "tpot_attainment") if has("tpot_attainment") else None
        ),
        ttft_window_s=fields.seconds(message.ttft_window_s, "ttft_window_s") if has("ttft_window_s") else None,
        tpot_window_s=fields.seconds(message.tpot_window_s, "tpot_window_s") if has("tpot_window_s") else None,
        finished=fields.count(message.finished, "finished"),
    )
