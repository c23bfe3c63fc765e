"""Carries out a role change: what core.role_change says must be done, the engine's own four steps do."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from rapid.core.cluster import Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell
from rapid.engine.author import Engine, NotSwitched, ReadsRole, SeesOthers, SwitchFailed
from rapid.engine.link import Say
from rapid.wire.engine import Welcome

POLL_S = 0.02  # how often a draining engine is asked what is left
OPEN_WITHIN_S = 60.0  # for one attempt to open (assumed)
LOOK_WITHIN_S = 5.0  # for a look at what is left, at a role, at the others (assumed)
MAX_ORDERS = 16  # that wait while the engine is busy; of more, the oldest is dropped, and will come again

T = TypeVar("T")


class Driver:
    """The engine's side of a role change, alive. `tell` is called with every progress, in order.

    Cancels are obeyed in the middle of a step; orders wait for its end.
    """

    def __init__(
        self,
        engine: Engine,
        change: RoleChange,
        *,
        switch_within_s: float,
        tell: Callable[[RoleProgress], None],
        say: Say,
    ) -> None:
        self.change = change
        self._engine, self._switch_within_s, self._tell, self._say = engine, switch_within_s, tell, say
        self._orders: deque[OrderRole] = deque(maxlen=MAX_ORDERS)
        self._duties: deque[Duty] = deque()
        self._woken = asyncio.Event()

    def hear(self, told: Welcome | OrderRole | CancelRole) -> None:
        """What the controller says."""
        match told:
            case Welcome(epoch):
                self.change.welcome(epoch)
            case OrderRole():
                self._orders.append(told)
            case CancelRole(_, incarnation, mark):
                self._take(self.change.cancel(incarnation=incarnation, mark=mark))
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._wait()
            while self._duties:
                await self._perform(self._duties.popleft())
            if self._orders:
                await self._obey(self._orders.popleft())
            elif self.change.phase is Phase.DRAINING:
                left = await self._left()
                self._take(self.change.left(left, time.monotonic()))
            self._take(self.change.tick(time.monotonic()))

    # ---- inside ----

    async def _wait(self) -> None:
        """For something to do."""
        if self._duties or self._orders:
            return
        self._woken.clear()
        due_s, now_s = self.change.next_deadline_s, time.monotonic()
        within_s = None if due_s is None else max(0.0, due_s - now_s)
        if within_s is not None and self.change.phase is Phase.DRAINING:
            within_s = min(within_s, POLL_S)
        try:
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _take(self, duties: Sequence[Duty]) -> None:
        """Say at once what is to be said, so that it is said in the order in which it happened; do the rest in turn."""
        for duty in duties:
            if isinstance(duty, Tell):
                self._say(_words(duty.progress))
                self._tell(duty.progress)
            else:
                self._duties.append(duty)

    async def _obey(self, order: OrderRole) -> None:
        others = await self._look("others", self._engine.others()) if isinstance(self._engine, SeesOthers) else None
        duties = self.change.order(
            incarnation=order.incarnation,
            mark=order.mark,
            role=order.role,
            drain_s=order.drain_s,
            not_after_s=order.not_after_s,
            requests_left=await self._left(),
            at_s=time.monotonic(),
            quiet_s=order.quiet_s,
            park=order.park,
            others=others,
        )
        self._take(duties)

    async def _perform(self, duty: Duty) -> None:
        match duty:
            case Close():
                await self._close()
            case Switch(role):
                await self._switch(role)
            case ReadRole():
                await self._read()
            case Open(role):
                await self._open(role)

    async def _close(self) -> None:
        due_s = self.change.next_deadline_s
        within_s = LOOK_WITHIN_S if due_s is None else due_s - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._engine.close()
        except Exception as error:
            self._take(self.change.not_closed(_line(error, f"close did not return within {within_s:.1f} s")))

    async def _switch(self, role: Role) -> None:
        change, late = self.change, f"switch did not return within {self._switch_within_s:g} s"
        try:
            async with asyncio.timeout(self._switch_within_s):
                await self._engine.switch(role)
        except NotSwitched as error:
            self._take(change.not_switched(_line(error, "switch refused")))
        except SwitchFailed as error:
            self._take(change.failed(_line(error, "switch failed")))
        except Exception as error:
            self._take(change.unsure(_line(error, late), time.monotonic()))
        else:
            try:
                live = await self._live()
            except SwitchFailed as error:
                self._take(change.failed(_line(error, "switch failed")))
            else:
                self._take(change.switched(live, time.monotonic()))

    async def _read(self) -> None:
        try:
            live = await self._live()
        except SwitchFailed as error:
            self._take(self.change.failed(_line(error, "switch failed")))
        else:
            self._take(self.change.found(live, time.monotonic()))

    async def _open(self, role: Role) -> None:
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._engine.open(role)
        except SwitchFailed as error:
            self._take(self.change.failed(_line(error, "cannot open")))
        except Exception as error:
            late = f"open did not return within {OPEN_WITHIN_S:g} s"
            self._take(self.change.not_opened(_line(error, late), time.monotonic()))
        else:
            self._take(self.change.opened())

    async def _left(self) -> int:
        """What keeps it from being drained; as long as that cannot be told, something."""
        left = await self._look("drained", self._engine.drained())
        return 1 if left is None else max(0, left)

    async def _live(self) -> Role | None:
        if not isinstance(self._engine, ReadsRole):
            return None
        return await self._look("live_role", self._engine.live_role(), SwitchFailed)

    async def _look(self, step: str, look: Awaitable[T], *through: type[Exception]) -> T | None:
        """What a look at the engine shows; None if it cannot be had. Only errors of the types named come through."""
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                return await look
        except through:
            raise
        except Exception as error:
            self._say(f"{step}: {_line(error, f'no answer within {LOOK_WITHIN_S:g} s')}")
            return None


def _line(error: Exception, late: str) -> str:
    """The error as one line; `late` stands for a timeout, which says nothing itself."""
    return " ".join((str(error) or (late if isinstance(error, TimeoutError) else type(error).__name__)).split())


def _words(progress: RoleProgress) -> str:
    left = f", {progress.requests_left} requests left" if progress.requests_left else ""
    problem = f": {progress.error}" if progress.error else ""
    mark = f"{progress.mark.epoch}.{progress.mark.seq}"
    return f"order {mark}: {progress.phase.value} as {progress.role.value}{left}{problem}"
