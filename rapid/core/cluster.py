"""The frozen nouns that daemon, controller and simulator share.

Power is int milliwatts, time is float seconds, energy is int millijoules. Times named `*_s` that are points in time
belong to one clock: `at_s` is the clock of whoever holds the value, `node_time_s` is the monotonic clock of the node.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from rapid.core.watched import EventKind as EventKind
from rapid.core.watched import GpuWatch, NodeWatch
from rapid.core.watched import Slowdown as Slowdown


class Role(Enum):
    """Which inference phase an instance serves; MIXED serves both (colocated)."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


class GpuHealth(Enum):
    """What a node says of one of its GPUs."""

    OK = "ok"
    DENIED = "denied"  # no permission to set a limit
    LOST = "lost"  # the device does not answer
    MISMATCH = "mismatch"  # the device enforces another limit than was set


class NodeHealth(Enum):
    """What the controller knows of a node. Only REPORTING frees watts."""

    NEVER_HEARD = "never heard"
    REPORTING = "reporting"
    SILENT = "silent"
    RELEASED = "released"  # an operator looked and said that it is off


class Phase(Enum):
    """Where an instance stands in a role change. The transaction and its table are in roles.py."""

    SERVING = "serving"
    DRAINING = "draining"
    SWITCHING = "switching"
    WARMING = "warming"
    ROLLING_BACK = "rolling back"
    UNCERTAIN = "uncertain"  # nobody knows which role it has; it serves nobody until that has been read
    PARKED = "parked"  # it serves nobody, on purpose
    FAILED = "failed"
    GONE = "gone"  # the engine's stream has ended


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Which order of which controller life. Marks are totally ordered; a later one overrides."""

    epoch: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class SloTargets:
    """A request attains its SLO when it meets both targets."""

    ttft_s: float = 1.0
    tpot_s: float = 0.040


@dataclass(frozen=True, slots=True)
class Domain:
    """A scope with a power budget. `reserved_mw` is what is not a GPU: host, fans, network. The root has no parent."""

    name: str
    budget_mw: int
    reserved_mw: int = 0
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What the configuration says of a node. Until it reports, each of its GPUs is booked at `ceiling_mw`."""

    name: str
    domain: str
    gpus: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative count of durations. counts[i] fell in (bounds_s[i-1], bounds_s[i]]; the last is above all bounds.

    len(counts) == len(bounds_s) + 1. Counts only grow in one life of the engine.
    """

    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class PhaseLoad:
    """The load of one instance at `at_s` of the reporter's clock. Counters and histograms are cumulative."""

    instance: str
    role: Role
    at_s: float
    waiting_requests: int = 0
    waiting_tokens: int = 0
    oldest_wait_s: float = 0.0
    running_requests: int = 0
    kv_used_fraction: float = 0.0
    arrived: int = 0
    finished: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft: Histogram = Histogram()
    tpot: Histogram = Histogram()
    gpus: tuple[str, ...] = ()  # that it computes on; empty: not known


# ---- the node's report and the grants that go to it (architecture, "The grant protocol") ----


@dataclass(frozen=True, slots=True)
class GpuReport:
    """One GPU as its node sees it.

    limit_mw     the greatest limit that may be in force: the one read back, or one being written just now
    limit_since_s  node time at which limit_mw was last read back after a change
    grant_mw     the limit of the grant in force; with `void` set the node has given the grant up for good
    draw_mw      None: cannot be read. draw_at_s is the node time of the sample (0 with no sample)
    """

    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    limit_mw: int
    limit_since_s: float
    grant_mw: int
    void: bool
    draw_mw: int | None = None
    draw_at_s: float = 0.0
    energy_mj: int | None = None
    requested_mw: int | None = None
    health: GpuHealth = GpuHealth.OK
    problem: str = ""
    watch: GpuWatch = GpuWatch()


@dataclass(frozen=True, slots=True)
class GrantAnswer:
    """What became of a grant: verdict is applied, clamped, refused or failed; `detail` says why in one line."""

    mark: Mark
    gpu: str  # empty: the whole batch
    verdict: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """An atomic picture of a node. `mark` is the highest (epoch, seq) the node has taken: it takes none at or below it.

    `report_seq` grows by one in an incarnation; an older report than one heard is ignored. `load_problems` says of an
    instance why its load is missing, or not the whole truth.
    """

    node: str
    incarnation: str
    report_seq: int
    node_time_s: float
    mark: Mark
    lease_left_s: float
    gpus: tuple[GpuReport, ...]
    loads: tuple[PhaseLoad, ...] = ()
    answers: tuple[GrantAnswer, ...] = ()
    load_problems: tuple[tuple[str, str], ...] = ()
    watch: NodeWatch = NodeWatch()


@dataclass(frozen=True, slots=True)
class Greeting:
    """The controller's first word on a node's stream. The node takes the epoch, or refuses a lower one."""

    epoch: int
    controller_id: str


@dataclass(frozen=True, slots=True)
class GrantBatch:
    """Leave to draw up to the given limit on each named GPU until not_after_s of the node's clock."""

    node: str
    incarnation: str
    controller_id: str
    mark: Mark
    not_after_s: float
    limits_mw: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Renewal:
    """The grants in force hold until not_after_s of the node's clock. It revives no void grant."""

    node: str
    incarnation: str
    controller_id: str
    epoch: int
    not_after_s: float


# ---- engines ----


@dataclass(frozen=True, slots=True)
class EngineHello:
    """An engine introduces itself. `incarnation` is random per process; it takes no order at or below `mark`.

    engine_time_s  its own monotonic clock
    switch_s       how long it believes a role change takes without the drain
    from_role, to_role  in the middle of a change: the role to which it would roll back, and where the change leads
    parks          it can be parked
    reads_role     it can find out which role it really has, should the outcome of a switch be unknown
    """

    instance: str
    incarnation: str
    node: str
    gpus: tuple[str, ...]
    role: Role
    roles: tuple[Role, ...]
    phase: Phase = Phase.SERVING
    mark: Mark = Mark()
    engine_time_s: float = 0.0
    switch_s: float = 1.0
    engine: str = ""
    from_role: Role | None = None
    to_role: Role | None = None
    parks: bool = False
    reads_role: bool = False


@dataclass(frozen=True, slots=True)
class RoleProgress:
    """An engine says where it stands, having heard every order up to `mark`: a step, the end, or a refusal.

    `role` is the role it serves, or, past the point of no return, is to serve. `error`: why the last order was refused,
    undone or failed, or what else is wrong. `noticed`, said once: what another hand had changed, and what became of it.
    """

    instance: str
    incarnation: str
    mark: Mark
    phase: Phase
    role: Role
    requests_left: int = 0
    error: str = ""
    noticed: str = ""


# ---- what a policy sees, and what it answers ----


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU that a policy may move. `limit_mw` is the target that was last decided for it."""

    gpu: str
    node: str
    floor_mw: int
    ceiling_mw: int
    limit_mw: int
    draw_mw: int | None
    instance: str | None


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance with its latest load (None: none, or stale)."""

    instance: str
    gpus: tuple[str, ...]
    role: Role
    phase: Phase
    roles: tuple[Role, ...]
    load: PhaseLoad | None
    switch_s: float
    pinned: bool


@dataclass(frozen=True, slots=True)
class Latencies:
    """Quantiles over the latency window (None: no request in the window), and the longest wait in a queue now."""

    ttft_s: float | None
    tpot_s: float | None
    oldest_wait_s: float


@dataclass(frozen=True, slots=True)
class View:
    """All that a policy may look at.

    at_s         goes on from life to life of the controller, as if no time passed between them
    rooms_mw     per domain: what the GPUs in this view may share there (budget less reserved and less all that RAPID
                 cannot move). chains names a node's domains from its own to the root.
    settled      every limit decided so far is granted, in force and paid for
    since_*_s    seconds since the last move of that kind (infinite: never); for roles, or since the controller came up
    scores       (predicted, measured) of the last decisions of this policy that were scored, oldest first; at most 8
    """

    at_s: float
    slo: SloTargets
    latencies: Latencies
    gpus: tuple[GpuView, ...]
    instances: tuple[InstanceView, ...]
    rooms_mw: Mapping[str, int]
    chains: Mapping[str, tuple[str, ...]]
    settled: bool
    since_power_s: float
    since_role_s: float
    scores: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a policy weighed: what it would be, such as "5P3D, 690 W / 450 W", and the SLO attainment that it
    predicts of it, 0 to 1. `chosen`: this is what it wants."""

    words: str
    predicted: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Targets:
    """What a policy wants: limits and roles that differ from the view, why, and on which inputs. Empty: no change.

    predicted   SLO attainment over the next horizon_s, 0 to 1, that it expects if this is done (None: no prediction):
                of the TTFTs and TPOTs measured in that time, the two shares that meet their targets, multiplied
    held        the same, if nothing is done
    candidates  what it weighed, best first, at most 8
    Without limits and roles, these and the reason say why it wants nothing, for the operator who asks.
    """

    limits_mw: Mapping[str, int]
    roles: Mapping[str, Role]
    reason: str = ""
    inputs: tuple[tuple[str, float | str], ...] = ()
    predicted: float | None = None
    held: float | None = None
    horizon_s: float = 0.0
    candidates: tuple[Candidate, ...] = ()


# What the journal gives back as it was given: plain values and tuples of them. Its decoder knows no recursive type, so
# they may be six deep.
Plain0 = bool | int | float | str | None
Plain1 = Plain0 | tuple[Plain0, ...]
Plain2 = Plain0 | tuple[Plain1, ...]
Plain3 = Plain0 | tuple[Plain2, ...]
Plain4 = Plain0 | tuple[Plain3, ...]
Plain = Plain0 | tuple[Plain4, ...]


@dataclass(frozen=True, slots=True)
class PolicyState:
    """All that a policy remembers; `version` changes with the meaning of the values. Times in it are the view's."""

    version: int
    values: tuple[Plain, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing the controller decided: by whom (a policy, an operator, or "budget"), why, and what changed.

    `changes` is (GPU or instance, before, after) in words a person reads. wall_s is seconds since 1970. What was
    predicted is as in Targets; `measured` is what came of it, once horizon_s have passed (None: not yet, or never).
    """

    id: str
    at_s: float
    wall_s: float
    by: str
    reason: str
    inputs: tuple[tuple[str, float | str], ...] = ()
    changes: tuple[tuple[str, str, str], ...] = ()
    predicted: float | None = None
    held: float | None = None
    horizon_s: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    measured: float | None = None
