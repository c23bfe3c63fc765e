"""How fast a trace comes: by a rule, so that nobody tunes the load until the result looks good.

The rule: equal limits and fixed half-and-half roles, without a controller, attain the SLO of about 60 % of the requests
at 80 % of the ceilings, as a mean over the windows of all seeds. The rate is then kept for all budgets and policies.
"""

from dataclasses import dataclass, replace

from bench.evaluation.grid import LOAD_SHARE, Cell, Setting, scenario
from bench.evaluation.windows import Window, arrivals_of
from rapid.sim.cluster import simulate
from rapid.sim.study import RateSearch
from rapid.sim.world.build import plans
from rapid.sim.world.score import Score

AIM = 0.60
NEAR = 0.02  # a rate that comes this near to the aim ends the search
LOW, HIGH = 0.50, 0.70  # what still counts as the rule fulfilled


@dataclass(frozen=True, slots=True)
class Load:
    """The rate that was chosen, what the uniform host attains at it, and after how many rates tried."""

    rate_rps: float
    attainment: float
    tried: int

    @property
    def by_rule(self) -> bool:
        return LOW <= self.attainment <= HIGH


def choose(setting: Setting, seeds: int, seconds: float) -> Load:
    """Deterministic. The rate tried that came nearest to the aim."""
    search = RateSearch(_first_rps(setting), (AIM,))
    while rates := search.next_rates():
        for rate_rps in rates:
            attainment = _attainment(setting, rate_rps, seeds, seconds)
            search.tell(rate_rps, attainment)
            if abs(attainment - AIM) <= NEAR:
                return Load(rate_rps, attainment, len(search.points))
    rate_rps = min(search.points, key=lambda tried: abs(search.points[tried] - AIM))
    return Load(rate_rps, search.points[rate_rps], len(search.points))


def _first_rps(setting: Setting) -> float:
    """Where prefill would be busy all the time at the budget; only the search begins there."""
    world = scenario(Cell(setting, LOAD_SHARE), "uniform", 0)
    engine, arrivals = world.profile, arrivals_of(setting.trace, world.profile.kv_capacity_tokens)
    work_s = sum(engine.prefill_s(each.input_tokens, each.input_tokens**2, world.fallback_mw) for each in arrivals)
    return world.nodes * world.prefill * len(arrivals) / work_s


def _attainment(setting: Setting, rate_rps: float, seeds: int, seconds: float) -> float:
    """Of the uniform host, with the dies of each seed."""
    shares = []
    for seed in range(seeds):
        world = scenario(Cell(setting, LOAD_SHARE), "uniform", seed)
        window = Window(setting.trace, world.profile.kv_capacity_tokens, rate_rps, seconds, seed, seeds)
        equal = [replace(plan, limit_mw=world.fallback_mw) for plan in plans(world)]
        run = simulate(world.profile, equal, window.requests(), settings=world.engine)
        score = Score(world.slo)
        for finished in run.finished:
            score.finish(finished)
        shares.append(score.attained / run.requests)
    return sum(shares) / len(shares)
