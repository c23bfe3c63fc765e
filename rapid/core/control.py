"""The control loop as a state machine: events in, commands out. The only place where the controller's state changes.

    control = Control(settings)
    commands = control.step(Started(...))
    for each event:  commands = control.step(event);  journal(event, commands);  perform(commands)

The same events give the same commands, byte for byte, so a journal of events can be replayed and every decision
explained. Time comes with the events; there is no clock here.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from rapid.core import asked, forecasts, lives, picture
from rapid.core.cluster import Decision, Greeting, NodeHealth, Role, Targets
from rapid.core.commands import Announce, Answer, Command, Notice, RefuseEngine, Scored, SendRenewal, StepDown
from rapid.core.errors import EngineRefused, Refused, watts
from rapid.core.events import (
    BudgetAsked,
    BudgetOrdered,
    ControlSnapshot,
    Delivered,
    EngineCame,
    EngineGone,
    EngineLoaded,
    EngineMoved,
    Event,
    NodeGone,
    NodeHeard,
    PauseAsked,
    ReleaseAsked,
    RoleAsked,
    ScheduleAsked,
    Started,
    Ticked,
)
from rapid.core.facility import desk
from rapid.core.facility.facility import Facility
from rapid.core.facility.truth import Draw
from rapid.core.forecasts import Forecasts
from rapid.core.ledger import Ledger
from rapid.core.limits import Limits
from rapid.core.loads import Loads
from rapid.core.policy import NO_CHANGE, Policy, make
from rapid.core.roles import Roles
from rapid.core.settings import Settings
from rapid.core.slo import Slo
from rapid.core.status import Status


class Control:
    """The state of one controller life. The first event is Started."""

    ledger: Ledger
    limits: Limits
    roles: Roles
    facility: Facility

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = self.make_policy()
        self.policy_ahead_s = 0.0  # of this life's clock, so that the time in its views goes on from life to life
        self.slo = Slo(settings.slo, settings.window_s)
        self.started: Started | None = None
        self.at_s = 0.0
        self.came_up_s = float("-inf")  # when this process began, as far as its lives know
        self.pins: dict[str, Role] = {}
        self.paused = False
        self.loads = Loads(self.slo)
        self.last_power_s = float("-inf")
        self.last_role_s = float("-inf")
        self.last_decision: Decision | None = None
        self.decisions = 0  # how many there have been, earlier lives too
        self.forecasts = Forecasts(self.slo)
        self.draws: dict[str, Draw] = {}
        self.predicted_s = float("-inf")  # when the policy was last asked what it expects of a budget order
        self._health: dict[str, NodeHealth] = {}
        self._over: set[str] = set()
        self._deposed = False

    # ---- the one entrance ----

    def step(self, event: Event) -> list[Command]:
        """Take one event and say what must be done. Once deposed, nothing more."""
        assert event.at_s >= self.at_s, f"time went back from {self.at_s} to {event.at_s}"
        assert (self.started is None) == isinstance(event, Started), "the first event, and only that, is Started"
        if self._deposed:
            return []
        self.at_s = event.at_s
        handler: Callable[[Event], list[Command]] = _HANDLERS[type(event)].__get__(self)
        return handler(event)

    # ---- what others read ----

    @property
    def greeting(self) -> Greeting:
        """The first word on every node's stream."""
        assert self.started is not None
        return Greeting(self.started.epoch, self.started.controller_id)

    def status(self, at_s: float) -> Status:
        """The whole picture at at_s."""
        return picture.draw(self, at_s)

    def plan(self) -> Decision:
        """What the policy would decide now, without doing it."""
        return picture.plan(self)

    def make_policy(self) -> Policy:
        """A new one, as configured."""
        return make(self.settings.policy, self.settings.policy_settings)

    def snapshot(self) -> ControlSnapshot:
        """What the next life starts with."""
        assert self.started is not None
        return lives.snapshot(self)

    # ---- what is decided ----

    def decided(
        self,
        by: str,
        reason: str,
        *,
        changes: tuple[tuple[str, str, str], ...] = (),
        wanted: Targets = NO_CHANGE,
    ) -> Announce:
        """A decision was made: it gets its number, and is to be announced."""
        assert self.started is not None
        self.decisions += 1
        decision = Decision(
            f"D{self.decisions}",
            self.at_s,
            self.started.wall_s + self.at_s - self.started.at_s,
            by,
            reason,
            wanted.inputs,
            changes,
            wanted.predicted,
            wanted.held,
            wanted.horizon_s,
            wanted.candidates,
        )
        self.last_decision = decision
        return Announce(decision)

    # ---- life ----

    def _on_started(self, event: Started) -> list[Command]:
        settings, kept = self.settings, event.snapshot
        self.started = event
        self.ledger = Ledger(
            settings.domains,
            settings.nodes,
            settings.ledger,
            epoch=event.epoch,
            controller_id=event.controller_id,
            snapshot=kept.ledger if kept else None,
        )
        self.limits = Limits(self.ledger, settings, kept.targets_mw if kept else ())
        self.facility = Facility(self.ledger, settings, event.at_s, event.wall_s)
        self.roles = Roles(
            epoch=event.epoch,
            drain_s=settings.drain_s,
            switch_timeout_s=settings.switch_timeout_s,
            quiet_s=settings.quiet_s,
        )
        self._health = {name: picture.node_health(self, name, event.at_s) for name in self.ledger.nodes}
        if kept is None or kept.ledger.mark.epoch != event.epoch:
            self.came_up_s = event.at_s
        if kept is None:
            return [
                Notice("info", "controller", f"epoch {event.epoch}: every GPU is booked at its ceiling until heard")
            ]
        notices = lives.take_over(self, kept)
        return [*notices, Notice("info", "controller", f"epoch {event.epoch}: goes on from its journal")]

    # ---- nodes ----

    def _on_node_heard(self, event: NodeHeard) -> list[Command]:
        report = event.report
        heard_before = self._heard_of(report.node)
        findings = self.ledger.hear(report, self.at_s)
        notices: list[Command] = [Notice(each.level, each.about, each.text) for each in findings]
        deposed = next((each for each in findings if each.deposed), None)
        if deposed is not None:
            self._deposed = True
            return [*notices, StepDown(deposed.text)]
        for load in report.loads:
            self.loads.take(load, self.at_s - max(0.0, report.node_time_s - load.at_s), self.at_s)
        for instance, problem in self.loads.hear_problems(report.node, report.load_problems):
            notices.append(Notice("warning", instance, f"load: {problem}"))
        if self._heard_of(report.node) != heard_before:
            self.facility.meter.hear(report, self.at_s)
        grants = self.limits.grant(self.at_s, (gpu.gpu for gpu in report.gpus))
        return [*notices, *grants, *desk.in_force(self)]

    def _on_node_gone(self, event: NodeGone) -> list[Command]:
        return [Notice("warning", event.node, f"stream ended: {event.reason}; its watts stay booked")]

    def _on_release_asked(self, event: ReleaseAsked) -> list[Command]:
        book = self.ledger.nodes.get(event.node)
        freed_mw = sum(self.ledger.held_mw(gpu) for gpu in book.gpus) + book.unseen_mw if book else 0
        assert self.started is not None
        begun_s, patience_s = self.at_s - self.started.at_s, self.settings.silent_after_s
        try:
            if book is not None and book.heard_s is None and begun_s <= patience_s:
                raise Refused(
                    f"node {event.node} was not heard yet, but this controller began only {begun_s:.1f} s ago; "
                    f"give it {patience_s:g} s"
                )
            self.ledger.release(event.node, self.at_s, patience_s)
        except Refused as error:
            return [asked.refusal(event.request, error)]
        self.limits.forget_released()
        text = f"node {event.node} released, {watts(freed_mw)} freed"
        change = (event.node, watts(freed_mw), "0 W")
        return [
            self.decided(event.by, f"says that node {event.node} is off", changes=(change,)),
            Answer(event.request, text),
        ]

    # ---- engines ----

    def _on_engine_came(self, event: EngineCame) -> list[Command]:
        hello = event.hello
        nodes_of = {gpu: booking.node for gpu, booking in self.ledger.gpus.items()}
        try:
            self.roles.attach(hello, self.at_s, nodes_of)
        except EngineRefused as error:
            return [
                RefuseEngine(hello.instance, hello.incarnation, str(error), type(error).__name__),
                Notice("warning", hello.instance, f"engine refused: {error}"),
            ]
        return [Notice("info", hello.instance, f"attached as {hello.role.value} on {', '.join(hello.gpus)}")]

    def _on_engine_loaded(self, event: EngineLoaded) -> list[Command]:
        one = self.roles.instances.get(event.instance)
        if one is not None and one.hello.incarnation == event.incarnation and event.load is not None:
            self.loads.take(event.load, self.at_s - max(0.0, event.engine_time_s - event.load.at_s), self.at_s)
        return []

    def _on_engine_moved(self, event: EngineMoved) -> list[Command]:
        news, one = event.progress, self.roles.instances.get(event.progress.instance)
        before = None if one is None or one.hello.incarnation != news.incarnation else one.role
        commands: list[Command] = list(self.roles.progress(news))
        if news.noticed and before is not None:
            again = " again" if news.role is before else ""
            change = (news.instance, before.value, f"{news.role.value}{again}")
            commands.append(self.decided(f"engine {news.instance}", news.noticed, changes=(change,)))
        return commands

    def _on_engine_gone(self, event: EngineGone) -> list[Command]:
        if not self.roles.detach(event.instance, event.incarnation):
            return []
        return [Notice("warning", event.instance, f"engine gone: {event.reason}")]

    # ---- operators ----

    def _on_budget_asked(self, event: BudgetAsked) -> list[Command]:
        return desk.budget(self, event)

    def _on_budget_ordered(self, event: BudgetOrdered) -> list[Command]:
        return desk.ordered(self, event)

    def _on_delivered(self, event: Delivered) -> list[Command]:
        return desk.delivered(self, event)

    def _on_schedule_asked(self, event: ScheduleAsked) -> list[Command]:
        return desk.schedule(self, event)

    def _on_role_asked(self, event: RoleAsked) -> list[Command]:
        return asked.role(self, event)

    def _on_pause_asked(self, event: PauseAsked) -> list[Command]:
        word = "paused" if event.paused else "resumed"
        if self.paused == event.paused:
            return [Answer(event.request, f"policy {self.policy.name} is {word} already")]
        self.paused = event.paused
        text = f"policy {self.policy.name} {word}; leases are kept and budgets hold"
        return [self.decided(event.by, f"{word} policy {self.policy.name}"), Answer(event.request, text)]

    # ---- the tick ----

    def _on_ticked(self, event: Ticked) -> list[Command]:
        self.facility.turn(self.at_s, event.wall_s)
        commands: list[Command] = [*self.roles.tick(self.at_s), *self._watch_nodes(), *self._score()]
        commands += desk.tick(self)
        wanted = NO_CHANGE
        movable = self.limits.movable(self.at_s)
        if not self.paused and (free := picture.not_parked(self, movable)):
            wanted = self.policy.decide(picture.view(self, free, self.limits.settled(movable, self.at_s)))
        commands += self.apply(wanted)
        commands += [*self.watch_budgets(), *desk.in_force(self)]
        renewals = self.ledger.renew(self.at_s, self.settings.silent_after_s, self.settings.lease_s)
        return [*commands, *(SendRenewal(renewal) for renewal in renewals)]

    def apply(self, wanted: Targets) -> list[Command]:
        """Make targets of what a policy wants and of what the budgets leave, and grant what can be granted now."""
        movable = self.limits.movable(self.at_s)
        floors_mw = {} if self.paused else picture.parked_mw(self, movable)
        limits_mw = {**wanted.limits_mw, **floors_mw}
        limit_changes = self.limits.retarget(limits_mw, picture.gpu_views(self, movable))
        role_orders, role_changes = self._order_roles(wanted.roles)
        commands: list[Command] = []
        if limit_changes or role_changes:
            words = [(gpu, "none" if old is None else watts(old), watts(new)) for gpu, old, new in limit_changes]
            parked = bool(limit_changes) and all(gpu in floors_mw for gpu, _, _ in limit_changes)
            commands.append(self._decide_as(wanted, (*words, *role_changes), parked=parked))
        if wanted.limits_mw:
            self.last_power_s = self.at_s
        return [*commands, *role_orders, *self.limits.grant(self.at_s, movable)]

    def _order_roles(self, roles: Mapping[str, Role]) -> tuple[list[Command], list[tuple[str, str, str]]]:
        orders: list[Command] = []
        changes: list[tuple[str, str, str]] = []
        for instance, role in roles.items():
            before = self.roles.get(instance).role
            try:
                orders.append(self.roles.order(instance, role, self.at_s))
            except Refused as error:
                orders.append(Notice("warning", instance, f"policy {self.policy.name}: {error}"))
                continue
            self.last_role_s = self.at_s
            changes.append((instance, before.value, role.value))
        return orders, changes

    # ---- helpers ----

    def _heard_of(self, node: str) -> tuple[str, int]:
        """Which report of a node was taken last."""
        book = self.ledger.nodes.get(node)
        return ("", 0) if book is None else (book.incarnation, book.report_seq)

    def _decide_as(self, wanted: Targets, changes: tuple[tuple[str, str, str], ...], *, parked: bool) -> Announce:
        """The decision of a policy, or, if it wanted nothing, of the budget. `parked`: only parked GPUs move."""
        if not wanted.limits_mw and not wanted.roles:
            fitted = "limits fitted to what the budgets leave"
            reason = "GPUs of parked instances go to their floors" if parked else fitted
            return self.decided("budget", reason, changes=changes)
        forecasts.check(wanted)
        decision = self.decided(self.policy.name, wanted.reason, changes=changes, wanted=wanted)
        if wanted.predicted is not None:
            self.forecasts.predict(decision.decision.id, wanted.predicted, wanted.horizon_s, self.at_s)
        return decision

    def _score(self) -> list[Scored]:
        scores = self.forecasts.score(self.at_s)
        for each in scores:
            if self.last_decision is not None and self.last_decision.id == each.decision:
                self.last_decision = replace(self.last_decision, measured=each.measured)
        return scores

    def _watch_nodes(self) -> list[Command]:
        """Say once when a node falls silent, and once when it is back."""
        notices: list[Command] = []
        for name in self.ledger.nodes:
            health = picture.node_health(self, name, self.at_s)
            before = self._health[name]
            if health is not before:
                level = "warning" if health is NodeHealth.SILENT else "info"
                notices.append(Notice(level, name, f"node is {health.value}; was {before.value}"))
            self._health[name] = health
        return notices

    def watch_budgets(self) -> list[Command]:
        """Say once, and loudly, when a domain goes over its budget, and when it is within it again."""
        notices: list[Command] = []
        for name in self.ledger.domains:
            over_mw = self.ledger.over_mw(name)
            if over_mw > 0 and name not in self._over:
                self._over.add(name)
                notices.append(Notice("error", name, f"OVER BUDGET by {watts(over_mw)}: {picture.advice(self, name)}"))
            elif over_mw == 0 and name in self._over:
                self._over.discard(name)
                notices.append(Notice("info", name, "within its budget again"))
        return notices


_HANDLERS: Mapping[type, Callable[..., list[Command]]] = {
    Started: Control._on_started,
    Ticked: Control._on_ticked,
    NodeHeard: Control._on_node_heard,
    NodeGone: Control._on_node_gone,
    EngineCame: Control._on_engine_came,
    EngineLoaded: Control._on_engine_loaded,
    EngineMoved: Control._on_engine_moved,
    EngineGone: Control._on_engine_gone,
    BudgetAsked: Control._on_budget_asked,
    BudgetOrdered: Control._on_budget_ordered,
    Delivered: Control._on_delivered,
    ScheduleAsked: Control._on_schedule_asked,
    RoleAsked: Control._on_role_asked,
    PauseAsked: Control._on_pause_asked,
    ReleaseAsked: Control._on_release_asked,
}
