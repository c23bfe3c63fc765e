"""The role change as a transaction with the engine: drain, switch, commit, or roll back. No request is lost.

Each instance walks this table; a step that is not in it is late or doubled news, and ignored.

                 order            drained            switched          opened
    SERVING ------------> DRAINING -----> SWITCHING -----> WARMING -----> SERVING (new role: committed)
       ^                     |               |                |
       |                     v               v                v
       `------------ ROLLING BACK <----------+----------------'        (old role again: rolled back)
                             |               |                |
                             `-----------> FAILED <-----------'        (neither role; heals when it serves again)

An engine whose stream ends is GONE; when it attaches again it says itself where it stands. Whatever happens on the
way, an order is only given when another instance serves the old role, so no role is ever emptied by a change.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rapid.core.cluster import EngineHello, Mark, Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, Command, Notice, OrderRole
from rapid.core.errors import EngineRefused, EngineTaken, NotFound, RoleRefused

_ORDER_LIFE_S = 10.0  # an order that reaches its engine later than this is refused there

NEXT_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.SERVING: frozenset({Phase.SERVING, Phase.FAILED}),
    Phase.DRAINING: frozenset(
        {Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING}
    ),
    Phase.SWITCHING: frozenset({Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING}),
    Phase.WARMING: frozenset({Phase.WARMING, Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING}),
    Phase.FAILED: frozenset({Phase.FAILED, Phase.SERVING}),
    Phase.GONE: frozenset(),
}


@dataclass(slots=True)
class Instance:
    """One engine instance. `target_role` differs from `role` only while a change is under way."""

    hello: EngineHello
    heard_s: float
    role: Role
    phase: Phase
    mark: Mark
    target_role: Role
    ordered_s: float | None = None
    cancelled: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        return self.hello.instance

    @property
    def serves(self) -> bool:
        return self.phase is Phase.SERVING

    @property
    def in_change(self) -> bool:
        return self.phase in (Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK)

    def engine_time_s(self, at_s: float) -> float:
        """The engine's clock now, as far as can be told: never ahead of it by more than the clocks drift apart."""
        return self.hello.engine_time_s + at_s - self.heard_s


class Roles:
    """All instances and their role changes. Raises EngineRefused, EngineTaken, RoleRefused and NotFound."""

    def __init__(self, *, epoch: int, drain_s: float, switch_timeout_s: float) -> None:
        self.instances: dict[str, Instance] = {}
        self.moves = 0  # role changes committed
        self.mark = Mark(epoch, 0)
        self._drain_s = drain_s
        self._switch_timeout_s = switch_timeout_s

    def go_on_from(self, mark: Mark, moves: int) -> None:
        """Go on from an earlier life. In the same epoch, orders are numbered on: an engine takes none twice."""
        self.moves = moves
        self.mark = max(self.mark, mark) if mark.epoch == self.mark.epoch else self.mark

    def serving(self, role: Role) -> int:
        """How many instances serve a role now; a mixed one serves both."""
        return sum(1 for one in self.instances.values() if one.serves and one.role in (role, Role.MIXED))

    def attach(self, hello: EngineHello, at_s: float, nodes_of: Mapping[str, str]) -> None:
        """Take an engine in. nodes_of: GPU to the node that reports it."""
        self._check_hello(hello, nodes_of)
        owners = {gpu: one for one in self.instances.values() for gpu in one.hello.gpus if one.name != hello.instance}
        for gpu in hello.gpus:
            owner = owners.get(gpu)
            if owner is not None and owner.phase is not Phase.GONE:
                raise EngineTaken(f"instance {hello.instance}: gpu {gpu} belongs to instance {owner.name}, which lives")
        before = self.instances.get(hello.instance)
        if before is not None and before.phase is not Phase.GONE and before.hello.incarnation != hello.incarnation:
            raise EngineTaken(f"instance {hello.instance}: another process of this name is attached and lives")
        for gpu in hello.gpus:
            if gpu in owners:
                self.instances.pop(owners[gpu].name, None)  # it is gone, and its GPU serves another now
        one = Instance(hello, at_s, hello.role, hello.phase, hello.mark, hello.role)
        if hello.mark.epoch == self.mark.epoch:
            # An earlier life of this epoch gave it that order; ours must come after it, or it is refused as old.
            self.mark = max(self.mark, hello.mark)
        same_life = before is not None and before.hello.incarnation == hello.incarnation
        if one.in_change:
            one.ordered_s = at_s
            one.target_role = before.target_role if before is not None and same_life else hello.role
        elif before is not None and same_life and hello.role is not before.role:
            self.moves += 1  # it committed while we could not hear it
        self.instances[hello.instance] = one

    def detach(self, instance: str, incarnation: str) -> bool:
        """The stream of an engine has ended. False: it was not this one's."""
        one = self.instances.get(instance)
        if one is None or one.hello.incarnation != incarnation:
            return False
        one.phase = Phase.GONE
        return True

    def order(self, instance: str, role: Role, at_s: float) -> OrderRole:
        """Begin a change. Raises RoleRefused when it may not start, and says which rule stands against it."""
        one = self.get(instance)
        if role not in one.hello.roles:
            can = ", ".join(each.value for each in one.hello.roles)
            raise RoleRefused(f"instance {instance}: cannot take role {role.value} (it can take: {can})")
        if one.phase is not Phase.SERVING:
            raise RoleRefused(f"instance {instance}: is {one.phase.value}, not serving; wait until it serves")
        if one.role is role:
            raise RoleRefused(f"instance {instance}: serves {role.value} already")
        for old in (Role.PREFILL, Role.DECODE):
            if one.role in (old, Role.MIXED) and role not in (old, Role.MIXED) and self.serving(old) <= 1:
                raise RoleRefused(
                    f"instance {instance}: is the last that serves {old.value}; move another one in first"
                )
        self.mark = Mark(self.mark.epoch, self.mark.seq + 1)
        one.phase, one.target_role, one.mark = Phase.DRAINING, role, self.mark
        one.ordered_s, one.cancelled, one.problem = at_s, False, ""
        not_after_s = one.engine_time_s(at_s) + _ORDER_LIFE_S
        return OrderRole(instance, one.hello.incarnation, self.mark, role, self._drain_s, not_after_s)

    def progress(self, news: RoleProgress) -> list[Notice]:
        """Take an engine's word on where it stands."""
        one = self.instances.get(news.instance)
        if one is None or one.hello.incarnation != news.incarnation or news.mark < one.mark:
            return []
        if news.phase not in NEXT_PHASES[one.phase]:
            return []
        was_in_change = one.phase is not Phase.SERVING
        one.phase, one.problem = news.phase, news.error
        if news.phase is Phase.FAILED:
            return [Notice("error", one.name, f"role change failed: {news.error or 'no reason given'}")]
        if news.phase is not Phase.SERVING or not was_in_change:
            return []
        committed = news.role is not one.role
        one.role, one.target_role, one.ordered_s = news.role, news.role, None
        if committed:
            self.moves += 1
            return [Notice("info", one.name, f"serves {news.role.value} now")]
        return [Notice("warning", one.name, f"serves {news.role.value} again: {news.error or 'rolled back'}")]

    def tick(self, at_s: float) -> list[Command]:
        """Give up changes that take too long: cancel a drain, then call it failed until the engine says otherwise."""
        commands: list[Command] = []
        for one in self.instances.values():
            if not one.in_change or one.ordered_s is None:
                continue
            taken_s = at_s - one.ordered_s
            if one.phase is Phase.DRAINING and taken_s > self._drain_s + 1.0 and not one.cancelled:
                one.cancelled = True
                commands.append(CancelRole(one.name, one.hello.incarnation, one.mark))
            if taken_s > self._drain_s + self._switch_timeout_s:
                one.problem = f"still {one.phase.value} after {taken_s:.0f} s; its role is uncertain"
                one.phase = Phase.FAILED
                commands.append(Notice("error", one.name, one.problem))
        return commands

    def get(self, instance: str) -> Instance:
        """The instance. Raises NotFound."""
        if instance not in self.instances:
            raise NotFound("instance", instance, tuple(self.instances))
        return self.instances[instance]

    def _check_hello(self, hello: EngineHello, nodes_of: Mapping[str, str]) -> None:
        if hello.role not in hello.roles:
            raise EngineRefused(
                f"instance {hello.instance}: role {hello.role.value} is not among those it says it can take"
            )
        for gpu in hello.gpus:
            if gpu not in nodes_of:
                raise EngineRefused(f"instance {hello.instance}: no node has reported gpu {gpu}")
            if nodes_of[gpu] != hello.node:
                raise EngineRefused(
                    f"instance {hello.instance}: gpu {gpu} is on node {nodes_of[gpu]}, not on {hello.node or 'no node'}"
                )
