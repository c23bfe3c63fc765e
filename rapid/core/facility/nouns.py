"""Frozen nouns of budget orders: what is ordered, what is answered, what is true of a domain.

Times that end in `_wall_s` are UTC, seconds since 1970; a plain `_s` is the steady time of rapid.core.facility.clocks.
"""

from dataclasses import dataclass
from enum import Enum

SCHEDULE = "schedule"  # the source of every schedule's orders begins with this word
INF = float("inf")
AT_ONCE_S = 0.0  # not_before of an order that begins when it comes, whatever the clock of its sender


class Outcome(Enum):
    """What an answer says of an order."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    IN_FORCE = "in_force"  # all limits that it needs have been read back
    ENDED = "ended"


class Why(Enum):
    """Why an order was refused, or has ended; for machines, the text is for people."""

    UNKNOWN_DOMAIN = "unknown_domain"
    NOT_ALLOWED = "not_allowed"
    INVALID = "invalid"
    EXPIRED = "expired"
    STALE = "stale"  # made too long ago
    FUTURE = "future"  # made later than now
    OUT_OF_ORDER = "out_of_order"  # made before one that was taken already
    REPLAYED = "replayed"
    ABOVE_CEILING = "above_ceiling"
    TOO_MANY = "too_many"
    SUPERSEDED = "superseded"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class BudgetOrder:
    """What a source asks a domain's budget to be, from not_before to expiry.

    id           names it among the orders of its source
    budget_mw    None: in this time the source asks for nothing, and its earlier orders do not hold
    issued_wall_s  when it was made
    expires_wall_s  infinite: until the source says otherwise
    ramp_down_s  from a higher budget, in force at its begin, to its own, in a straight line
    ramp_up_s    from a lower one to its own, and after its end from its own back up
    ref          what its sender calls it, where that is not its id
    """

    id: str
    source: str
    domain: str
    budget_mw: int | None
    issued_wall_s: float
    not_before_wall_s: float
    expires_wall_s: float = INF
    ramp_down_s: float = 0.0
    ramp_up_s: float = 0.0
    ref: str = ""


@dataclass(frozen=True, slots=True)
class LiveOrder:
    """An accepted order that has not ended, or whose ramp back goes on.

    number    in the order of acceptance
    raises    may stand above the budget that the operator set
    starts_s, ends_s  not_before and expiry on the steady clock, as they were when it was accepted
    begun_s   when its ramp began (None: not yet), at a budget of from_mw
    ended_s   when its ramp back began (None: it has not ended), at from_mw
    left_s    the same for one that no clock is in the time of, though they differ about whether it is over
    said      that it is in force has been told
    """

    number: int
    order: BudgetOrder
    raises: bool
    starts_s: float
    ends_s: float
    begun_s: float | None = None
    from_mw: int = 0
    ended_s: float | None = None
    said: bool = False
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """One answer about one order.

    number      for what must be delivered, grows by one; 0 for a refusal, which is said once and not kept
    budget_mw   as ordered; in_force_mw the budget of the domain now
    in_force_wall_s  accepted: when it is expected to be in force; in force: since when
    held_by     whose word keeps the budget below what was ordered; empty: nobody's
    shortfall_mw  what stays above the budget with every GPU at its floor
    attainment  accepted: the SLO attainment that the policy predicts under it, 0 to 1 (None: no prediction)
    repeated    the order was known already
    """

    number: int
    id: str
    source: str
    domain: str
    outcome: Outcome
    wall_s: float
    text: str = ""
    why: Why | None = None
    budget_mw: int | None = None
    in_force_mw: int = 0
    in_force_wall_s: float | None = None
    ends_wall_s: float = INF
    held_by: str = ""
    shortfall_mw: int = 0
    attainment: float | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows in which a domain's budget is to be lower (or, where schedules may raise, higher).

    days        of the week on which a window starts, 0 for Monday, in UTC; empty: one window only
    start_s     of a window: seconds after midnight UTC, or, without days, seconds since 1970
    """

    name: str
    domain: str
    budget_mw: int
    days: tuple[int, ...]
    start_s: float
    duration_s: float
    ramp_down_s: float = 0.0
    ramp_up_s: float = 0.0
    by: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule, and the window that is under way or comes next (infinite: none any more)."""

    schedule: Schedule
    starts_wall_s: float
    ends_wall_s: float
    active: bool


@dataclass(frozen=True, slots=True)
class OrderStatus:
    """A live order as the facility sees it: `active` between its begin and its end."""

    order: BudgetOrder
    active: bool
    in_force: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """How a domain has kept its budget since the journal began, by energy counters: seconds watched, and of them those
    over the budget and those in which some GPU could not be measured."""

    watched_s: float = 0.0
    over_s: float = 0.0
    unmeasured_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DomainTruth:
    """What is true of a domain's budget and of its draw.

    standing_mw   the budget without any order: the operator's
    ceiling_mw    an order above it is refused
    least_mw      what the domain can be brought down to now, reserved power included
    held_by       whose order makes the budget what it is (empty: nobody's)
    ramping       -1 while the budget goes down step by step, 1 while it goes up
    measured_mw   mean power over the last window, by energy counters, of the GPUs that could be measured
    at_most_mw    the same, with every other GPU at what is booked for it
    unknown_gpus  how many could not be measured
    compliant_since_wall_s  since when all were measured, and with the reserved power within the budget (None: not so)
    """

    standing_mw: int = 0
    ceiling_mw: int = 0
    least_mw: int = 0
    held_by: str = ""
    ramping: int = 0
    measured_mw: int = 0
    at_most_mw: int = 0
    unknown_gpus: int = 0
    compliant_since_wall_s: float | None = None
    kept: Kept = Kept()


@dataclass(frozen=True, slots=True)
class Heard:
    """What was taken from a source for a domain, so that nothing is taken twice: the last orders by id, with the time
    when each was made, and the latest such time among those that are remembered no longer."""

    source: str
    domain: str
    taken: tuple[tuple[str, float], ...] = ()
    forgotten_wall_s: float = -INF


@dataclass(frozen=True, slots=True)
class FacilitySnapshot:
    """What a life hands to the next. The three times are of one moment."""

    at_s: float
    wall_s: float
    steady_s: float
    orders: tuple[LiveOrder, ...] = ()
    heard: tuple[Heard, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    undelivered: tuple[BudgetResult, ...] = ()
    numbers: int = 0
    results: int = 0
    kept: tuple[tuple[str, Kept], ...] = ()
