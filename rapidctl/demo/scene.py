"""What the screen shows, as plain values: one moment of the demo."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapid.core.cluster import NodeHealth, Phase, Role
from rapid.core.status import GpuStatus, InstanceStatus, Status
from rapidctl.demo.host import Host
from rapidctl.demo.record import Attainment

STALE_S = 2.0  # a picture older than this is shown as such


@dataclass(frozen=True, slots=True)
class GpuScene:
    """One GPU and the engine on it. draw_mw None: no fresh reading; role None: no engine is attached."""

    index: int
    limit_mw: int
    draw_mw: int | None
    managed: bool
    role: Role | None
    phase: Phase
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class HostScene:
    """One host. `gpus` is empty until its controller has drawn a first picture; stale_s: seconds since the last one.

    decision is the last one, when it was, in seconds ago, and empty if there was none.
    """

    name: str
    attainment: Attainment
    requests: int
    finished: int
    waiting: int  # at the front end, for want of an engine
    gpus: tuple[GpuScene, ...]
    held_mw: int
    draw_mw: int | None
    budget_mw: int
    over_budget: bool
    role_moves: int
    decision: str
    decision_age_s: float
    node: NodeHealth
    stale_s: float

    @property
    def is_stale(self) -> bool:
        return self.stale_s > STALE_S


@dataclass(frozen=True, slots=True)
class Scene:
    """The whole screen. now_s runs from 0 to seconds, and on while the last requests finish."""

    title: str
    now_s: float
    seconds: float
    arriving_rps: float
    ceiling_mw: int
    hosts: tuple[HostScene, ...]
    notices: tuple[str, ...]


def host_scene(host: Host, status: Status | None, heard_s: float, now_s: float) -> HostScene:
    """One host now, from what its controller said last and what its front end knows."""
    record, plan = host.front.record, host.plan
    domain = status.domains[0] if status and status.domains else None
    node = status.nodes[0] if status and status.nodes else None
    last = status.last_decision if status else None
    instances = {gpu: one for one in (status.instances if status else ()) for gpu in one.gpus}
    return HostScene(
        name=host.name,
        attainment=record.so_far(now_s),
        requests=len(record.offered),
        finished=len(record.finished),
        waiting=host.front.waiting,
        gpus=tuple(_gpu_scene(gpu, instances.get(gpu.gpu)) for gpu in _by_index(node.gpus if node else ())),
        held_mw=domain.held_mw if domain else 0,
        draw_mw=domain.draw_mw if domain else None,
        budget_mw=domain.budget_mw if domain else plan.budget_mw,
        over_budget=domain.over_budget if domain else False,
        role_moves=host.front.role_moves,
        decision=f"{last.by}: {last.reason}" if last else "",
        decision_age_s=status.at_s - last.at_s if status and last else 0.0,
        node=node.health if node else NodeHealth.NEVER_HEARD,
        stale_s=now_s - heard_s,
    )


def _by_index(gpus: Sequence[GpuStatus]) -> list[GpuStatus]:
    return sorted(gpus, key=lambda gpu: gpu.index)


def _gpu_scene(gpu: GpuStatus, instance: InstanceStatus | None) -> GpuScene:
    load = instance.load if instance else None
    attached = instance is not None and instance.phase is not Phase.GONE
    return GpuScene(
        index=gpu.index,
        limit_mw=gpu.limit_mw,
        draw_mw=gpu.draw_mw,
        managed=gpu.managed,
        role=instance.role if instance and attached else None,
        phase=instance.phase if instance else Phase.GONE,
        waiting=load.waiting_requests if load else 0,
        running=load.running_requests if load else 0,
    )
