"""The real controller and guards in a simulated site: every policy ends well, whatever shape the site has."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from rapid.core.cluster import Phase, Role, Targets, View
from rapid.core.errors import ConfigInvalid, TraceInvalid, UsageError
from rapid.core.policy import NAMES, NO_CHANGE
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Request
from rapid.sim.world.scenario import WorldSettings
from rapid.sim.world.site import Site, simulate
from tests.sim.sites import HEAVY, Recorder, poisson, scenario

# ---- every policy ----


@pytest.mark.parametrize("policy", [*NAMES, "colocated"])
def test_every_policy_serves_a_load_to_its_end_within_the_budget(policy: str) -> None:
    site = Site(scenario(policy), poisson(HEAVY, 15.0))
    outcome = site.run()
    assert outcome.requests == site.score.finished > 800
    assert (outcome.unfinished, outcome.over_budget_s, outcome.why.errors) == (0, 0.0, 0)
    assert outcome.sim_s > 14.9
    assert outcome.ttft_s.p50 is not None
    assert outcome.ttft_s.p99 is not None
    assert 0 < outcome.ttft_s.p50 < outcome.ttft_s.p99
    assert 8 * 140 < outcome.energy_j / outcome.sim_s < 4800 * 1.02
    missed = outcome.why.missed
    shares = outcome.attainment + missed.ttft_only + missed.tpot_only + missed.both + missed.unfinished
    assert shares == pytest.approx(1.0)


def test_rapid_moves_watts_and_roles_where_uniform_stands_still() -> None:
    still, moving = (simulate(scenario(policy), poisson(HEAVY, 30.0)) for policy in ("uniform", "rapid"))
    assert (still.role_moves, still.watts_moved) == (0, 0.0)
    assert moving.role_moves >= 1
    assert moving.watts_moved > 300
    assert moving.attainment > still.attainment
    assert moving.why.limit_w.prefill is not None
    assert moving.why.instances.prefill is not None
    assert moving.why.limit_w.prefill > 600
    assert moving.why.instances.prefill > 4
    assert moving.why.changing > 0


def test_static_limits_are_in_force_before_the_trace_begins() -> None:
    outcome = simulate(scenario("static"), poisson(10.0, 5.0))
    assert outcome.why.limit_w.prefill == pytest.approx(750.0)
    assert outcome.why.limit_w.decode == pytest.approx(450.0)
    assert outcome.why.instances.decode == pytest.approx(4.0)
    assert outcome.why.limit_w.mixed is outcome.why.instances.mixed is outcome.why.busy.mixed is None


def test_colocated_engines_are_all_mixed_and_never_move() -> None:
    site = Site(scenario("colocated"), poisson(20.0, 5.0))
    outcome = site.run()
    assert outcome.why.instances.mixed == pytest.approx(8.0)
    assert {engine.role for engine in site.engines.values()} == {Role.MIXED}
    assert outcome.role_moves == 0


def test_settings_reach_the_policy() -> None:
    settings = {"prefill_mw": 700_000.0, "decode_mw": 500_000.0}
    outcome = simulate(scenario("static", policy_settings=settings), poisson(10.0, 5.0))
    assert outcome.why.limit_w.prefill == pytest.approx(700.0)


# ---- shapes of sites ----


def test_several_nodes_share_one_budget() -> None:
    site = Site(scenario(nodes=3), poisson(2.5 * HEAVY, 20.0))
    outcome = site.run()
    assert (outcome.unfinished, outcome.over_budget_s) == (0, 0.0)
    assert outcome.watts_moved > 0
    assert len(site.control.ledger.gpus) == 24
    served = {name.partition("-")[0]: 0 for name in site.engines}
    for name, instance in site.cluster.instances.items():
        served[name.partition("-")[0]] += instance.load(site.cluster.now_s).finished
    assert all(served.values()), "every node has worked"


def test_gpus_of_one_instance_have_equal_limits() -> None:
    profile = profile_named("h100-70b-tp4")
    watch = Recorder()
    mine = scenario(profile=profile, watts_each=500, gpus=16)
    outcome = simulate(mine, poisson(30.0, 20.0), watch=watch)
    assert (outcome.unfinished, outcome.over_budget_s) == (0, 0.0)
    assert outcome.watts_moved > 0, "else this shows nothing"
    at_end = watch.limits_at(outcome.sim_s)
    assert {name: len(limits) for name, limits in at_end.items()} == dict.fromkeys(at_end, 4)
    assert all(len(set(limits.values())) == 1 for limits in at_end.values())


# ---- the same again ----


def test_the_same_seed_gives_the_same_outcome_and_another_gives_another() -> None:
    first, again = (simulate(scenario(seed=7), poisson(HEAVY, 10.0)) for _ in range(2))
    other = simulate(scenario(seed=8), poisson(HEAVY, 10.0))
    assert first == again
    assert first.energy_j != other.energy_j


def test_a_watch_changes_nothing() -> None:
    watch = Recorder()
    assert simulate(scenario(), poisson(HEAVY, 20.0), watch=watch) == simulate(scenario(), poisson(HEAVY, 20.0))


# ---- streaming ----


def test_requests_are_taken_as_they_arrive() -> None:
    taken: list[float] = []
    finished_when_taken: list[int] = []

    def tell() -> Iterator[Request]:
        for request in poisson(20.0, 30.0):
            taken.append(request.arrival_s)
            finished_when_taken.append(site.score.finished if len(taken) > 1 else 0)
            yield request

    site = Site(scenario("uniform"), tell())
    assert len(taken) == 1, "one is needed to see that there are any"
    site.run()
    assert finished_when_taken[-1] > 0.9 * len(taken), "most had finished when the last was taken"


def test_what_is_kept_does_not_grow_with_the_trace() -> None:
    def kept(seconds: float) -> int:
        site = Site(scenario("rapid"), poisson(30.0, seconds))
        site.run()
        return len(site.agenda) + site.cluster.remembered + site.score.ttft.remembered

    assert kept(80.0) < kept(20.0) + 150


def test_requests_that_cannot_finish_in_time_are_counted() -> None:
    outcome = simulate(scenario("uniform"), poisson(10 * HEAVY, 5.0), max_drain_s=2.0)
    assert outcome.unfinished > 0
    assert outcome.why.missed.unfinished == outcome.unfinished / outcome.requests
    assert outcome.attainment <= 1 - outcome.why.missed.unfinished
    assert outcome.sim_s == pytest.approx(7.0, abs=0.1)


def test_a_run_ends_when_the_last_request_has_finished() -> None:
    watch = Recorder()
    outcome = simulate(scenario("uniform"), [Request(0, 0.0, 1000, 50), Request(1, 3.0, 1000, 50)], watch=watch)
    assert [at_s for at_s, _ in watch.finishes] == [watch.finishes[0][0], outcome.sim_s]
    assert outcome.requests == 2
    assert outcome.goodput_rps == pytest.approx(2 / 3)


def test_a_single_request_at_time_0_counts_over_a_second() -> None:
    outcome = simulate(scenario("uniform"), [Request(0, 0.0, 1000, 50)])
    assert outcome.goodput_rps == 1.0
    assert outcome.why.instances.prefill is None, "no time has passed between time 0 and the last arrival"


def test_no_requests_and_requests_out_of_order_are_refused() -> None:
    with pytest.raises(UsageError, match="no request"):
        simulate(scenario(), [])
    with pytest.raises(TraceInvalid, match=r"request 1: arrives at 1 s, after one of 2 s"):
        simulate(scenario(), [Request(0, 2.0, 10, 10), Request(1, 1.0, 10, 10)])
    with pytest.raises(TraceInvalid, match=r"request 0: arrives at -1 s"):
        simulate(scenario(), [Request(0, -1.0, 10, 10)])


def test_a_bad_scenario_is_refused_before_a_request_is_taken() -> None:
    numbers = count()
    requests = (Request(number, float(number), 10, 10) for number in numbers)
    with pytest.raises(ConfigInvalid, match="budget"):
        simulate(replace(scenario(), budget_mw=1), requests)
    assert next(numbers) == 0


# ---- role changes ----


def test_a_drain_that_takes_too_long_is_rolled_back_and_nothing_is_lost() -> None:
    """A decode instance that is asked to go has requests for longer than it may drain."""
    mine = scenario("oracle", world=WorldSettings(drain_s=0.4))
    watch = Recorder()
    site = Site(mine, poisson(40.0, 10.0, output_tokens=400), watch=watch, policy=lambda _: Moving(least=20))
    outcome = site.run()
    phases = [phase for _, _, phase, _ in watch.moves[8:]]
    assert phases.count(Phase.DRAINING) > 1
    assert set(phases) == {Phase.DRAINING, Phase.SERVING}
    assert {engine.change.phase for engine in site.engines.values()} == {Phase.SERVING}
    assert outcome.role_moves == 0
    assert outcome.unfinished == 0
    assert outcome.why.instances.decode == pytest.approx(4.0)


class Moving:
    """Sends the decode instance with the most to drain to prefill, again and again, if it has `least` requests."""

    name = "moving"

    def __init__(self, least: int) -> None:
        self._least = least

    def decide(self, view: View) -> Targets:
        decode = [one for one in view.instances if one.role is Role.DECODE]
        running = {one.instance: one.load.running_requests for one in decode if one.load is not None}
        busiest = max(running, key=lambda name: running[name], default="")
        if (
            len(decode) < 2
            or running[busiest] < self._least
            or any(one.phase is not Phase.SERVING for one in view.instances)
        ):
            return NO_CHANGE
        return Targets({}, {busiest: Role.PREFILL}, "to see")


@pytest.mark.parametrize("seed", range(3))
def test_under_constant_role_changes_no_request_is_lost(seed: int) -> None:
    outcome = Site(
        scenario("oracle", seed=seed), poisson(30.0, 20.0, seed=seed), policy=lambda _: Moving(least=4)
    ).run()
    assert outcome.role_moves == 3, f"seed {seed}: of 4 decode instances one must stay"
    assert (outcome.unfinished, outcome.over_budget_s) == (0, 0.0), f"seed {seed}"


# ---- a policy that is handed in ----


class Peeping:
    """Looks at everything a policy may look at, and moves one instance to prefill as soon as it knows of a request."""

    name = "peeping"

    def __init__(self, site: Site) -> None:
        self._site = site
        self.seen: list[tuple[float, ...]] = []
        self.forks_ended: list[dict[str, Role]] = []

    def decide(self, view: View) -> Targets:
        self.seen.append(tuple(request.arrival_s for request in self._site.future(view.at_s + 5.0)))
        fork = self._site.fork()
        assert fork.now_s == view.at_s
        fork.run_until(view.at_s + 40.0)
        self.forks_ended.append({name: instance.role for name, instance in fork.instances.items()})
        decode = [one for one in view.instances if one.role is Role.DECODE]
        if not self.seen[-1] or len(decode) < 4 or any(one.phase is not Phase.SERVING for one in view.instances):
            return NO_CHANGE
        return Targets({}, {decode[0].instance: Role.PREFILL}, "to see")


def test_a_policy_may_look_at_the_future_and_fork_the_site() -> None:
    made: list[Peeping] = []

    def make(site: Site) -> Peeping:
        made.append(Peeping(site))
        return made[0]

    plain = scenario("oracle")
    outcome = simulate(plain, poisson(30.0, 12.0), policy=make)
    assert outcome.role_moves == 1
    assert (outcome.unfinished, outcome.over_budget_s) == (0, 0.0)
    policy = made[0]
    assert any(len(seen) > 50 for seen in policy.seen)
    moves = [sum(role is Role.PREFILL for role in roles.values()) for roles in policy.forks_ended]
    assert set(moves) == {4, 5}
    assert moves == sorted(moves), "a fork finishes the change that is under way"


def test_the_oracle_must_be_handed_in() -> None:
    with pytest.raises(UsageError, match="oracle"):
        simulate(scenario("oracle"), poisson(1.0, 5.0))


# ---- what a watch sees ----


def test_a_watch_sees_decisions_limits_roles_requests_and_queues() -> None:
    watch = Recorder()
    outcome = simulate(scenario(), poisson(HEAVY, 30.0), watch=watch)
    assert watch.limits[0] == (-10.0, "node0-gpu0", "node0-0", 750_000)
    assert any("prefill is short" in decision.reason for _, decision in watch.decisions)
    phases = [phase for _, _, phase, _ in watch.moves[8:]]
    assert phases[:3] == [Phase.DRAINING, Phase.SWITCHING, Phase.SERVING]
    assert sum(phase is Phase.SERVING for phase in phases) == outcome.role_moves
    assert len(watch.finishes) == outcome.requests
    assert all(0 <= finished.request.arrival_s < finished.at_s == at_s for at_s, finished in watch.finishes)
    assert [at_s for at_s, _ in watch.queued] == pytest.approx([float(each) for each in range(int(outcome.sim_s) + 1)])
    assert max(queues.waiting for _, queues in watch.queued) > 10
