"""Carries out a role change: what core.role_change says must be done, the engine's own four steps do."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from rapid.core.cluster import Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.reconcile import Adopt, Back, Lost, PutBack, Renew, TakeOut, words
from rapid.core.role_change import Close, Duty, Open, ReadRole, RoleChange, Switch, Tell
from rapid.engine.author import Engine, NotSwitched, ReadsRole, Reconciles, SeesOthers, ServesOn, SwitchFailed
from rapid.engine.keeper import Keeper
from rapid.engine.link import Say
from rapid.engine.looks import LOOK_WITHIN_S, line, look
from rapid.wire.engine import Welcome

POLL_S = 0.02  # how often a draining engine is asked what is left
OPEN_WITHIN_S = 60.0  # for one attempt to open (assumed)
MAX_ORDERS = 16  # that wait while the engine is busy; of more, the oldest is dropped, and will come again


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
        self._open_still = False  # the change under way was begun without closing the engine
        self._in_the_way = ""  # why the last look at what is left showed nothing
        self._keeper = Keeper(engine, change, self._woken.set) if isinstance(engine, Reconciles) else None

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
        async with asyncio.TaskGroup() as tasks:
            if self._keeper is not None:
                tasks.create_task(self._keeper.run())
            await self._drive()

    # ---- inside ----

    async def _drive(self) -> None:
        while True:
            await self._wait()
            while self._duties:
                self._stepped()
                await self._perform(self._duties.popleft())
            if self._orders:
                self._stepped()
                await self._obey(self._orders.popleft())
            elif self.change.phase is Phase.DRAINING:
                left, why = await self._left()
                self._take(self.change.left(left, time.monotonic(), why))
            self._take(self.change.tick(time.monotonic()))
            await self._keep()

    def _stepped(self) -> None:
        if self._keeper is not None:
            self._keeper.stepped()

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
        others = None
        if isinstance(self._engine, SeesOthers):
            others, problem = await look(self._engine.others())
            self._note("others", problem)
        left, at_s = (await self._left())[0], time.monotonic()
        held = self._keeper.refusal(at_s) if self._keeper else ""
        self._take(self.change.order(order, requests_left=left, at_s=at_s, others=others, held=held))
        if self._open_still and self.change.phase is Phase.DRAINING and not self._serves_on():
            self._duties.appendleft(Close())  # it did not need to be closed for the order before this one

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

    async def _keep(self) -> None:
        """Put right what was noticed, if there is nothing else to do."""
        keeper, change = self._keeper, self.change
        if keeper is None or self._duties or self._orders:
            return
        remedy = keeper.remedy()
        if remedy is not None:
            what, error = words(remedy), ""
            self._say(f"noticed: {what}")
            match remedy:
                case Adopt(role):
                    self._take(change.adopt(role, what))
                case Back(role):
                    self._take(change.back(role, what))
                case Lost():
                    self._take(change.lost(what))
                case PutBack() | Renew() | TakeOut():
                    if not (error := await self._repair(remedy)):
                        self._take(change.noticed(f"{what}; that was put right", ""))
            keeper.done(remedy, time.monotonic(), error)
        if change.adjustable and change.phase is not Phase.FAILED:
            self._take(change.noticed("", keeper.trouble))

    async def _repair(self, remedy: PutBack | Renew | TakeOut) -> str:
        """With the steps of a role change; why it did not work, or nothing."""
        self._stepped()
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                if not isinstance(remedy, PutBack):
                    await self._engine.close()
                if not isinstance(remedy, TakeOut):
                    await self._engine.open(remedy.role)
        except Exception as error:
            return line(error, f"not within {OPEN_WITHIN_S:g} s")
        finally:
            self._stepped()
        return ""

    def _serves_on(self) -> bool:
        return isinstance(self._engine, ServesOn) and not self.change.parking and self._engine.serves_on()

    async def _close(self) -> None:
        self._open_still = self._serves_on()
        if self._open_still:
            return
        due_s = self.change.next_deadline_s
        within_s = LOOK_WITHIN_S if due_s is None else due_s - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._engine.close()
        except Exception as error:
            self._take(self.change.not_closed(line(error, f"close did not return within {within_s:.1f} s")))

    async def _switch(self, role: Role) -> None:
        if self._keeper is not None:
            self._keeper.changed()
        change, late = self.change, f"switch did not return within {self._switch_within_s:g} s"
        try:
            async with asyncio.timeout(self._switch_within_s):
                await self._engine.switch(role)
        except NotSwitched as error:
            self._take(change.not_switched(line(error, "switch refused")))
        except SwitchFailed as error:
            self._take(change.failed(line(error, "switch failed")))
        except Exception as error:
            self._take(change.unsure(line(error, late), time.monotonic()))
        else:
            try:
                live = await self._live()
            except SwitchFailed as error:
                self._take(change.failed(line(error, "switch failed")))
            else:
                self._take(change.switched(live, time.monotonic()))

    async def _read(self) -> None:
        try:
            live = await self._live()
        except SwitchFailed as error:
            self._take(self.change.failed(line(error, "switch failed")))
        else:
            self._take(self.change.found(live, time.monotonic()))

    async def _open(self, role: Role) -> None:
        self._open_still = False
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._engine.open(role)
        except SwitchFailed as error:
            self._take(self.change.failed(line(error, "cannot open")))
        except Exception as error:
            late = f"open did not return within {OPEN_WITHIN_S:g} s"
            self._take(self.change.not_opened(line(error, late), time.monotonic()))
        else:
            self._take(self.change.opened())

    async def _left(self) -> tuple[int, str]:
        """What keeps it from being drained, as long as that cannot be told, something; and what was said of it."""
        if self._serves_on():
            return 0, ""
        left, why = await look(self._engine.drained())
        if why != self._in_the_way:
            self._in_the_way = why
            self._note("drained", why)
        return (1, why) if left is None else (max(0, left), "")

    async def _live(self) -> Role | None:
        if not isinstance(self._engine, ReadsRole):
            return None
        live, problem = await look(self._engine.live_role(), SwitchFailed)
        self._note("live_role", problem)
        return live

    def _note(self, step: str, problem: str) -> None:
        if problem:
            self._say(f"{step}: {problem}")


def _words(progress: RoleProgress) -> str:
    left = f", {progress.requests_left} requests left" if progress.requests_left else ""
    problem = "".join(f": {each}" for each in (progress.noticed, progress.error) if each)
    mark = f"{progress.mark.epoch}.{progress.mark.seq}"
    return f"order {mark}: {progress.phase.value} as {progress.role.value}{left}{problem}"
