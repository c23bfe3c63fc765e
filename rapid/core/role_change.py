"""The engine's side of a role change: which orders it takes, and what it must do and say at each step.

Pure: it is told the engine's monotonic time and answers with duties, to be performed in the order given. An engine
calls `welcome`, `order` and `cancel` for what the controller says, `left` whenever the number of its requests may have
changed, `tick` at `next_deadline_s`, and, for what came of a duty:

    Close     nothing, or `not_closed`
    Switch    `switched`, or `not_switched` (all is as it was), `unsure` (who knows), `failed` (it serves neither role)
    ReadRole  `found`, or `failed`
    Open      `opened`, or `not_opened`, or `failed`

         order           none left        switched          opened
SERVING -------> DRAINING -------> SWITCHING -------> WARMING -------> SERVING   in the new role: committed
   ^   cancel, too long |  |           |  | unsure       ^
   |   or not closed    |  | to park   |  v              | it has the new role
   |                    v  v           |  UNCERTAIN -----'
   |<---- ROLLING_BACK <-- PARKED      |  | it has the old one
   |  opened     ^                     v  v
   |             '---------------- not switched                 failed, from SWITCHING on: FAILED, until it is restarted

PARKED is left as SERVING is, by an order, but without a drain: to WARMING in its role, to SWITCHING for another; a
change that does not work out leads back to it. The controller's side is the transaction in rapid.core.roles; the words
between the two are EngineControl in proto/rapid/v1/engine.proto.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from rapid.core.cluster import Mark, Phase, Role, RoleProgress
from rapid.core.commands import OrderRole

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0  # before a role is read again, or opened again; doubles (assumed)


@dataclass(frozen=True, slots=True)
class Close:
    """Take no new request, give back those not begun, finish the others, and keep saying how many are left."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Become `role`; only the engine itself may still say that this has not happened. Never asked twice."""

    role: Role


@dataclass(frozen=True, slots=True)
class ReadRole:
    """Find out which role the engine really has. Asked again and again until somebody knows."""


@dataclass(frozen=True, slots=True)
class Open:
    """Get ready and take requests, in `role`. Asked again if it does not work."""

    role: Role


@dataclass(frozen=True, slots=True)
class Tell:
    """Send to the controller; if it cannot be reached, drop it: `progress()` is sent after each reconnect."""

    progress: RoleProgress


Duty = Close | Switch | ReadRole | Open | Tell


class RoleChange:
    """Where one instance stands, from SERVING in one role to SERVING in another, or back.

    An order is taken only if it is for this incarnation, above every mark heard, and not late; whatever becomes of it,
    it is not taken again. Until the switch begins a later order replaces it, a cancel or the end of drain_s undoes it.
    From then on the engine is deaf until it serves. With `reads_role` a switch counts when the role has been read back.
    """

    def __init__(
        self, *, instance: str, incarnation: str, role: Role, roles: Sequence[Role], reads_role: bool = False
    ) -> None:
        assert role in roles, "an engine starts in a role that it can take"
        self.instance = instance
        self.incarnation = incarnation
        self.roles = tuple(roles)
        self.reads_role = reads_role
        self.role = role  # the role served now, or, past the point of no return, to be served
        self.phase = Phase.SERVING
        self.mark = Mark()  # no order at or below it is taken
        self._doing = Mark()  # the last order taken
        self._home = Phase.SERVING  # where a roll-back leads: SERVING or PARKED
        self._old = self._target = role  # differ only on the way
        self.parking = False  # the last order taken was to park
        self._drained_by_s = 0.0  # this, and the next three, bind only while DRAINING
        self._drain_s = self._quiet_s = 0.0
        self._empty_s: float | None = None  # since when nothing has been left
        self._requests_left = 0
        self._in_the_way = ""  # what is known of why they do not end
        self._again_s: float | None = None  # when to read or open again
        self._pause_s = FIRST_PAUSE_S
        self._error = ""  # why the last order was not carried out
        self.trouble = ""  # what else is wrong, for as long as it is

    # ---- what can be seen ----

    @property
    def next_deadline_s(self) -> float | None:
        """When tick() has something to do; None: not by itself."""
        if self.phase is Phase.DRAINING:
            quiet_s = self._drained_by_s if self._empty_s is None else self._empty_s + self._quiet_s
            return min(quiet_s, self._drained_by_s)
        return self._again_s

    @property
    def from_role(self) -> Role | None:
        """In the middle of a change: the role to which it would roll back."""
        return None if self._settled else self._old

    @property
    def to_role(self) -> Role | None:
        """In the middle of a change: where it leads."""
        return None if self._settled else self._target

    def progress(self, error: str = "", noticed: str = "") -> RoleProgress:
        """Where it stands, and what was noticed since the last word."""
        return RoleProgress(
            instance=self.instance,
            incarnation=self.incarnation,
            mark=self.mark,
            phase=self.phase,
            role=self.role,
            requests_left=self._requests_left if self.phase is Phase.DRAINING else 0,
            error=error or self.trouble or self._error,
            noticed=noticed,
        )

    # ---- what the controller says ----

    def welcome(self, epoch: int) -> None:
        """A controller of this epoch has taken the engine in: what an earlier one ordered is refused from now on."""
        self.mark = max(self.mark, Mark(epoch, 0))

    def order(
        self, order: OrderRole, *, requests_left: int, at_s: float, others: int | None = None, held: str = ""
    ) -> list[Duty]:
        """Take the order, refuse it, or, if it has been heard before, say how far the engine is.

        `others` is how many other instances serve the role that is left, as far as the engine itself can see (None: it
        cannot): the last of a role refuses. `held` says why no order is taken now, whatever it is. requests_left is for
        the answer alone: a drain goes on when `left` is called, at the latest right after Close.
        """
        mark, role, park = order.mark, order.role, order.park
        if order.incarnation != self.incarnation:
            return [Tell(self.progress(f"order for incarnation {order.incarnation}, this is {self.incarnation}"))]
        if mark <= self.mark:
            older = mark not in (self.mark, self._doing)
            error = f"order {_words(mark)} is older than {_words(self.mark)}, which came before" if older else ""
            return [Tell(self.progress(error))]
        self.mark = mark  # whatever becomes of it, it is not taken when it comes again
        leaves = self.phase is not Phase.PARKED and (park or role not in (self.role, Role.MIXED))
        refusal = (
            self._late(order, at_s)
            or self._wrong(order)
            or self._busy()
            or held
            or (f"the last that serves {self.role.value}, as its own side sees it" if leaves and others == 0 else "")
        )
        if refusal:
            return self._refuse(refusal)
        self._doing, self.parking, self._error = mark, park, ""
        if self.phase is Phase.PARKED:
            return self._leave_parking(role)
        if role is self.role and not park:
            return self._roll_back("") if self.phase is Phase.DRAINING else [Tell(self.progress())]
        closed = self.phase is Phase.DRAINING
        self.phase, self._home, self._old = Phase.DRAINING, Phase.SERVING, self.role
        self._target = self.role if park else role
        self._drain_s, self._quiet_s, self._drained_by_s = order.drain_s, order.quiet_s, at_s + order.drain_s
        self._requests_left, self._empty_s, self._in_the_way = requests_left, None, ""
        told = Tell(self.progress())
        return [told] if closed else [Close(), told]

    def cancel(self, *, incarnation: str, mark: Mark) -> list[Duty]:
        """Undo every order up to `mark`, unless the switch has begun, and say where the engine stands.

        An order that the cancel has overtaken is not taken when it comes.
        """
        if incarnation != self.incarnation:
            return []
        overtaken = mark > self.mark
        self.mark = max(self.mark, mark)
        if self.phase is Phase.DRAINING and mark >= self._doing:
            return self._roll_back("cancelled by the controller")
        return self._refuse("cancelled before it came") if overtaken else [Tell(self.progress())]

    # ---- what the engine says ----

    def left(self, requests_left: int, at_s: float, why: str = "") -> list[Duty]:
        """The engine holds so many requests; with none left for long enough, a drain is over. `why` is what is known of
        why they do not end, or cannot be counted."""
        self._requests_left, self._in_the_way = requests_left, why
        if self.phase is not Phase.DRAINING:
            return []
        if requests_left > 0:
            self._empty_s = None
        elif self._empty_s is None and at_s < self._drained_by_s:
            self._empty_s = at_s
        return self._go_on(at_s)

    def not_closed(self, error: str) -> list[Duty]:
        """Close did not work, or not wholly: the engine goes on as it was."""
        return self._roll_back(f"could not close: {error}") if self.phase is Phase.DRAINING else []

    def switched(self, live: Role | None, at_s: float) -> list[Duty]:
        """The engine says that it is in its new role; `live` is the role that was read back (None: it cannot tell)."""
        assert self.phase is Phase.SWITCHING, f"switched while {self.phase.value}"
        return self._settle(live if self.reads_role else self.role, "it says that it has switched", at_s)

    def not_switched(self, error: str) -> list[Duty]:
        """The engine has refused to switch and is as it was."""
        assert self.phase is Phase.SWITCHING, f"not switched while {self.phase.value}"
        return self._roll_back(error)

    def unsure(self, error: str, at_s: float) -> list[Duty]:
        """Nobody knows whether the engine has switched. It is not asked again: its role is read."""
        assert self.phase is Phase.SWITCHING, f"unsure while {self.phase.value}"
        self.phase, self._error, self._pause_s = Phase.UNCERTAIN, error, FIRST_PAUSE_S
        self._again_s = at_s if self.reads_role else None
        return [Tell(self.progress())]

    def found(self, live: Role | None, at_s: float) -> list[Duty]:
        """This is the role that the engine really has; None: it cannot be told yet."""
        assert self.phase is Phase.UNCERTAIN, f"read while {self.phase.value}"
        return self._settle(live, self._error, at_s)

    def opened(self) -> list[Duty]:
        """The engine takes requests: this commits a change, or ends a roll-back."""
        assert self.phase in (Phase.WARMING, Phase.ROLLING_BACK), f"opened while {self.phase.value}"
        if self.phase is Phase.WARMING:
            self._error = ""
        self.phase, self._again_s = Phase.SERVING, None
        return [Tell(self.progress())]

    def not_opened(self, error: str, at_s: float) -> list[Duty]:
        """It does not take requests yet; it is to try again."""
        assert self.phase in (Phase.WARMING, Phase.ROLLING_BACK), f"not opened while {self.phase.value}"
        self._try_again(at_s)
        return [Tell(self.progress(f"cannot open, tries again: {error}"))]

    def failed(self, error: str) -> list[Duty]:
        """The engine serves neither role until it is started anew."""
        assert self.phase in _PAST_RETURN, f"failed while {self.phase.value}"
        return self._fail(error)

    # ---- what is noticed outside of any order (rapid.core.reconcile) ----

    @property
    def adjustable(self) -> bool:
        """Whether what is noticed now may be acted on; otherwise a step is under way that will show it."""
        waits = self.phase in (Phase.WARMING, Phase.ROLLING_BACK) and self._again_s is not None
        return waits or self._settled

    def noticed(self, what: str, trouble: str) -> list[Duty]:
        """Say what was put right; `trouble` is what is wrong from now on (empty: nothing)."""
        assert self.adjustable and self.phase is not Phase.FAILED, f"noticed while {self.phase.value}"
        if not what and trouble == self.trouble:
            return []
        self.trouble = trouble
        return [Tell(self.progress(noticed=what))]

    def adopt(self, live: Role, what: str) -> list[Duty]:
        """The engine has this role, though nobody has ordered it. That is its role now; it serves in it."""
        assert self.adjustable and self.phase is not Phase.FAILED, f"adopted while {self.phase.value}"
        self.role = self._old = self._target = live
        if self.phase is Phase.PARKED:
            return [Tell(self.progress(noticed=what))]
        return self._warm(what)

    def lost(self, what: str) -> list[Duty]:
        """The engine is not there any more."""
        assert self.adjustable and self.phase is not Phase.FAILED, f"lost while {self.phase.value}"
        self._home = Phase.PARKED if self.phase is Phase.PARKED else self._home
        return self._fail(what)

    def back(self, live: Role, what: str) -> list[Duty]:
        """It was lost, or had failed, and is there again in this role: it serves in it, or is parked as it was."""
        assert self.phase is Phase.FAILED, f"back while {self.phase.value}"
        self.role = self._old = self._target = live
        self._error = ""
        if self._home is Phase.PARKED:
            self.phase = Phase.PARKED
            return [Tell(self.progress(noticed=what))]
        return self._warm(what)

    def tick(self, at_s: float) -> list[Duty]:
        """What is due: the end of a drain, or another try. `left` must have been called before, with what is left."""
        if self.phase is Phase.DRAINING:
            if duties := self._go_on(at_s):
                return duties
            if at_s < self._drained_by_s:
                return []
            why = f": {self._in_the_way}" if self._in_the_way else ""
            left = f"{self._requests_left} requests left{why}"
            return self._roll_back(f"drain took longer than {self._drain_s:g} s, {left}")
        if self._again_s is None or at_s < self._again_s:
            return []
        self._again_s = None
        return [ReadRole()] if self.phase is Phase.UNCERTAIN else [Open(self.role)]

    # ---- inside ----

    @property
    def _settled(self) -> bool:
        return self.phase in (Phase.SERVING, Phase.PARKED, Phase.FAILED)

    def _refuse(self, error: str) -> list[Duty]:
        """Say why the last order is not carried out, and go on; at rest, say so whenever asked."""
        if self.phase in (Phase.SERVING, Phase.PARKED):
            self._error = error
        return [Tell(self.progress(error))]

    def _late(self, order: OrderRole, at_s: float) -> str:
        late_s = at_s - order.not_after_s
        return "" if late_s <= 0 else f"order {_words(self.mark)} came {late_s:.2f} s too late"

    def _wrong(self, order: OrderRole) -> str:
        if order.role not in self.roles and not order.park:
            return f"role {order.role.value} is none of {', '.join(known.value for known in self.roles)}"
        if not (isfinite(order.drain_s) and order.drain_s > 0):
            return f"drain_s must be above 0 s, is {order.drain_s:g} s"
        if not 0 <= order.quiet_s < order.drain_s:
            return f"quiet_s must be below drain_s = {order.drain_s:g} s, is {order.quiet_s:g} s"
        return ""

    def _busy(self) -> str:
        if self.phase is Phase.FAILED:
            return "has failed; restart it"
        deaf = self.phase not in (Phase.SERVING, Phase.DRAINING, Phase.PARKED)
        return f"{self.phase.value} to {self.role.value} for order {_words(self._doing)}" if deaf else ""

    def _go_on(self, at_s: float) -> list[Duty]:
        """On from a drain, if it is over."""
        if self._empty_s is None or at_s < self._empty_s + self._quiet_s:
            return []
        if self.parking:
            self.phase = Phase.PARKED
            return [Tell(self.progress())]
        return self._switch()

    def _switch(self) -> list[Duty]:
        self.phase, self._old, self.role = Phase.SWITCHING, self.role, self._target
        return [Tell(self.progress()), Switch(self.role)]

    def _leave_parking(self, role: Role) -> list[Duty]:
        if self.parking:
            return [Tell(self.progress())]
        self._home, self._old, self._target = Phase.PARKED, self.role, role
        return self._warm() if role is self.role else self._switch()

    def _warm(self, noticed: str = "") -> list[Duty]:
        self.phase, self._again_s, self._pause_s = Phase.WARMING, None, FIRST_PAUSE_S
        return [Tell(self.progress(noticed=noticed)), Open(self.role)]

    def _settle(self, live: Role | None, why: str, at_s: float) -> list[Duty]:
        """The role has been looked at."""
        if live is self._target:
            self._error = ""
            return self._warm()
        if live is self._old:
            return self._roll_back(f"{why}, but it still has role {live.value}")
        if self.phase is Phase.UNCERTAIN:
            self._try_again(at_s)
            return []
        duties = self.unsure(f"{why}, but its role {'cannot be read' if live is None else f'is {live.value}'}", at_s)
        self._try_again(at_s)
        return duties

    def _try_again(self, at_s: float) -> None:
        self._again_s, self._pause_s = at_s + self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _fail(self, error: str) -> list[Duty]:
        self.phase, self._error, self._again_s, self.trouble = Phase.FAILED, error, None, ""
        return [Tell(self.progress())]

    def _roll_back(self, error: str) -> list[Duty]:
        self.role = self._target = self._old
        self._error, self._again_s, self._pause_s = error, None, FIRST_PAUSE_S
        if self._home is Phase.PARKED:
            self.phase = Phase.PARKED
            return [Tell(self.progress())]
        self.phase = Phase.ROLLING_BACK
        return [Tell(self.progress()), Open(self.role)]


_PAST_RETURN = (Phase.SWITCHING, Phase.UNCERTAIN, Phase.WARMING, Phase.ROLLING_BACK)


def _words(mark: Mark) -> str:
    return f"{mark.epoch}.{mark.seq}"
