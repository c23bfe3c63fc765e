"""`rapidctl budget schedule add|list|remove`: windows in which a domain's budget is another. All times are UTC."""

import re
from datetime import UTC, datetime
from typing import Any

import click

from rapid.core.errors import UsageError, watts
from rapid.core.facility.nouns import INF, Schedule, ScheduleStatus
from rapidctl import output
from rapidctl.commands._names import completer, domains
from rapidctl.commands._units import Seconds, Watts
from rapidctl.commands._verb import Options, Verb, call, confirm, operator
from rapidctl.output import Cell, Column, Table, Tone

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400
SHAPE_OF_ONE = """\
name domain budget_w days start end duration_s ramp_down_s ramp_up_s by
active window_starts window_ends
  days   "mon" to "sun"; none: one window only, and start and end are times
  window_starts, window_ends   of the present or next window; null: none"""
ADD_EXAMPLES = """\
rapidctl budget schedule add eve r 3kW --days mon-fri --from 17:00 --to 21:00
rapidctl budget schedule add d r 2kW --from 2027-01-12T17Z --to 2027-01-12T19Z
rapidctl budget schedule add n r 3kW --days daily --from 22:00 --to 6:00 --yes"""
ADD_SHAPE = "one object: name domain budget_w days start end duration_s text"
LIST_EXAMPLES = """\
rapidctl budget schedule list
rapidctl budget schedule list --json | jq '.schedules[] | select(.active)'"""
LIST_SHAPE = "one object: schedules, a list of:\n  " + SHAPE_OF_ONE.replace("\n", "\n  ")
REMOVE_EXAMPLES = "rapidctl budget schedule remove evening"
REMOVE_SHAPE = "one object: name text"
COLUMNS = (
    Column("NAME"),
    Column("DOMAIN"),
    Column("BUDGET W", right=True),
    Column("DAYS"),
    Column("FROM"),
    Column("TO"),
    Column("NEXT WINDOW (UTC)"),
    Column("STATE"),
    Column("BY", elastic=True),
)


@click.group("schedule")
def schedule() -> None:
    """Windows in which the budget of a domain is another."""


@schedule.command(
    "add", cls=Verb, short_help="Add windows with another budget.", examples=ADD_EXAMPLES, shape=ADD_SHAPE
)
@click.argument("name", help="Of the schedule, to remove it by.")
@click.argument("domain", help="Whose budget.", shell_complete=completer(domains))
@click.argument("budget", type=Watts(), help="In the windows, with its unit: 4800W, 4.8kW.")
@click.option("--days", help="On which days a window starts: mon-fri, sat,sun, daily. Without: one window only.")
@click.option("--from", "start", required=True, metavar="TIME", help="17:00, or without --days 2027-01-12T17:00Z.")
@click.option(
    "--to", "end", required=True, metavar="TIME", help="Its end; a time of day up to --from is of the next day."
)
@click.option("--ramp-down", type=Seconds(), default=None, help="How long the way down to it takes.")
@click.option("--ramp-up", type=Seconds(), default=None, help="And the way up, at its end or to it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def add(
    options: Options,
    name: str,
    domain: str,
    budget: int,
    days: str | None,
    start: str,
    end: str,
    ramp_down: float | None,
    ramp_up: float | None,
    yes: bool,
) -> None:
    """Have the budget of DOMAIN be BUDGET in windows, under a NAME. Times are UTC.

    A window is an order like one over the bus: the least watts of all orders and of 'budget set' win. It is kept over
    restarts. A budget above that of 'budget set' counts only where the configuration lets schedules raise.
    """
    start_s, duration_s = _window(start, end, one=days is None)
    wanted = Schedule(
        name, domain, budget, _days(days), start_s, duration_s, ramp_down or 0.0, ramp_up or 0.0, operator()
    )
    standing_mw = call(options, lambda client: client.status())
    before_mw = next((it.budget_mw for it in standing_mw.domains if it.domain == domain), budget)
    if budget > before_mw:
        confirm(f"schedule {watts(budget)} for {domain}, which is at {watts(before_mw)}", yes=yes)
    text = call(options, lambda client: client.add_schedule(wanted))
    document = _document(ScheduleStatus(wanted, INF, INF, False))
    shown = {key: document[key] for key in ("name", "domain", "budget_w", "days", "start", "end", "duration_s")}
    output.show(output.Page({**shown, "text": text}, (output.line(text),)), as_json=options.as_json)


@schedule.command("list", cls=Verb, short_help="List them.", examples=LIST_EXAMPLES, shape=LIST_SHAPE)
@click.pass_obj
def show(options: Options) -> None:
    """List the schedules with their present or next window. Times are UTC."""
    found = call(options, lambda client: client.schedules())
    document = {"schedules": [_document(each) for each in found]}
    table = Table(COLUMNS, tuple(_row(each) for each in found))
    output.show(output.Page(document, (table,)), as_json=options.as_json)
    if not found:
        output.talk("no schedule")


@schedule.command("remove", cls=Verb, short_help="Take one away.", examples=REMOVE_EXAMPLES, shape=REMOVE_SHAPE)
@click.argument("name", help="Of the schedule.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(options: Options, name: str, yes: bool) -> None:
    """Take the schedule NAME away. A window that is under way ends now, which may raise the budget: so it asks."""
    found = call(options, lambda client: client.schedules())
    if any(it.active for it in found if it.schedule.name == name):
        confirm(f"end the window of schedule {name}, which is under way", yes=yes)
    text = call(options, lambda client: client.remove_schedule(name, by=operator()))
    output.show(output.Page({"name": name, "text": text}, (output.line(text),)), as_json=options.as_json)


# ---- times ----


def _window(start: str, end: str, *, one: bool) -> tuple[float, float]:
    """Begin and duration. Raises UsageError."""
    if one:
        start_s, end_s = _moment(start, "--from"), _moment(end, "--to")
        if end_s <= start_s:
            raise UsageError(f"--to {end} is not after --from {start}")
        return start_s, end_s - start_s
    start_s, end_s = _time_of_day(start, "--from"), _time_of_day(end, "--to")
    return start_s, (end_s - start_s) % DAY_S or DAY_S


def _time_of_day(text: str, option: str) -> float:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?Z?", text)
    hour, minute, second = (int(part or 0) for part in found.groups()) if found else (24, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"{option}: {text!r} is no time of day; with --days write it as 17:00 (UTC)")
    return float(hour * 3600 + minute * 60 + second)


def _moment(text: str, option: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        problem = f"{option}: {text!r} is no time with its zone; write it as 2027-01-12T17:00Z, or give --days"
        raise UsageError(problem)
    return found.timestamp()


def _days(text: str | None) -> tuple[int, ...]:
    """The numbers of days written as mon-fri, sat,sun or daily. Raises UsageError."""
    if text is None:
        return ()
    if text == "daily":
        return tuple(range(7))
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.strip().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise UsageError(f"--days: {text!r} names no days; write it as mon-fri, sat,sun or daily")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, end + (7 if end < begin else 0) + 1)}
    return tuple(sorted(found))


# ---- what is shown ----


def _document(status: ScheduleStatus) -> dict[str, Any]:
    it = status.schedule
    start, end = _bounds(it)
    return {
        "name": it.name,
        "domain": it.domain,
        "budget_w": it.budget_mw / 1000,
        "days": [DAYS[day] for day in it.days],
        "start": start,
        "end": end,
        "duration_s": it.duration_s,
        "ramp_down_s": it.ramp_down_s,
        "ramp_up_s": it.ramp_up_s,
        "by": it.by,
        "active": status.active,
        "window_starts": None if status.starts_wall_s == INF else _utc(status.starts_wall_s),
        "window_ends": None if status.ends_wall_s == INF else _utc(status.ends_wall_s),
    }


def _row(status: ScheduleStatus) -> tuple[Cell, ...]:
    it = status.schedule
    start, end = _bounds(it)
    over = status.starts_wall_s == INF
    state = Cell("under way", Tone.WARN) if status.active else Cell("over" if over else "waits", Tone.DIM)
    return (
        Cell(it.name, Tone.STRONG),
        Cell(it.domain),
        Cell(f"{it.budget_mw / 1000:,.0f}"),
        Cell(_days_in_words(it.days)),
        Cell(start),
        Cell(end),
        Cell("-" if over else _utc(status.starts_wall_s)),
        state,
        Cell(it.by),
    )


def _bounds(it: Schedule) -> tuple[str, str]:
    if not it.days:
        return _utc(it.start_s), _utc(it.start_s + it.duration_s)
    return _day_time(it.start_s), _day_time((it.start_s + it.duration_s) % DAY_S)


def _day_time(time_s: float) -> str:
    hour, rest_s = divmod(int(time_s), 3600)
    minute, second = divmod(rest_s, 60)
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _days_in_words(days: tuple[int, ...]) -> str:
    if not days:
        return "once"
    if len(days) == 7:
        return "daily"
    if len(days) > 2 and days == tuple(range(days[0], days[-1] + 1)):
        return f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
    return ",".join(DAYS[day] for day in days)
