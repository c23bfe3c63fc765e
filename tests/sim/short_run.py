"""A short run of everything random and concurrent there is, boiled down to one line for comparison."""

import hashlib
from collections.abc import Iterator
from random import Random

from rapid.core.cluster import Role
from rapid.sim.cluster import Cluster, InstancePlan, cast_die
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Finished, Request
from rapid.sim.model.sensor import Sensor, noise
from rapid.sim.world.site import simulate
from tests.sim.sites import Recorder, poisson, scenario

PROFILE = profile_named("b200-70b-tp2")
ROLES = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE, Role.MIXED)
SECONDS = 20


def requests(dice: Random) -> Iterator[Request]:
    at_s = 0.0
    for number in range(200):
        at_s += dice.expovariate(200 / SECONDS)
        yield Request(number, at_s, dice.randint(10, 4000), dice.randint(1, 300))


def lines(seed: int) -> Iterator[str]:
    """All that happens, in order; repr() tells every bit of a float."""
    dice = Random(f"short run, seed {seed}")
    finished: list[Finished] = []
    cluster = Cluster(
        PROFILE, [InstancePlan(role, 700_000, cast_die(dice)) for role in ROLES], on_finished=finished.append
    )
    sensors = {name: Sensor(dice) for name in cluster.instances}
    for request in requests(dice):
        while (look_s := min(sensor.next_s for sensor in sensors.values())) <= request.arrival_s:
            cluster.run_until(look_s)
            for name, sensor in sensors.items():
                if sensor.next_s == look_s:
                    sensor.look(look_s, cluster.instances[name].energy_mj(look_s, gpu=0))
        cluster.offer(request)
        name = f"gpu{dice.randrange(len(ROLES))}"
        cluster.set_limit(name, dice.randrange(PROFILE.floor_mw, PROFILE.ceiling_mw), dice.randrange(PROFILE.gpus))
        cluster.instances[name].set_noise(noise(dice), cluster.now_s, dice.randrange(PROFILE.gpus))
        if request.request_id == 100:
            cluster.change_role("gpu1", Role.DECODE)
        yield f"{name} {sensors[name].reading()} {cluster.instances[name].load(cluster.now_s)}"
    cluster.finish()
    yield from map(repr, finished)
    yield repr(cluster.energy_mj())


def digest(seed: int) -> str:
    """One line that differs as soon as one bit of the run does."""
    return hashlib.sha256("\n".join(lines(seed)).encode()).hexdigest()


def planted(seed: int) -> str:
    """The same of a run with a bug: it goes through a set."""
    return hashlib.sha256("\n".join(set(lines(seed))).encode()).hexdigest()


def site_digest(seed: int) -> str:
    """The same of a whole site under policy rapid: its outcome, and all that a watch sees of it."""
    watch = Recorder()
    outcome = simulate(scenario(nodes=2, seed=seed), poisson(170.0, 15.0, seed=seed), watch=watch)
    assert outcome.watts_moved > 0, "nothing moved, so this shows little"
    seen = (outcome, watch.decisions, watch.limits, watch.moves, watch.finishes, watch.queued)
    return hashlib.sha256("\n".join(map(repr, seen)).encode()).hexdigest()
