"""A world in which a controller can die at any moment: one simulated node with the real guard, the real core, a real
journal file, and a shell that stops at a chosen point."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from rapid.core.cluster import GpuHealth, GrantBatch, Greeting, Renewal
from rapid.core.commands import Command, SendGrants, SendRenewal
from rapid.core.control import Control
from rapid.core.events import BudgetAsked, Event, NodeHeard, PauseAsked, Ticked
from rapid.core.guard import Duty, Guard, GuardedGpu, GuardMemory, Persist, Write
from rapid.core.settings import Settings
from rapidctl.controller import codec
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.loop import LifeLimits, Loop
from rapidctl.controller.recover import recover
from rapidctl.controller.store import JournalFile, Life, Row
from tests.controller.fakes import SETTINGS, HandClock

CEILING_MW, FALLBACK_MW = 750_000, 600_000


class Killed(BaseException):
    """The process is no more. No handler for errors catches it."""


class Host:
    """n1 of fakes.SETTINGS. Its devices obey at once and draw 90 % of their limit, `peak_mw` is the most there was."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.limits_mw = {f"g{n}": FALLBACK_MW for n in range(4)}
        specs = [
            GuardedGpu(gpu, n, 400_000, CEILING_MW, FALLBACK_MW, FALLBACK_MW) for n, gpu in enumerate(self.limits_mw)
        ]
        self._guard = Guard(node="n1", incarnation="a", gpus=specs, memory=GuardMemory())
        self.peak_mw = 0
        self._perform(self._guard.begin(clock()))

    @property
    def sum_mw(self) -> int:
        return sum(self.limits_mw.values())

    def greet(self, greeting: Greeting) -> None:
        self._perform(self._guard.greet(greeting, self._clock()))

    def grant(self, batch: GrantBatch) -> None:
        self._perform(self._guard.grant(batch, self._clock()))

    def renew(self, renewal: Renewal) -> None:
        self._perform(self._guard.renew(renewal, self._clock()))

    def heard(self) -> NodeHeard:
        """A report, with a fresh sample of every device."""
        now_s = self._clock()
        for gpu, limit_mw in self.limits_mw.items():
            duties = self._guard.sampled(
                gpu,
                limit_mw=limit_mw,
                requested_mw=limit_mw,
                limit_at_s=now_s,
                draw_mw=limit_mw * 9 // 10,
                draw_at_s=now_s,
                energy_mj=None,
                problem="",
                health=GpuHealth.OK,
            )
            self._perform(duties)
        return NodeHeard(0.0, self._guard.report(now_s))

    def _perform(self, duties: Sequence[Duty]) -> None:
        for duty in duties:
            if isinstance(duty, Persist):
                self._guard.persisted(duty.memory)
            elif isinstance(duty, Write):
                self.limits_mw[duty.gpu] = duty.limit_mw
                self.peak_mw = max(self.peak_mw, self.sum_mw)
                self._perform(
                    self._guard.wrote(duty.gpu, duty.limit_mw, duty.limit_mw, "", GpuHealth.OK, self._clock())
                )


class Shell:
    """Everything around a Control, counting the points at which the process can die; it dies at number `kill_at`."""

    def __init__(
        self, host: Host, file: JournalFile, clock: HandClock, kill_at: int | None, settings: Settings
    ) -> None:
        self._host, self._file, self._kill_at = host, file, kill_at
        self.points = 0
        self.mind: _Mind
        self.performed: list[Command] = []
        self.entries = self.size_bytes = 0
        self.recovered = recover(file, Control)
        self.inbox = Inbox(clock, 64)
        before = self.recovered.life if self.recovered else None
        life = Life(before.epoch + 1 if before else 1, "c1", 0.0, "0", codec.encode(settings).decode())
        limits = LifeLimits(12, 2**30)
        self.loop = Loop(
            self.inbox, self, self, self, make=lambda: _Mind(self, settings), life=life, limits=limits, clock=clock
        )

    def point(self) -> None:
        """A moment at which the process may be killed."""
        self.points += 1
        if self.points == self._kill_at:
            raise Killed

    async def begin(self, life: Life, rows: Sequence[Row]) -> None:
        self.point()
        self._file.begin(life, rows)
        self.entries = len(rows)
        self.point()

    async def append(self, rows: Sequence[Row]) -> None:
        self.point()
        self._file.append(rows)
        self.entries += len(rows)
        self.point()

    def perform(self, command: Command) -> None:
        self.point()
        self.performed.append(command)
        if isinstance(command, SendGrants):
            self._host.grant(command.batch)
            assert self.mind.ledger.domain_held_mw("host") >= self._host.sum_mw, "more is in force than is booked"
        elif isinstance(command, SendRenewal):
            self._host.renew(command.renewal)

    def stepped(self, event: Event, took_s: float) -> None:
        """Durations are of no interest here."""

    def committed(self, took_s: float) -> None:
        """Likewise."""


class _Mind(Control):
    """The real core; the process may be killed before each of its steps."""

    def __init__(self, shell: Shell, settings: Settings) -> None:
        super().__init__(settings)
        self._shell = shell
        shell.mind = self

    def step(self, event: Event) -> list[Command]:
        self._shell.point()
        return super().step(event)


def story(host: Host) -> Iterator[list[Event]]:
    """What happens to a controller, half a second at a time: budgets are cut and raised while the node reports."""
    for moment in range(9):
        asked: list[Event] = []
        if moment == 2:
            asked = [BudgetAsked(0.0, "r1", "host", 1_800_000, False, "me")]
        if moment == 4:
            asked = [BudgetAsked(0.0, "r2", "host", 2_400_000, False, "me"), PauseAsked(0.0, "r3", False, "me")]
        if moment == 6:
            asked = [BudgetAsked(0.0, "r4", "host", 1_600_000, False, "me")]
        yield [host.heard(), *asked, Ticked(0.0)]


async def live(path: Path, host: Host, clock: HandClock, moments: Iterator[list[Event]], kill_at: int | None) -> Shell:
    """One process: begin from the journal, and live through the moments until they end or it is killed."""
    with closing(JournalFile(path, keep_lives=3)) as file:
        shell = Shell(host, file, clock, kill_at, SETTINGS)
        try:
            await shell.loop.begin(shell.recovered.snapshot if shell.recovered else None)
            assert shell.mind.ledger.domain_held_mw("host") >= host.sum_mw, "the next life books too little"
            host.greet(shell.loop.greeting)
            for events in moments:
                clock.now_s += 0.5
                for event in events:
                    await shell.inbox.put(event)
                await shell.loop.turn()
        except Killed:
            pass
    return shell
