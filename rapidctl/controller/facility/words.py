"""The nouns of the core as messages of the bus, and the other way round."""

from datetime import datetime

import msgspec

from rapid.core.cluster import NodeHealth
from rapid.core.commands import Announce, Command, Notice
from rapid.core.facility.nouns import AT_ONCE_S, INF, BudgetOrder, BudgetResult, Outcome
from rapid.core.status import DomainStatus, NodeStatus, Status
from rapidctl.controller.facility.messages import (
    DomainState,
    Event,
    NodeState,
    Result,
    SetBudget,
    SiteStatus,
    set_decoder,
    utc,
)

TEXT_MAX = 500  # characters of a text that goes out


class Malformed(Exception):
    """What came is no order; the text says where."""


def order_of(payload: bytes, source: str) -> tuple[BudgetOrder, str]:
    """The order that was signed, and the site that it is for. Raises Malformed."""
    try:
        said = set_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)[:TEXT_MAX]) from error
    if not all(name.isprintable() for name in (said.site, said.domain, said.id)):
        raise Malformed("a name has characters that cannot be printed")
    return _order(said, source), said.site


def _order(said: SetBudget, source: str) -> BudgetOrder:
    return BudgetOrder(
        id=said.id,
        source=source,
        domain=said.domain,
        budget_mw=None if said.budget_w is None else round(said.budget_w * 1000),
        issued_wall_s=said.issued.timestamp(),
        not_before_wall_s=AT_ONCE_S if said.not_before is None else said.not_before.timestamp(),
        expires_wall_s=INF if said.expires is None else said.expires.timestamp(),
        ramp_down_s=said.ramp_down_s,
        ramp_up_s=said.ramp_up_s,
    )


def result_of(site: str, result: BudgetResult) -> Result:
    """An answer of the core."""
    known = result.outcome is not Outcome.REFUSED
    return Result(
        site=site,
        domain=result.domain,
        outcome=result.outcome.value,
        time=utc(result.wall_s),
        id=result.id,
        source=result.source,
        number=result.number,
        why=None if result.why is None else result.why.value,
        text=result.text[:TEXT_MAX],
        budget_w=_w(result.budget_mw),
        budget_in_force_w=_w(result.in_force_mw) if known else None,
        in_force_at=None if result.in_force_wall_s is None else utc(result.in_force_wall_s),
        ends_at=_time(result.ends_wall_s) if known else None,
        held_by=result.held_by or None,
        shortfall_w=result.shortfall_mw / 1000,
        predicted_attainment=result.attainment,
        repeated=result.repeated,
    )


def refusal(site: str, domain: str, why: str, text: str, wall_s: float, *, by: tuple[str, str] | None = None) -> Result:
    """An answer to what did not get as far as the core; `by` is (id, source) of one whose signature was good."""
    return Result(
        site=site,
        domain=domain,
        outcome=Outcome.REFUSED.value,
        time=utc(wall_s),
        id=by[0] if by else None,
        source=by[1] if by else None,
        number=0,
        why=why,
        text=text[:TEXT_MAX],
        budget_w=None,
        budget_in_force_w=None,
        in_force_at=None,
        ends_at=None,
        held_by=None,
        shortfall_w=0.0,
        predicted_attainment=None,
        repeated=False,
    )


def site_status(site: str, state: str, wall_s: float, status: Status, version: str) -> SiteStatus:
    return SiteStatus(site, state, utc(wall_s), status.controller_id, status.epoch, version)


def domain_state(site: str, domain: DomainStatus, status: Status, wall_s: float) -> DomainState:
    truth = domain.truth
    since_s = truth.compliant_since_wall_s
    return DomainState(
        site=site,
        domain=domain.domain,
        parent=domain.parent or None,
        time=utc(wall_s),
        budget_w=domain.budget_mw / 1000,
        standing_w=truth.standing_mw / 1000,
        ceiling_w=truth.ceiling_mw / 1000,
        least_w=truth.least_mw / 1000,
        held_by=truth.held_by or None,
        ramping=truth.ramping,
        reserved_w=domain.reserved_mw / 1000,
        held_w=domain.held_mw / 1000,
        draw_w=truth.measured_mw / 1000,
        draw_at_most_w=truth.at_most_mw / 1000,
        unknown_gpus=truth.unknown_gpus,
        compliant=since_s is not None,
        compliant_since=None if since_s is None else utc(since_s),
        watched_s=round(truth.kept.watched_s, 1),
        over_s=round(truth.kept.over_s, 1),
        unmeasured_s=round(truth.kept.unmeasured_s, 1),
        over_budget=domain.over_budget,
        advice=domain.advice[:TEXT_MAX],
        attainment=None if status.attainment is None else round(status.attainment, 4),
    )


def node_state(site: str, node: NodeStatus, wall_s: float) -> NodeState:
    draws = [gpu.draw_mw for gpu in node.gpus]
    known = [draw_mw for draw_mw in draws if draw_mw is not None]
    complete = len(known) == len(draws) and node.health is NodeHealth.REPORTING
    return NodeState(
        site=site,
        node=node.node,
        domain=node.domain,
        time=utc(wall_s),
        health=node.health.value,
        gpus=len(node.gpus),
        unmanaged_gpus=sum(not gpu.managed for gpu in node.gpus),
        limit_w=sum(gpu.limit_mw for gpu in node.gpus) / 1000,
        held_w=sum(gpu.held_mw for gpu in node.gpus) / 1000,
        draw_w=sum(known) / 1000 if complete else None,
        excursion=node.watch.excursion[:TEXT_MAX],
        problem=node.problem[:TEXT_MAX],
    )


def event_of(site: str, command: Command, wall_s: float) -> Event | None:
    """What of a command others should hear of; None: nothing."""
    if isinstance(command, Announce):
        made = command.decision
        changes = ", ".join(f"{about}: {before} -> {after}" for about, before, after in made.changes[:8])
        about = ", ".join(about for about, _, _ in made.changes[:8])
        text = f"{made.by}: {made.reason}" + (f" ({changes})" if changes else "")
        return Event(site, utc(made.wall_s), "decision", "info", about[:TEXT_MAX], text[:TEXT_MAX], made.id, 0)
    if isinstance(command, Notice):
        return Event(
            site, utc(wall_s), "notice", command.level, command.about[:TEXT_MAX], command.text[:TEXT_MAX], None, 0
        )
    return None


def _w(power_mw: int | None) -> float | None:
    return None if power_mw is None else power_mw / 1000


def _time(wall_s: float) -> datetime | None:
    return None if wall_s == INF else utc(wall_s)
