"""A discrete-event run of one host: instances with fixed or scripted roles and limits, behind one router.

Time jumps from event to event. An instance is looked at only when it has something to say, so the cost follows the
number of requests and not the number of tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from random import Random

from rapid.core.cluster import Role
from rapid.sim.instance import Instance
from rapid.sim.power import LimitCurve
from rapid.sim.profile import Profile
from rapid.sim.requests import (
    NOMINAL_DIE,
    Die,
    Drained,
    EngineSettings,
    Finished,
    Output,
    PrefillDone,
    Request,
    Switched,
)
from rapid.sim.router import Dispatch, Router, SendKv, SendPrompt, TurnedAway


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One GPU of the host: its role and limit at the start, and how it differs from its data sheet."""

    role: Role
    limit_mw: int
    die: Die = NOMINAL_DIE


def uniform_host(profile: Profile, prefill: int, decode: int, limit_mw: int) -> tuple[InstancePlan, ...]:
    """Equal limits and fixed roles: the baseline."""
    assert profile.floor_mw <= limit_mw <= profile.ceiling_mw
    roles = [Role.PREFILL] * prefill + [Role.DECODE] * decode
    return tuple(InstancePlan(role, limit_mw) for role in roles)


def cast_die(dice: Random) -> Die:
    """A GPU off the shelf: speed differs by 1.5 %, idle draw by 3 % (one standard deviation)."""
    return Die(speed=dice.gauss(1.0, 0.015), idle=dice.gauss(1.0, 0.03))


class Cluster:
    """Feed it requests in order of arrival with offer(), then finish(). Finished requests collect in `finished`."""

    def __init__(
        self, profile: Profile, plans: Sequence[InstancePlan], *, settings: EngineSettings | None = None
    ) -> None:
        self.now_s = 0.0
        self.finished: list[Finished] = []
        self.turned_away: list[Request] = []
        self._profile = profile
        self._router = Router()
        self._instances: dict[str, Instance] = {}
        self._curves: dict[str, LimitCurve] = {}
        self._next_roles: dict[str, Role] = {}
        self._events: list[tuple[float, int, str]] = []  # heap; an entry counts only while it is in _scheduled
        self._scheduled: dict[str, tuple[float, int, str]] = {}
        self._order = 0
        for index, plan in enumerate(plans):
            name = f"gpu{index}"
            self._curves[name] = curve = LimitCurve.constant(plan.limit_mw, profile.lag)
            self._instances[name] = Instance(
                name, plan.role, profile, curve, settings=settings or EngineSettings(), die=plan.die
            )
            self._router.open(name, plan.role)

    def offer(self, request: Request) -> None:
        """Lives until the request arrives and routes it."""
        self.run_until(request.arrival_s)
        self._perform(self._router.arrive(request))

    def run_until(self, at_s: float) -> None:
        """Handles all events up to at_s."""
        while self._events and self._events[0][0] <= at_s:
            entry = heappop(self._events)
            name = entry[2]
            if self._scheduled.get(name) is not entry:
                continue  # the instance has changed its plans since
            self.now_s = entry[0]
            self._handle(name, self._instances[name].advance(self.now_s))
            self._schedule(name)
        if at_s < inf:
            self.now_s = max(self.now_s, at_s)

    def finish(self, deadline_s: float = inf) -> None:
        """Lives until nothing is left to do, or the deadline."""
        self.run_until(deadline_s)

    def change_role(self, name: str, role: Role) -> None:
        """Begins to drain the instance; it switches as soon as it is empty."""
        self._router.close(name)
        self._next_roles[name] = role
        backlog = self._instances[name].close(self.now_s)
        self._schedule(name)
        self._perform(self._router.hand_back(name, backlog))

    def set_limit(self, name: str, limit_mw: int) -> None:
        """Sets a limit on the GPU of the instance; it takes effect with the profile's lag."""
        self._curves[name] = self._curves[name].changed(limit_mw, self.now_s)
        self._instances[name].set_limit(self._curves[name], self.now_s)
        self._schedule(name)

    @property
    def instances(self) -> dict[str, Instance]:
        return self._instances

    @property
    def waiting(self) -> int:
        """Requests that wait at the router."""
        return self._router.waiting

    def energy_mj(self) -> float:
        """The energy that all GPUs have drawn so far."""
        return sum(instance.energy_mj(self.now_s) for instance in self._instances.values())

    def _handle(self, name: str, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case PrefillDone():
                    self._perform(self._router.prefill_done(name, output))
                case Finished():
                    if self._router.finished(name, output.request.request_id):
                        self.finished.append(output)
                case Drained():
                    self._instances[name].switch(self._next_roles.pop(name), self.now_s)
                case Switched():
                    self._perform(self._router.open(name, output.role))

    def _perform(self, dispatches: list[Dispatch]) -> None:
        for dispatch in dispatches:
            match dispatch:
                case SendPrompt():
                    self._instances[dispatch.instance].submit(dispatch.request, self.now_s)
                    self._schedule(dispatch.instance)
                case SendKv():
                    self._instances[dispatch.instance].receive_kv(dispatch.done, self.now_s)
                    self._schedule(dispatch.instance)
                case TurnedAway():
                    self.turned_away.append(dispatch.request)

    def _schedule(self, name: str) -> None:
        next_s = self._instances[name].next_event_s()
        known = self._scheduled.get(name)
        if known is not None and known[0] == next_s:
            return
        if next_s == inf:
            self._scheduled.pop(name, None)
            return
        self._order += 1
        self._scheduled[name] = entry = (next_s, self._order, name)
        heappush(self._events, entry)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run: every finished request in the order of finishing, and how many never did."""

    finished: tuple[Finished, ...]
    requests: int
    until_s: float
    energy_mj: float


def simulate(
    profile: Profile,
    plans: Sequence[InstancePlan],
    requests: Iterable[Request],
    *,
    settings: EngineSettings | None = None,
    deadline_s: float = inf,
) -> Run:
    """Runs the requests, in order of arrival, to the end or to the deadline. The same input gives the same bytes."""
    cluster = Cluster(profile, plans, settings=settings)
    count = 0
    for request in requests:
        cluster.offer(request)
        count += 1
    cluster.finish(deadline_s)
    return Run(tuple(cluster.finished), count, cluster.now_s, cluster.energy_mj())
