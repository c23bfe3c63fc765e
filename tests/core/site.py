"""A whole site for the stories of the control loop: a real Control, a real guard on every host, devices and engines
that obey, and messages that arrive in order unless a node is cut off.

After every event, every message and every write, promise 1 is checked: no domain ever takes more than its budget, or,
where an operator has just cut it below that, more than it took before.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rapid.core.cluster import (
    Domain,
    EngineHello,
    GrantBatch,
    Greeting,
    Mark,
    NodeSpec,
    Phase,
    Renewal,
    Role,
    RoleProgress,
)
from rapid.core.commands import (
    Announce,
    Answer,
    CancelRole,
    Command,
    Notice,
    OrderRole,
    PublishResult,
    RefuseEngine,
    Scored,
    SendGrants,
    SendRenewal,
    StepDown,
)
from rapid.core.control import Control
from rapid.core.errors import watts
from rapid.core.events import (
    ControlSnapshot,
    EngineCame,
    EngineMoved,
    Event,
    NodeHeard,
    Started,
    Ticked,
)
from rapid.core.settings import Settings
from tests.core.engines import hello, load
from tests.core.hosts import Host, W

SLICE_S = 0.1  # how finely time passes
REPORT_EVERY = 5  # slices


@dataclass
class Engine:
    """An engine that does what it is told, a step at a time."""

    said: EngineHello
    role: Role
    phase: Phase = Phase.SERVING
    mark: Mark = field(default_factory=Mark)
    order: OrderRole | None = None
    cancelled: bool = False
    answered: bool = True  # the last order

    def step(self, phase: Phase, *, error: str = "") -> RoleProgress:
        """It has come to the next phase of its change; serving in the new role, unless there is an error."""
        assert self.order is not None, f"{self.said.instance} was told nothing"
        if phase is Phase.SERVING and not error:
            self.role = self.order.role
        self.phase = phase
        return RoleProgress(self.said.instance, self.said.incarnation, self.mark, phase, self.role, error=error)


class Site:
    """`said` is all that Control commanded, in words, without renewals. `events` and `commands` are the journal."""

    def __init__(self, settings: Settings, hosts: Iterable[Host], control: type[Control] = Control) -> None:
        self.settings, self.mind = settings, control
        self.stormy = False  # messages are lost, and somebody else sets limits
        self.hosts = {host.name: host for host in hosts}
        self.engines: dict[str, Engine] = {}
        self.loads: dict[str, dict[str, object]] = {}
        self.cut_off: set[str] = set()
        self.now = 1_000.0
        self.slices = 0
        self.said: list[str] = []
        self.mail: deque[GrantBatch | Renewal] = deque()
        self.most_mw = {domain.name: 10**9 for domain in settings.domains}
        self.begin()

    # ---- the controller ----

    def begin(self, epoch: int = 1, snapshot: ControlSnapshot | None = None, controller_id: str = "c") -> list[str]:
        """A life begins, and greets every node that it reaches."""
        self.events: list[Event] = []
        self.commands: list[list[Command]] = []
        self.mail.clear()
        self.control = self.mind(self.settings)
        said = self.step(Started(self.now, 1.75e9, epoch, controller_id, snapshot))
        for name in self.hosts:
            self.connect(name)
        return said

    def connect(self, node: str) -> None:
        """A stream to a node begins."""
        self.cut_off.discard(node)
        self.hosts[node].hear(Greeting(self.control.greeting.epoch, self.control.greeting.controller_id))

    def step(self, event: Event) -> list[str]:
        """One event, and its commands as far as they can be delivered. What was said about it."""
        commands = self.control.step(event)
        self.events.append(event)
        self.commands.append(commands)
        self.check()
        for command in commands:
            match command:
                case SendGrants(batch):
                    self.mail.append(batch)
                case SendRenewal(renewal):
                    self.mail.append(renewal)
                case OrderRole() as order:
                    engine = self.engines[order.instance]
                    engine.order, engine.mark, engine.phase = order, order.mark, Phase.DRAINING
                    engine.answered = False
                case CancelRole(instance):
                    self.engines[instance].cancelled = True
                case _:
                    pass
        said = [word for word in map(in_words, commands) if word]
        self.said += said
        return said

    # ---- time ----

    def run(self, seconds: float) -> list[str]:
        """Time passes: messages arrive, devices obey, nodes report twice a second and when they have news, and the
        controller ticks twice a second."""
        before = len(self.said)
        for _ in range(round(seconds / SLICE_S)):
            self.now += SLICE_S
            self.slices += 1
            self.deliver()
            self.answer()
            for host in self.hosts.values():
                host.wait(max(0.0, self.now - host.now))
                self.check()
                self.write(host)
                host.sample()
                if host.soon:
                    self.report(host.name)
            if self.slices % REPORT_EVERY == 0:
                for name in self.hosts:
                    self.report(name)
                self.step(Ticked(self.now))
        return self.said[before:]

    def deliver(self) -> None:
        """Everything on its way arrives, in order, at the nodes that can be reached."""
        while self.mail:
            message = self.mail.popleft()
            if message.node not in self.cut_off:
                host = self.hosts[message.node]
                host.hear(message)
                self.check()
                self.write(host)
                if host.soon:
                    self.report(host.name)

    def write(self, host: Host) -> None:
        """The devices do what they were asked, one after the other."""
        for _ in range(3):
            for gpu in list(host.writes):
                host.finish(gpu)
                self.check()

    def report(self, node: str) -> list[str]:
        if node in self.cut_off:
            return []
        host = self.hosts[node]
        loads = tuple(
            replace(load(name, self.engines[name].role, **words), at_s=host.now)  # type: ignore[arg-type]
            for name, words in self.loads.items()
            if self.engines[name].said.node == node
        )
        return self.step(NodeHeard(self.now, host.report(loads)))

    # ---- engines ----

    def attach(
        self, instance: str, role: Role, *, gpus: tuple[str, ...] = (), node: str = "n1", parks: bool = False
    ) -> list[str]:
        said = hello(instance, role, gpus=gpus or (f"g{instance[1:]}",), node=node, parks=parks)
        self.engines[instance] = Engine(said, role)
        return self.step(EngineCame(self.now, said))

    def attach_again(self, instance: str) -> list[str]:
        """An engine says hello as it stands, in the middle of a change perhaps."""
        engine = self.engines[instance]
        engine.said = replace(engine.said, role=engine.role, phase=engine.phase, mark=engine.mark)
        return self.step(EngineCame(self.now, engine.said))

    def moved(self, instance: str, phase: Phase, *, error: str = "") -> list[str]:
        """An engine has come to the next phase of its change."""
        return self.step(EngineMoved(self.now, self.engines[instance].step(phase, error=error)))

    def answer(self) -> None:
        """Engines that drain say that they have their order."""
        for name, engine in self.engines.items():
            if not engine.answered and engine.phase is Phase.DRAINING:
                self.moved(name, Phase.DRAINING)
            engine.answered = True

    # ---- what can be seen ----

    def limits_w(self) -> list[float]:
        """The limits in force on all devices, in the order of hosts and GPUs."""
        return [device.limit_mw / 1000 for host in self.hosts.values() for device in host.devices.values()]

    def check(self) -> None:
        """Promise 1, by what the devices themselves know; and the books never show less than that."""
        if not hasattr(self.control, "ledger"):
            return
        ledger = self.control.ledger
        for name, domain in ledger.domains.items():
            inside = [host for node, host in self.hosts.items() if name in ledger.nodes[node].chain]
            takes_mw = sum(host.most_mw for host in inside)
            takes_mw += ledger.reserved_mw(name)
            # What is booked for a grant on its way, or in force on a GPU that somebody has lowered, may come yet.
            booked_mw = ledger.domain_held_mw(name) + ledger.reserved_mw(name)
            bound_mw = booked_mw if self.stormy else self.most_mw[name]
            assert takes_mw <= max(domain.budget_mw, bound_mw), (
                f"{name} takes {watts(takes_mw)} of {watts(domain.budget_mw)}, and took {watts(self.most_mw[name])}"
            )
            self.most_mw[name] = takes_mw
        for node, host in self.hosts.items():
            if not ledger.nodes[node].released:
                for gpu, device in host.devices.items():
                    if gpu in ledger.gpus:
                        assert device.most_mw <= ledger.held_mw(gpu), f"{gpu} takes more than is booked for it"


def in_words(command: Command) -> str:
    """One command; empty for a renewal."""
    match command:
        case SendGrants(batch):
            return f"grant {', '.join(f'{gpu} {watts(limit_mw)}' for gpu, limit_mw in batch.limits_mw)}"
        case SendRenewal():
            return ""
        case OrderRole(instance, _, mark, role):
            return f"order {instance} to {role.value} ({mark.epoch}.{mark.seq})"
        case CancelRole(instance):
            return f"cancel {instance}"
        case RefuseEngine(instance, _, reason, kind):
            return f"refuse {instance}: {kind}: {reason}"
        case Announce(decision):
            return f"{decision.id} {decision.by}: {decision.reason}"
        case Scored(decision, predicted, measured):
            return f"{decision}: predicted {predicted}, measured {measured}"
        case Notice(level, about, text):
            return f"{level} {about}: {text}"
        case Answer(request, text, error, kind):
            return f"answer {request}: {kind}: {error}" if error else f"answer {request}: {text}"
        case PublishResult(result):
            return f"{result.outcome.value} {result.id}" + (f": {result.text}" if result.text else "")
        case StepDown(reason):
            return f"step down: {reason}"


def paper_site(policy: str = "rapid", *, control: type[Control] = Control, **more: object) -> Site:
    """One host as in the RAPID paper (arXiv 2601.12241): eight GPUs of 400..750 W under 4,800 W; its fallback is 500 W.

    It has come up, and the controller has just started.
    """
    spec = NodeSpec("n1", "host", 8, 400 * W, 750 * W, 500 * W)
    settings = Settings((Domain("host", 4_800 * W),), (spec,), policy=policy, **more)  # type: ignore[arg-type]
    return Site(settings, [_host(spec, "g")], control)


def two_hosts(policy: str = "uniform", *, control: type[Control] = Control, **more: object) -> Site:
    """Two hosts of two GPUs, 100..700 W and back to 400 W, in a room of 2,200 W of which 200 W are reserved."""
    specs = tuple(NodeSpec(name, "room", 2, 100 * W, 700 * W, 400 * W) for name in ("n1", "n2"))
    settings = Settings((Domain("room", 2_200 * W, 200 * W),), specs, policy=policy, **more)  # type: ignore[arg-type]
    return Site(settings, [_host(specs[0], "g"), _host(specs[1], "h")], control)


def tree_of_hosts(policy: str = "uniform", *, control: type[Control] = Control) -> Site:
    """Three hosts of two GPUs, 100..700 W and back to 300 W: two share a rack of 1,500 W, in a room of 2,300 W."""
    places = {"n1": "rack", "n2": "rack", "n3": "room"}
    domains = (Domain("room", 2_300 * W, 100 * W), Domain("rack", 1_500 * W, 50 * W, "room"))
    specs = tuple(NodeSpec(name, place, 2, 100 * W, 700 * W, 300 * W) for name, place in places.items())
    hosts = [_host(spec, letter) for spec, letter in zip(specs, "ghi", strict=True)]
    return Site(Settings(domains, specs, policy=policy), hosts, control)


def _host(spec: NodeSpec, letter: str) -> Host:
    host = Host(
        {f"{letter}{index}": spec.fallback_mw for index in range(spec.gpus)},
        name=spec.name,
        now=77.0,
        floor_mw=spec.floor_mw,
        ceiling_mw=spec.ceiling_mw,
        fallback_mw=spec.fallback_mw,
    )
    host.settle()
    return host


def with_engines(site: Site) -> Site:
    """e0 to e3 serve prefill, e4 to e7 decode, all of them idle; limits have settled."""
    site.run(1.0)
    for index in range(8):
        site.attach(f"e{index}", Role.PREFILL if index < 4 else Role.DECODE)
        site.loads[f"e{index}"] = {}
    site.run(6.0)
    site.said.clear()
    return site
