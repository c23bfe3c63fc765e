"""A simulated engine in real time: the model of rapid.sim, a role that may be changed, and a clock to obey.

The model works at exact times of its own, however late the process wakes up: a late wake delays news, not work. How
late it was is measured. Nothing here waits or reads a clock; the process around it does (serve.py).
"""

from dataclasses import dataclass, field
from typing import Protocol

from rapid.core.cluster import Phase, PhaseLoad, Role
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
    clients: Clients
    lateness: Lateness = field(default_factory=Lateness)
    is_open: bool = True  # it takes requests
    has_switched: bool = True  # no switch is under way
    _quiet: bool = True  # while closed: no request can be on its way any more

    # ---- time ----

    def wake(self, now_s: float) -> None:
        """Live until now_s, and send what came out."""
        for output in self.instance.advance(now_s):
            self.lateness.note(now_s - output.at_s)
            self._say(output, now_s)

    def next_s(self) -> float:
        """When to wake again, unless something is called before; infinite: nothing will happen by itself."""
        return self.instance.next_event_s()

    @property
    def role(self) -> Role:
        """The role that it has, or is about to have."""
        return self.instance.role

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

    # ---- role: the four steps of a change ----

    def close(self, now_s: float) -> None:
        """Takes no request any more, and gives back what it has not begun."""
        self.wake(now_s)
        self.is_open = False
        backlog = self.instance.close(now_s)
        self._quiet = not self.clients.closed()
        if backlog.requests or backlog.kvs:
            self.clients.hand_back(backlog)

    def requests_left(self, now_s: float) -> int:
        """What must still end before a drain is over; a request that may be on its way counts as one."""
        self.wake(now_s)
        return self.instance.requests_left + (not self._quiet)

    def switch(self, role: Role, now_s: float) -> None:
        """Begins to change role; it is over when has_switched."""
        self.wake(now_s)
        self.has_switched = False
        self.instance.switch(role, now_s)

    def open(self, now_s: float) -> None:
        """Takes requests, in the role that it has."""
        self.wake(now_s)
        if self.instance.phase is Phase.DRAINING:
            self.instance.reopen(now_s)  # a roll-back
        self.is_open = self._quiet = True
        self.clients.opened(self.role)

    # ---- inside ----

    def _serves(self, role: Role) -> bool:
        return self.is_open and self.role is role

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
                self.has_switched = True
            case Drained():
                pass  # requests_left() is asked for
