"""What the control loop does with what is asked of budgets: by the operator, by orders over the bus, by schedules."""

from dataclasses import replace
from typing import TYPE_CHECKING

from rapid.core import asked, picture
from rapid.core.commands import Answer, Command, PublishResult
from rapid.core.errors import NotFound, Refused, watts
from rapid.core.events import BudgetAsked, BudgetOrdered, Delivered, ScheduleAsked
from rapid.core.facility import rules, says, truth, windows
from rapid.core.facility.facility import OPERATOR
from rapid.core.facility.nouns import (
    SCHEDULE,
    BudgetOrder,
    BudgetResult,
    FacilitySnapshot,
    LiveOrder,
    Outcome,
    Schedule,
    Why,
)
from rapid.core.policy import NO_CHANGE

if TYPE_CHECKING:
    from rapid.core.control import Control

PREDICT_EVERY_S = 1.0  # a policy is asked what it expects of an order at most this often: it may think for a while


# ---- the operator ----


def budget(control: "Control", event: BudgetAsked) -> list[Command]:
    """Set the budget that stands when no order holds it lower."""
    ledger, facility = control.ledger, control.facility
    due = _follow(control)
    try:
        ledger.set_budget(event.domain, event.budget_mw, force=event.force)
    except Refused as error:
        return [*due, asked.refusal(event.request, error)]
    before_mw = facility.standing_mw[event.domain]
    lowered = facility.set_standing(event.domain, event.budget_mw)
    change = (event.domain, watts(before_mw), watts(event.budget_mw))
    decision = control.decided(event.by, f"set the budget of domain {event.domain}", changes=(change,))
    _follow(control)  # no limit has moved yet: what the orders hold lower never was higher
    commands = control.apply(NO_CHANGE)
    text = f"domain {event.domain}: budget {change[1]} -> {change[2]}"
    short_mw = ledger.floors_mw(event.domain) - event.budget_mw
    if short_mw > 0:
        text += f"; OVER BUDGET by {watts(short_mw)} with every GPU at its floor"
    elif (fallbacks_mw := ledger.fallbacks_mw(event.domain)) > event.budget_mw:
        text += f"; a host that boots comes up at its fallbacks, which need {watts(fallbacks_mw)}: lower them"
    if held_by := facility.held_by(event.domain):
        text += f"; it is at {watts(ledger.domains[event.domain].budget_mw)} by {held_by}"
    if lowered:
        text += f"; no longer above it: {', '.join(it.order.id for it in lowered)}"
    return [*due, decision, *commands, *control.watch_budgets(), Answer(event.request, text)]


def schedule(control: "Control", event: ScheduleAsked) -> list[Command]:
    """Add a schedule, or take one away."""
    try:
        if event.schedule is None:
            return _remove_schedule(control, event)
        return _add_schedule(control, event, event.schedule)
    except Refused as error:
        return [asked.refusal(event.request, error)]


def _add_schedule(control: "Control", event: ScheduleAsked, wanted: Schedule) -> list[Command]:
    facility, name = control.facility, wanted.name
    before = facility.schedules.get(name)
    if before is not None and replace(before, by=wanted.by) == wanted:
        return [Answer(event.request, f"schedule {name} is there already")]
    if before is not None:
        raise Refused(f"schedule {name} is another one already; remove it first, or choose another name")
    if wanted.domain not in facility.standing_mw:
        raise NotFound("domain", wanted.domain, tuple(facility.standing_mw))
    if len(facility.schedules) >= windows.SCHEDULES_MAX:
        raise Refused(f"there are {windows.SCHEDULES_MAX} schedules, the most there may be; remove one first")
    windows.check(wanted, facility.clocks.wall_s)
    order = windows.order_of(wanted, facility.clocks.wall_s)
    assert order is not None, "a schedule whose windows are over is refused"
    refusal = rules.malformed(order, facility.settings) or rules.too_high(order, facility.configured, facility.settings)
    if refusal is not None:
        raise Refused(f"schedule {name}: {refusal[1]}")
    facility.schedules[name] = wanted
    change = (wanted.domain, "none", f"{watts(wanted.budget_mw)} in the windows of schedule {name}")
    decision = control.decided(wanted.by or OPERATOR, f"added schedule {name}", changes=(change,))
    text = f"schedule {name}: domain {wanted.domain} at {watts(wanted.budget_mw)}"
    standing_mw = facility.standing_mw[wanted.domain]
    if wanted.budget_mw > standing_mw and not facility.settings.schedules_raise:
        text += f"; it stands at {watts(standing_mw)}, and schedules may not raise it, so this changes nothing for now"
    return [decision, *_moved(control), Answer(event.request, text)]


def _remove_schedule(control: "Control", event: ScheduleAsked) -> list[Command]:
    facility, name = control.facility, event.name
    if name not in facility.schedules:
        raise NotFound("schedule", name, tuple(facility.schedules))
    gone = facility.schedules.pop(name)
    ended = facility.remove(_source(gone))
    decision = control.decided(
        event.by, f"removed schedule {name}", changes=((gone.domain, f"schedule {name}", "none"),)
    )
    commands = _moved(control)
    results = [PublishResult(facility.ended(it, Why.REMOVED)) for it in ended]
    return [decision, *commands, *results, Answer(event.request, f"schedule {name} is removed")]


# ---- the bus ----


def ordered(control: "Control", event: BudgetOrdered) -> list[Command]:
    """Orders that came together, each judged by itself, and what comes of them now."""
    control.facility.turn(event.at_s, event.wall_s)
    taken: list[LiveOrder] = []
    answers: list[Command] = []
    for order in event.orders:
        answer = _take(control, order)
        if isinstance(answer, LiveOrder):
            taken.append(answer)
        else:
            answers.append(PublishResult(answer))
    if not taken:
        return answers
    attained = [_predicted(control, live.order) for live in taken]
    commands = _moved(control)
    accepted = [_accepted(control, live, share) for live, share in zip(taken, attained, strict=True)]
    return [*answers, *(PublishResult(it) for it in accepted), *commands]


def delivered(control: "Control", event: Delivered) -> list[Command]:
    """The broker has taken these answers."""
    control.facility.delivered(event.numbers)
    return []


def _take(control: "Control", order: BudgetOrder) -> LiveOrder | BudgetResult:
    facility = control.facility
    known = facility.known(order)
    if known is not None:
        outcome = Outcome.IN_FORCE if known.said else Outcome.ACCEPTED
        return facility.result(order, outcome, repeated=True)
    refusal = rules.why_not(
        order,
        domains=facility.configured,
        settings=facility.settings,
        clocks=facility.clocks,
        heard=facility.heard(order),
        live=facility.of(order.domain, order.source),
    )
    if refusal is None:
        source = next(each for each in facility.settings.sources if each.name == order.source)
        return facility.admit(order, raises=source.may_raise)
    why, text = refusal
    return BudgetResult(
        0, order.id, order.source, order.domain, Outcome.REFUSED, facility.clocks.wall_s, text, why, order.budget_mw
    )


def _accepted(control: "Control", live: LiveOrder, share: float | None) -> BudgetResult:
    """The first answer about an order, made when its budget, if it has begun, is already asked of the GPUs."""
    facility, order, settings = control.facility, live.order, control.settings
    begins_wall_s = max(order.not_before_wall_s, facility.clocks.wall_s)
    live = next((it for it in facility.of(order.domain) if it.number == live.number), live)  # it may have begun
    now_mw = live.from_mw if live.begun_s is not None else control.ledger.domains[order.domain].budget_mw
    settles_s = says.ramp_s(order, now_mw) + 2 * settings.tick_s + settings.ledger.settle_s
    made = facility.result(order, Outcome.ACCEPTED, in_force_wall_s=begins_wall_s + settles_s, attainment=share)
    least_mw = facility.least_mw(order.domain, control.limits.movable(control.at_s))
    short_mw = 0 if order.budget_mw is None else max(0, least_mw - order.budget_mw)
    text = ""
    if short_mw:
        advice = picture.advice(control, order.domain)
        text = f"{watts(short_mw)} too much will stay with every GPU at its floor: {advice}"
    elif made.held_by:
        text = f"{made.held_by} holds the budget at {watts(made.in_force_mw)}"
    return facility.amend(replace(made, shortfall_mw=short_mw, text=text))


def _predicted(control: "Control", order: BudgetOrder) -> float | None:
    """The SLO attainment that the policy expects under an order, asked through a copy of it."""
    at_s = control.at_s
    if order.budget_mw is None or at_s - control.predicted_s < PREDICT_EVERY_S:
        return None
    control.predicted_s = at_s
    return picture.under(control, order.domain, order.budget_mw)


# ---- time ----


def tick(control: "Control") -> list[Command]:
    """Give the orders of schedules, begin and end what is due, and take the measure of every domain."""
    facility = control.facility
    commands = _follow(control)
    control.draws = truth.judge(facility, control.at_s, control.settings.silent_after_s)
    ttft, tpot, _ = control.slo.totals()
    facility.recent.see((ttft, tpot), control.at_s)
    return commands


def in_force(control: "Control") -> list[Command]:
    """Say which orders have come into force; cheap while none waits for it."""
    facility = control.facility
    if not facility.awaits:
        return []
    facility.turn(control.at_s)
    return [PublishResult(it) for it in facility.say_in_force(control.limits.movable(control.at_s))]


def take_over(control: "Control", kept: FacilitySnapshot) -> list[Command]:
    """A life begins: deliver what was not delivered, and hold the budgets to the orders again."""
    control.facility.go_on_from(kept)
    waiting = [PublishResult(it) for it in control.facility.undelivered.values()]
    return [*waiting, *_follow(control)]


# ---- helpers ----


def _moved(control: "Control") -> list[Command]:
    """Follow the orders at once, and move limits as the budgets now ask."""
    commands = _follow(control)
    return [*commands, *control.apply(NO_CHANGE), *control.watch_budgets(), *in_force(control)]


def _follow(control: "Control") -> list[Command]:
    """Make the budgets of the ledger what the orders come to."""
    facility = control.facility
    facility.turn(control.at_s)
    for each in facility.schedules.values():
        _give_window(control, each)
    moved, ended = facility.settle()
    commands: list[Command] = []
    for change in moved:
        control.ledger.set_budget(change.domain, change.budget_mw, force=True)
        if change.reason:
            words = (change.domain, watts(change.before_mw), change.toward)
            commands.append(control.decided(change.by, change.reason, changes=(words,)))
    return [*commands, *(PublishResult(facility.ended(it, why)) for it, why in ended)]


def _give_window(control: "Control", schedule: Schedule) -> None:
    """Every schedule has its present or next window among the live orders: a clock that is set cannot skip it."""
    facility = control.facility
    if any(it.ended_s is None for it in facility.of(schedule.domain, _source(schedule))):
        return
    order = windows.order_of(schedule, facility.clocks.wall_s)
    if order is not None:
        facility.admit(order, raises=facility.settings.schedules_raise)


def _source(schedule: Schedule) -> str:
    return f"{SCHEDULE} {schedule.name}"
