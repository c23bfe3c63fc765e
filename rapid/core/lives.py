"""What one life of the controller hands to the next, and how the next takes it over."""

from typing import TYPE_CHECKING

from rapid.core.commands import Command, Notice
from rapid.core.errors import watts
from rapid.core.events import ControlSnapshot, Totals
from rapid.core.facility import desk
from rapid.core.policy import StatefulPolicy

if TYPE_CHECKING:
    from rapid.core.control import Control


def snapshot(control: "Control") -> ControlSnapshot:
    """What the next life starts with."""
    at_s, policy = control.at_s, control.policy
    ttft, tpot, finished = control.slo.totals()
    totals = Totals(
        control.roles.moves,
        control.limits.moved_mw,
        at_s - control.last_power_s,
        at_s - control.last_role_s,
        ttft,
        tpot,
        finished,
    )
    return ControlSnapshot(
        control.ledger.snapshot(),
        tuple(control.facility.standing_mw.items()),
        tuple(control.limits.targets_mw.items()),
        tuple(control.pins.items()),
        control.paused,
        control.decisions,
        control.roles.mark,
        totals,
        policy.name,
        at_s + control.policy_ahead_s,
        policy.state() if isinstance(policy, StatefulPolicy) else None,
        control.forecasts.snapshot(at_s),
        control.facility.snapshot(),
    )


def take_over(control: "Control", kept: ControlSnapshot) -> list[Command]:
    """Go on with what an operator said, with the totals, and with what the policy knew. Says what is out of place."""
    notices = _keep_budgets(control, kept)
    control.pins, control.paused, control.decisions = dict(kept.pins), kept.paused, kept.decisions
    totals = kept.totals
    control.roles.go_on_from(kept.role_mark, totals.role_moves)
    control.limits.moved_mw = totals.moved_mw
    control.last_power_s = control.at_s - totals.since_power_s
    control.last_role_s = control.at_s - totals.since_role_s
    control.slo.go_on_from(totals.ttft, totals.tpot, totals.finished)
    if kept.facility is not None:
        notices += desk.take_over(control, kept.facility)
    if kept.policy != control.policy.name:
        return notices
    assert control.started is not None
    control.policy_ahead_s = kept.policy_at_s - control.at_s
    same_process = kept.ledger.mark.epoch == control.started.epoch
    control.forecasts.go_on_from(kept.forecasts, control.at_s, same_process=same_process)
    return notices + _restore_policy(control, kept)


def _keep_budgets(control: "Control", kept: ControlSnapshot) -> list[Command]:
    notices: list[Command] = []
    for name, budget_mw in kept.budgets_mw:
        domain = control.ledger.domains.get(name)
        if domain is not None and domain.budget_mw != budget_mw:
            text = f"keeps the budget {watts(budget_mw)} set earlier; the configuration says {watts(domain.budget_mw)}"
            notices.append(Notice("warning", name, text))
            control.ledger.set_budget(name, budget_mw, force=True)
            control.facility.set_standing(name, budget_mw)
    return notices


def _restore_policy(control: "Control", kept: ControlSnapshot) -> list[Command]:
    policy, state = control.policy, kept.policy_state
    if state is None or not isinstance(policy, StatefulPolicy):
        return []
    version = policy.state().version
    if state.version != version:
        text = f"policy {policy.name} learns anew: what it knew is of version {state.version}, and it reads {version}"
        return [Notice("info", "controller", text)]
    policy.restore(state)
    return []
