"""The rule that chooses the load: what it picks, and what it does where no load fulfils it."""

from itertools import pairwise
from random import Random

import pytest

from rapid.core.cluster import SloTargets
from rapid.sim.cluster import simulate, uniform_host
from rapid.sim.model.profile import profile_named
from rapid.sim.rate import MAX_RUNS, RateChoice, Trial, choose_rate
from rapid.sim.summary import summarize
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.loader import load_workload
from rapid.sim.traces.workload import TraceWorkload, Workload

MI300X = profile_named("mi300x-8b")
UNIFORM = uniform_host(MI300X, 4, 4, 600_000)


def choose(workload: Workload, seconds: float, trials: list[Trial] | None = None) -> RateChoice:
    seen = [] if trials is None else trials
    return choose_rate(workload, seconds, MI300X, UNIFORM, SloTargets(), progress=seen.append)


@pytest.mark.parametrize("name", ["azure", "sonnet"])
def test_the_uniform_host_attains_what_the_rule_says(name: str) -> None:
    workload = load_workload(name, MI300X.kv_capacity_tokens)
    trials: list[Trial] = []
    choice = choose(workload, 30.0, trials)

    run = simulate(MI300X, UNIFORM, workload.requests(choice.rate_scale, 30.0))
    again = summarize(run.finished, run.requests, slo=SloTargets(), window_s=30.0, energy_mj=run.energy_mj)
    assert choice.fulfils_rule
    assert 0.5 <= choice.attainment <= 0.7
    assert (again.attainment, run.requests) == (choice.attainment, choice.requests)
    assert [trial.number for trial in trials] == list(range(1, choice.runs + 1))
    assert choice.runs <= MAX_RUNS
    assert abs(choice.attainment - 0.6) == min(abs(trial.attainment - 0.6) for trial in trials)
    assert choose(workload, 30.0) == choice  # deterministic


def test_a_trace_too_light_for_the_rule_says_so() -> None:
    dice, now_s, arrivals = Random(1), 0.0, []
    for _ in range(20):
        now_s += dice.expovariate(1.0)
        arrivals.append(Arrival(now_s, 10, 2))
    choice = choose(TraceWorkload("light", tuple(arrivals)), 10.0)
    assert not choice.fulfils_rule
    assert choice.attainment == 1.0
    assert choice.runs == 2  # as it is, then as fast as it lasts


def test_a_heavy_trace_is_slowed_down() -> None:
    arrivals = tuple(Arrival(0.001 * number, 8000, 2) for number in range(1, 100_000))
    trials: list[Trial] = []
    choice = choose(TraceWorkload("heavy", arrivals), 5.0, trials)
    assert choice.rate_scale < 0.05
    assert all(after.rate_scale < before.rate_scale for before, after in pairwise(trials[:3]))
    assert choice.runs <= MAX_RUNS
