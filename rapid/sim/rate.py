"""How fast to replay a workload: by a rule, so that nobody tunes the load until the result looks good.

The rule: the uniform host (equal limits, fixed half-and-half roles, no control) attains its SLO for between 50 and 70 %
of the requests. The search aims at 60 % and takes the speed that comes nearest.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rapid.core.cluster import SloTargets
from rapid.sim.cluster import InstancePlan, simulate
from rapid.sim.model.profile import Profile
from rapid.sim.summary import summarize
from rapid.sim.traces.workload import Workload

RULE_LOW, RULE_AIM, RULE_HIGH = 0.50, 0.60, 0.70
RULE = "the uniform host attains between 50 and 70 %"
NEAR_ENOUGH = 0.01  # a run that comes this near to the aim ends the search
MAX_RUNS = 24


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the uniform host. number counts from 1."""

    number: int
    rate_scale: float
    attainment: float
    requests: int


@dataclass(frozen=True, slots=True)
class RateChoice:
    """The trial that came nearest to the aim, after how many runs, and whether it fulfils the rule."""

    rate_scale: float
    attainment: float
    requests: int
    runs: int
    fulfils_rule: bool


def choose_rate(
    workload: Workload,
    seconds: float,
    profile: Profile,
    plans: tuple[InstancePlan, ...],
    slo: SloTargets,
    progress: Callable[[Trial], None] = lambda trial: None,
) -> RateChoice:
    """The rate scale by the rule, for a run of `seconds` on the host `plans`. Deterministic; `progress` sees every run.

    Doubles or halves the scale until the aim is bracketed, then bisects. Attainment need not fall smoothly with the
    scale, since a faster replay also reaches further into the trace: the nearest trial is kept, not the last one.
    """
    trials: list[Trial] = []

    def attainment_at(rate_scale: float) -> float:
        requests = workload.requests(rate_scale, seconds)
        run = simulate(profile, plans, requests)
        summary = summarize(run.finished, run.requests, slo=slo, window_s=seconds, energy_mj=run.energy_mj)
        trials.append(Trial(len(trials) + 1, rate_scale, summary.attainment, run.requests))
        progress(trials[-1])
        return summary.attainment

    _search(attainment_at, workload.max_rate_scale(seconds))
    best = min(trials, key=lambda trial: abs(trial.attainment - RULE_AIM))
    fulfils = RULE_LOW <= best.attainment <= RULE_HIGH
    return RateChoice(best.rate_scale, best.attainment, best.requests, len(trials), fulfils)


def _search(attainment_at: Callable[[float], float], max_scale: float) -> None:
    """Tries scales up to max_scale until one is near enough to the aim, at most MAX_RUNS of them."""
    scale = min(1.0, max_scale)
    low, high = 0.0, max_scale  # the aim is attained at low (if it was tried), and missed at high (if it was tried)
    bracketed = False
    for _ in range(MAX_RUNS):
        attainment = attainment_at(scale)
        if abs(attainment - RULE_AIM) <= NEAR_ENOUGH or (scale == max_scale and attainment > RULE_AIM):
            return
        if attainment > RULE_AIM:
            low = scale
        else:
            high, bracketed = scale, True
        scale = (low + high) / 2 if bracketed else min(2 * scale, max_scale)
