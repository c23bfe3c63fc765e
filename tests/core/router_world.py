"""A small hostile world for reconciliation: a real RoleChange and a real Reconciler, an engine that dies and comes back
in the role of its launch, a router that forgets, and strangers who drive both.

What the driver of rapid.engine does, in one step each: it looks, asks the reconciler, and does what that says. `act()`
states the promises that hold at any time, and `calm()` ends the storm and states that all is as it should be.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.commands import OrderRole
from rapid.core.reconcile import (
    CONFIRM_LOOKS,
    FENCE_REPAIRS,
    FENCE_WINDOW_S,
    FENCED_PAUSE_S,
    Adopt,
    Back,
    Lost,
    PutBack,
    Reconciler,
    Remedy,
    Renew,
    Seen,
    Should,
    TakeOut,
    difference,
)
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell

PREFILL, DECODE = Role.PREFILL, Role.DECODE
BOTH = (PREFILL, DECODE)
OTHER = {PREFILL: DECODE, DECODE: PREFILL}
TAKING = {Phase.SERVING: True, Phase.PARKED: False}
DRAIN_S = 5.0
CALM_S = FENCED_PAUSE_S + 2 * FENCE_WINDOW_S


class Violation(AssertionError):
    """A promise is broken."""


@dataclass
class World:
    """The truth about one engine and its router, and what our side of it believes (`change`)."""

    reconciler: Reconciler = field(default_factory=Reconciler)
    change: RoleChange = field(
        default_factory=lambda: RoleChange(instance="e0", incarnation="i", role=PREFILL, roles=BOTH, reads_role=True)
    )
    now: float = 1000.0
    live: Role = PREFILL
    up: bool = True
    life: int = 1
    unhealthy: bool = False  # it failed in a switch, and still answers
    router_up: bool = True
    listed: list[Role] = field(default_factory=lambda: [PREFILL])
    glitch: bool = False  # the next look shows an empty list that is none
    rival: Role | None = None  # a stranger who wants it in this pool, and no other, and looks every second
    seq: int = 0
    look_s: float = 1000.0  # when to look next
    repairs: list[float] = field(default_factory=list)  # since the last role change
    adoptions: int = 0
    differed: list[bool] = field(default_factory=list)  # what the last looks showed

    # ---- time ----

    def pass_time(self, seconds: float) -> None:
        end_s = self.now + seconds
        while self.now < end_s:
            self.now += 0.25
            if self.rival is not None and self.router_up and self.now % 1.0 == 0 and self.listed != [self.rival]:
                self.listed = [self.rival]
            if self.change.phase is Phase.DRAINING:
                self.do(self.change.left(0, self.now))
            self.do(self.change.tick(self.now))
            if self.now >= self.look_s:
                self.look()
                self.look_s = self.now + self.reconciler.pause_s

    def look(self) -> None:
        """As rapid.engine.keeper and its driver do."""
        change = self.change
        if not change.adjustable:
            return
        failed = change.phase is Phase.FAILED
        should = Should(change.role, change.roles, TAKING.get(change.phase), failed)
        truth = self.truth()
        glitch, self.glitch = self.glitch and self.router_up, False
        self.differed = [*self.differed, glitch or difference(should, truth) is not None][-CONFIRM_LOOKS:]
        remedy = self.reconciler.look(should, replace(truth, listed=()) if glitch else truth, self.now)
        if remedy is not None:
            self.obey(remedy)
        self.complain()

    def complain(self) -> None:
        if self.change.adjustable and self.change.phase is not Phase.FAILED:
            self.change.noticed("", self.reconciler.trouble)

    def obey(self, remedy: Remedy) -> None:
        error = ""
        match remedy:
            case Adopt(role):
                self.adoptions += 1
                self.do(self.change.adopt(role, "w"))
            case Back(role):
                self.do(self.change.back(role, "w"))
            case Lost():
                self.do(self.change.lost("w"))
            case PutBack() | Renew() | TakeOut():
                if self.differed != [True] * CONFIRM_LOOKS:
                    raise Violation(f"{remedy}, though one look showed that nothing was wrong")
                error = self.repair(remedy)
        self.reconciler.done(remedy, self.now, error)

    def repair(self, remedy: PutBack | Renew | TakeOut) -> str:
        if not self.router_up:
            return "router is away"
        self.listed = []
        if not isinstance(remedy, TakeOut):
            if not self.up or self.live is not remedy.role:
                return "the engine is not as it should be"
            self.listed = [remedy.role]
        self.repairs = [*(at_s for at_s in self.repairs if self.now - at_s <= FENCE_WINDOW_S), self.now]
        if len(self.repairs) > FENCE_REPAIRS:
            raise Violation(f"it flaps: {len(self.repairs)} repairs within {FENCE_WINDOW_S:g} s")
        return ""

    def truth(self) -> Seen:
        """What there is to be seen."""
        listed = tuple(self.listed) if self.router_up else None
        live = self.live if self.up else None
        return Seen(listed, live=live, up=self.up, life=str(self.life))

    # ---- duties of a role change ----

    def do(self, duties: list[Duty]) -> None:
        for duty in duties:
            match duty:
                case Tell():
                    pass
                case Close():
                    if self.router_up:
                        self.listed = []
                    else:
                        self.do(self.change.not_closed("router is away"))
                case Switch(role):
                    self.switch(role)
                case ReadRole():
                    self.do(self.change.found(self.live if self.up else None, self.now))
                case Open(role):
                    self.open(role)

    def switch(self, role: Role) -> None:
        self.reconciler.changed()
        self.repairs.clear()
        if not self.up:
            self.do(self.change.unsure("no answer", self.now))
        elif self.unhealthy:
            self.do(self.change.failed("restart it"))
        else:
            self.live = role
            self.do(self.change.switched(role, self.now))

    def open(self, role: Role) -> None:
        if not self.router_up or not self.up or self.live is not role:
            self.do(self.change.not_opened("not now", self.now))
            return
        self.listed = [role]
        self.do(self.change.opened())

    # ---- what may happen ----

    def order(self, role: Role, *, park: bool = False) -> None:
        self.seq += 1
        order = OrderRole("e0", "i", Mark(1, self.seq), role, DRAIN_S, self.now + 1.0, 0.0, park)
        held = self.reconciler.refusal(self.now)
        self.do(self.change.order(order, requests_left=1, at_s=self.now, held=held))

    def forget(self) -> None:
        self.listed = []

    def router(self, up: bool) -> None:
        self.listed = [] if up and not self.router_up else self.listed
        self.router_up = up

    def double(self, role: Role) -> None:
        if self.router_up:
            self.listed.append(role)

    def move(self, role: Role) -> None:
        if self.router_up:
            self.listed = [role]

    def hand(self, role: Role) -> None:
        """Somebody switches the engine, which does it only when it can."""
        if self.up and not self.unhealthy:
            self.live = role

    def die(self) -> None:
        self.up = False

    def start(self) -> None:
        """In the role of its launch."""
        if not self.up:
            self.up, self.unhealthy, self.live, self.life = True, False, PREFILL, self.life + 1

    def sicken(self) -> None:
        self.unhealthy = True

    def cure(self) -> None:
        """A restart so quick that no look sees it away."""
        self.up = False
        self.start()

    def calm(self) -> None:
        """Everybody else leaves; what can be reached is reached again."""
        self.rival, self.glitch = None, False
        self.router(True)
        self.start()
        if self.unhealthy:
            self.cure()
        self.pass_time(CALM_S)
        self.check_settled()

    def check_settled(self) -> None:
        change = self.change
        should = Should(change.role, change.roles, TAKING.get(change.phase), change.phase is Phase.FAILED)
        settled = change.phase in (Phase.SERVING, Phase.PARKED) and difference(should, self.truth()) is None
        if not settled or self.reconciler.trouble:
            raise Violation(
                f"not settled: {change.phase.value} as {change.role.value}, {self.truth()}, {self.reconciler.trouble!r}"
            )


def walk(world: World, seed: int, steps: int) -> World:
    """A storm, and the calm after it."""
    dice = random.Random(seed)
    acts: list[Callable[[], None]] = [
        *[lambda: world.pass_time(dice.choice((0.25, 1.0, 3.0, 10.0)))] * 8,
        *[lambda: world.order(dice.choice(BOTH), park=dice.random() < 0.2)] * 2,
        world.forget,
        lambda: world.router(not world.router_up),
        lambda: world.double(dice.choice(BOTH)),
        lambda: world.move(dice.choice(BOTH)),
        lambda: world.hand(dice.choice(BOTH)),
        world.die,
        world.start,
        world.start,
        world.sicken,
        world.cure,
        *[lambda: setattr(world, "glitch", True)] * 2,
        lambda: setattr(world, "rival", dice.choice((PREFILL, DECODE, None, None))),
    ]
    for _ in range(steps):
        dice.choice(acts)()
    world.calm()
    return world
