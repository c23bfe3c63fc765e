"""When the windows of a schedule are: plain arithmetic on UTC, which has neither zones nor summer time."""

from rapid.core.errors import Refused, watts
from rapid.core.facility.nouns import SCHEDULE, BudgetOrder, Schedule
from rapid.core.facility.rules import BUDGET_MAX_MW, RAMP_MAX_S

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
SCHEDULES_MAX = 256
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


def window(schedule: Schedule, wall_s: float) -> tuple[float, float] | None:
    """Begin and end of the window that is under way at wall_s, or else of the next; None: there is none any more."""
    if not schedule.days:
        end_s = schedule.start_s + schedule.duration_s
        return (schedule.start_s, end_s) if wall_s < end_s else None
    today = int(wall_s // DAY_S)
    # A window may be as long as a week, so one that began up to seven days ago may still be under way; of several that
    # overlap, the oldest comes first, and the others follow from its end.
    for day in range(today - 7, today + 8):
        start_s = day * DAY_S + schedule.start_s
        if (day + _EPOCH_WEEKDAY) % 7 in schedule.days and wall_s < start_s + schedule.duration_s:
            return start_s, start_s + schedule.duration_s
    raise AssertionError("a schedule with days has a window every week")


def order_of(schedule: Schedule, wall_s: float) -> BudgetOrder | None:
    """The order that the present window, or the next, gives."""
    found = window(schedule, wall_s)
    if found is None:
        return None
    start_s, end_s = found
    return BudgetOrder(
        id=f"{schedule.name}@{int(start_s)}",
        source=f"{SCHEDULE} {schedule.name}",
        domain=schedule.domain,
        budget_mw=schedule.budget_mw,
        issued_wall_s=wall_s,
        not_before_wall_s=start_s,
        expires_wall_s=end_s,
        ramp_down_s=schedule.ramp_down_s,
        ramp_up_s=schedule.ramp_up_s,
    )


def check(schedule: Schedule, wall_s: float) -> None:
    """Raise Refused for a schedule that makes no sense."""
    name = schedule.name
    if not 0 <= schedule.budget_mw <= BUDGET_MAX_MW:
        raise Refused(f"schedule {name}: budget {watts(schedule.budget_mw)} is outside 0 W..{watts(BUDGET_MAX_MW)}")
    if any(not 0 <= day <= 6 for day in schedule.days) or len(set(schedule.days)) != len(schedule.days):
        raise Refused(f"schedule {name}: its days must be different ones from 0 (Monday) to 6")
    if schedule.days and not 0 <= schedule.start_s < DAY_S:
        raise Refused(f"schedule {name}: it starts {schedule.start_s:g} s after midnight; a day has {DAY_S:g} s")
    if not 1 <= schedule.duration_s <= WEEK_S:
        raise Refused(f"schedule {name}: a window of {schedule.duration_s:g} s; it must last 1 s to a week")
    for way, ramp_s in (("down", schedule.ramp_down_s), ("up", schedule.ramp_up_s)):
        if not 0 <= ramp_s <= RAMP_MAX_S:
            raise Refused(f"schedule {name}: a ramp {way} of {ramp_s:g} s is outside 0..{RAMP_MAX_S:g} s")
    if not schedule.days and window(schedule, wall_s) is None:
        raise Refused(f"schedule {name}: its window is over; give one that ends in the future")
