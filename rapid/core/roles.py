"""The role change as a transaction with the engine: drain, switch, commit, or roll back. No request is lost.

Each instance walks this table; a step that is not in it (role_table.py) is late or doubled news, and ignored.

               order            drained            switched          opened
    SERVING ----------> DRAINING -----> SWITCHING -----> WARMING -----> SERVING (new role: committed)
       ^                 |     |            |               |
       |                 |     '--------> PARKED            |           (it serves nobody on purpose; left by an order)
       |                 v                  v               v
       '---------- ROLLING BACK <-----------+---------------'           (old role again: rolled back)
                         |                  |               |
                         +------------> UNCERTAIN <---------+           (which role it has, is to be read)
                         |                  |               |
                         '------------->  FAILED  <---------'           (neither role; heals when it serves again)

What goes on between the two sides, whatever is lost on the way:

    the order      is sent again until the engine has answered; it knows it by its mark, and takes it once at most
    the cancel     goes out when a drain takes too long, or when nobody else serves the role any more; it is sent again
                   until the drain is over, and an order that comes after it is refused
    UNCERTAIN      is an engine that does not know which role it has, or one that has not come to rest in time. It is
                   asked where it stands (by the cancel, which does nothing else then), and never told again to switch
    the old role   is only left, by order, while another instance serves it, so no change ever empties a role

An engine whose stream ends is GONE; when it attaches again it says itself where it stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rapid.core.cluster import EngineHello, Mark, Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, Command, Notice, OrderRole
from rapid.core.errors import EngineRefused, EngineTaken, NotFound, RoleRefused
from rapid.core.role_table import NEXT_PHASES
from rapid.core.settings import QUIET_S

_ORDER_LIFE_S = 10.0  # an order that reaches its engine later than this is refused there
_AGAIN_S = 2.0  # after this long without an answer an order or a cancel is sent again (assumed)
_ASK_S = 5.0  # how often an engine whose role is uncertain is asked (assumed)
_ALONE_S = 3.0  # engines that lost their controller are back by then; until then nobody is missed (assumed)


@dataclass(slots=True)
class Instance:
    """One engine instance. `target_role` differs from `role`, the one to roll back to, only while a change is under
    way."""

    hello: EngineHello
    heard_s: float
    role: Role
    phase: Phase
    mark: Mark
    target_role: Role
    ordered_s: float | None = None
    cancelled: bool = False
    problem: str = ""
    parking: bool = False  # the change under way leads to PARKED
    unparking: bool = False  # it began there
    unanswered: OrderRole | None = None  # the order under way, until the engine has said anything about it
    said_s: float = 0.0  # when it was last told anything about the change under way
    alone_s: float | None = None  # since when nobody else serves the role that it leaves

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

    def __init__(self, *, epoch: int, drain_s: float, switch_timeout_s: float, quiet_s: float = QUIET_S) -> None:
        self.instances: dict[str, Instance] = {}
        self.moves = 0  # role changes committed
        self.mark = Mark(epoch, 0)
        self._drain_s, self._quiet_s = drain_s, quiet_s
        self._switch_timeout_s = switch_timeout_s

    def go_on_from(self, mark: Mark, moves: int) -> None:
        """Go on from an earlier life. In the same epoch, orders are numbered on: an engine takes none twice."""
        self.moves = moves
        self._count_on_from(mark)

    def get(self, instance: str) -> Instance:
        """The instance. Raises NotFound."""
        if instance not in self.instances:
            raise NotFound("instance", instance, tuple(self.instances))
        return self.instances[instance]

    def serving(self, role: Role) -> int:
        """How many instances serve a role now; a mixed one serves both."""
        return sum(1 for one in self.instances.values() if one.serves and one.role in (role, Role.MIXED))

    # ---- engines come and go ----

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
        # An earlier life of this epoch gave it that order; ours must come after it, or it is refused as old.
        self._count_on_from(hello.mark)
        if before is not None and before.hello.incarnation != hello.incarnation:
            before = None
        one = Instance(hello, at_s, hello.role, hello.phase, hello.mark, hello.role)
        if one.in_change or one.phase is Phase.UNCERTAIN:
            self._go_on_with(one, before, at_s)
        elif before is not None and hello.role is not before.role:
            self.moves += 1  # it committed while we could not hear it
        self.instances[hello.instance] = one

    def detach(self, instance: str, incarnation: str) -> bool:
        """The stream of an engine has ended. False: it was not this one's."""
        one = self.instances.get(instance)
        if one is None or one.hello.incarnation != incarnation:
            return False
        one.phase = Phase.GONE
        return True

    # ---- a change ----

    def order(self, instance: str, role: Role, at_s: float) -> OrderRole:
        """Begin a change. Raises RoleRefused when it may not start, and says which rule stands against it."""
        one = self.get(instance)
        if role not in one.hello.roles:
            can = ", ".join(each.value for each in one.hello.roles)
            raise RoleRefused(f"instance {instance}: cannot take role {role.value} (it can take: {can})")
        self._check_at_rest(one)
        if one.serves and one.role is role:
            raise RoleRefused(f"instance {instance}: serves {role.value} already")
        return self._order(one, role, at_s)

    def park(self, instance: str, at_s: float) -> OrderRole:
        """Have an instance serve nobody, until it is given a role. Raises RoleRefused."""
        one = self.get(instance)
        if not one.hello.parks:
            raise RoleRefused(f"instance {instance}: cannot be parked; its engine does not say that it can")
        self._check_at_rest(one)
        if one.phase is Phase.PARKED:
            raise RoleRefused(f"instance {instance}: is parked already")
        return self._order(one, one.role, at_s, park=True)

    def progress(self, news: RoleProgress) -> list[Notice]:
        """Take an engine's word on where it stands."""
        one = self.instances.get(news.instance)
        if one is None or one.hello.incarnation != news.incarnation or news.mark < one.mark:
            return []
        noticed = [Notice("warning", one.name, news.noticed)] if news.noticed else []
        return noticed + self._step(one, news) if news.phase in NEXT_PHASES[one.phase] else noticed

    def _step(self, one: Instance, news: RoleProgress) -> list[Notice]:
        self._count_on_from(news.mark)
        before, troubled = one.phase, one.problem
        one.phase, one.problem, one.mark, one.unanswered = news.phase, news.error, news.mark, None
        if news.phase is Phase.FAILED:
            what = "is out of service" if before in (Phase.SERVING, Phase.PARKED) else "role change failed"
            return [Notice("error", one.name, f"{what}: {news.error or 'no reason given'}")]
        if news.phase is Phase.UNCERTAIN and before is not Phase.UNCERTAIN:
            help_ = "it is being read" if one.hello.reads_role else "the engine cannot read it, so restart the engine"
            return [Notice("error", one.name, f"its role is uncertain, {help_}: {news.error or 'no reason given'}")]
        if news.phase is Phase.WARMING and news.error not in ("", troubled):
            return [Notice("warning", one.name, f"warming for {one.target_role.value}: {news.error}")]
        if news.phase in (Phase.SERVING, Phase.PARKED):
            return self._come_to_rest(one, news, before, troubled)
        return []

    def tick(self, at_s: float) -> list[Command]:
        """Say again what was not answered, give up what takes too long, and ask where it stands."""
        commands: list[Command] = []
        for one in self.instances.values():
            if one.phase is Phase.UNCERTAIN:
                if at_s - one.said_s >= _ASK_S:
                    commands.append(self._cancel(one, at_s))
            elif one.in_change and one.ordered_s is not None:
                commands += self._watch(one, at_s, at_s - one.ordered_s)
        return commands

    # ---- helpers ----

    def _count_on_from(self, mark: Mark) -> None:
        if mark.epoch == self.mark.epoch:
            self.mark = max(self.mark, mark)

    def _go_on_with(self, one: Instance, before: Instance | None, at_s: float) -> None:
        """It attaches in the middle of a change, which is given its time from now. `before`: what was known of it."""
        hello = one.hello
        one.ordered_s = one.said_s = at_s
        if hello.from_role is not None and hello.to_role is not None:
            one.role, one.target_role = hello.from_role, hello.to_role
            one.parking = one.phase is Phase.DRAINING and one.role is one.target_role
            one.unparking = one.phase is Phase.WARMING and one.role is one.target_role
        elif before is not None:
            one.role, one.target_role = before.role, before.target_role
            one.parking, one.unparking = before.parking, before.unparking

    def _check_at_rest(self, one: Instance) -> None:
        if one.phase not in (Phase.SERVING, Phase.PARKED):
            raise RoleRefused(f"instance {one.name}: is {one.phase.value}, not serving; wait until it serves")

    def _order(self, one: Instance, role: Role, at_s: float, *, park: bool = False) -> OrderRole:
        for old in self._left_by(one.role, role, park) if one.serves else ():
            if self.serving(old) <= 1:
                raise RoleRefused(
                    f"instance {one.name}: is the last that serves {old.value}; move another one in first"
                )
        self.mark = Mark(self.mark.epoch, self.mark.seq + 1)
        one.parking, one.unparking = park, one.phase is Phase.PARKED
        one.phase, one.target_role, one.mark = Phase.DRAINING, role, self.mark
        one.ordered_s, one.cancelled, one.problem, one.alone_s = at_s, False, "", None
        not_after_s = one.engine_time_s(at_s) + _ORDER_LIFE_S
        order = OrderRole(
            one.name, one.hello.incarnation, self.mark, role, self._drain_s, not_after_s, self._quiet_s, park
        )
        one.unanswered, one.said_s = order, at_s
        return order

    def _left_by(self, old: Role, new: Role, park: bool) -> tuple[Role, ...]:
        """The roles that are served no more by whoever goes from old to new."""
        serves = (Role.PREFILL, Role.DECODE) if old is Role.MIXED else (old,)
        return tuple(role for role in serves if park or new not in (role, Role.MIXED))

    def _come_to_rest(self, one: Instance, news: RoleProgress, before: Phase, troubled: str) -> list[Notice]:
        """It serves, or is parked: what has come of the change."""
        served = one.role
        one.role, one.target_role, one.ordered_s, one.alone_s = news.role, news.role, None, None
        parking, one.parking = one.parking, False
        moved = news.role is not served
        if before is news.phase:  # no change was under way
            if moved and one.serves:
                return [Notice("warning", one.name, f"serves {news.role.value} now, though nobody has ordered it")]
            trouble = one.problem if one.problem != troubled else ""
            return [Notice("warning", one.name, trouble)] if trouble else []
        if before is Phase.FAILED and not (moved and one.serves):
            stands = f"serves {news.role.value}" if one.serves else "is parked"
            return [Notice("info", one.name, f"{stands} again")]
        if one.phase is Phase.PARKED:
            if parking:
                return [Notice("info", one.name, "is parked and serves nobody")]
            return [Notice("warning", one.name, f"is parked still: {news.error or 'rolled back'}")]
        self.moves += moved
        if moved or one.unparking:
            return [Notice("info", one.name, f"serves {news.role.value} now")]
        return [Notice("warning", one.name, f"serves {news.role.value} again: {news.error or 'rolled back'}")]

    def _watch(self, one: Instance, at_s: float, taken_s: float) -> list[Command]:
        """What is due for a change that has taken so long."""
        if taken_s > self._drain_s + self._switch_timeout_s:
            one.problem = f"still {one.phase.value} after {taken_s:.0f} s; its role is uncertain"
            one.phase, one.said_s = Phase.UNCERTAIN, at_s
            return [Notice("error", one.name, one.problem)]
        if one.phase is not Phase.DRAINING:
            return []
        due = at_s - one.said_s >= _AGAIN_S
        if one.cancelled:
            return [self._cancel(one, at_s)] if due else []
        if taken_s > self._drain_s + 1.0:
            return [self._cancel(one, at_s)]
        if self._is_alone(one, at_s):
            text = f"its change to {one.target_role.value} is cancelled: nobody else serves {one.role.value} any more"
            return [Notice("warning", one.name, text), self._cancel(one, at_s)]
        if one.unanswered is not None and due and taken_s < _ORDER_LIFE_S:
            one.said_s = at_s
            return [one.unanswered]
        return []

    def _cancel(self, one: Instance, at_s: float) -> CancelRole:
        one.cancelled, one.said_s = True, at_s
        return CancelRole(one.name, one.hello.incarnation, one.mark)

    def _is_alone(self, one: Instance, at_s: float) -> bool:
        """Whether a role that it leaves has been served by nobody else for a while."""
        if all(self.serving(role) for role in self._left_by(one.role, one.target_role, one.parking)):
            one.alone_s = None
        elif one.alone_s is None:
            one.alone_s = at_s
        return one.alone_s is not None and at_s - one.alone_s >= _ALONE_S

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
