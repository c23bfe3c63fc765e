"""Policy `predictive`: fill first, flip only if needed, and before the queue has formed.

Once a tick it learns from the loads (models.py), sees what is asked for (demand.py), and weighs plans (plan.py): the
budget divided between prefill and decode in several ways, with the instances as they are or some of them in the other
role. outlook.py says what each would bring over the next seconds; the best is done if it is better enough than going on
as now. A role change must be wanted twice in a row, and does not follow soon on one in the other direction.

Where it cannot know enough, it goes to the configured static split and says why: too few instances report, or the
engines behave unlike anything that the models can say, or what it predicted lately did not come true.
"""

from dataclasses import dataclass, field
from math import log
from typing import Any, cast

from rapid.core.cluster import Candidate, InstanceView, Phase, PolicyState, Role, Targets, View
from rapid.core.policy.predictive.demand import Demand, Offered
from rapid.core.policy.predictive.models import Models
from rapid.core.policy.predictive.outlook import Forecast, Outlook, Plan
from rapid.core.policy.predictive.plan import Ground
from rapid.core.policy.predictive.start import Start
from rapid.core.policy.predictive.switches import Switches
from rapid.core.policy.predictive.words import reason, words
from rapid.core.policy.static import Static

VERSION = 1  # of what state() means
LEAST_SCORES = 4  # of its predictions, before they say anything
SMALL_FLEET = 8  # instances
MAX_CANDIDATES = 8  # shown with a decision


@dataclass(frozen=True, slots=True)
class PredictiveSettings:
    """All are tuned on development traces only.

    lean                 share of the instances that prefill while nobody asks for anything
    horizon_s, steps     how far it looks ahead, and in how many steps
    levels               ways to divide the budget that are weighed for one split of the instances
    reserve              what headroom counts beside attainment: a factor e of headroom is worth that much
    move_cost            attainment that a role change must win for each instance that moves; in more than SMALL_FLEET
                         instances each counts for as much less
    least_gain           attainment that any change must win
    least_move_mw        no limit is changed unless one changes by this much
    confirmations        ticks in a row that must want a role change
    again_s, back_s      hold-off after a role change in the same, and in the other direction
    least_answers        that must have finished before anybody can say how long a drain takes
    longest_drain_s      no instance leaves decode that would need longer to finish its answers
    sequences            most that an instance decodes at once
    least_known          share of the instances of a role that must report
    trust                by how much predictions may have been too high lately, on average
    retry_s              after which it trusts itself again
    prefill_mw, decode_mw   the static split that it falls back to
    """

    lean: float = 0.75
    horizon_s: float = 8.0
    steps: float = 10
    levels: float = 6
    reserve: float = 0.02
    move_cost: float = 0.008
    least_gain: float = 0.004
    least_move_mw: int = 20_000
    confirmations: float = 2
    again_s: float = 1.0
    back_s: float = 5.0
    least_answers: float = 10
    longest_drain_s: float = 15.0
    sequences: float = 240.0
    least_known: float = 0.75
    trust: float = 0.4
    retry_s: float = 20.0
    prefill_mw: int = 750_000
    decode_mw: int = 450_000


@dataclass(slots=True)
class Predictive:
    """The policy. Its memory changes in decide() and restore() only."""

    settings: PredictiveSettings = field(default_factory=PredictiveSettings)
    start: Start | None = None
    name: str = "predictive"
    models: Models = field(init=False)
    offered: Offered = field(init=False)
    switches: Switches = field(init=False)
    _wanted: int = field(init=False, default=0)  # ticks in a row that wanted a role change; negative: to decode
    _home: int = field(init=False, default=0)  # prefill instances when it first looked: the split to fall back to
    _doubted_s: float = field(init=False, default=float("-inf"))  # since when its predictions are not trusted
    _moved: int = field(init=False, default=0)  # the direction of the last one
    _moved_s: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.models, self.offered, self.switches = Models(self.start), Offered(), Switches()

    # ---- the policy ----

    def decide(self, view: View) -> Targets:
        """What should change now. Also learns: call it once for every view."""
        self.models.observe(view)
        self.switches.observe(view)
        ground = Ground.of(view)
        if ground is None:
            return Targets({}, {}, "waits until both roles are served")
        demand = self.offered.observe(view, self._step_s(ground))
        self._home = self._home or ground.fleet.prefill
        blind = self._blind(view)
        if blind:
            return self._fall_back(ground, blind, roles=False)
        wrong = self._wrong(view)
        if wrong:
            return self._fall_back(ground, wrong, roles=True)
        if demand.prompt_rps <= 0 and demand.reserve_tps <= 0:
            return self._wait(ground)
        return self._choose(ground, demand)

    def _wait(self, ground: Ground) -> Targets:
        """Nobody asks for anything: lean to prefill, as long as moving costs nothing.

        A burst of prompts makes a queue within a second, and an instance comes to prefill only when it has finished its
        answers; decode fills up as slowly as answers take, and gets an instance in the time of a prompt.
        """
        settings, fleet = self.settings, ground.fleet
        lacking = min(round(settings.lean * fleet.count), fleet.count - 1) - fleet.prefill - fleet.to_prefill
        moves = min(lacking, fleet.decode - 1, fleet.most_moving)
        movers = ground.movers(moves, self.models) if moves > 0 else []
        if not movers or ground.transit_gpus:
            return Targets({}, {}, "nobody has asked for anything yet")
        splits = list(ground.splits(len(movers), int(settings.levels)))
        plan = splits[max(0, len(splits) - 2)]  # nearly as much for prefill as there is
        changed = ground.changes(plan, movers, self.models)
        roles = self._move(movers, len(movers), ground.view.at_s)
        return Targets(changed, roles, "nobody has asked for anything yet: leans to prefill, which bursts hit first")

    # ---- choosing ----

    def _choose(self, ground: Ground, demand: Demand) -> Targets:
        settings, view = self.settings, ground.view
        drain_s = self._drain_s(ground, demand)
        outlook = self._outlook(ground, demand, drain_s)
        hold = ground.hold()
        held = outlook.forecast(hold)
        found: list[tuple[float, Plan, Forecast]] = []
        cost = settings.move_cost * min(1.0, SMALL_FLEET / len(view.instances))
        for moves in self._moves(ground, drain_s):
            for plan in ground.splits(moves, int(settings.levels)):
                forecast = outlook.forecast(plan)
                found.append((forecast.value - cost * abs(moves), plan, forecast))
        found.sort(key=lambda each: -each[0])
        value, plan, forecast = found[0]
        wrong = self._better_at_home(ground, outlook, forecast)
        if wrong:
            return self._fall_back(ground, wrong, roles=True)
        stay = next(each for each in found if each[1].moves == 0)
        if plan.moves and not self._confirmed(plan.moves):
            value, plan, forecast = stay
        elif not plan.moves:
            self._wanted = 0
        if value < held.value + settings.least_gain and not self._uneven(ground):
            return self._targets(ground, demand, {}, {}, hold, held, held, found)
        movers = ground.movers(plan.moves, self.models) if plan.moves else []
        if len(movers) < abs(plan.moves):
            movers, (value, plan, forecast) = [], stay
        changed = ground.changes(plan, movers, self.models)
        largest_mw = max((abs(mw - ground.gpus[gpu].limit_mw) for gpu, mw in changed.items()), default=0)
        if not movers and largest_mw < settings.least_move_mw:
            return self._targets(ground, demand, {}, {}, hold, held, held, found)
        roles = self._move(movers, plan.moves, view.at_s)
        return self._targets(ground, demand, changed, roles, plan, forecast, held, found)

    def _moves(self, ground: Ground, drain_s: float) -> list[int]:
        """Numbers of instances that may change role now: none, one, or in a large fleet several at once."""
        settings, fleet, at_s = self.settings, ground.fleet, ground.view.at_s
        many = max(1, fleet.count // 16)
        moves = [0]
        if fleet.to_prefill + fleet.to_decode >= fleet.most_moving:
            return moves
        for way, left in ((1, fleet.decode), (-1, fleet.prefill)):
            if way > 0 and drain_s > settings.longest_drain_s:
                continue
            wait_s = settings.back_s if way == -self._moved else settings.again_s
            if left >= 2 and at_s - self._moved_s >= wait_s:
                moves.append(way)
                if many > 1 and left > many:
                    moves.append(way * many)
        return moves

    def _confirmed(self, moves: int) -> bool:
        way = 1 if moves > 0 else -1
        self._wanted = self._wanted + way if self._wanted * way > 0 else way
        return abs(self._wanted) >= self.settings.confirmations

    def _uneven(self, ground: Ground) -> bool:
        """An instance has come to a role, or watts are left over: limits are due however little it wins."""
        least_mw = self.settings.least_move_mw
        spent_mw = 0
        for role in (Role.PREFILL, Role.DECODE):
            limits = [
                ground.gpus[gpu].limit_mw for one in ground.serving[role] for gpu in one.gpus if gpu in ground.gpus
            ]
            spent_mw += sum(limits)
            if max(limits) - min(limits) > 0.15 * max(limits):
                return True
        count = len(ground.gpus)
        return ground.transit_gpus == 0 and ground.room_mw - spent_mw > least_mw * count

    def _outlook(self, ground: Ground, demand: Demand, drain_s: float) -> Outlook:
        settings, view = self.settings, ground.view
        gpu = next(ground.gpus[gpu] for one in ground.serving[Role.DECODE] for gpu in one.gpus if gpu in ground.gpus)
        switch_s = max((one.switch_s for one in view.instances), default=1.0)
        return Outlook(
            demand,
            ground.fleet,
            self.models,
            gpu,
            view.slo,
            horizon_s=settings.horizon_s,
            steps=int(settings.steps),
            sequences=min(settings.sequences, _kv_sequences(ground.serving[Role.DECODE])),
            reserve=settings.reserve,
            switch_s={to_prefill: self.switches.mean_s(to_prefill) for to_prefill in (True, False)},
            engine_switch_s=switch_s,
            oldest_s=view.latencies.oldest_wait_s,
            drain_s=drain_s,
        )

    def _drain_s(self, ground: Ground, demand: Demand) -> float:
        """How long the decode instance that would leave first needs to finish its answers; infinite: who knows."""
        first = next(iter(ground.movers(1, self.models)), None)
        if first is None or first.load is None:
            return float("inf")
        left = first.load.running_requests + first.load.waiting_requests
        if left == 0:
            return 0.0
        if self.offered.answers < self.settings.least_answers:
            return float("inf")
        # Of so many answers begun at any time, the one that has most left has nearly all of it left.
        return demand.output_tokens * (1.0 + 0.25 * log(left)) * self._step_s(ground)

    def _step_s(self, ground: Ground) -> float:
        """How long a decode step takes now, as far as is known."""
        decode = ground.serving[Role.DECODE]
        loads = [one.load.running_requests for one in decode if one.load is not None]
        batch = sum(loads) / len(loads) if loads else 1.0
        gpu = next(ground.gpus[gpu] for one in decode for gpu in one.gpus if gpu in ground.gpus)
        return self.models.step_s(max(1.0, batch), self.offered.now.context_tokens, ground.mean_mw(Role.DECODE), gpu)

    # ---- trouble ----

    def _blind(self, view: View) -> str:
        """Why it cannot see; empty: it can."""
        for role in (Role.PREFILL, Role.DECODE):
            serving = [one for one in view.instances if one.role is role and one.phase is Phase.SERVING]
            known = sum(one.load is not None for one in serving)
            if serving and known < self.settings.least_known * len(serving):
                return f"only {known} of {len(serving)} {role.value} instances report their load"
        return ""

    def _wrong(self, view: View) -> str:
        """Why it should not trust what it predicts; empty: it may."""
        left_s = self._doubted_s + self.settings.retry_s - view.at_s
        return self.models.misfit or (
            f"its predictions were wrong; tries again in {left_s:.0f} s" if left_s > 0 else ""
        )

    def _better_at_home(self, ground: Ground, outlook: Outlook, best: Forecast) -> str:
        """Why the split that it found at first is to be preferred, with predictions that were too high lately; empty:
        it is not. What was wrong for where the instances are now need not be for where they were."""
        settings, view = self.settings, ground.view
        if len(view.scores) < LEAST_SCORES or view.at_s < self._doubted_s + 2 * settings.retry_s:
            return ""
        off = sum(predicted - measured for predicted, measured in view.scores) / len(view.scores)
        moves = self._home - ground.fleet.prefill - ground.fleet.to_prefill
        if off <= settings.trust or not -ground.fleet.prefill < moves < ground.fleet.decode:
            return ""
        home = outlook.forecast(ground.static(moves))
        if home.value < best.value - off / 2 or home.headroom <= best.headroom:
            return ""
        self._doubted_s = view.at_s
        return f"its last {len(view.scores)} predictions were {100 * off:.0f} points too high on average"

    def _fall_back(self, ground: Ground, trouble: str, *, roles: bool) -> Targets:
        """The static split; with `roles`, also back to the numbers of instances that it found at first."""
        self._wanted = 0
        settings, view = self.settings, ground.view
        static = Static(settings.prefill_mw, settings.decode_mw).decide(view)
        moves = 0
        if roles and not ground.transit_gpus and view.at_s - self._moved_s >= settings.again_s:
            moves = max(-1, min(1, self._home - ground.fleet.prefill))
        movers = ground.movers(moves, self.models) if moves else []
        changed = self._move(movers, moves, view.at_s)
        if not static.limits_mw and not changed:
            return Targets({}, {}, f"keeps the static split: {trouble}")
        return Targets(static.limits_mw, changed, f"goes to the static split: {trouble}")

    def _move(self, movers: list[InstanceView], moves: int, at_s: float) -> dict[str, Role]:
        """The role changes, remembered."""
        role = Role.PREFILL if moves > 0 else Role.DECODE
        roles = {one.instance: role for one in movers}
        if roles:
            self._moved, self._moved_s, self._wanted = (1 if moves > 0 else -1), at_s, 0
            self.switches.ordered(roles, at_s)
        return roles

    # ---- words ----

    def _targets(
        self,
        ground: Ground,
        demand: Demand,
        limits_mw: dict[str, int],
        roles: dict[str, Role],
        plan: Plan,
        forecast: Forecast,
        held: Forecast,
        found: list[tuple[float, Plan, Forecast]],
    ) -> Targets:
        candidates = tuple(
            Candidate(words(ground.fleet, each, expected), round(expected.attainment, 4), each == plan)
            for _, each, expected in found[:MAX_CANDIDATES]
        )
        return Targets(
            limits_mw,
            roles,
            reason(plan, forecast, held, changes=bool(limits_mw or roles)),
            self._inputs(demand, held),
            round(forecast.attainment, 4),
            round(held.attainment, 4),
            self.settings.horizon_s,
            candidates,
        )

    def _inputs(self, demand: Demand, held: Forecast) -> tuple[tuple[str, float | str], ...]:
        models = self.models
        return (
            ("offered_rps", round(demand.prompt_rps, 3)),
            ("prompt_tokens", round(demand.prompt_tokens, 1)),
            ("output_tokens", round(demand.output_tokens, 1)),
            ("queued_tokens", round(demand.queued_tokens)),
            ("decoding", round(demand.resident)),
            ("headroom", round(held.headroom, 3)),
            ("sure_of_prefill_share", round(models.confidence(Role.PREFILL), 3)),
            ("sure_of_decode_share", round(models.confidence(Role.DECODE), 3)),
        )

    # ---- memory ----

    def state(self) -> PolicyState:
        """All it remembers."""
        own = (self._wanted, self._home, self._doubted_s, self._moved, self._moved_s)
        return PolicyState(VERSION, (self.models.state(), self.offered.state(), self.switches.state(), own))

    def restore(self, state: PolicyState) -> None:
        """Go on from there."""
        assert state.version == VERSION, f"a state of version {state.version}, not {VERSION}"
        models, offered, switches, own = cast(Any, state.values)
        self.models = Models.from_state(models, self.start)
        self.offered.restore(offered)
        self.switches.restore(switches)
        self._wanted, self._home, self._doubted_s, self._moved, self._moved_s = own


def _kv_sequences(decode: tuple[InstanceView, ...]) -> float:
    """How many sequences the KV cache of an instance holds, going by those that use much of theirs."""
    most = float("inf")
    for one in decode:
        load = one.load
        if load is not None and load.kv_used_fraction > 0.1 and load.running_requests >= 4:
            most = min(most, 0.95 * load.running_requests / load.kv_used_fraction)
    return most
