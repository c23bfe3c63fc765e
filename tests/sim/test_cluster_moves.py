"""A cluster in somebody else's hands: role changes step by step, forks to look ahead, and memory that stays flat."""

import copy
from collections.abc import Callable
from random import Random

import pytest

from rapid.core.cluster import Phase, Role
from rapid.sim.cluster import Cluster, InstancePlan, uniform_host
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Drained, EngineSettings, Finished, Request, Switched
from rapid.sim.router import MAX_WAITING

MI300X = profile_named("mi300x-8b")
Fork = Callable[[Cluster], Cluster]


def host(prefill: int = 1, decode: int = 1) -> Cluster:
    return Cluster(MI300X, uniform_host(MI300X, prefill, decode, 600_000))


def poisson(seed: int, rate_rps: float, count: int, after_s: float = 0.0) -> list[Request]:
    dice, now_s, requests = Random(seed), after_s, []
    for number in range(count):
        now_s += dice.expovariate(rate_rps)
        requests.append(Request(1000 * seed + number, now_s, dice.randint(10, 4000), dice.randint(1, 300)))
    return requests


# ---- role changes, step by step ----


def test_the_caller_makes_a_role_change_and_hears_of_every_step() -> None:
    cluster = host(prefill=2)
    cluster.offer(Request(0, 1.0, 4000, 10))
    cluster.close("gpu0")
    assert cluster.run_to_news(100.0)
    drained_s = cluster.now_s
    assert cluster.take_news() == [("gpu0", Drained(drained_s))]
    assert 1.0 < drained_s < 2.0
    cluster.switch("gpu0", Role.DECODE)
    assert cluster.run_to_news(100.0)
    assert cluster.take_news() == [("gpu0", Switched(drained_s + MI300X.switch_s, Role.DECODE))]
    assert not cluster.run_to_news(100.0)
    cluster.offer(Request(1, 100.0, 4000, 10))
    cluster.finish()
    assert cluster.instances["gpu0"].load(cluster.now_s).arrived == 1  # it was not open: the second went elsewhere
    cluster.open("gpu0", Role.DECODE)
    for request in poisson(1, 20.0, 100, after_s=200.0):
        cluster.offer(request)
    cluster.finish()
    assert len(cluster.finished) == 102
    assert cluster.instances["gpu0"].load(cluster.now_s).arrived > 20


def test_a_drain_can_be_taken_back_and_is_no_news_then() -> None:
    cluster = host(prefill=2)
    cluster.close("gpu0")  # it is empty, so it is drained at once
    cluster.open("gpu0", Role.PREFILL)
    assert not cluster.run_to_news(10.0)
    cluster.offer(Request(0, 10.0, 100, 2))
    assert cluster.instances["gpu0"].requests_left == 1


def test_an_instance_opens_only_in_the_role_it_has() -> None:
    cluster = host(prefill=2)
    cluster.close("gpu0")
    with pytest.raises(AssertionError, match="gpu0 is in role prefill, not decode"):
        cluster.open("gpu0", Role.DECODE)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_role_change_that_was_begun_goes_on_by_itself(steps: int) -> None:
    cluster = host(prefill=2)
    cluster.offer(Request(0, 1.0, 4000, 10))
    cluster.close("gpu0")
    if steps == 2:
        cluster.run_to_news(100.0)
        cluster.take_news()
        cluster.switch("gpu0", Role.DECODE)
    cluster.go_on("gpu0", Role.DECODE)
    assert not cluster.run_to_news(10.0)
    instance = cluster.instances["gpu0"]
    assert (instance.role, instance.phase) == (Role.DECODE, Phase.SERVING)


def test_there_is_always_a_next_event_until_all_is_done() -> None:
    cluster = host()
    assert cluster.next_s == float("inf")
    cluster.offer(Request(0, 1.0, 1000, 50))
    times_s = []
    while (next_s := cluster.next_s) < float("inf"):
        times_s.append(next_s)
        cluster.run_until(next_s)
        assert cluster.now_s == next_s
    assert times_s == sorted(times_s)
    assert len(cluster.finished) == 1


# ---- KV caches ----


def test_a_kv_cache_from_another_node_takes_longer() -> None:
    tpots_s = []
    for node in ("a", "b"):
        plans = [InstancePlan(Role.PREFILL, 600_000, node="a"), InstancePlan(Role.DECODE, 600_000, node=node)]
        cluster = Cluster(MI300X, plans)
        cluster.offer(Request(0, 0.0, 4000, 2))
        cluster.finish()
        tpots_s.append(cluster.finished[0].tpot_s or 0.0)
    assert tpots_s[1] - tpots_s[0] == pytest.approx(MI300X.pull_s(4000, remote=True) - MI300X.pull_s(4000))
    assert tpots_s[1] > tpots_s[0]


def test_a_full_ring_waits_for_pulls_and_everything_finishes() -> None:
    settings = EngineSettings(ring_tokens=5000, max_sequences=4)
    cluster = Cluster(MI300X, uniform_host(MI300X, 2, 1, 600_000), settings=settings)
    for request in poisson(2, 50.0, 300):
        cluster.offer(request)
        for name in ("gpu0", "gpu1"):
            held = cluster.instances[name].unpulled
            assert len(held) == 1 or sum(done.request.input_tokens for done in held) <= 5000
    cluster.finish()
    assert len(cluster.finished) == 300
    assert not any(instance.unpulled for instance in cluster.instances.values())


def test_a_kv_cache_that_is_turned_away_leaves_the_ring() -> None:
    cluster = host()
    cluster.close("gpu1")  # nobody decodes
    for number in range(MAX_WAITING + 30):
        cluster.offer(Request(number, 10.0, 8, 2))
    cluster.finish()
    assert (cluster.waiting, cluster.turned_away) == (MAX_WAITING, 30)
    assert len(cluster.instances["gpu0"].unpulled) == MAX_WAITING
    cluster.open("gpu1", Role.DECODE)
    cluster.finish()
    assert (len(cluster.finished), cluster.instances["gpu0"].unpulled) == (MAX_WAITING, ())


def test_gpus_of_an_instance_have_limits_of_their_own() -> None:
    profile = profile_named("h200-70b-tp4")
    cluster = Cluster(profile, [InstancePlan(Role.PREFILL, 700_000), InstancePlan(Role.DECODE, 700_000)])
    cluster.set_limit("gpu0", 300_000, gpu=2, delay_s=0.5)
    for number in range(40):
        cluster.offer(Request(number, 0.0, 4000, 1))
    cluster.finish()
    energies_mj = [cluster.instances["gpu0"].energy_mj(cluster.now_s, gpu) for gpu in range(4)]
    assert energies_mj[0] == energies_mj[1] == energies_mj[3] > 1.2 * energies_mj[2]
    unlimited = Cluster(profile, [InstancePlan(Role.PREFILL, 700_000), InstancePlan(Role.DECODE, 700_000)])
    for number in range(40):
        unlimited.offer(Request(number, 0.0, 4000, 1))
    unlimited.finish()
    assert cluster.now_s > 1.2 * unlimited.now_s  # all wait for the slowest


def test_mixed_instances_serve_alone() -> None:
    cluster = Cluster(MI300X, [InstancePlan(Role.MIXED, 600_000)] * 2)
    for request in poisson(3, 10.0, 200):
        cluster.offer(request)
    cluster.finish()
    assert len(cluster.finished) == 200
    assert all(instance.load(cluster.now_s).arrived > 50 for instance in cluster.instances.values())


# ---- forks ----


def live(cluster: Cluster, requests: list[Request], seed: int) -> None:
    """Offers the requests, and now and then changes a role or a limit."""
    dice = Random(seed)
    for request in requests:
        cluster.offer(request)
        name, limit_mw = dice.choice(list(cluster.instances)), dice.randint(400_000, 750_000)
        if dice.random() < 0.05:
            cluster.set_limit(name, limit_mw, delay_s=dice.uniform(0.05, 0.15))
        alike = [one for one in cluster.instances.values() if one.role is cluster.instances[name].role]
        serving = [one for one in alike if one.phase is Phase.SERVING]
        if dice.random() < 0.02 and cluster.instances[name] in serving and len(serving) > 1:
            cluster.change_role(name, Role.DECODE if serving[0].role is Role.PREFILL else Role.PREFILL)


def seen(cluster: Cluster) -> tuple[object, ...]:
    """All that can be seen of a cluster."""
    loads = [instance.load(cluster.now_s) for instance in cluster.instances.values()]
    return cluster.now_s, cluster.energy_mj(), cluster.waiting, cluster.next_s, loads


def check_fork(fork: Fork, seed: int) -> None:
    """A fork does what the original does, and nothing that happens to the one shows in the other."""
    first = poisson(1, 40.0, 400)
    second, other = poisson(2, 40.0, 400, first[-1].arrival_s), poisson(3, 90.0, 300, first[-1].arrival_s)
    straight, original = host(4, 4), host(4, 4)
    live(straight, first, seed)
    live(original, first, seed)
    finished = len(original.finished)
    alike, spoiled = fork(original), fork(original)
    at_fork = seen(original)
    assert seen(alike) == at_fork, "the fork begins elsewhere"
    live(spoiled, other, seed + 2)
    spoiled.finish()
    assert seen(original) == at_fork, "the original was changed by its fork"
    for cluster in (straight, alike, original):
        live(cluster, second, seed + 1)
        cluster.finish()
    assert seen(alike) == seen(original) == seen(straight), "the fork ends elsewhere"
    assert original.finished == straight.finished
    assert alike.finished == straight.finished[finished:]


@pytest.mark.parametrize("seed", range(10))
def test_a_fork_goes_the_same_way_and_its_own(seed: int) -> None:
    check_fork(Cluster.copy, seed)


def shares_everything(cluster: Cluster) -> Cluster:
    return copy.copy(cluster)


def shares_instances(cluster: Cluster) -> Cluster:
    fork = cluster.copy()
    fork.instances.update(cluster.instances)
    return fork


def forgets_what_is_under_way(cluster: Cluster) -> Cluster:
    fork = host(4, 4)
    fork.run_until(cluster.now_s)
    return fork


@pytest.mark.parametrize("fault", [shares_everything, shares_instances, forgets_what_is_under_way])
def test_the_check_of_forks_catches_a_bad_one(fault: Fork) -> None:
    with pytest.raises(AssertionError):
        check_fork(fault, 1)


def test_a_fork_tells_whom_it_is_told_to() -> None:
    told: list[Finished] = []
    cluster = host()
    cluster.offer(Request(0, 0.0, 100, 10))
    cluster.copy(told.append).finish()
    assert (len(told), cluster.finished) == (1, [])
    cluster.finish()
    assert (len(told), cluster.finished) == (1, told)


# ---- memory ----


def check_memory(cluster: Cluster, count: int, also: Callable[[Finished], None]) -> None:
    """After each of so many requests, what is remembered is bounded by what is under way."""
    heaps = 3 * (4 * len(cluster.instances) + 16)  # alarms, and the router's two: entries left behind included
    finished = 0

    def hear(item: Finished) -> None:
        nonlocal finished
        finished += 1
        also(item)

    cluster.on_finished = hear
    for offered, request in enumerate(poisson(5, 40.0, count), start=1):
        cluster.offer(request)
        bound = heaps + 2 * (offered - finished)
        assert cluster.remembered <= bound, f"{cluster.remembered} entries after {offered} requests, not {bound}"
    cluster.finish()
    assert finished == count
    assert cluster.remembered <= heaps


def test_what_is_remembered_is_bounded_by_what_is_under_way() -> None:
    check_memory(host(4, 4), 10_000, lambda item: None)


def test_the_check_of_memory_catches_a_cluster_that_keeps_what_has_finished() -> None:
    cluster = host(4, 4)
    with pytest.raises(AssertionError, match="entries after"):
        check_memory(cluster, 10_000, cluster.finished.append)
