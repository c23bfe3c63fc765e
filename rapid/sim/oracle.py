"""Policy `oracle`: the bar that every policy is held against. It sees the future, and tries out what it does before.

Once in a while it copies the whole engine world, applies a candidate (a split of the instances, a limit per role)
to the copy, lets the true arrivals of the next seconds come in, and counts the requests that attain their SLO there.
It keeps the best candidate. Like every policy it asks core.Control, which grants what fits and changes roles in order:
it pays for lag, drain and switch as the others do, and starts from the same equal shares.

How far to look is a choice of its own: answers that last half a minute need more than a burst of short ones. So the bar
is the better of two looks, each a run of its own.

It is a bar and no proof of a bound: it plans as if a candidate were kept for the whole horizon, and tries a few dozen
candidates, not all. The regret of a policy is the oracle's attainment less its own, and may come out negative.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from rapid.core.cluster import InstanceView, Phase, Role, SloTargets, Targets, View
from rapid.core.fit import fit
from rapid.core.policy import NO_CHANGE
from rapid.sim.cluster import Cluster
from rapid.sim.model.requests import Finished, Request


class World(Protocol):
    """What the oracle may see beyond the view of a policy."""

    def fork(self) -> Cluster:
        """A copy of the engine world as it is, role changes under way included, that shares nothing that changes."""

    def future(self, until_s: float) -> Iterable[Request]:
        """The requests that are still to arrive up to until_s, in order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One candidate: which instances change role, and one limit per role."""

    moves: tuple[tuple[str, Role], ...]
    prefill: int  # instances that serve prefill once the moves are done
    limits_mw: tuple[tuple[str, int], ...]
    prefill_mw: int


@dataclass(frozen=True, slots=True)
class Look:
    """It makes a plan every period_s, for horizon_s ahead."""

    horizon_s: float
    period_s: float


LOOKS = (Look(10.0, 2.0), Look(30.0, 4.0))


def looks(slo: SloTargets) -> list["Callable[[World], Oracle]"]:
    """The oracles to be made with the world, one per look; the run that attains most is the bar."""
    return [partial(Oracle, slo=slo, look=look) for look in LOOKS]


@dataclass(slots=True)
class Oracle:
    """Policy `oracle`. The numbers are assumed: longer horizons and finer steps cost time and gain little.

    levels      limits tried per split, from the least to the greatest that the budget allows for prefill
    reach       the split may change by so many instances in one plan
    least_gain  requests that a change must win before it is made, so that it does nothing for nothing
    """

    world: World
    slo: SloTargets
    look: Look = LOOKS[0]
    settle_s: float = 0.6  # raises wait for the cuts that pay for them
    levels: int = 4
    reach: int = 2
    least_gain: float = 0.5
    name: str = "oracle"
    _next_s: float = float("-inf")

    def decide(self, view: View) -> Targets:
        """The best candidate, if it beats going on as now."""
        if view.at_s < self._next_s or any(one.phase not in _HERE for one in view.instances):
            return NO_CHANGE
        self._next_s = view.at_s + self.look.period_s
        future = list(self.world.future(view.at_s + self.look.horizon_s))
        hold = self._plan(view, 0, None)
        assert hold is not None
        scores = {hold: self._score(view, hold, future)}
        for moved in range(-self.reach, self.reach + 1):
            self._try(view, moved, hold.prefill_mw, future, scores)
        best = max(scores, key=lambda plan: scores[plan])
        for moved in {best.prefill - hold.prefill: None, 0: None}:
            for level in range(self.levels):
                self._try(view, moved, _level_mw(view, level / (self.levels - 1)), future, scores)
        best = max(scores, key=lambda plan: scores[plan])
        if scores[best] < scores[hold] + self.least_gain:
            return NO_CHANGE
        known = {gpu.gpu: gpu.limit_mw for gpu in view.gpus}
        limits_mw = {gpu: limit_mw for gpu, limit_mw in best.limits_mw if limit_mw != known[gpu]}
        inputs = (("attained_if_held", scores[hold]), ("attained", scores[best]), ("candidates", float(len(scores))))
        return Targets(limits_mw, dict(best.moves), "attains most of what is to come", inputs)

    def _try(self, view: View, moved: int, prefill_mw: int, future: list[Request], scores: dict[Plan, float]) -> None:
        plan = self._plan(view, moved, prefill_mw)
        if plan is not None and plan not in scores:
            scores[plan] = self._score(view, plan, future)

    def _plan(self, view: View, moved: int, prefill_mw: int | None) -> Plan | None:
        """The candidate with `moved` more prefill instances. prefill_mw None: limits as they are."""
        roles = {one.instance: one.role for one in view.instances}
        chosen = _movable(view, Role.DECODE if moved > 0 else Role.PREFILL)[: abs(moved)]
        if len(chosen) < abs(moved):
            return None
        to = Role.PREFILL if moved > 0 else Role.DECODE
        moves = tuple((name, to) for name in chosen)
        roles |= dict(moves)
        counts = [sum(role is each for role in roles.values()) for each in (Role.PREFILL, Role.DECODE)]
        if min(counts) < 1:
            return None
        now = {gpu.gpu: gpu.limit_mw for gpu in view.gpus}
        if prefill_mw is None:
            of_prefill = [
                now[gpu] for one in view.instances if one.role is Role.PREFILL for gpu in one.gpus if gpu in now
            ]
            return Plan(moves, counts[0], tuple(now.items()), max(of_prefill, default=_level_mw(view, 1.0)))
        return Plan(moves, counts[0], _limits(view, roles, prefill_mw), prefill_mw)

    def _score(self, view: View, plan: Plan, future: list[Request]) -> float:
        """How many of the requests in the system and to come attain both targets, as far as the horizon can tell."""
        cluster, slo, met = self.world.fork(), self.slo, 0

        def count(done: Finished) -> None:
            nonlocal met
            met += done.ttft_s <= slo.ttft_s and (done.tpot_s is None or done.tpot_s <= slo.tpot_s)

        cluster.on_finished = count
        cuts, raises = _changes(view, plan)
        for name, role in plan.moves:
            cluster.change_role(name, role)
        for each in cuts:
            cluster.set_limit(*each)
        raise_s = view.at_s + self.settle_s
        waiting = len([request for request in future if request.arrival_s < raise_s])
        for request in future[:waiting]:
            cluster.offer(request)
        cluster.run_until(raise_s)
        for each in raises:
            cluster.set_limit(*each)
        for request in future[waiting:]:
            cluster.offer(request)
        cluster.run_until(view.at_s + self.look.horizon_s)
        return met + sum(_prospects(cluster, slo))


_UNSEEN = 0.5  # what a prompt counts that may still be in time (assumed)
_HERE = (Phase.SERVING, Phase.DRAINING, Phase.SWITCHING, Phase.WARMING)  # others it cannot look ahead with


def _changes(view: View, plan: Plan) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]:
    """The cuts and the raises of a plan: instance, limit, and which GPU of the instance."""
    places = {gpu: (one.instance, index) for one in view.instances for index, gpu in enumerate(one.gpus)}
    limits_mw = dict(plan.limits_mw)
    cuts: list[tuple[str, int, int]] = []
    raises: list[tuple[str, int, int]] = []
    for gpu in view.gpus:
        limit_mw = limits_mw[gpu.gpu]
        if limit_mw != gpu.limit_mw and gpu.gpu in places:
            instance, index = places[gpu.gpu]
            (cuts if limit_mw < gpu.limit_mw else raises).append((instance, limit_mw, index))
    return cuts, raises


def _prospects(cluster: Cluster, slo: SloTargets) -> Iterator[float]:
    """For each request that has not finished, how likely it is to attain both targets, as far as can be told."""
    now_s = cluster.now_s
    for instance in cluster.instances.values():
        for request in instance.prompts():
            yield _UNSEEN * (now_s - request.arrival_s < slo.ttft_s)
        for done, made in instance.under_way(now_s):
            to_make = done.request.output_tokens - 1
            in_time = (now_s - done.at_s) <= slo.tpot_s * (made or to_make)
            yield float(done.ttft_s <= slo.ttft_s and in_time)


def _movable(view: View, role: Role) -> list[str]:
    """The instances of a role that may leave it, the ones with the least to drain first."""

    def to_drain(one: InstanceView) -> tuple[int, str]:
        left = 0 if one.load is None else one.load.running_requests + one.load.waiting_requests
        return (left, one.instance)

    able = [one for one in view.instances if one.role is role and one.phase is Phase.SERVING and not one.pinned]
    return [one.instance for one in sorted(able, key=to_drain)]


def _level_mw(view: View, share: float) -> int:
    """A limit between the least floor (0) and the greatest ceiling (1) of all GPUs."""
    floor_mw, ceiling_mw = min(gpu.floor_mw for gpu in view.gpus), max(gpu.ceiling_mw for gpu in view.gpus)
    return round(floor_mw + share * (ceiling_mw - floor_mw))


def _limits(view: View, roles: dict[str, Role], prefill_mw: int) -> tuple[tuple[str, int], ...]:
    """prefill_mw for each GPU of prefill, and for decode an equal share of what that leaves, cut to every budget."""
    owner = {gpu: roles[one.instance] for one in view.instances for gpu in one.gpus}
    prefill = [gpu for gpu in view.gpus if owner.get(gpu.gpu) is Role.PREFILL]
    decode = [gpu for gpu in view.gpus if owner.get(gpu.gpu) is not Role.PREFILL]
    total_mw = min(view.rooms_mw.values())
    left_mw = (total_mw - prefill_mw * len(prefill)) // max(1, len(decode))
    asked = {gpu.gpu: prefill_mw for gpu in prefill} | {gpu.gpu: left_mw for gpu in decode}
    clipped = {gpu.gpu: min(max(asked[gpu.gpu], gpu.floor_mw), gpu.ceiling_mw) for gpu in view.gpus}
    return tuple(fit(clipped, view.gpus, view.rooms_mw, view.chains).items())
