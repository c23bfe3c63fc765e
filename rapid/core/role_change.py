"""The engine's side of a role change: which orders it takes, and what it must do and say at each step.

Pure: it is told the engine's monotonic time and answers with duties, to be performed in the order given. An engine
calls `order` and `cancel` for what the controller says, `left` whenever the number of its requests may have changed,
`switched` and `warmed` when it has got there, and `tick` at `next_deadline_s`. The controller's side is the transaction
in rapid.core.roles; the words between them are EngineControl in proto/rapid/v1/engine.proto.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from rapid.core.cluster import Mark, Phase, Role, RoleProgress


@dataclass(frozen=True, slots=True)
class Close:
    """Take no new request, give back those not begun, finish the others, and keep saying how many are left."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Become `role`; there is no way back. Say `switched`, then, when requests would be served, `warmed`."""

    role: Role


@dataclass(frozen=True, slots=True)
class Open:
    """Take requests, in `role`."""

    role: Role


@dataclass(frozen=True, slots=True)
class Tell:
    """Send to the controller; if it cannot be reached, drop it: `progress()` is sent after each reconnect."""

    progress: RoleProgress


Duty = Close | Switch | Open | Tell


class RoleChange:
    """Where one instance stands, from SERVING in one role to SERVING in another, or back.

    An order is taken only if it is for this incarnation, above the last one taken, and not late. Until the switch
    begins a later order replaces it, a cancel or the end of drain_s undoes it. From then on the engine is deaf until it
    serves.
    """

    def __init__(self, *, instance: str, incarnation: str, role: Role, roles: Sequence[Role]) -> None:
        assert role in roles, "an engine starts in a role that it can take"
        self.instance = instance
        self.incarnation = incarnation
        self.roles = tuple(roles)
        self.role = role  # the role served now, or, past the point of no return, to be served
        self.phase = Phase.SERVING
        self.mark = Mark()  # the last order taken
        self._target = role  # differs from role only while DRAINING
        self._drained_by_s = 0.0  # binds only while DRAINING
        self._drain_s = 0.0
        self._requests_left = 0
        self._error = ""  # why the last order taken was not carried out

    @property
    def next_deadline_s(self) -> float | None:
        """When tick() has something to do: the drain has taken too long."""
        return self._drained_by_s if self.phase is Phase.DRAINING else None

    def progress(self, error: str = "") -> RoleProgress:
        """Where the last order taken stands."""
        return RoleProgress(
            instance=self.instance,
            incarnation=self.incarnation,
            mark=self.mark,
            phase=self.phase,
            role=self.role,
            requests_left=self._requests_left if self.phase is Phase.DRAINING else 0,
            error=error or self._error,
        )

    def order(
        self,
        *,
        incarnation: str,
        mark: Mark,
        role: Role,
        drain_s: float,
        not_after_s: float,
        requests_left: int,
        at_s: float,
    ) -> list[Duty]:
        """Take the order, refuse it, or, if it is the one already taken, say how far it is.

        requests_left is for the answer alone: a drain goes on when `left` is called, at the latest right after Close.
        """
        if mark == self.mark and incarnation == self.incarnation:
            return [Tell(self.progress())]
        refusal = self._refusal(incarnation, mark, role, drain_s, not_after_s, at_s)
        if refusal:
            return [Tell(self._about(mark, refusal))]
        self.mark, self._error = mark, ""
        if role is self.role:
            return self._stay()
        closed = self.phase is Phase.DRAINING
        self.phase, self._target = Phase.DRAINING, role
        self._drain_s, self._drained_by_s = drain_s, at_s + drain_s
        self._requests_left = requests_left
        duties: list[Duty] = [Tell(self.progress())]
        if not closed:
            duties.insert(0, Close())
        return duties

    def cancel(self, *, incarnation: str, mark: Mark) -> list[Duty]:
        """Undo the order if it is the present one and the switch has not begun; otherwise nothing."""
        if incarnation != self.incarnation or mark != self.mark or self.phase is not Phase.DRAINING:
            return []
        return self._roll_back("cancelled by the controller")

    def left(self, requests_left: int, at_s: float) -> list[Duty]:
        """The engine holds so many requests; with none left, a drain is over and the switch begins."""
        self._requests_left = requests_left
        if self.phase is not Phase.DRAINING or requests_left > 0 or at_s >= self._drained_by_s:
            return []
        self.phase, self.role = Phase.SWITCHING, self._target
        return [Tell(self.progress()), Switch(self.role)]

    def switched(self) -> list[Duty]:
        """The engine is in its new role, but not ready for requests."""
        assert self.phase is Phase.SWITCHING, f"switched while {self.phase.value}"
        self.phase = Phase.WARMING
        return [Tell(self.progress())]

    def warmed(self) -> list[Duty]:
        """The engine is ready: this commits the change."""
        assert self.phase is Phase.WARMING, f"warmed while {self.phase.value}"
        self.phase = Phase.SERVING
        return [Open(self.role), Tell(self.progress())]

    def failed(self, error: str) -> list[Duty]:
        """The switch did not work out: the engine serves neither role until it is started anew."""
        assert self.phase in (Phase.SWITCHING, Phase.WARMING), f"failed while {self.phase.value}"
        self.phase, self._error = Phase.FAILED, error
        return [Tell(self.progress())]

    def tick(self, at_s: float) -> list[Duty]:
        """Roll back a drain that has taken too long."""
        if self.phase is not Phase.DRAINING or at_s < self._drained_by_s:
            return []
        return self._roll_back(f"drain took longer than {self._drain_s:g} s, {self._requests_left} requests left")

    def _refusal(
        self, incarnation: str, mark: Mark, role: Role, drain_s: float, not_after_s: float, at_s: float
    ) -> str:
        """Why the order may not be taken; empty: it may."""
        if incarnation != self.incarnation:
            return f"order for incarnation {incarnation}, this is {self.incarnation}"
        if mark < self.mark:
            return f"order {_words(mark)} is older than {_words(self.mark)}, which was taken"
        if not at_s <= not_after_s:
            return f"order {_words(mark)} came {at_s - not_after_s:.2f} s too late"
        if role not in self.roles:
            return f"role {role.value} is none of {', '.join(known.value for known in self.roles)}"
        if not (isfinite(drain_s) and drain_s > 0):
            return f"drain_s must be above 0 s, is {drain_s:g} s"
        if self.phase not in (Phase.SERVING, Phase.DRAINING):
            return f"{self.phase.value} to {self.role.value} for order {_words(self.mark)}"
        return ""

    def _stay(self) -> list[Duty]:
        """The order asks for the role that is served: a drain on the way to another one is undone."""
        if self.phase is Phase.DRAINING:
            return self._roll_back("")
        return [Tell(self.progress())]

    def _roll_back(self, error: str) -> list[Duty]:
        self.phase, self._target, self._error = Phase.ROLLING_BACK, self.role, error
        before = self.progress()
        self.phase = Phase.SERVING
        return [Tell(before), Open(self.role), Tell(self.progress())]

    def _about(self, mark: Mark, error: str) -> RoleProgress:
        """The answer to an order that was not taken: its mark, and what the engine does meanwhile."""
        return RoleProgress(self.instance, self.incarnation, mark, self.phase, self.role, self._requests_left, error)


def _words(mark: Mark) -> str:
    return f"{mark.epoch}.{mark.seq}"
