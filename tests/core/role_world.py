"""A small hostile world for role changes: real Roles, a real RoleChange per engine, and between them a post that loses,
doubles and reorders what it carries; streams that break, processes that die, engines that refuse, lie and fail.

A message belongs to a stream: an engine reads only the one it has, as its client does. After every act `check()` states
the promises that hold at any time, and `calm()` ends the storm and states that both sides agree.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from rapid.core.cluster import EngineHello, Mark, Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, Command, OrderRole
from rapid.core.errors import EngineRefused, Refused
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell
from rapid.core.roles import Roles

BOTH = (Role.PREFILL, Role.DECODE)
DRAIN_S, SWITCH_S, QUIET_S = 4.0, 4.0, 0.2
AT_REST = (Phase.SERVING, Phase.PARKED, Phase.FAILED)
_MAX_MAIL = 16


class Violation(AssertionError):
    """A promise is broken."""


@dataclass(slots=True)
class Stream:
    """One life of a connection. Until the controller has heard the hello it hears nothing else on it."""

    hello: EngineHello
    heard: bool = False
    up: list[RoleProgress] = field(default_factory=list)
    down: list[OrderRole | CancelRole | int] = field(default_factory=list)  # an int is a welcome of that epoch


@dataclass
class Engine:
    """The truth about one engine, and its side of the protocol. `todo` is what it has begun and not ended."""

    name: str
    change: RoleChange
    role: Role
    open: bool = True
    requests: int = 2
    todo: Duty | None = None
    switched: Mark = field(default_factory=Mark)  # what it had heard when it was last told to switch
    stream: Stream | None = None


class RoleWorld:
    """e0 and e1 begin in prefill, e2 and e3 in decode; of each pair one can read its role back."""

    def __init__(self, *, roles: type[Roles] = Roles, change: type[RoleChange] = RoleChange) -> None:
        self._roles_class, self._change_class = roles, change
        self.now, self.epoch, self.lives = 0.0, 0, 0
        self.crashed = False  # an engine has: which roles are served then is nobody's promise
        self.switches = 0
        self.engines: dict[str, Engine] = {}
        self.streams: dict[str, Stream] = {}  # the controller's, by instance
        self.broken: list[Stream] = []  # of which the controller has not heard yet that they are
        for index in range(4):
            self.start(f"e{index}", BOTH[index // 2])
        self.start_controller()
        for name in self.engines:
            self.connect(name)
            self.introduce(name)

    # ---- processes ----

    def start(self, name: str, role: Role) -> None:
        """An engine process starts."""
        self.lives += 1
        change = self._change_class(
            instance=name,
            incarnation=f"i{self.lives}",
            role=role,
            roles=BOTH,
            reads_role=name in ("e0", "e2"),
        )
        self.engines[name] = Engine(name, change, role)

    def crash(self, name: str) -> None:
        """An engine is killed and started again, in the role it was launched with."""
        self.crashed = True
        self.disconnect(name)
        self.start(name, BOTH[int(name[1]) // 2])

    def start_controller(self) -> None:
        """The controller is killed, if there was one, and the next begins; of engines it knows what they tell it."""
        self.epoch += 1
        self.roles = self._roles_class(epoch=self.epoch, drain_s=DRAIN_S, switch_timeout_s=SWITCH_S, quiet_s=QUIET_S)
        self.streams.clear()
        self.broken.clear()
        for engine in self.engines.values():
            engine.stream = None

    # ---- streams ----

    def connect(self, name: str) -> None:
        """An engine opens a stream and says hello, which is not heard yet."""
        engine = self.engines[name]
        if engine.stream is not None:
            return
        change = engine.change
        hello = EngineHello(
            name,
            change.incarnation,
            "n1",
            (f"g{name[1]}",),
            change.role,
            BOTH,
            change.phase,
            change.mark,
            self.now,
            from_role=change.from_role,
            to_role=change.to_role,
            parks=True,
            reads_role=change.reads_role,
        )
        engine.stream = Stream(hello, up=[change.progress()])

    def introduce(self, name: str) -> None:
        """The controller hears the hello; it may refuse it."""
        stream = self.engines[name].stream
        if stream is None or stream.heard:
            return
        try:
            self.roles.attach(stream.hello, self.now, {f"g{index}": "n1" for index in range(4)})
        except EngineRefused:
            self.engines[name].stream = None
            return
        stream.heard, self.streams[name] = True, stream
        stream.down.append(self.epoch)

    def disconnect(self, name: str) -> None:
        """A stream breaks; the engine knows it, the controller not yet."""
        stream, self.engines[name].stream = self.engines[name].stream, None
        if stream is not None and stream.heard:
            self.broken.append(stream)

    def notice(self) -> None:
        """The controller hears of the stream that broke first."""
        if self.broken:
            stream = self.broken.pop(0)
            if self.streams.get(stream.hello.instance) is stream:
                del self.streams[stream.hello.instance]
                self.roles.detach(stream.hello.instance, stream.hello.incarnation)

    # ---- the post ----

    def deliver_down(self, name: str, at: int, *, again: bool, others: int | None = None) -> None:
        """One of the messages on their way to an engine arrives, and maybe once more later. `others` is how many others
        serve its role, as its own side sees it."""
        stream, change = self.engines[name].stream, self.engines[name].change
        if stream is None or not stream.down:
            return
        message = stream.down[at % len(stream.down)] if again else stream.down.pop(at % len(stream.down))
        match message:
            case OrderRole():
                left = self.engines[name].requests
                self.perform(name, change.order(message, requests_left=left, at_s=self.now, others=others))
            case CancelRole():
                self.perform(name, change.cancel(incarnation=message.incarnation, mark=message.mark))
            case epoch:
                change.welcome(epoch)

    def deliver_up(self, name: str, at: int, *, again: bool) -> None:
        stream = self.engines[name].stream
        if stream is not None and stream.heard and stream.up:
            news = stream.up[at % len(stream.up)] if again else stream.up.pop(at % len(stream.up))
            self.roles.progress(news)

    def lose(self, name: str, at: int) -> None:
        stream = self.engines[name].stream
        if stream is not None:
            for mail in (stream.down, stream.up):
                if mail:
                    mail.pop(at % len(mail))

    # ---- the controller ----

    def order(self, name: str, role: Role | None) -> None:
        """Somebody wants an instance in a role, or (None) parked."""
        with suppress(Refused):
            command = self.roles.order(name, role, self.now) if role else self.roles.park(name, self.now)
            self.send([command])

    def send(self, commands: list[Command]) -> None:
        """What cannot be delivered is dropped."""
        for command in commands:
            if isinstance(command, OrderRole | CancelRole):
                stream = self.streams.get(command.instance)
                if stream is not None and stream.hello.incarnation == command.incarnation:
                    stream.down = [*stream.down[-_MAX_MAIL:], command]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.send(self.roles.tick(self.now))
        for name, engine in list(self.engines.items()):
            self.perform(name, engine.change.tick(self.now))

    # ---- the engines ----

    def perform(self, name: str, duties: list[Duty]) -> None:
        engine = self.engines[name]
        for duty in duties:
            match duty:
                case Tell(progress):
                    if engine.stream is not None:
                        engine.stream.up = [*engine.stream.up[-_MAX_MAIL:], progress]
                case Close():
                    engine.open = False
                    self.check_open()
                case _:
                    self.begin(engine, duty)

    def begin(self, engine: Engine, duty: Duty) -> None:
        """Promise: one thing at a time, and a switch only of an engine that is closed and empty."""
        if engine.todo is not None:
            raise Violation(f"{engine.name} is told to {duty} in the middle of {engine.todo}")
        if isinstance(duty, Switch):
            self.switches += 1
            if engine.open or engine.requests:
                raise Violation(f"{engine.name} is told to switch with its doors open, {engine.requests} requests left")
            if engine.change.mark <= engine.switched:
                raise Violation(f"{engine.name} is told twice to switch for one order")
            engine.switched = engine.change.mark
        engine.todo = duty

    def finish(self, name: str, requests: int) -> None:
        """Requests end, or, while it is open, come."""
        engine = self.engines[name]
        engine.requests = requests if engine.open else min(engine.requests, requests)
        self.perform(name, engine.change.left(engine.requests, self.now))

    def end(self, name: str, how: str) -> None:
        """What an engine has begun comes to its end: it works, or not."""
        engine, change = self.engines[name], self.engines[name].change
        duty, engine.todo = engine.todo, None
        match duty:
            case Switch(role):
                self.perform(name, self._end_of_switch(engine, role, how))
            case ReadRole():
                self.perform(name, change.found(engine.role if how != "dumb" else None, self.now))
            case Open(role):
                if how in ("refuse", "dumb"):
                    self.perform(name, change.not_opened("router is away", self.now))
                else:
                    engine.open = True
                    if engine.role is not role:
                        raise Violation(f"{name} opens as {role.value}, and is {engine.role.value}")
                    self.perform(name, change.opened())

    def _end_of_switch(self, engine: Engine, role: Role, how: str) -> list[Duty]:
        change = engine.change
        match how:
            case "refuse":
                return change.not_switched("not idle")
            case "fail":
                return change.failed("out of memory")
            case "dumb" if change.reads_role:  # the answer was lost before anything happened
                return change.unsure("no answer", self.now)
            case "lie" if change.reads_role:
                return change.switched(engine.role, self.now)
        engine.role = role
        if how == "doubt" and change.reads_role:  # the answer was lost afterwards
            return change.unsure("no answer", self.now)
        return change.switched(role if change.reads_role else None, self.now)

    def good_news(self, name: str) -> None:
        """For a moment everything works for one engine. Without this a walk would spend its time lost in the post."""
        self.connect(name)
        self.introduce(name)
        engine = self.engines[name]
        while engine.stream is not None and (engine.stream.down or engine.stream.up):
            self.deliver_down(name, 0, again=False)
            self.deliver_up(name, 0, again=False)
        self.finish(name, 0)
        self.end(name, "work")

    # ---- what must be true ----

    def check_open(self) -> None:
        """Promise: as long as no engine crashes, each role is always served by somebody."""
        for role in BOTH:
            if not self.crashed and not any(one.open and one.role is role for one in self.engines.values()):
                raise Violation(f"nobody serves {role.value}")

    def calm(self) -> None:
        """The storm is over: everything arrives, in order, and everything works. Both sides agree in the end."""
        for _ in range(120):
            while self.broken:
                self.notice()
            for name in self.engines:
                self.good_news(name)
            self.pass_time(0.25)
        for name, engine in self.engines.items():
            one, change = self.roles.instances[name], engine.change
            truth, belief = (f"{each.phase.value} {each.role.value}" for each in (change, one))
            if (truth != belief and change.phase is not Phase.FAILED) or change.phase is not one.phase:
                raise Violation(f"{name} is {truth}, and the controller has it as {belief}")
            if change.phase not in AT_REST:
                raise Violation(f"{name} is {change.phase.value} for ever")
            if engine.open != (change.phase is Phase.SERVING) or (engine.open and engine.role is not change.role):
                raise Violation(f"{name} says {change.phase.value} {change.role.value}, which is not so")

    # ---- what may happen ----

    def actions(self, dice: random.Random, *, crashes: bool) -> list[tuple[str, Callable[[], None]]]:
        """Everything that could happen next, with its free choices made by the dice."""
        name, at, again = dice.choice(list(self.engines)), dice.randrange(_MAX_MAIL), dice.random() < 0.3
        how = dice.choice((*["work"] * 8, "refuse", "fail", *["dumb", "doubt", "lie"] * 2))
        others = dice.choice((None, None, 1, 0))
        role = dice.choice((*BOTH, *BOTH, None))
        acts: list[tuple[str, Callable[[], None]]] = [
            *[("time", lambda: self.pass_time(dice.choice((0.05, 0.3, 0.3, 1.0, 5.0))))] * 2,
            *[("order", lambda: self.order(name, role))] * 4,
            *[("down", lambda: self.deliver_down(name, at, again=again, others=others))] * 4,
            *[("up", lambda: self.deliver_up(name, at, again=again))] * 4,
            *[("end", lambda: self.end(name, how))] * 3,
            *[("finish", lambda: self.finish(name, dice.choice((0, 0, 3))))] * 3,
            ("lose", lambda: self.lose(name, at)),
            *[("connect", lambda: self.connect(name))] * 2,
            *[("introduce", lambda: self.introduce(name))] * 2,
            ("notice", self.notice),
            *[("good news", lambda: self.good_news(name))] * 8,
        ]
        if dice.random() < 0.1:
            acts += [("break", lambda: self.disconnect(name)), ("controller", self.start_controller)]
            if crashes:
                acts.append(("crash", lambda: self.crash(name)))
        return acts


def walk(world: RoleWorld, seed: int, steps: int, *, crashes: bool) -> RoleWorld:
    """A random walk, then a calm. A violation names the seed and the last acts."""
    dice, path = random.Random(seed), []
    try:
        for _ in range(steps):
            word, act = dice.choice(world.actions(dice, crashes=crashes))
            path.append(word)
            act()
            world.check_open()
        world.calm()
    except Violation as broken:
        raise Violation(f"seed {seed}, after {len(path)} acts ({', '.join(path[-8:])}): {broken}") from broken
    return world
