"""What the world tells the controller. Each event carries the controller's monotonic time `at_s`; none goes backwards.

Operator events carry a `request` id; exactly one commands.Answer with that id follows in the same step.
"""

from dataclasses import dataclass, field

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import EngineHello, Mark, NodeReport, PhaseLoad, PolicyState, Role, RoleProgress
from rapid.core.facility.nouns import BudgetOrder, FacilitySnapshot, Schedule


@dataclass(frozen=True, slots=True)
class Totals:
    """What has been counted since the first life, and how long ago the policy moved (infinite: never)."""

    role_moves: int = 0
    moved_mw: int = 0
    since_power_s: float = float("inf")
    since_role_s: float = float("inf")
    ttft: tuple[float, float] = (0.0, 0.0)  # requests, and those that met the target
    tpot: tuple[float, float] = (0.0, 0.0)
    finished: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A prediction whose time is not up: left_s to go, and (requests, attained) of TTFT and TPOT when it was made."""

    decision: str
    predicted: float
    left_s: float
    ttft: tuple[float, float]
    tpot: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ForecastSnapshot:
    """Predictions under way, how many were scored, the sum of their absolute errors, and the last as in the view."""

    pending: tuple[Pending, ...] = ()
    scored: int = 0
    error_sum: float = 0.0
    recent: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ControlSnapshot:
    """What a life hands to the next: all that safety, the operator's word and the totals rest on. The rest is heard
    anew. role_mark is the last role order given. What a policy remembers and has predicted is for the same policy only;
    policy_at_s is the time in its views.
    """

    ledger: LedgerSnapshot
    budgets_mw: tuple[tuple[str, int], ...]
    targets_mw: tuple[tuple[str, int], ...]
    pins: tuple[tuple[str, Role], ...]
    paused: bool
    decisions: int
    role_mark: Mark = field(default_factory=Mark)
    totals: Totals = field(default_factory=Totals)
    policy: str = ""
    policy_at_s: float = 0.0
    policy_state: PolicyState | None = None
    forecasts: ForecastSnapshot = field(default_factory=ForecastSnapshot)
    facility: FacilitySnapshot | None = None  # None: of a version that knew no budget orders


@dataclass(frozen=True, slots=True)
class Started:
    """A life of the controller begins. Without a snapshot (no journal) every GPU is booked at its ceiling."""

    at_s: float
    wall_s: float
    epoch: int
    controller_id: str
    snapshot: ControlSnapshot | None = None


@dataclass(frozen=True, slots=True)
class Ticked:
    """It is time to decide. wall_s is what the host's clock shows, in UTC (None: nobody looked)."""

    at_s: float
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A report came in."""

    at_s: float
    report: NodeReport


@dataclass(frozen=True, slots=True)
class NodeGone:
    """The stream to a node has ended. Nothing is freed by it."""

    at_s: float
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineCame:
    """An engine attached, or attached again."""

    at_s: float
    hello: EngineHello


@dataclass(frozen=True, slots=True)
class EngineLoaded:
    """An attached engine reported its load over its own stream; load.at_s is in the engine's time."""

    at_s: float
    instance: str
    incarnation: str
    engine_time_s: float
    load: PhaseLoad | None


@dataclass(frozen=True, slots=True)
class EngineMoved:
    """An engine says where it stands with a role order."""

    at_s: float
    progress: RoleProgress


@dataclass(frozen=True, slots=True)
class EngineGone:
    """The stream of an engine has ended."""

    at_s: float
    instance: str
    incarnation: str
    reason: str


@dataclass(frozen=True, slots=True)
class BudgetAsked:
    """An operator sets the budget of a domain; `force` accepts one that floors do not fit."""

    at_s: float
    request: str
    domain: str
    budget_mw: int
    force: bool
    by: str


@dataclass(frozen=True, slots=True)
class BudgetOrdered:
    """Budget orders came together over the bus, from one whose signature was found good; wall_s is the host's UTC."""

    at_s: float
    wall_s: float
    orders: tuple[BudgetOrder, ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Answers to budget orders have reached the broker."""

    at_s: float
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScheduleAsked:
    """An operator adds a schedule, or takes away the one of that name (None)."""

    at_s: float
    request: str
    name: str
    schedule: Schedule | None
    by: str


@dataclass(frozen=True, slots=True)
class RoleAsked:
    """An operator moves an instance and pins it there, or parks it. Role None without `park` takes the pin away, and a
    parked instance serves again."""

    at_s: float
    request: str
    instance: str
    role: Role | None
    by: str
    park: bool = False


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """An operator stops (or resumes) decisions of the policy. Leases are kept and budgets hold all the same."""

    at_s: float
    request: str
    paused: bool
    by: str


@dataclass(frozen=True, slots=True)
class ReleaseAsked:
    """An operator who has looked says that a silent node is off: what is booked for it is freed."""

    at_s: float
    request: str
    node: str
    by: str


Event = (
    Started
    | Ticked
    | NodeHeard
    | NodeGone
    | EngineCame
    | EngineLoaded
    | EngineMoved
    | EngineGone
    | BudgetAsked
    | BudgetOrdered
    | Delivered
    | ScheduleAsked
    | RoleAsked
    | PauseAsked
    | ReleaseAsked
)
