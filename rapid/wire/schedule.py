"""ControllerService: schedules of budgets."""

from rapid.core.events import ScheduleAsked
from rapid.core.facility.nouns import INF, Schedule, ScheduleStatus
from rapid.v1 import controller_pb2
from rapid.wire import fields

SCHEDULES_MAX = 256
WEEK_S = 7 * 86_400.0
RAMP_MAX_S = 86_400.0
UNNAMED = "an operator"


def decode_add_schedule(message: controller_pb2.AddScheduleRequest, *, at_s: float, request: str) -> ScheduleAsked:
    """Raises WireInvalid."""
    fields.present(message, "schedule")
    schedule = fields.inner(message.schedule, "schedule", decode_schedule)
    return ScheduleAsked(at_s=at_s, request=request, name=schedule.name, schedule=schedule, by=schedule.by)


def decode_remove_schedule(
    message: controller_pb2.RemoveScheduleRequest, *, at_s: float, request: str
) -> ScheduleAsked:
    """Raises WireInvalid."""
    by = fields.text(message.by, "by") or UNNAMED
    return ScheduleAsked(at_s=at_s, request=request, name=fields.name(message.name, "name"), schedule=None, by=by)


def encode_schedule(schedule: Schedule) -> controller_pb2.Schedule:
    return controller_pb2.Schedule(
        name=schedule.name,
        domain=schedule.domain,
        budget_mw=schedule.budget_mw,
        days=schedule.days,
        start_s=schedule.start_s,
        duration_s=schedule.duration_s,
        ramp_down_s=schedule.ramp_down_s,
        ramp_up_s=schedule.ramp_up_s,
        by=fields.line(schedule.by),
    )


def decode_schedule(message: controller_pb2.Schedule) -> Schedule:
    """Raises WireInvalid."""
    return Schedule(
        name=fields.name(message.name, "name"),
        domain=fields.name(message.domain, "domain"),
        budget_mw=fields.power(message.budget_mw, "budget_mw", 0, fields.POWER_MAX_MW),
        days=fields.each(message.days, "days", lambda day: fields.count(day, "day", 0, 6), 7),
        start_s=fields.seconds(message.start_s, "start_s"),
        duration_s=fields.seconds(message.duration_s, "duration_s", 1.0, WEEK_S),
        ramp_down_s=fields.seconds(message.ramp_down_s, "ramp_down_s", 0.0, RAMP_MAX_S),
        ramp_up_s=fields.seconds(message.ramp_up_s, "ramp_up_s", 0.0, RAMP_MAX_S),
        by=fields.text(message.by, "by") or UNNAMED,
    )


def encode_schedules(schedules: tuple[ScheduleStatus, ...]) -> controller_pb2.ListSchedulesResponse:
    return controller_pb2.ListSchedulesResponse(
        schedules=[
            controller_pb2.ScheduleStatus(
                schedule=encode_schedule(it.schedule),
                starts_wall_s=None if it.starts_wall_s == INF else it.starts_wall_s,
                ends_wall_s=None if it.ends_wall_s == INF else it.ends_wall_s,
                active=it.active,
            )
            for it in schedules
        ]
    )


def decode_schedules(message: controller_pb2.ListSchedulesResponse) -> tuple[ScheduleStatus, ...]:
    """Raises WireInvalid."""
    return fields.each(message.schedules, "schedules", _schedule_status, SCHEDULES_MAX)


def _schedule_status(message: controller_pb2.ScheduleStatus) -> ScheduleStatus:
    fields.present(message, "schedule")
    return ScheduleStatus(
        fields.inner(message.schedule, "schedule", decode_schedule),
        fields.seconds(message.starts_wall_s, "starts_wall_s") if message.HasField("starts_wall_s") else INF,
        fields.seconds(message.ends_wall_s, "ends_wall_s") if message.HasField("ends_wall_s") else INF,
        message.active,
    )
