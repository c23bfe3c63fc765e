"""What an operator sees of the cluster: the frozen picture that Control.status() draws."""

from dataclasses import dataclass

from rapid.core.cluster import Decision, GpuHealth, NodeHealth, Phase, PhaseLoad, Role, SloTargets
from rapid.core.facility.nouns import DomainTruth, OrderStatus, ScheduleStatus
from rapid.core.watched import GpuWatch, NodeWatch


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU. held_mw is what the ledger books for it; an unmanaged GPU is booked at its ceiling and shown in red.
    `watch` is what its node has noticed, when it was last heard."""

    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    target_mw: int
    limit_mw: int
    held_mw: int
    draw_mw: int | None
    managed: bool
    health: GpuHealth
    problem: str
    instance: str
    watch: GpuWatch = GpuWatch()

    @property
    def disobeys(self) -> bool:
        """It is booked at its ceiling already, or on the way there."""
        return not self.managed or self.health is not GpuHealth.OK


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node; age_s is the time since its last report (infinite: never)."""

    node: str
    domain: str
    health: NodeHealth
    age_s: float
    problem: str
    gpus: tuple[GpuStatus, ...]
    watch: NodeWatch = NodeWatch()

    @property
    def unheard(self) -> bool:
        """Nobody hears it. A released one is off because an operator said so."""
        return self.health in (NodeHealth.NEVER_HEARD, NodeHealth.SILENT)


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """One domain. It is over budget while held_mw + reserved_mw > budget_mw; `advice` then says what would help.

    draw_mw is None while any GPU of the domain has no fresh reading.
    """

    domain: str
    parent: str
    budget_mw: int
    reserved_mw: int
    held_mw: int
    draw_mw: int | None
    over_budget: bool
    advice: str
    truth: DomainTruth = DomainTruth()


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One engine instance, its role change if any, and its latest load (None: none, or stale). `cap_bound` is the share
    of the last ten seconds in which a limit slowed it, over its GPUs (None: it cannot be told)."""

    instance: str
    engine: str
    node: str
    gpus: tuple[str, ...]
    role: Role
    phase: Phase
    target_role: Role
    pinned: bool
    problem: str
    load: PhaseLoad | None
    cap_bound: float | None = None

    @property
    def needs_person(self) -> bool:
        """It serves nobody, and will not by itself. One that is gone has left, which is no fault."""
        return self.phase in (Phase.FAILED, Phase.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class SloStatus:
    """SLO attainment: shares of the requests finished since start (None: none), and quantiles over the window."""

    targets: SloTargets
    ttft_attainment: float | None
    tpot_attainment: float | None
    ttft_window_s: float | None
    tpot_window_s: float | None
    finished: int


@dataclass(frozen=True, slots=True)
class Status:
    """The whole picture.

    scored            predictions of the policy that were held against what was measured
    prediction_error  the mean of the absolute differences, in SLO attainment, 0 to 1 (None: none scored yet)
    attainment        SLO attainment of the last minute, 0 to 1 (None: nothing was measured)
    """

    at_s: float
    wall_s: float
    epoch: int
    controller_id: str
    policy: str
    paused: bool
    domains: tuple[DomainStatus, ...]
    nodes: tuple[NodeStatus, ...]
    instances: tuple[InstanceStatus, ...]
    slo: SloStatus
    role_moves: int
    watts_moved_mw: int
    last_decision: Decision | None
    scored: int = 0
    prediction_error: float | None = None
    attainment: float | None = None
    orders: tuple[OrderStatus, ...] = ()
    schedules: tuple[ScheduleStatus, ...] = ()
