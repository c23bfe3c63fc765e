"""The world around the real controller and the real guards: nodes, engines, a network, and the requests.

Three things drive it: what the engines do next, what the agenda holds, and the next arrival. There is one clock, which
everybody reads; it starts a lead-in before the trace's time 0, so that by then the site has come up by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from math import inf
from random import Random

from rapid.core.cluster import NodeReport, Phase, Role, RoleProgress
from rapid.core.commands import (
    Announce,
    Answer,
    CancelRole,
    Command,
    Notice,
    OrderRole,
    RefuseEngine,
    SendGrants,
    SendRenewal,
    StepDown,
)
from rapid.core.errors import UsageError
from rapid.core.events import EngineCame, EngineMoved, Event, NodeHeard, Started, Ticked
from rapid.core.policy import Policy
from rapid.sim.cluster import Cluster
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world import build
from rapid.sim.world.agenda import Agenda, Link
from rapid.sim.world.arrivals import Arrivals
from rapid.sim.world.build import Parts
from rapid.sim.world.checkers import RunningBudget
from rapid.sim.world.engine import SimEngine
from rapid.sim.world.node import SimGpu, SimNode
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import ORACLE, Scenario
from rapid.sim.world.score import Score
from rapid.sim.world.sum_up import sum_up
from rapid.sim.world.watch import Queues, Watch
from rapid.sim.world.why import Means

PolicyMaker = Callable[["Site"], Policy]
_QUEUES_S = 1.0  # how often a watch sees the queues
_PARTS = Parts()


class Site:
    """One run. Raises ConfigInvalid for a scenario that cannot be run, UsageError for no request at all.

    policy: made with the site, which it may look at; it replaces the controller's own. Policy "oracle" needs one.
    """

    def __init__(
        self,
        scenario: Scenario,
        requests: Iterable[Request],
        *,
        policy: PolicyMaker | None = None,
        watch: Watch | None = None,
        parts: Parts = _PARTS,
    ) -> None:
        scenario.check()
        self.scenario, self._watch = scenario, watch
        self.zero_s = scenario.world.lead_in_s  # the trace's time 0 on the site's clock
        self.agenda = Agenda()
        self.score = Score(scenario.slo)
        self._arrivals = Arrivals(requests, self.zero_s)
        self._dice = Random(f"rapid.sim network {scenario.seed}")
        self._build(parts)
        self.control = parts.control(scenario.settings())
        if policy is not None:
            self.control.policy = policy(self)
        elif scenario.policy == ORACLE:
            raise UsageError("policy oracle must be handed in with the scenario")
        self._booting = dict.fromkeys(self.nodes)
        self._unheard = dict.fromkeys(self.nodes)
        self.control_steps = 0
        self.errors = 0  # that the controller has announced since time 0
        self.energy_at_zero_mj = 0.0

    def _build(self, parts: Parts) -> None:
        scenario, agenda = self.scenario, self.agenda
        plans = build.plans(scenario)
        self.cluster = cluster = Cluster(scenario.profile, plans, settings=scenario.engine, on_finished=self._finished)
        self.nodes: dict[str, SimNode] = {}
        gpus: list[SimGpu] = []
        for name in scenario.node_names:
            dice = Random(f"rapid.sim {name} {scenario.seed}")
            mine = build.gpus(scenario, name, dice, parts.gpu)
            self.nodes[name] = SimNode(name, mine, scenario, agenda, cluster, dice, self, guard=parts.guard)
            gpus += mine
        owned: dict[str, list[SimGpu]] = {}
        for gpu in gpus:
            owned.setdefault(gpu.instance, []).append(gpu)
        self.engines: dict[str, SimEngine] = {}
        for plan, (name, mine) in zip(plans, owned.items(), strict=True):
            hello = build.hello(scenario, plan, tuple(gpu.name for gpu in mine))
            self.engines[name] = SimEngine(hello, cluster, agenda, self._link(), tell=self._told, moved=self._moved)
        self._to_node = {name: self._link() for name in self.nodes}
        self._to_engine = {name: self._link() for name in self.engines}
        self.budget = RunningBudget({gpu.name: gpu.limit_mw for gpu in gpus}, scenario.budget_mw)
        self.means = Means(
            {name: engine.change.role for name, engine in self.engines.items()},
            {name: [gpu.limit_mw for gpu in mine] for name, mine in owned.items()},
        )

    def _link(self) -> Link:
        return Link(self.agenda, self._dice, self.scenario.world.network_s)

    # ---- the loop ----

    def run(self, max_drain_s: float = 120.0) -> Outcome:
        """Lives until every request has finished, at most max_drain_s after the last has arrived."""
        self._begin()
        last_s, deadline_s = 0.0, inf
        while True:
            if self._arrivals.next_s == inf:
                if deadline_s == inf:
                    last_s, deadline_s = self.cluster.now_s, self.cluster.now_s + max_drain_s
                    self.means.end(last_s, self._busy_s())
                if self.cluster.now_s >= deadline_s or not self._under_way:
                    return sum_up(self, last_s)
            self._turn(deadline_s)

    def _turn(self, deadline_s: float) -> None:
        """Lets the next thing happen."""
        cluster, agenda = self.cluster, self.agenda
        arrival_s, action_s = self._arrivals.next_s, agenda.next_s
        due_s = min(arrival_s, action_s, deadline_s)
        if deadline_s < inf:
            due_s = min(due_s, max(cluster.next_s, cluster.now_s))  # so that the end is seen when it comes
        if cluster.run_to_news(due_s):
            for name, output in cluster.take_news():
                self.engines[name].news(output, cluster.now_s)
        elif action_s <= due_s:
            agenda.act()
        elif arrival_s <= due_s:
            request = self._arrivals.take()
            self.score.offer(request)
            cluster.offer(request)

    @property
    def _under_way(self) -> int:
        return self.score.unfinished - self.cluster.turned_away

    # ---- what a policy may look at ----

    def fork(self) -> Cluster:
        """A copy of the engine world as it is. Role changes under way go on by themselves in it."""
        cluster = self.cluster.copy()
        for name, engine in self.engines.items():
            if engine.change.phase is not Phase.SERVING:
                cluster.go_on(name, engine.target)
        return cluster

    def future(self, until_s: float) -> Iterable[Request]:
        """The requests that are still to arrive up to until_s, in order."""
        return self._arrivals.ahead(until_s)

    # ---- coming up ----

    def _begin(self) -> None:
        world = self.scenario.world
        self._step(Started(0.0, 0.0, 1, "sim"))
        for node in self.nodes.values():
            node.begin(0.0)
        self.agenda.put(self._dice.uniform(0.0, world.tick_s), self._tick)
        self.agenda.put(self.zero_s, self._zero)
        if self._watch is not None:
            self._show_start(self._watch)

    def _zero(self, at_s: float) -> None:
        """The trace begins."""
        self.energy_at_zero_mj = self.cluster.energy_mj()
        self.means.begin(at_s, self._busy_s())
        self.budget.begin(at_s)  # if the nodes were not ready before

    def ready(self, node: str, at_s: float) -> None:
        """A node has landed and opens its door."""
        self._send(node, partial(self.nodes[node].greet, self.control.greeting), at_s)
        self._booting.pop(node, None)
        if not self._booting:
            self.budget.begin(at_s)

    def _attach(self, engine: SimEngine, at_s: float) -> None:
        self._step(EngineCame(at_s, engine.hello(at_s)))

    # ---- what the controller hears ----

    def heard(self, report: NodeReport, at_s: float) -> None:
        """A report has arrived. Engines attach once their node is known."""
        self._step(NodeHeard(at_s, report))
        if report.node in self._unheard:
            del self._unheard[report.node]
            for engine in self.engines.values():
                if engine.node == report.node:
                    engine.up.send(partial(self._attach, engine), at_s)

    def _told(self, progress: RoleProgress, at_s: float) -> None:
        self._step(EngineMoved(at_s, progress))

    def _tick(self, at_s: float) -> None:
        self._step(Ticked(at_s))
        self.agenda.put(at_s + self.scenario.world.tick_s, self._tick)

    # ---- what the controller does ----

    def _step(self, event: Event) -> None:
        self.control_steps += 1
        for command in self.control.step(event):
            self._perform(command, event.at_s)

    def _perform(self, command: Command, at_s: float) -> None:
        match command:
            case SendGrants():
                self._send(command.batch.node, partial(self.nodes[command.batch.node].grant, command.batch), at_s)
            case SendRenewal():
                self._send(command.renewal.node, partial(self.nodes[command.renewal.node].renew, command.renewal), at_s)
            case OrderRole():
                self._to_engine[command.instance].send(partial(self.engines[command.instance].order, command), at_s)
            case CancelRole():
                self._to_engine[command.instance].send(partial(self.engines[command.instance].cancel, command), at_s)
            case Announce():
                if self._watch is not None:
                    self._watch.decided(at_s - self.zero_s, command.decision)
            case Notice():
                self.errors += command.level == "error" and at_s >= self.zero_s
            case RefuseEngine() | Answer() | StepDown():
                raise AssertionError(f"nothing in this world leads to {command}")

    def _send(self, node: str, arrive: Callable[[float], None], at_s: float) -> None:
        if not self.nodes[node].silent(at_s):
            self._to_node[node].send(arrive, at_s)

    # ---- what happens to devices, engines and requests ----

    def limited(self, gpu: SimGpu, at_s: float) -> None:
        """A device enforces another limit from now on."""
        self.budget.limited(gpu.name, gpu.limit_mw, at_s)
        self.means.limited(gpu.instance, gpu.number, gpu.limit_mw, at_s)
        if self._watch is not None:
            self._watch.limited(at_s - self.zero_s, gpu.name, gpu.instance, gpu.limit_mw)

    def _moved(self, engine: SimEngine, at_s: float) -> None:
        self.means.moved(engine.name, engine.role, at_s, self.cluster.instances[engine.name].busy_s(at_s))
        if self._watch is not None:
            self._watch.moved(at_s - self.zero_s, engine.name, engine.change.phase, engine.change.role)

    def _finished(self, finished: Finished) -> None:
        self.score.finish(finished)
        if self._watch is not None:
            request = replace(finished.request, arrival_s=finished.request.arrival_s - self.zero_s)
            self._watch.finished(replace(finished, request=request, at_s=finished.at_s - self.zero_s))

    # ---- what it looks like ----

    def _show_start(self, watch: Watch) -> None:
        """The watch hears where everything starts from, and is shown the queues from time 0 on."""
        for node in self.nodes.values():
            for gpu in node.gpus.values():
                watch.limited(-self.zero_s, gpu.name, gpu.instance, gpu.limit_mw)
        for engine in self.engines.values():
            watch.moved(-self.zero_s, engine.name, engine.change.phase, engine.change.role)
        self.agenda.put(self.zero_s, partial(self._show_queues, watch))

    def _show_queues(self, watch: Watch, at_s: float) -> None:
        loads = [instance.load(at_s) for instance in self.cluster.instances.values()]
        decode = [load for load in loads if load.role is Role.DECODE]
        others = [load for load in loads if load.role is not Role.DECODE]
        queues = Queues(
            waiting=self.cluster.waiting + sum(load.waiting_requests for load in others),
            prefilling=sum(load.running_requests for load in others),
            decoding=sum(load.running_requests + load.waiting_requests for load in decode),
            oldest_wait_s=max((load.oldest_wait_s for load in others), default=0.0),
        )
        watch.queues(at_s - self.zero_s, queues)
        self.agenda.put(at_s + _QUEUES_S, partial(self._show_queues, watch))

    def _busy_s(self) -> dict[str, float]:
        return {name: instance.busy_s(self.cluster.now_s) for name, instance in self.cluster.instances.items()}


def simulate(
    scenario: Scenario,
    requests: Iterable[Request],
    *,
    policy: PolicyMaker | None = None,
    watch: Watch | None = None,
    max_drain_s: float = 120.0,
) -> Outcome:
    """Runs the requests, taken one by one in order of arrival from time 0 on, and says what came of it.

    Raises ConfigInvalid for a scenario that cannot be run, TraceInvalid for requests that come in no order, UsageError
    for none at all.
    """
    return Site(scenario, requests, policy=policy, watch=watch).run(max_drain_s)
