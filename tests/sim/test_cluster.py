"""A whole host: nothing is lost and nothing is counted twice."""

from random import Random

import pytest

from rapid.core.cluster import Role, SloTargets
from rapid.sim.cluster import Cluster, InstancePlan, cast_die, simulate, uniform_host
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Finished, Request
from rapid.sim.summary import Quantiles, quantile, summarize
from rapid.sim.traces.loader import load_workload

MI300X = profile_named("mi300x-8b")
UNIFORM = uniform_host(MI300X, 4, 4, 600_000)


def poisson(seed: int, rate_rps: float, count: int) -> list[Request]:
    dice, now_s, requests = Random(seed), 0.0, []
    for number in range(count):
        now_s += dice.expovariate(rate_rps)
        requests.append(Request(number, now_s, dice.randint(10, 4000), dice.randint(1, 300)))
    return requests


def test_every_request_finishes_once_and_in_order_of_time() -> None:
    run = simulate(MI300X, UNIFORM, poisson(1, 30.0, 2000))
    assert sorted(item.request.request_id for item in run.finished) == list(range(2000))
    times_s = [item.at_s for item in run.finished]
    assert times_s == sorted(times_s)
    for item in run.finished:
        assert item.ttft_s > MI300X.front_s
        assert item.at_s > item.request.arrival_s
        assert (item.tpot_s is None) == (item.request.output_tokens == 1)


def test_an_idle_host_serves_a_request_in_the_time_of_its_formulas() -> None:
    run = simulate(MI300X, UNIFORM, [Request(0, 5.0, 2000, 11)])
    (done,) = run.finished
    prefill_s = MI300X.prefill_s(2000, 2000**2, 600_000)
    steps_s = sum(MI300X.decode_step_s(1, 2001 + step, 600_000) for step in range(10))
    assert done.ttft_s == pytest.approx(prefill_s + 0.040, rel=1e-9)
    assert done.tpot_s == pytest.approx((MI300X.pull_s(2000) + steps_s) / 10, rel=1e-9)
    assert done.at_s == pytest.approx(5.0 + prefill_s + MI300X.pull_s(2000) + steps_s, rel=1e-9)
    busy_mj = min(600_000, MI300X.prefill_natural_mw) * prefill_s + MI300X.decode_draw_mw(1) * steps_s
    idle_mj = MI300X.idle_mw * (8 * done.at_s - prefill_s - steps_s)
    assert run.energy_mj == pytest.approx(busy_mj + idle_mj, rel=1e-9)


def test_role_changes_lose_no_request() -> None:
    requests, dice = poisson(4, 40.0, 3000), Random(4)
    cluster, changes = Cluster(MI300X, UNIFORM), 0
    for request in requests:
        cluster.offer(request)
        if dice.random() < 0.01:
            serving = {
                name: instance.role for name, instance in cluster.instances.items() if instance.phase.value == "serving"
            }
            name = dice.choice(sorted(cluster.instances))
            alike = [other for other, role in serving.items() if role is serving.get(name)]
            if len(alike) > 1:
                changes += 1
                cluster.change_role(name, Role.DECODE if serving[name] is Role.PREFILL else Role.PREFILL)
                cluster.set_limit(name, dice.randint(400_000, 750_000))
    cluster.finish()
    assert changes > 10
    assert cluster.waiting == 0
    assert sorted(item.request.request_id for item in cluster.finished) == list(range(3000))


def test_requests_wait_for_a_role_that_nobody_serves() -> None:
    cluster = Cluster(MI300X, uniform_host(MI300X, 1, 1, 600_000))
    cluster.change_role("gpu1", Role.PREFILL)
    cluster.offer(Request(0, 0.5, 1000, 10))
    cluster.run_until(5.0)
    assert (cluster.waiting, len(cluster.finished)) == (1, 0)
    cluster.change_role("gpu1", Role.DECODE)
    cluster.finish()
    assert (cluster.waiting, len(cluster.finished)) == (0, 1)


def test_a_deadline_leaves_the_rest_unfinished() -> None:
    requests = poisson(2, 200.0, 1000)
    run = simulate(MI300X, UNIFORM, requests, deadline_s=6.0)
    assert run.until_s == 6.0
    assert 0 < len(run.finished) < run.requests == 1000
    assert all(item.at_s <= 6.0 for item in run.finished)


def test_more_watts_for_the_phase_that_is_short_help() -> None:
    requests = poisson(3, 56.0, 2000)
    attainments = []
    for prefill_mw, decode_mw in [(500_000, 700_000), (600_000, 600_000), (750_000, 450_000)]:
        plans = [InstancePlan(Role.PREFILL, prefill_mw)] * 4 + [InstancePlan(Role.DECODE, decode_mw)] * 4
        run = simulate(MI300X, plans, requests)
        met = summarize(run.finished, 2000, slo=SloTargets(), window_s=36.0, energy_mj=run.energy_mj)
        attainments.append(met.attainment)
    assert attainments == sorted(attainments)
    assert attainments[-1] > attainments[0] + 0.1


def test_another_seed_gives_another_host() -> None:
    assert cast_die(Random(1)) != cast_die(Random(2))
    dice = Random(1)
    speeds = [cast_die(dice).speed for _ in range(2000)]
    assert sum(speeds) / 2000 == pytest.approx(1.0, abs=0.002)


def finished(number: int, ttft_s: float, tpot_s: float | None) -> Finished:
    return Finished(Request(number, 0.0, 100, 1 if tpot_s is None else 11), 1.0, ttft_s, tpot_s)


def test_the_summary_counts_shares_of_all_that_was_offered() -> None:
    done = [finished(1, 1.0, 0.040), finished(2, 1.001, 0.01), finished(3, 0.5, 0.0401), finished(4, 0.5, None)]
    summary = summarize(done, 5, slo=SloTargets(), window_s=2.0, energy_mj=68_000.0)
    assert (summary.requests, summary.unfinished) == (5, 1)
    assert (summary.attainment, summary.ttft_attainment, summary.tpot_attainment) == (0.4, 0.6, 0.6)
    assert summary.goodput_rps == 1.0
    assert (summary.energy_j, summary.joules_per_output_token) == (68.0, 2.0)
    assert summary.ttft == Quantiles(0.5, 1.001, 1.001)
    assert summary.tpot == Quantiles(0.040, 0.0401, 0.0401)


def test_a_run_of_nothing_is_a_row_of_zeros() -> None:
    summary = summarize([], 0, slo=SloTargets(), window_s=1.0, energy_mj=0.0)
    assert summary.attainment == summary.joules_per_output_token == 0.0
    assert summary.ttft.p50_s is None


def test_quantiles_are_by_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [quantile(ordered, share) for share in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1.0, 50.0, 90.0, 99.0, 100.0]
    assert quantile([3.0], 0.99) == 3.0


def test_the_shipped_mix_runs_to_its_end() -> None:
    requests = load_workload("azure", MI300X.kv_capacity_tokens).requests(8.0, 30.0)
    run = simulate(MI300X, UNIFORM, requests)
    assert len(run.finished) == len(requests) > 1000
