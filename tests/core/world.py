"""A small hostile world for the grant protocol: real Ledger and real Guard, messages that are late, lost, doubled and
out of order, restarts of nodes and controllers, devices that lag, round down and fail.

`World.actions()` lists what could happen next; whoever drives it (a random walk, hypothesis) picks one. After each,
`World.check()` states promise 1: what the devices enforce and draw never sums to more than the budget, and the ledger
never books less for a GPU than its device may draw.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import Domain, GpuHealth, GrantBatch, Greeting, NodeReport, NodeSpec, Renewal
from rapid.core.errors import Stale
from rapid.core.guard import Duty, Guard, GuardedGpu, GuardMemory, Persist, Write
from rapid.core.ledger import Ledger
from rapid.core.settings import LedgerSettings

FLOOR, FALLBACK, CEILING = 1_000, 2_000, 6_000
LIMITS = (1_000, 2_000, 3_000, 5_000, 6_000)
LEASE_S, SILENT_S = 5.0, 1e9
SETTINGS = LedgerSettings(settle_s=0.5, draw_tolerance=0.0, strikes=10**9, amends=1)
_MAX_MAIL = 24


class Violation(AssertionError):
    """The promise is broken."""


@dataclass(slots=True)
class Device:
    """A GPU. The draw follows a lower limit within the settle time; it follows a higher one at once."""

    limit: int
    draw: int
    changed_s: float = 0.0

    def enforce(self, limit: int, at_s: float) -> None:
        if limit != self.limit:
            self.limit, self.changed_s = limit, at_s
        self.draw = max(self.draw, limit)


@dataclass
class Node:
    """One rapidd: its guard, its devices, and the writes that it has begun."""

    name: str
    devices: dict[str, Device]
    disk: GuardMemory
    guard: Guard
    writes: list[Write] = field(default_factory=list)


@dataclass
class Controller:
    """One controller life. An old one goes on sending until it hears that it was deposed."""

    ledger: Ledger
    greeting: Greeting
    wants: dict[str, int] = field(default_factory=dict)
    deposed: bool = False


class World:
    def __init__(self, *, budget: int = 10_000, ledger: type[Ledger] = Ledger, guard: type[Guard] = Guard) -> None:
        self.now = 100.0
        self.budget = budget
        self._ledger_class, self._guard_class = ledger, guard
        self._lives = 0
        self._epoch = 0
        names = {"a": ("a0", "a1"), "b": ("b0",)}
        self.domains = [Domain("room", budget), Domain("a", budget - FALLBACK, parent="room")]
        self.specs = [
            NodeSpec("a", "a", 2, FLOOR, CEILING, FALLBACK),
            NodeSpec("b", "room", 1, FLOOR, CEILING, FALLBACK),
        ]
        self.nodes: dict[str, Node] = {}
        for name, gpus in names.items():
            devices = {gpu: Device(FALLBACK, FALLBACK) for gpu in gpus}
            self.nodes[name] = Node(name, devices, GuardMemory(), self._new_guard(name, devices, GuardMemory()))
            self._perform(self.nodes[name], self.nodes[name].guard.begin(self.now))
        self.controllers: list[Controller] = []
        self.down: list[tuple[str, Greeting | GrantBatch | Renewal]] = []
        self.up: list[NodeReport] = []
        self.start_controller(journal=None, controller_id="c0")

    # ---- what may happen ----

    def actions(self, dice: random.Random) -> list[tuple[str, Callable[[], None]]]:
        """Everything that could happen next, with its free choices made by the dice."""
        node = dice.choice(list(self.nodes.values()))
        controller = dice.choice(self.controllers)
        gpu, device = dice.choice(list(node.devices.items()))
        limit = dice.choice(LIMITS)
        acts: list[tuple[str, Callable[[], None]]] = [
            ("time", lambda: self.pass_time(dice.choice((0.01, 0.3, 2.0)))),
            ("sample", lambda: self.sample(node, gpu)),
            ("settle", lambda: self.settle(device)),
            ("report", lambda: self.report(node)),
            *[("want", lambda: self.want(controller, gpu, limit))] * 2,
            ("greet", lambda: self.send(node.name, controller.greeting)),
            ("renew", lambda: self.renew(controller)),
        ]
        acts += [("good news", lambda: self.good_news(node, controller))] * 2
        if node.writes:
            acts += [("write", lambda: self.write(node, dice.random()))] * 3
        if self.down:
            at = dice.randrange(len(self.down))
            acts += [("deliver down", lambda: self.deliver_down(at, again=dice.random() < 0.4))] * 4
            acts.append(("lose", lambda: self.down.__delitem__(at)))
        if self.up:
            at_up = dice.randrange(len(self.up))
            acts += [("deliver up", lambda: self.deliver_up(at_up, dice.choice(self.controllers)))] * 4
        if dice.random() < 0.06:
            acts.append(("foreign cut", lambda: device.enforce(min(device.limit, FLOOR), self.now)))
            acts.append(("restart node", lambda: self.restart_node(node, unread=dice.random() < 0.3)))
            acts.append(("excursion", lambda: self.excursion(node, dice.choice((0.5, 0.8, None)))))
            acts.append(("controller with journal", lambda: self.restart_controller(controller)))
            acts.append(("controller without journal", lambda: self.second_controller()))
        return acts

    def good_news(self, node: Node, controller: Controller) -> None:
        """For a moment everything works: the node hears the controller, settles and reports, and is heard. Without
        this a walk would spend its time lost in the post."""
        self.send(node.name, controller.greeting)
        self.deliver_down(len(self.down) - 1, again=False)
        while node.writes:
            self.write(node, luck=1.0)
        for gpu, device in node.devices.items():
            self.settle(device)
            self.sample(node, gpu)
        self.report(node)
        self.deliver_up(len(self.up) - 1, controller)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            for device in node.devices.values():
                if self.now - device.changed_s >= SETTINGS.settle_s:
                    self.settle(device)
            self._perform(node, node.guard.tick(self.now))

    def settle(self, device: Device) -> None:
        device.draw = min(device.draw, device.limit)

    def write(self, node: Node, luck: float) -> None:
        """The device does what it was asked: exactly, rounded down, without telling, or not at all."""
        write = node.writes.pop(0)
        device = node.devices[write.gpu]
        problem, health, read = "", GpuHealth.OK, True
        if luck < 0.1:
            problem, health = "no permission", GpuHealth.DENIED
        elif luck < 0.2:
            device.enforce(max(FLOOR, write.limit_mw - 500), self.now)
        elif luck < 0.25:
            device.enforce(write.limit_mw, self.now)
            problem, health, read = "lost", GpuHealth.LOST, False
        else:
            device.enforce(write.limit_mw, self.now)
        limit = device.limit if read else None
        self.now += 0.001
        self._perform(node, node.guard.wrote(write.gpu, write.limit_mw, limit, problem, health, self.now))

    def sample(self, node: Node, gpu: str) -> None:
        if any(write.gpu == gpu for write in node.writes):
            return  # one thread per GPU: a sample is never taken beside a write
        device = node.devices[gpu]
        self.now += 0.001
        duties = node.guard.sampled(
            gpu,
            limit_mw=device.limit,
            requested_mw=None,
            limit_at_s=self.now,
            draw_mw=device.draw,
            draw_at_s=self.now,
            energy_mj=None,
            problem="",
            health=GpuHealth.OK,
        )
        self._perform(node, duties)

    def excursion(self, node: Node, factor: float | None) -> None:
        """The node cuts its limits by itself, or lets go of such a cut (None)."""
        for gpu in node.guard._gpus.values():
            gpu.cut(factor)
        self._perform(node, node.guard.tick(self.now))

    def report(self, node: Node) -> None:
        self.up.append(node.guard.report(self.now))
        del self.up[:-_MAX_MAIL]

    def send(self, node: str, message: Greeting | GrantBatch | Renewal) -> None:
        self.down.append((node, message))
        del self.down[:-_MAX_MAIL]

    def want(self, controller: Controller, gpu: str, limit: int) -> None:
        if controller.deposed:
            return
        controller.wants[gpu] = limit
        movable = controller.ledger.movable(self.now, SILENT_S)
        targets = {name: controller.wants[name] for name in movable if name in controller.wants}
        for batch in controller.ledger.grant(targets, self.now, LEASE_S):
            self.send(batch.node, batch)

    def renew(self, controller: Controller) -> None:
        if not controller.deposed:
            for renewal in controller.ledger.renew(self.now, SILENT_S, LEASE_S):
                self.send(renewal.node, renewal)

    def deliver_down(self, at: int, *, again: bool) -> None:
        name, message = self.down[at] if again else self.down.pop(at)
        node = self.nodes[name]
        match message:
            case Greeting():
                with suppress(Stale):
                    self._perform(node, node.guard.greet(message, self.now))
            case GrantBatch():
                self._perform(node, node.guard.grant(message, self.now))
            case Renewal():
                self._perform(node, node.guard.renew(message, self.now))

    def deliver_up(self, at: int, controller: Controller) -> None:
        if not controller.deposed:
            findings = controller.ledger.hear(self.up[at], self.now)
            controller.deposed = any(finding.deposed for finding in findings)

    def restart_node(self, node: Node, *, unread: bool) -> None:
        """SIGKILL and start: the driver keeps its limits, a write that was begun may or may not have happened. At first
        the driver may not even say which limits are in force."""
        node.writes.clear()
        node.guard = self._new_guard(node.name, node.devices, node.disk, unread=unread)
        self._perform(node, node.guard.begin(self.now))

    def restart_controller(self, controller: Controller) -> None:
        """SIGKILL and start with the journal: what was sent is in it. The dead one sends nothing more."""
        if controller.deposed or len(self.controllers) > 1:
            return
        self.controllers.remove(controller)
        self.start_controller(controller.ledger.snapshot(), controller.greeting.controller_id)

    def second_controller(self) -> None:
        """Another controller takes over without the journal, while the first lives on and does not know."""
        alive = [controller for controller in self.controllers if not controller.deposed]
        self.controllers = alive[-1:]
        self.start_controller(None, f"c{self._epoch}")

    def start_controller(self, journal: LedgerSnapshot | None, controller_id: str) -> None:
        self._epoch += 1
        ledger = self._ledger_class(
            self.domains,
            self.specs,
            SETTINGS,
            epoch=self._epoch,
            controller_id=controller_id,
            snapshot=journal,
        )
        self.controllers.append(Controller(ledger, Greeting(self._epoch, controller_id)))

    # ---- the promise ----

    def check(self) -> None:
        """Promise 1: the budget holds at every instant; and the books never show less than the devices may draw."""
        devices = {gpu: device for node in self.nodes.values() for gpu, device in node.devices.items()}
        total = sum(max(device.limit, device.draw) for device in devices.values())
        if total > self.budget:
            raise Violation(f"{total} in force and drawn, budget is {self.budget}")
        in_a = sum(max(device.limit, device.draw) for device in self.nodes["a"].devices.values())
        if in_a > self.domains[1].budget_mw:
            raise Violation(f"{in_a} in force and drawn in domain a, budget is {self.domains[1].budget_mw}")
        if len(self.controllers) == 1:
            ledger = self.controllers[0].ledger
            for gpu, device in devices.items():
                if gpu in ledger.gpus and max(device.limit, device.draw) > ledger.held_mw(gpu):
                    raise Violation(f"{gpu} may draw {device.limit}/{device.draw}, booked {ledger.held_mw(gpu)}")

    # ---- helpers ----

    def _new_guard(self, name: str, devices: dict[str, Device], memory: GuardMemory, *, unread: bool = False) -> Guard:
        self._lives += 1
        gpus = [
            GuardedGpu(gpu, index, FLOOR, CEILING, FALLBACK, None if unread else device.limit)
            for index, (gpu, device) in enumerate(devices.items())
        ]
        return self._guard_class(node=name, incarnation=f"{name}{self._lives}", gpus=gpus, memory=memory)

    def _perform(self, node: Node, duties: list[Duty]) -> None:
        for duty in duties:
            match duty:
                case Persist(memory):
                    node.disk = memory
                    node.guard.persisted(memory)
                case Write():
                    assert all(write.gpu != duty.gpu for write in node.writes), "two writes of one GPU at once"
                    node.writes.append(duty)
                case _:
                    pass


def walk(world: World, seed: int, steps: int) -> list[str]:
    """A random walk, checked after every step. Returns the path; a Violation carries it."""
    dice = random.Random(seed)
    path: list[str] = []
    for _ in range(steps):
        name, act = dice.choice(world.actions(dice))
        path.append(name)
        act()
        try:
            world.check()
        except Violation as error:
            raise Violation(f"seed {seed}, step {len(path)}: {error}; last: {' > '.join(path[-12:])}") from error
    return path
