"""A discrete-event run of instances behind one router, on one host or on many; somebody else decides roles and limits.

Time jumps from event to event. An instance is looked at only when it has something to say, so the cost follows the
number of requests and not the number of tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from random import Random

from rapid.core.cluster import Phase, Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import (
    NOMINAL_DIE,
    Die,
    Drained,
    EngineSettings,
    Finished,
    Output,
    PrefillDone,
    Pulled,
    Request,
    Switched,
)
from rapid.sim.router import Dispatch, Router, SendKv, SendPrompt, TurnedAway

News = tuple[str, Drained | Switched]  # with the instance that it is about
Alarm = tuple[float, int, str]  # when an instance has something to say; ties go by the order of the plans

_DEFAULTS = EngineSettings()


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One instance: its role and limit at the start, how it differs from its data sheet, and where it is."""

    role: Role
    limit_mw: int  # of each of its GPUs
    die: Die = NOMINAL_DIE
    node: str = ""  # a KV cache that moves between nodes takes longer
    name: str | None = None  # None: gpu0, gpu1, ... in the order of the plans


def uniform_host(profile: Profile, prefill: int, decode: int, limit_mw: int) -> tuple[InstancePlan, ...]:
    """Equal limits and fixed roles: the baseline."""
    assert profile.floor_mw <= limit_mw <= profile.ceiling_mw
    roles = [Role.PREFILL] * prefill + [Role.DECODE] * decode
    return tuple(InstancePlan(role, limit_mw) for role in roles)


def cast_die(dice: Random) -> Die:
    """A GPU off the shelf: speed differs by 1.5 %, idle draw by 3 % (one standard deviation)."""
    return Die(speed=dice.gauss(1.0, 0.015), idle=dice.gauss(1.0, 0.03))


class Cluster:
    """Feed it requests in order of arrival with offer(), then finish().

    Finished requests go to on_finished, and nothing is kept of them; without it they collect in `finished`. A role
    change is either scripted, change_role(), or made by the caller step by step, who then watches `news`:

        close(name) -> Drained -> switch(name, role) -> Switched -> open(name, role)      or open() before the switch
    """

    def __init__(
        self,
        profile: Profile,
        plans: Sequence[InstancePlan],
        *,
        settings: EngineSettings = _DEFAULTS,
        on_finished: Callable[[Finished], None] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.on_finished = on_finished
        self.finished: list[Finished] = []
        self.turned_away = 0
        self.news: list[News] = []  # of instances that the caller closed; take_news() empties it
        self._router = Router()
        self._instances: dict[str, Instance] = {}
        self._numbers: dict[str, int] = {}  # in the order of the plans
        self._nodes: dict[str, str] = {}
        self._curves: dict[str, list[LimitCurve]] = {}  # one per GPU
        self._scripts: dict[str, Role] = {}  # role changes that go on by themselves
        self._alarms: list[Alarm] = []  # heap; an entry counts only while it is in _alarm_of
        self._alarm_of: dict[str, Alarm] = {}
        for number, plan in enumerate(plans):
            name = plan.name or f"gpu{number}"
            assert name not in self._instances, f"two instances are called {name}"
            curve = LimitCurve.constant(plan.limit_mw, profile.lag)
            self._curves[name] = [curve] * profile.gpus
            self._instances[name] = Instance(name, plan.role, profile, curve, settings=settings, die=plan.die)
            self._numbers[name], self._nodes[name] = number, plan.node
            self._router.open(name, plan.role)
        self._profile = profile

    def copy(self, on_finished: Callable[[Finished], None] | None = None) -> "Cluster":
        """A fork: given the same, it does the same from here on, and neither changes the other.

        What the original has finished or turned away stays with the original.
        """
        other = Cluster(self._profile, (), on_finished=on_finished)
        other.now_s, other.news = self.now_s, self.news.copy()
        other._router = self._router.copy()
        other._instances = {name: instance.copy() for name, instance in self._instances.items()}
        other._numbers, other._nodes = self._numbers, self._nodes  # these never change
        other._curves = {name: curves.copy() for name, curves in self._curves.items()}
        other._scripts = self._scripts.copy()
        other._alarms, other._alarm_of = self._alarms.copy(), self._alarm_of.copy()
        return other

    # ---- time ----

    @property
    def next_s(self) -> float:
        """Nothing happens before this time unless the caller does something; infinite: nothing will."""
        while self._alarms:
            alarm = self._alarms[0]
            if self._alarm_of.get(alarm[2]) is alarm:
                return alarm[0]
            heappop(self._alarms)  # the instance has changed its plans since
        return inf

    def run_until(self, at_s: float) -> None:
        """Handles all events up to at_s."""
        while (next_s := self.next_s) <= at_s and next_s < inf:
            self._run_next(next_s)
        self._pass_time(at_s)

    def run_to_news(self, at_s: float) -> bool:
        """Handles events up to at_s, or to the first one that is news for the caller; True: there is news."""
        while not self.news:
            next_s = self.next_s
            if next_s > at_s or next_s == inf:
                self._pass_time(at_s)
                return False
            self._run_next(next_s)
        return True

    def offer(self, request: Request) -> None:
        """Lives until the request arrives and routes it."""
        self.run_until(request.arrival_s)
        self._perform(self._router.arrive(request))

    def finish(self, deadline_s: float = inf) -> None:
        """Lives until nothing is left to do, or the deadline."""
        self.run_until(deadline_s)

    # ---- role changes ----

    def change_role(self, name: str, role: Role) -> None:
        """Begins to drain the instance; it switches as soon as it is empty, and opens. No news of it."""
        self._scripts[name] = role
        self.close(name)

    def go_on(self, name: str, role: Role) -> None:
        """From now on a role change that the caller began goes on by itself, to this role, and is no news."""
        self._scripts[name] = role

    def close(self, name: str) -> None:
        """Sends the instance nothing more, and what it has not begun elsewhere. Drained is news once it is empty."""
        self._router.close(name)
        backlog = self._instances[name].close(self.now_s)
        self._schedule(name)
        self._perform(self._router.hand_back(name, backlog))

    def switch(self, name: str, role: Role) -> None:
        """Begins the change of a drained instance to this role; Switched is news when it has got there."""
        self._instances[name].switch(role, self.now_s)
        self._schedule(name)

    def open(self, name: str, role: Role) -> None:
        """Sends requests to a closed instance again: one that has switched, or, before the switch, as it was."""
        instance = self._instances[name]
        assert instance.role is role, f"{name} is in role {instance.role.value}, not {role.value}"
        if instance.phase is Phase.DRAINING:
            instance.reopen(self.now_s)
        self._perform(self._router.open(name, role))

    def take_news(self) -> list[News]:
        """What has happened to the instances that the caller closed, since the last call, in order of time."""
        news, self.news = self.news, []
        return news

    # ---- power ----

    def set_limit(self, name: str, limit_mw: int, gpu: int = 0, delay_s: float | None = None) -> None:
        """Sets a limit on one GPU of the instance; it takes effect after delay_s (None: the profile's) and a lag."""
        curves = self._curves[name]
        curves[gpu] = curves[gpu].changed(limit_mw, self.now_s, delay_s)
        self._instances[name].set_limit(curves[gpu], self.now_s, gpu)
        self._schedule(name)

    def energy_mj(self) -> float:
        """The energy that all GPUs have drawn so far."""
        return sum(instance.energy_mj(self.now_s) for instance in self._instances.values())

    # ---- what is there ----

    @property
    def instances(self) -> dict[str, Instance]:
        """By name, in the order of the plans; for looking only."""
        return self._instances

    @property
    def waiting(self) -> int:
        """Requests that wait at the router."""
        return self._router.waiting

    @property
    def remembered(self) -> int:
        """How many entries it keeps: bounded by the instances and the requests under way, if on_finished is set."""
        return len(self._alarms) + len(self.news) + len(self.finished) + self._router.remembered

    # ---- inside ----

    def _run_next(self, next_s: float) -> None:
        """Handles the next event, which comes at next_s."""
        name = heappop(self._alarms)[2]
        del self._alarm_of[name]
        self.now_s = max(self.now_s, next_s)
        self._handle(name, self._instances[name].advance(self.now_s))
        self._schedule(name)

    def _pass_time(self, at_s: float) -> None:
        """Nothing is left to do up to at_s."""
        if self.now_s < at_s < inf:
            self.now_s = at_s

    def _handle(self, name: str, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case PrefillDone():
                    self._perform(self._router.prefill_done(name, output))
                case Pulled():
                    self._release(output.done)
                case Finished():
                    self._finish(name, output)
                case Drained():
                    self._drained(name, output)
                case Switched():
                    self._switched(name, output)

    def _finish(self, name: str, finished: Finished) -> None:
        if not self._router.finished(name, finished.request.request_id):
            return
        if self.on_finished is None:
            self.finished.append(finished)
        else:
            self.on_finished(finished)

    def _release(self, done: PrefillDone) -> None:
        """The ring that holds this KV cache has room for others."""
        self._instances[done.source].release_kv(done, self.now_s)
        self._schedule(done.source)

    def _drained(self, name: str, drained: Drained) -> None:
        if name in self._scripts:
            self.switch(name, self._scripts[name])
        elif self._instances[name].phase is Phase.DRAINING:  # else it has been opened again meanwhile
            self.news.append((name, drained))

    def _switched(self, name: str, switched: Switched) -> None:
        if self._scripts.pop(name, None):
            self.open(name, switched.role)
        else:
            self.news.append((name, switched))

    def _perform(self, dispatches: list[Dispatch]) -> None:
        for dispatch in dispatches:
            match dispatch:
                case SendPrompt():
                    self._instances[dispatch.instance].submit(dispatch.request, self.now_s)
                    self._schedule(dispatch.instance)
                case SendKv():
                    remote = self._nodes[dispatch.done.source] != self._nodes[dispatch.instance]
                    self._instances[dispatch.instance].receive_kv(dispatch.done, self.now_s, remote=remote)
                    self._schedule(dispatch.instance)
                case TurnedAway():
                    self.turned_away += 1
                    if dispatch.done is not None:
                        self._release(dispatch.done)

    def _schedule(self, name: str) -> None:
        """Wakes the instance when it next has something to say."""
        next_s = self._instances[name].next_event_s()
        known = self._alarm_of.get(name)
        if known is not None and known[0] == next_s:
            return
        if next_s == inf:
            self._alarm_of.pop(name, None)
        else:
            self._alarm_of[name] = alarm = (next_s, self._numbers[name], name)
            heappush(self._alarms, alarm)
        if len(self._alarms) > 4 * len(self._instances) + 16:
            # An instance that changes its plans often leaves alarms behind that lie far ahead.
            self._alarms = sorted(self._alarm_of.values())


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
    settings: EngineSettings = _DEFAULTS,
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
