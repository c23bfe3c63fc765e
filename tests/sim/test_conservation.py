"""Nothing gets lost: requests (Little's law) and energy (the counter against a plain integral of the draw)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest

from rapid.core.cluster import PhaseLoad, Role
from rapid.sim.cluster import Cluster, InstancePlan
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import Lag, LimitCurve
from rapid.sim.model.profile import Profile, profile_named
from rapid.sim.model.requests import EngineSettings, Finished, PrefillDone, Request

H200, PAIR = profile_named("h200-8b"), profile_named("b200-70b-tp2")
SEEDS = range(3)
LITTLE = 0.01  # relative; a grid of looks sees each stay within one cell at either end
ENERGY = 1e-3  # relative; the grid is off by up to half a cell wherever the natural draw changes
LOOK_S, CELL_S = 0.02, 0.001


def poisson(dice: Random, rate: float, seconds: float) -> Iterator[Request]:
    at_s, number = dice.expovariate(rate), 0
    while at_s < seconds:
        yield Request(number, at_s, dice.randint(10, 3000), 1 + dice.randint(1, 200))
        at_s, number = at_s + dice.expovariate(rate), number + 1


# ---- Little's law ----


@dataclass
class Alone:
    """One instance. A KV cache that comes out is pulled as soon as anybody looks."""

    instance: Instance
    stays_s: list[float] = field(default_factory=list)  # of those that have left

    def enter(self, request: Request) -> None:
        if self.instance.role is Role.DECODE:
            self.instance.receive_kv(PrefillDone(request, request.arrival_s, 0.0, "p0"), request.arrival_s)
        else:
            self.instance.submit(request, request.arrival_s)

    def live(self, now_s: float) -> list[PhaseLoad]:
        for output in self.instance.advance(now_s):
            if isinstance(output, PrefillDone | Finished):
                self.stays_s.append(output.at_s - output.request.arrival_s)
            if isinstance(output, PrefillDone):
                self.instance.release_kv(output, now_s)
        return [self.instance.load(now_s)]


@dataclass
class Together:
    """A whole cluster; one of its instances changes role on the way."""

    cluster: Cluster
    stays_s: list[float] = field(default_factory=list)

    def enter(self, request: Request) -> None:
        self.cluster.offer(request)

    def live(self, now_s: float) -> list[PhaseLoad]:
        self.cluster.run_until(now_s)
        self.stays_s += [item.at_s - item.request.arrival_s for item in self.cluster.finished]
        self.cluster.finished.clear()
        assert self.cluster.waiting == 0  # some instance of each role is always open, so nobody waits at the router
        return [instance.load(now_s) for instance in self.cluster.instances.values()]


def inside(load: PhaseLoad) -> int:
    return load.waiting_requests + load.running_requests


def little(
    system: Alone | Together, requests: Iterator[Request], counted: Callable[[PhaseLoad], int] = inside
) -> float:
    """Mean number in the system, as its instances tell it when looked at, over rate x mean time in the system.

    The system is empty at both ends, where the law holds for every single run, and 1 is the only right answer.
    """
    told = 0
    request = next(requests, None)
    for tick in count(1):
        now_s = tick * LOOK_S
        while request is not None and request.arrival_s <= now_s:
            system.enter(request)
            request = next(requests, None)
        loads = system.live(now_s)
        told += sum(counted(load) for load in loads)
        if request is None and not any(inside(load) for load in loads):
            return told * LOOK_S / sum(system.stays_s)
    raise AssertionError


def alone(role: Role) -> Alone:
    settings = EngineSettings(max_sequences=16)  # so few that sequences wait in decode, too
    return Alone(Instance("i0", role, H200, LimitCurve.constant(500_000, H200.lag), settings=settings))


def together() -> Together:
    roles = [Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE]
    return Together(Cluster(H200, [InstancePlan(role, 500_000) for role in roles]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("role", "rate"), [(Role.PREFILL, 20.0), (Role.DECODE, 18.0), (Role.MIXED, 12.0)])
def test_littles_law_holds_in_an_instance(role: Role, rate: float, seed: int) -> None:
    system = alone(role)
    assert little(system, poisson(Random(seed), rate, 120.0)) == pytest.approx(1.0, rel=LITTLE), f"seed {seed}"
    assert len(system.stays_s) > 1000


@pytest.mark.parametrize("seed", SEEDS)
def test_littles_law_holds_in_a_cluster(seed: int) -> None:
    system = together()

    def requests() -> Iterator[Request]:
        for request in poisson(Random(seed), 30.0, 60.0):
            if request.request_id == 600:
                system.cluster.change_role("gpu0", Role.DECODE)
            yield request

    assert little(system, requests()) == pytest.approx(1.0, rel=LITTLE), f"seed {seed}"
    assert len(system.stays_s) > 1000


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE, Role.MIXED])
def test_an_instance_that_forgets_those_that_wait_is_caught(role: Role) -> None:
    ratio = little(alone(role), poisson(Random(0), 18.0, 60.0), counted=lambda load: load.running_requests)
    assert ratio < 1 - 3 * LITTLE


def test_a_cluster_that_loses_requests_is_caught() -> None:
    """One in twenty comes in and is forgotten: it never leaves, by its own account."""

    class Leaky(Together):
        def live(self, now_s: float) -> list[PhaseLoad]:
            self.cluster.run_until(now_s)
            self.cluster.finished = [item for item in self.cluster.finished if item.request.request_id % 20]
            return super().live(now_s)

    ratio = little(Leaky(together().cluster), poisson(Random(0), 30.0, 60.0))
    assert ratio > 1 + 3 * LITTLE


# ---- energy ----


@dataclass(frozen=True)
class Change:
    """At at_s one GPU gets a limit, and a noise on its draw."""

    at_s: float
    name: str
    gpu: int
    limit_mw: int
    noise: float


def changes(dice: Random, names: list[str], seconds: float) -> Iterator[Change]:
    """Some come on the heels of another, before it has taken hold."""
    at_s = 0.0
    while (at_s := at_s + dice.choice((0.02, 0.07, 0.3))) < seconds:
        limit_mw = dice.randrange(PAIR.floor_mw, PAIR.ceiling_mw, 1000)
        yield Change(at_s, dice.choice(names), dice.randrange(PAIR.gpus), limit_mw, dice.gauss(1.0, 0.05))


@dataclass
class Integral:
    """The energy of one GPU the plain way: cell by cell, min(limit in effect, natural draw) x noise."""

    curve: LimitCurve = LimitCurve.constant(PAIR.ceiling_mw, PAIR.lag)
    noise: float = 1.0
    energy_mj: float = 0.0

    def change(self, change: Change) -> None:
        self.curve, self.noise = self.curve.changed(change.limit_mw, change.at_s), change.noise

    def cell(self, middle_s: float, natural_mw: int) -> None:
        self.energy_mj += self.noise * min(self.curve.at(middle_s), natural_mw) * CELL_S


def energies_mj(
    seed: int, *, built: Profile = PAIR, heard: Callable[[Change], Change] = lambda change: change
) -> tuple[list[float], list[float], float]:
    """What every GPU has counted, what the plain integral says, and what the cluster has counted.

    Planted bugs: the cluster is built with another profile than the integral's, or hears of changes differently.
    """
    dice, seconds = Random(seed), 20.0
    plans = [InstancePlan(role, PAIR.ceiling_mw) for role in (Role.PREFILL, Role.DECODE, Role.MIXED)]
    cluster = Cluster(built, plans)
    integrals = {(name, gpu): Integral() for name in cluster.instances for gpu in range(PAIR.gpus)}
    todo: list[Request | Change] = [
        *poisson(dice, 3.0, 0.8 * seconds),
        *changes(dice, list(cluster.instances), seconds),
    ]
    todo.sort(key=when)
    for cell in range(round(seconds / CELL_S)):
        middle_s = (cell + 0.5) * CELL_S
        while todo and when(todo[0]) <= middle_s:
            event = todo.pop(0)
            if isinstance(event, Request):
                cluster.offer(event)
                continue
            integrals[event.name, event.gpu].change(event)
            event = heard(event)
            cluster.run_until(event.at_s)
            cluster.set_limit(event.name, event.limit_mw, event.gpu)
            cluster.instances[event.name].set_noise(event.noise, event.at_s, event.gpu)
        cluster.run_until(middle_s)
        for (name, _), integral in integrals.items():
            cluster.instances[name].energy_mj(middle_s)  # brings it to the present, too
            activity = cluster.instances[name].activity()
            integral.cell(middle_s, PAIR.idle_mw if activity is None else activity.natural_mw)
    cluster.run_until(seconds)
    counted = [cluster.instances[name].energy_mj(seconds, gpu) for name, gpu in integrals]
    return counted, [integral.energy_mj for integral in integrals.values()], cluster.energy_mj()


def when(event: Request | Change) -> float:
    return event.arrival_s if isinstance(event, Request) else event.at_s


@pytest.mark.parametrize("seed", SEEDS)
def test_energy_is_the_integral_of_the_draw_and_adds_up(seed: int) -> None:
    counted, integrated, together_mj = energies_mj(seed)
    assert counted == pytest.approx(integrated, rel=ENERGY), f"seed {seed}"
    assert together_mj == pytest.approx(sum(counted), rel=1e-12)
    assert len(counted) == 6
    assert min(counted) > PAIR.idle_mw * 20.0  # every GPU has worked


BUGS: dict[str, Callable[[], tuple[list[float], list[float], float]]] = {
    "idle draws nothing": lambda: energies_mj(0, built=replace(PAIR, idle_mw=0)),
    "limits take hold at once": lambda: energies_mj(0, built=replace(PAIR, lag=Lag(0.0, 1e-6, 1e-6))),
    "noise is not heard": lambda: energies_mj(0, heard=lambda change: replace(change, noise=1.0)),
    "the other GPU gets the limit": lambda: energies_mj(0, heard=lambda change: replace(change, gpu=1 - change.gpu)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_energy_that_is_counted_wrongly_is_caught(bug: str) -> None:
    counted, integrated, _ = BUGS[bug]()
    assert counted != pytest.approx(integrated, rel=ENERGY)
