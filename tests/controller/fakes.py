"""Stand-ins that obey the controller's protocols: a hand-moved clock, a mind with a script, a journal in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import (
    Decision,
    Domain,
    EngineHello,
    GpuReport,
    Greeting,
    Mark,
    NodeReport,
    NodeSpec,
    Role,
    SloTargets,
)
from rapid.core.commands import Command
from rapid.core.events import ControlSnapshot, Event, Started
from rapid.core.settings import Settings
from rapid.core.status import SloStatus, Status
from rapidctl.controller.damage import JournalFailed
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.loop import LifeLimits, Loop
from rapidctl.controller.store import Life, Row

LIFE = Life(epoch=3, controller_id="c1", started_wall_s=1000.0, version="0", settings="{}")
SETTINGS = Settings(
    domains=(Domain("host", 2_400_000),),
    nodes=(NodeSpec("n1", "host", 4, 400_000, 750_000, 600_000),),
    policy="uniform",
)
SNAPSHOT = ControlSnapshot(LedgerSnapshot(Mark(), (), ()), (), (), (), False, 0)


class HandClock:
    """Time that stands still until the test moves it."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@dataclass
class FakeBrain:
    """Keeps the events it was given and answers with what the script says."""

    script: Callable[[Event], list[Command]] = lambda event: []
    events: list[Event] = field(default_factory=list)
    pictures: int = 0

    def step(self, event: Event) -> list[Command]:
        self.events.append(event)
        return self.script(event)

    def status(self, at_s: float) -> Status:
        self.pictures += 1
        slo = SloStatus(SloTargets(), None, None, None, None, 0)
        return Status(at_s, 0.0, 3, "c1", "uniform", False, (), (), (), slo, 0, 0, None)

    def plan(self) -> Decision:
        return Decision("plan", 100.0, 1000.0, "uniform", "why")

    def snapshot(self) -> ControlSnapshot:
        return SNAPSHOT

    @property
    def greeting(self) -> Greeting:
        started = next(event for event in self.events if isinstance(event, Started))
        return Greeting(started.epoch, started.controller_id)


@dataclass
class MemoryJournal:
    """Lives in memory: the rows of each. Set `fails` and nothing more is written."""

    lives: list[tuple[Life, list[Row]]] = field(default_factory=list)
    fails: bool = False

    @property
    def entries(self) -> int:
        return len(self.lives[-1][1])

    @property
    def size_bytes(self) -> int:
        return sum(len(row.event) + len(row.commands) for row in self.lives[-1][1])

    async def begin(self, life: Life, rows: Sequence[Row]) -> None:
        self._check()
        self.lives.append((life, list(rows)))

    async def append(self, rows: Sequence[Row]) -> None:
        self._check()
        self.lives[-1][1].extend(rows)

    def _check(self) -> None:
        if self.fails:
            raise JournalFailed("journal memory: database or disk is full; free space")

    @property
    def kinds(self) -> list[str]:
        return [row.kind for _, rows in self.lives for row in rows]


@dataclass
class Recorder:
    """A performer and a meter that write everything down."""

    performed: list[Command] = field(default_factory=list)
    steps: int = 0
    commits: int = 0

    def perform(self, command: Command) -> None:
        self.performed.append(command)

    def stepped(self, event: Event, took_s: float) -> None:
        assert took_s >= 0
        self.steps += 1

    def committed(self, took_s: float) -> None:
        assert took_s >= 0
        self.commits += 1


@dataclass
class Rig:
    """A loop with everything around it faked; brains in the order in which the loop made them."""

    script: Callable[[Event], list[Command]] = lambda event: []
    limits: LifeLimits = LifeLimits(10_000, 2**30)
    queue: int = 8

    def __post_init__(self) -> None:
        self.clock = HandClock()
        self.inbox = Inbox(self.clock, self.queue)
        self.journal = MemoryJournal()
        self.recorder = Recorder()
        self.brains: list[FakeBrain] = []
        self.loop = Loop(
            self.inbox,
            self.journal,
            self.recorder,
            self.recorder,
            make=self._make,
            life=LIFE,
            limits=self.limits,
            clock=self.clock,
        )

    def _make(self) -> FakeBrain:
        self.brains.append(FakeBrain(self.script))
        return self.brains[-1]

    @property
    def brain(self) -> FakeBrain:
        return self.brains[-1]


def report(node: str = "n1", seq: int = 1, incarnation: str = "1-a", gpus: int = 1) -> NodeReport:
    """A report of a node whose GPUs stand at their fallback."""
    shown = tuple(
        GpuReport(f"{node}-g{n}", n, 400_000, 750_000, 600_000, 600_000, 0.0, 600_000, True, 300_000, 1.0)
        for n in range(gpus)
    )
    return NodeReport(node, incarnation, seq, float(seq), Mark(), 0.0, shown)


def hello(instance: str = "e1", incarnation: str = "i1", role: Role = Role.PREFILL) -> EngineHello:
    """An engine on the first GPU of n1 that can take both roles."""
    return EngineHello(instance, incarnation, "n1", ("n1-g0",), role, (Role.PREFILL, Role.DECODE), engine_time_s=5.0)
