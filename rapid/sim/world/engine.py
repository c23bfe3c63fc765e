"""One engine as the controller knows it: its side of a role change, carried out on an instance of the cluster."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rapid.core.cluster import EngineHello, Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell
from rapid.sim.cluster import Cluster
from rapid.sim.model.requests import Drained, Switched
from rapid.sim.world.agenda import Agenda, Link


class SimEngine:
    """Obeys role orders. `tell` is called when news of it has reached the controller, `moved` when its phase changes.

    The engine's clock is the simulation's.
    """

    def __init__(
        self,
        hello: EngineHello,
        cluster: Cluster,
        agenda: Agenda,
        up: Link,
        *,
        tell: Callable[[RoleProgress, float], None],
        moved: Callable[["SimEngine", float], None],
    ) -> None:
        self.name, self.node = hello.instance, hello.node
        self._hello, self._cluster, self._agenda, self.up = hello, cluster, agenda, up
        self._tell, self._moved = tell, moved
        self.change = RoleChange(
            instance=hello.instance, incarnation=hello.incarnation, role=hello.role, roles=hello.roles
        )
        self.target = hello.role  # where the last order taken leads, unless it is undone

    @property
    def role(self) -> Role | None:
        """The role that it works in, to the end of a drain; None while it switches."""
        return None if self.change.phase in (Phase.SWITCHING, Phase.WARMING) else self.change.role

    def order(self, order: OrderRole, at_s: float) -> None:
        """The controller wants another role."""
        left = self._cluster.instances[self.name].requests_left
        duties = self.change.order(order, requests_left=left, at_s=at_s)
        self.target = self.change.to_role or self.change.role
        self._perform(duties, at_s)
        deadline_s = self.change.next_deadline_s
        if deadline_s is not None:
            self._agenda.put(deadline_s, self._too_late)

    def cancel(self, cancel: CancelRole, at_s: float) -> None:
        """The controller wants that order undone."""
        self._perform(self.change.cancel(incarnation=cancel.incarnation, mark=cancel.mark), at_s)

    def news(self, output: Drained | Switched, at_s: float) -> None:
        """The instance has got further."""
        if isinstance(output, Drained):
            self._perform(self.change.left(0, at_s), at_s)
        else:
            # The model has no warming of its own: it serves as soon as it has switched.
            self._perform(self.change.switched(None, at_s), at_s)

    def hello(self, at_s: float) -> EngineHello:
        """How it introduces itself, before the first order."""
        return replace(self._hello, engine_time_s=at_s)

    def _too_late(self, at_s: float) -> None:
        self._perform(self.change.tick(at_s), at_s)

    def _perform(self, duties: Sequence[Duty], at_s: float) -> None:
        todo = deque(duties)
        while todo:
            match duty := todo.popleft():
                case Close():
                    self._cluster.close(self.name)
                case Switch():
                    self._cluster.switch(self.name, duty.role)
                case ReadRole():
                    raise AssertionError("the model knows its role")
                case Open():
                    self._cluster.open(self.name, duty.role)
                    todo.extend(self.change.opened())
                case Tell():
                    self.up.send(partial(self._tell, duty.progress), at_s)
        if duties:
            self._moved(self, at_s)
