"""What is read off the control loop: the view that a policy gets, the status and plan that an operator gets. Changes
nothing.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from rapid.core.cluster import (
    Decision,
    GpuView,
    InstanceView,
    Latencies,
    NodeHealth,
    Phase,
    PhaseLoad,
    Role,
    Targets,
    View,
)
from rapid.core.errors import watts
from rapid.core.facility import truth
from rapid.core.policy import Policy, StatefulPolicy
from rapid.core.roles import Instance
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status

if TYPE_CHECKING:
    from rapid.core.control import Control

PLAN = "plan"  # in place of the id of a decision


def view(control: "Control", movable: list[str], settled: bool) -> View:
    """All that a policy may look at, now: not what is parked, whose watts are free for the others."""
    settings, at_s = control.settings, control.at_s
    serving = (one for one in control.roles.instances.values() if one.phase is not Phase.PARKED)
    instances = tuple(_instance_view(control, one) for one in serving)
    waits = [
        kept[0].oldest_wait_s + at_s - kept[1]
        for one in instances
        if one.role is not Role.DECODE and (kept := _fresh(control, one.instance, at_s)) and kept[0].waiting_requests
    ]
    latencies = Latencies(
        control.slo.ttft.quantile(settings.quantile, at_s),
        control.slo.tpot.quantile(settings.quantile, at_s),
        max(waits, default=0.0),
    )
    return View(
        at_s=at_s + control.policy_ahead_s,
        slo=settings.slo,
        latencies=latencies,
        gpus=tuple(gpu_views(control, movable)),
        instances=instances,
        rooms_mw=control.ledger.rooms_mw(movable),
        chains={name: node.chain for name, node in control.ledger.nodes.items()},
        settled=settled,
        since_power_s=_in_ticks(at_s - control.last_power_s, settings.tick_s),
        # Engines attach one after another, so the first to come after a start are not yet all there are.
        since_role_s=_in_ticks(at_s - max(control.last_role_s, control.came_up_s), settings.tick_s),
        scores=control.forecasts.recent,
    )


def plan(control: "Control") -> Decision:
    """What the policy would decide now, under the id PLAN. One that remembers is asked through a copy."""
    assert control.started is not None
    at_s = control.at_s
    wanted = Targets({}, {}, "no GPU can be moved: none is managed on a node that reports")
    changes: list[tuple[str, str, str]] = []
    movable = control.limits.movable(at_s)
    if free := not_parked(control, movable):
        seen = view(control, free, control.limits.looks_settled(movable, at_s))
        wanted = _copy_of_policy(control).decide(seen)
        limits_mw = wanted.limits_mw
        changes += [(it.gpu, watts(it.limit_mw), watts(limits_mw[it.gpu])) for it in seen.gpus if it.gpu in limits_mw]
        changes += [(name, control.roles.get(name).role.value, role.value) for name, role in wanted.roles.items()]
    return Decision(
        PLAN,
        at_s,
        control.started.wall_s + at_s - control.started.at_s,
        control.policy.name,
        wanted.reason or "nothing is due",
        wanted.inputs,
        tuple(changes),
        wanted.predicted,
        wanted.held,
        wanted.horizon_s,
        wanted.candidates,
    )


def under(control: "Control", domain: str, budget_mw: int) -> float | None:
    """The SLO attainment that the policy would predict if this were a domain's budget; None: it predicts nothing."""
    movable = control.limits.movable(control.at_s)
    free = not_parked(control, movable)
    if not free:
        return None
    seen = view(control, free, True)
    room_mw = seen.rooms_mw[domain] + budget_mw - control.ledger.domains[domain].budget_mw
    wanted = _copy_of_policy(control).decide(replace(seen, rooms_mw={**seen.rooms_mw, domain: room_mw}))
    return wanted.held if wanted.predicted is None else wanted.predicted


def _copy_of_policy(control: "Control") -> Policy:
    policy = control.policy
    if not isinstance(policy, StatefulPolicy):
        return policy
    copy = control.make_policy()
    assert isinstance(copy, StatefulPolicy)
    copy.restore(policy.state())
    return copy


def _in_ticks(time_s: float, tick_s: float) -> float:
    """The time in whole ticks, so that a timer that is a millisecond early does not cost a policy a whole tick."""
    return time_s if time_s == float("inf") else round(time_s / tick_s) * tick_s


def gpu_views(control: "Control", movable: list[str]) -> list[GpuView]:
    """The movable GPUs as a policy sees them."""
    owners = {gpu: one.name for one in control.roles.instances.values() for gpu in one.hello.gpus}
    views: list[GpuView] = []
    for name in movable:
        booking = control.ledger.gpus[name]
        report = booking.report
        target_mw = control.limits.targets_mw.get(name, report.limit_mw)
        views.append(
            GpuView(
                name,
                booking.node,
                report.floor_mw,
                report.ceiling_mw,
                target_mw,
                report.draw_mw,
                owners.get(name),
            )
        )
    return views


def parked_mw(control: "Control", movable: list[str]) -> dict[str, int]:
    """The floors of the movable GPUs whose instance is parked."""
    parked = {gpu for one in control.roles.instances.values() if one.phase is Phase.PARKED for gpu in one.hello.gpus}
    return {gpu: control.ledger.gpus[gpu].report.floor_mw for gpu in movable if gpu in parked}


def not_parked(control: "Control", movable: list[str]) -> list[str]:
    """The other movable GPUs: those that a policy may move."""
    parked = parked_mw(control, movable)
    return [gpu for gpu in movable if gpu not in parked]


def node_health(control: "Control", name: str, at_s: float) -> NodeHealth:
    """What is known of a node. A node heard only in an earlier life is silent until it speaks in this one."""
    node = control.ledger.nodes[name]
    if node.released:
        return NodeHealth.RELEASED
    if control.ledger.is_fresh(name, at_s, control.settings.silent_after_s):
        return NodeHealth.REPORTING
    return NodeHealth.SILENT if node.incarnation else NodeHealth.NEVER_HEARD


def advice(control: "Control", domain: str) -> str:
    """What would help a domain that is over its budget."""
    ledger = control.ledger
    inside = [name for name, node in ledger.nodes.items() if domain in node.chain]
    unheard = [name for name in inside if node_health(control, name, control.at_s) is not NodeHealth.REPORTING]
    unmanaged = [gpu for name in inside for gpu in ledger.nodes[name].gpus if not ledger.gpus[gpu].managed]
    parts = []
    if ledger.floors_mw(domain) > ledger.domains[domain].budget_mw:
        parts.append(f"its floors need {watts(ledger.floors_mw(domain))}; raise the budget or take GPUs out")
    if unheard:
        parts.append(f"not heard: {', '.join(unheard[:8])}; if one is off, release it (rapidctl node release)")
    if unmanaged:
        parts.append(f"booked at their ceilings: {', '.join(unmanaged[:8])}; see their problems")
    return "; ".join(parts) or "cuts are on their way"


def draw(control: "Control", at_s: float) -> Status:
    """The whole picture."""
    assert control.started is not None
    movable = control.limits.movable(at_s)
    ttft, tpot, _ = control.slo.totals()
    return Status(
        at_s=at_s,
        wall_s=control.started.wall_s + at_s - control.started.at_s,
        epoch=control.started.epoch,
        controller_id=control.started.controller_id,
        policy=control.policy.name,
        paused=control.paused,
        domains=tuple(_domain(control, name, at_s, movable) for name in control.ledger.domains),
        nodes=tuple(_node(control, name, at_s) for name in control.ledger.nodes),
        instances=tuple(_instance(control, one, at_s) for one in control.roles.instances.values()),
        slo=_slo(control, at_s),
        role_moves=control.roles.moves,
        watts_moved_mw=control.limits.moved_mw,
        last_decision=control.last_decision,
        scored=control.forecasts.scored,
        prediction_error=control.forecasts.error,
        attainment=control.facility.recent.attainment((ttft, tpot)),
        orders=control.facility.statuses(),
        schedules=truth.schedules(control.facility),
    )


def _instance_view(control: "Control", one: Instance) -> InstanceView:
    return InstanceView(
        one.name,
        one.hello.gpus,
        one.role if not one.in_change else one.target_role,
        # To a policy, an instance whose role nobody knows is as good as one that has failed.
        Phase.FAILED if one.phase is Phase.UNCERTAIN else one.phase,
        one.hello.roles,
        _load(control, one.name, control.at_s),
        one.hello.switch_s,
        one.name in control.pins,
    )


def _fresh(control: "Control", instance: str, at_s: float) -> tuple[PhaseLoad, float] | None:
    return control.loads.fresh(instance, at_s, control.settings.silent_after_s)


def _load(control: "Control", instance: str, at_s: float) -> PhaseLoad | None:
    kept = _fresh(control, instance, at_s)
    return None if kept is None else kept[0]


def _domain(control: "Control", name: str, at_s: float, movable: list[str]) -> DomainStatus:
    ledger = control.ledger
    domain = ledger.domains[name]
    draws: list[int | None] = []
    for node_name, node in ledger.nodes.items():
        if name in node.chain and not node.released:
            fresh = ledger.is_fresh(node_name, at_s, control.settings.silent_after_s)
            draws += [ledger.gpus[gpu].report.draw_mw if fresh else None for gpu in node.gpus]
            draws += [None] * max(0, node.spec.gpus - len(node.gpus))
    known = [draw_mw for draw_mw in draws if draw_mw is not None]
    over = ledger.over_mw(name) > 0
    return DomainStatus(
        domain=name,
        parent=domain.parent or "",
        budget_mw=domain.budget_mw,
        reserved_mw=ledger.reserved_mw(name),
        held_mw=ledger.domain_held_mw(name),
        draw_mw=sum(known) if len(known) == len(draws) else None,
        over_budget=over,
        advice=advice(control, name) if over else "",
        truth=truth.of_domain(control.facility, name, control.draws.get(name), movable),
    )


def _node(control: "Control", name: str, at_s: float) -> NodeStatus:
    ledger = control.ledger
    node = ledger.nodes[name]
    owners = {gpu: one.name for one in control.roles.instances.values() for gpu in one.hello.gpus}
    fresh = ledger.is_fresh(name, at_s, control.settings.silent_after_s)
    gpus = tuple(_gpu(control, gpu, fresh, owners.get(gpu, "")) for gpu in node.gpus)
    age_s = float("inf") if node.heard_s is None else at_s - node.heard_s
    return NodeStatus(name, node.spec.domain, node_health(control, name, at_s), age_s, node.problem, gpus, node.watch)


def _gpu(control: "Control", name: str, fresh: bool, instance: str) -> GpuStatus:
    booking = control.ledger.gpus[name]
    report = booking.report
    return GpuStatus(
        gpu=name,
        index=report.index,
        floor_mw=report.floor_mw,
        ceiling_mw=report.ceiling_mw,
        fallback_mw=report.fallback_mw,
        target_mw=control.limits.targets_mw.get(name, 0),
        limit_mw=report.limit_mw,
        held_mw=booking.held_mw,
        draw_mw=report.draw_mw if fresh else None,
        managed=booking.managed,
        health=report.health,
        problem=booking.problem,
        instance=instance,
        watch=report.watch,
    )


def _instance(control: "Control", one: Instance, at_s: float) -> InstanceStatus:
    load = _load(control, one.name, at_s)
    problem = one.problem
    if load is not None and one.phase is Phase.SERVING and load.role is not one.role and not problem:
        problem = f"its load says {load.role.value}, the engine said {one.role.value}"
    if load is not None and load.gpus and set(load.gpus) != set(one.hello.gpus) and not problem:
        found, said = (", ".join(sorted(gpus)) for gpus in (load.gpus, one.hello.gpus))
        problem = f"its node finds it on {found}, the engine said {said}"
    if not problem and (wrong := control.loads.problem(one.name)):
        problem = f"load: {wrong}"
    return InstanceStatus(
        instance=one.name,
        engine=one.hello.engine,
        node=one.hello.node,
        gpus=one.hello.gpus,
        role=one.role,
        phase=one.phase,
        target_role=one.target_role,
        pinned=one.name in control.pins,
        problem=problem,
        load=load,
        cap_bound=_cap_bound(control, one, at_s),
    )


def _cap_bound(control: "Control", one: Instance, at_s: float) -> float | None:
    """The mean over the GPUs of an instance, which share its phase; None unless every one was heard lately and can
    tell."""
    ledger, shares = control.ledger, []
    for gpu in one.hello.gpus:
        booking = ledger.gpus.get(gpu)
        fresh = booking is not None and ledger.is_fresh(booking.node, at_s, control.settings.silent_after_s)
        if booking is None or not fresh or booking.report.watch.cap_bound is None:
            return None
        shares.append(booking.report.watch.cap_bound)
    return sum(shares) / len(shares) if shares else None


def _slo(control: "Control", at_s: float) -> SloStatus:
    slo, quantile = control.slo, control.settings.quantile
    return SloStatus(
        slo.targets,
        slo.ttft.attainment(),
        slo.tpot.attainment(),
        slo.ttft.quantile(quantile, at_s),
        slo.tpot.quantile(quantile, at_s),
        slo.finished,
    )
