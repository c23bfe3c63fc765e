"""What came of a site's run, in the words of Outcome. Changes nothing."""

from typing import TYPE_CHECKING

from rapid.sim.world.outcome import Missed, Outcome, Why

if TYPE_CHECKING:
    from rapid.sim.world.site import Site


def sum_up(site: "Site", last_s: float) -> Outcome:
    """The outcome now; last_s: when the last request arrived. wall_s is the caller's to fill in."""
    now_s, scenario, score, control = site.cluster.now_s, site.scenario, site.score, site.control
    window_s = max(1.0, last_s - site.zero_s)
    energy_j = (site.cluster.energy_mj() - site.energy_at_zero_mj) / 1e3
    return Outcome(
        policy=scenario.policy,
        profile=scenario.profile.name,
        seed=scenario.seed,
        requests=score.requests,
        attainment=score.share(score.attained),
        ttft_attainment=score.share(score.attained + score.missed_tpot),
        tpot_attainment=score.share(score.attained + score.missed_ttft),
        goodput_rps=score.attained / window_s,
        ttft_s=score.ttft.spot(),
        tpot_s=score.tpot.spot(),
        energy_j=energy_j,
        joules_per_output_token=energy_j / score.output_tokens if score.output_tokens else None,
        qps_per_budget_watt=score.finished / window_s / (scenario.budget_mw / 1e3),
        qps_per_drawn_watt=score.finished / energy_j if energy_j else 0.0,
        role_moves=control.roles.moves,
        watts_moved=control.limits.moved_mw / 1e3,
        over_budget_s=site.budget.verdict(now_s).over_budget_s,
        unfinished=score.unfinished,
        sim_s=now_s - site.zero_s,
        wall_s=0.0,
        control_steps=site.control_steps,
        why=_why(site),
    )


def _why(site: "Site") -> Why:
    score, means = site.score, site.means
    missed = Missed(
        ttft_only=score.share(score.missed_ttft),
        tpot_only=score.share(score.missed_tpot),
        both=score.share(score.missed_both),
        unfinished=score.share(score.unfinished),
    )
    return Why(
        limit_w=means.limit_w(),
        instances=means.instances(),
        changing=means.changing(),
        busy=means.busy(),
        missed=missed,
        errors=site.errors,
    )
