"""A simulated engine in real time: the model of rapid.sim, a role that the controller may change, and a clock to obey.

The model works at exact times of its own, however late the process wakes up: a late wake delays news, not work. How
late it was is measured. Nothing here waits or reads a clock; the process around it does (serve.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from rapid.core.cluster import EngineHello, Mark, Phase, PhaseLoad, Role, RoleProgress
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.requests import Backlog, Drained, Finished, Output, PrefillDone, Pulled, Request, Switched


class Clients(Protocol):
    """Where requests come from and answers go."""

    def prefilled(self, done: PrefillDone) -> bool:
        """The KV cache lies here to be pulled; False: nobody will, so its room is free again."""

    def pulled(self, pulled: Pulled) -> None:
        """This engine has the KV cache: its source may release it."""

    def finished(self, finished: Finished) -> None: ...

    def closed(self) -> bool:
        """Send no more requests; True if some may still be on their way, and quiet() will be called after the last."""

    def opened(self, role: Role) -> None:
        """Send requests for this role."""

    def hand_back(self, backlog: Backlog) -> None:
        """These have not been begun; take them elsewhere."""


class Controller(Protocol):
    """Who hears where a role order stands. What cannot be delivered is dropped."""

    def tell(self, progress: RoleProgress) -> None: ...


@dataclass(slots=True)
class Lateness:
    """How long after an event of the model its news went out."""

    events: int = 0
    sum_s: float = 0.0
    max_s: float = 0.0

    def note(self, late_s: float) -> None:
        self.events += 1
        self.sum_s += late_s
        self.max_s = max(self.max_s, late_s)


@dataclass(slots=True)
class Engine:
    """One instance behind its role. Every method is given the time, which never goes back."""

    instance: Instance
    change: RoleChange
    clients: Clients
    controller: Controller
    switch_s: float
    lateness: Lateness = field(default_factory=Lateness)
    _quiet: bool = True  # while closed: no request can be on its way any more

    # ---- time ----

    def wake(self, now_s: float) -> None:
        """Live until now_s: send what came out, and go on with a role change."""
        for output in self.instance.advance(now_s):
            self.lateness.note(now_s - output.at_s)
            self._say(output, now_s)
        self._perform(self.change.left(self._requests_left(), now_s), now_s)
        self._perform(self.change.tick(now_s), now_s)

    def next_s(self) -> float:
        """When to wake again, unless something is called before; infinite: nothing will happen by itself."""
        deadline_s = self.change.next_deadline_s
        return min(self.instance.next_event_s(), inf if deadline_s is None else deadline_s)

    @property
    def is_open(self) -> bool:
        """Whether it takes requests."""
        return self.change.phase is Phase.SERVING

    def load(self, now_s: float) -> PhaseLoad:
        """Its load, in the words of the control plane."""
        self.wake(now_s)
        return self.instance.load(now_s)

    # ---- requests ----

    def prompt(self, request: Request, now_s: float) -> None:
        """A prompt to process, or to give back if this is not the place."""
        self.wake(now_s)
        if self._serves(Role.PREFILL):
            self.instance.submit(request, now_s)
        else:
            self.clients.hand_back(Backlog(requests=(request,)))

    def kv(self, done: PrefillDone, now_s: float) -> None:
        """A request to decode, or to give back if this is not the place."""
        self.wake(now_s)
        if self._serves(Role.DECODE):
            self.instance.receive_kv(done, now_s)
        else:
            self.clients.hand_back(Backlog(kvs=(done,)))

    def release(self, done: PrefillDone, now_s: float) -> None:
        """The KV cache has been pulled, or will never be. One that is not here was another life's."""
        self.wake(now_s)
        if self.instance.holds(done):
            self.instance.release_kv(done, now_s)

    def quiet(self, now_s: float) -> None:
        """After `closed`: the last request that was on its way has come."""
        self._quiet = True
        self.wake(now_s)

    def forsaken(self, now_s: float) -> None:
        """The clients are gone. What was on its way to here is lost, and nobody knows any more what lies here."""
        for done in self.instance.unpulled:
            self.instance.release_kv(done, now_s)
        self.quiet(now_s)

    # ---- power ----

    def limit_curve(self, curve: LimitCurve, now_s: float) -> None:
        """The device follows this curve from now on."""
        self.wake(now_s)
        self.instance.set_limit(curve, now_s)

    # ---- role ----

    def order(
        self, *, incarnation: str, mark: Mark, role: Role, drain_s: float, not_after_s: float, now_s: float
    ) -> None:
        """The controller wants this role."""
        self.wake(now_s)
        duties = self.change.order(
            incarnation=incarnation,
            mark=mark,
            role=role,
            drain_s=drain_s,
            not_after_s=not_after_s,
            requests_left=self.instance.requests_left,
            at_s=now_s,
        )
        self._perform(duties, now_s)
        self.wake(now_s)

    def cancel(self, *, incarnation: str, mark: Mark, now_s: float) -> None:
        """The controller wants that order undone."""
        self.wake(now_s)
        self._perform(self.change.cancel(incarnation=incarnation, mark=mark), now_s)

    def hello(self, node: str, gpus: tuple[str, ...], engine: str, now_s: float) -> EngineHello:
        """How it introduces itself to a controller, in whatever phase it is."""
        change = self.change
        return EngineHello(
            instance=change.instance,
            incarnation=change.incarnation,
            node=node,
            gpus=gpus,
            role=change.role,
            roles=change.roles,
            phase=change.phase,
            mark=change.mark,
            engine_time_s=now_s,
            switch_s=self.switch_s,
            engine=engine,
        )

    # ---- inside ----

    def _serves(self, role: Role) -> bool:
        return self.is_open and self.change.role is role

    def _requests_left(self) -> int:
        """What must still end before a drain is over; a request that may be on its way counts as one."""
        return self.instance.requests_left + (not self._quiet)

    def _say(self, output: Output, now_s: float) -> None:
        match output:
            case PrefillDone():
                if not self.clients.prefilled(output):
                    self.instance.release_kv(output, now_s)
            case Pulled():
                self.clients.pulled(output)
            case Finished():
                self.clients.finished(output)
            case Switched():
                # The model has no warming of its own: it serves as soon as it has switched.
                self._perform(self.change.switched(None, output.at_s), output.at_s)
            case Drained():
                pass  # wake() counts what is left, on the way here too

    def _perform(self, duties: Iterable[Duty], now_s: float) -> None:
        for duty in duties:
            match duty:
                case Tell():
                    self.controller.tell(duty.progress)
                case Close():
                    self._close(now_s)
                case Switch():
                    self.instance.switch(duty.role, now_s)
                case ReadRole():
                    raise AssertionError("the model knows its role")
                case Open():
                    self._open(duty.role, now_s)
                    self._perform(self.change.opened(), now_s)

    def _close(self, now_s: float) -> None:
        backlog = self.instance.close(now_s)
        self._quiet = not self.clients.closed()
        if backlog.requests or backlog.kvs:
            self.clients.hand_back(backlog)

    def _open(self, role: Role, now_s: float) -> None:
        if self.instance.phase is Phase.DRAINING:
            self.instance.reopen(now_s)  # a roll-back
        self._quiet = True
        self.clients.opened(role)
