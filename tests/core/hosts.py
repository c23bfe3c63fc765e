"""A host for the stories of these tests: a real guard, and devices that do what they are told, or fail as a story
needs it. What the guard asks for is kept as words, so that a test reads like a transcript.

A host begins with all its GPUs landed and sampled unless it is told otherwise. Limits are given in watts: `400 * W`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rapid.core.cluster import GpuHealth, GrantBatch, Greeting, Mark, NodeReport, PhaseLoad, Renewal
from rapid.core.drift import FenceSettings
from rapid.core.errors import watts
from rapid.core.guard import Duty, FindHolders, Guard, GuardedGpu, GuardMemory, Persist, ReportSoon, Say, Write
from rapid.core.vigil import Vigil

W = 1_000  # milliwatts
FLOOR, FALLBACK, CEILING = 100 * W, 400 * W, 700 * W
LAG_S = 0.2  # until the draw has followed a lower limit
TAKES_S = 0.001  # how long a device takes for a write or a reading


@dataclass(slots=True)
class Device:
    """A GPU that draws all it may: more at once, less only LAG_S after a cut."""

    limit_mw: int
    draw_mw: int = 0
    cut_s: float = float("-inf")
    step_mw: int = 1  # the driver rounds a limit down to a multiple of it
    denies: bool = False
    mute: bool = False  # takes a limit, but cannot be read
    greedy_mw: int = 0  # draws at least this, whatever its limit says
    tells: bool = False  # also which limit it was asked for
    asked_mw: int = 0
    outside_mw: int = 10**9  # a BMC holds it to this
    energy_mj: float | None = None  # None: it has no counter
    metered_s: float = 0.0

    def __post_init__(self) -> None:
        self.draw_mw = max(self.draw_mw, self.limit_mw)
        self.asked_mw = self.limit_mw

    def enforce(self, limit_mw: int, at_s: float) -> None:
        self.asked_mw = limit_mw
        limit_mw = min(limit_mw, self.outside_mw)
        if limit_mw < self.limit_mw:
            self.cut_s = at_s
        self.limit_mw = limit_mw
        self.draw_mw = max(self.draw_mw, limit_mw, self.greedy_mw)

    @property
    def requested_mw(self) -> int | None:
        return self.asked_mw if self.tells else None

    def hold(self, outside_mw: int, at_s: float) -> None:
        """A BMC holds it to this from now on."""
        self.outside_mw = outside_mw
        self.enforce(self.asked_mw, at_s)

    def reload(self, limit_mw: int, at_s: float) -> None:
        """The driver was loaded anew: the limit is the factory's, the energy counter begins at zero."""
        self.enforce(limit_mw, at_s)
        self.energy_mj = 0.0

    def meter(self, at_s: float) -> int | None:
        """The energy counter, which counts what is drawn since it was last asked."""
        if self.energy_mj is not None:
            self.energy_mj += self.draw_mw * (at_s - self.metered_s)
        self.metered_s = at_s
        return None if self.energy_mj is None else int(self.energy_mj)

    def follow(self, at_s: float) -> None:
        if at_s - self.cut_s >= LAG_S:
            self.draw_mw = max(self.limit_mw, self.greedy_mw)

    @property
    def most_mw(self) -> int:
        """What it takes from its domain now, at worst."""
        return max(self.limit_mw, self.draw_mw)


@dataclass
class Host:
    """One rapidd on its own clock `now`. `words` are all the duties so far."""

    limits_mw: Mapping[str, int] = field(default_factory=lambda: {"g0": FALLBACK, "g1": FALLBACK})
    name: str = "n1"
    now: float = 100.0
    floor_mw: int = FLOOR
    fallback_mw: int = FALLBACK
    ceiling_mw: int = CEILING
    hard_budget_mw: int | None = None
    disk: GuardMemory = field(default_factory=GuardMemory)
    guard_class: type[Guard] = Guard
    fence: FenceSettings = FenceSettings()
    vigil: Vigil | None = None
    unmanageable: Mapping[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = {gpu: Device(limit_mw) for gpu, limit_mw in self.limits_mw.items()}
        self.soon = False  # the guard wants to be heard now
        self._answered: list[str] = []
        self.begun = self.boot()

    def boot(self, unread: Iterable[str] = ()) -> list[str]:
        """Start rapidd, again perhaps; the devices keep what they have. What it asks for first."""
        self.writes: dict[str, Write] = {}
        gpus = [
            GuardedGpu(
                gpu,
                index,
                self.floor_mw,
                self.ceiling_mw,
                self.fallback_mw,
                None if gpu in unread else device.limit_mw,
                self.unmanageable.get(gpu, ""),
            )
            for index, (gpu, device) in enumerate(self.devices.items())
        ]
        self.guard = self.guard_class(
            node=self.name,
            incarnation="life",
            gpus=gpus,
            memory=self.disk,
            hard_budget_mw=self.hard_budget_mw,
            fence=self.fence,
            vigil=self.vigil,
        )
        return self.do(self.guard.begin(self.now))

    # ---- what happens to it ----

    def find(self, gpu: str, limit_mw: int, unmanageable: str = "") -> list[str]:
        """A GPU comes that was dead when rapidd started, at this limit."""
        self.devices[gpu] = Device(limit_mw)
        index = len(self.devices) - 1
        spec = GuardedGpu(gpu, index, self.floor_mw, self.ceiling_mw, self.fallback_mw, None, unmanageable)
        return self.do(self.guard.add(spec, self.now))

    def greet(self, epoch: int = 1, controller_id: str = "c") -> list[str]:
        return self.do(self.guard.greet(Greeting(epoch, controller_id), self.now))

    def grant(
        self,
        seq: int,
        limits_mw: Mapping[str, int],
        *,
        epoch: int = 1,
        by: str = "c",
        lease_s: float = 5.0,
        incarnation: str | None = None,
    ) -> list[str]:
        incarnation = self.guard.incarnation if incarnation is None else incarnation
        limits = tuple(limits_mw.items())
        return self.hear(GrantBatch(self.name, incarnation, by, Mark(epoch, seq), self.now + lease_s, limits))

    def renew(self, *, epoch: int = 1, by: str = "c", lease_s: float = 5.0) -> list[str]:
        return self.hear(Renewal(self.name, self.guard.incarnation, by, epoch, self.now + lease_s))

    def hear(self, message: Greeting | GrantBatch | Renewal) -> list[str]:
        match message:
            case Greeting():
                return self.do(self.guard.greet(message, self.now))
            case GrantBatch():
                return self.do(self.guard.grant(message, self.now))
            case Renewal():
                return self.do(self.guard.renew(message, self.now))

    def stop(self) -> list[str]:
        return self.do(self.guard.stop(self.now))

    def wait(self, seconds: float) -> list[str]:
        """Time passes on the node, and the daemon looks at its clock."""
        self.now += seconds
        for device in self.devices.values():
            device.follow(self.now)
        return self.do(self.guard.tick(self.now))

    # ---- what it does ----

    def do(self, duties: Iterable[Duty]) -> list[str]:
        """Perform the duties: the disk works at once, a write waits for finish()."""
        said: list[str] = []
        for duty in duties:
            said.append(in_words(duty))
            match duty:
                case Persist(memory):
                    self.disk = memory
                    self.guard.persisted(memory)
                case Write(gpu):
                    assert gpu not in self.writes, f"two writes of {gpu} at once"
                    self.writes[gpu] = duty
                case ReportSoon():
                    self.soon = True
                case Say() | FindHolders():
                    pass
        self.words += said
        return said

    def finish(self, gpu: str | None = None) -> list[str]:
        """The devices do what was asked of them, once: all of them, or one."""
        said: list[str] = []
        for write in [self.writes[gpu]] if gpu else list(self.writes.values()):
            device = self.devices[write.gpu]
            self.now += TAKES_S
            problem, health = "", GpuHealth.OK
            if device.denies:
                problem, health = f"gpu {write.gpu}: no permission to set a limit", GpuHealth.DENIED
            else:
                device.enforce(write.limit_mw // device.step_mw * device.step_mw, self.now)
            if device.mute:
                problem, health = f"gpu {write.gpu}: does not answer", GpuHealth.LOST
            del self.writes[write.gpu]
            limit_mw = None if device.mute else device.limit_mw
            requested_mw = None if device.mute else device.requested_mw
            done = (write.gpu, write.limit_mw, limit_mw, problem, health, self.now, requested_mw)
            said += self.do(self.guard.wrote(*done))
        return said

    def sample(self, *gpus: str) -> list[str]:
        """Read the devices, all or some; one that is being written is left alone, as its worker would."""
        said: list[str] = []
        for gpu in gpus or tuple(self.devices):
            device = self.devices[gpu]
            if gpu in self.writes:
                continue
            self.now += TAKES_S
            duties = self.guard.sampled(
                gpu,
                limit_mw=None if device.mute else device.limit_mw,
                requested_mw=None if device.mute else device.requested_mw,
                limit_at_s=self.now,
                draw_mw=None if device.mute else device.draw_mw,
                draw_at_s=self.now,
                energy_mj=None if device.mute else device.meter(self.now),
                problem=f"gpu {gpu}: does not answer" if device.mute else "",
                health=GpuHealth.LOST if device.mute else GpuHealth.OK,
            )
            said += self.do(duties)
        return said

    def settle(self) -> None:
        """Nothing is left to do: writes are done, draws have come down, and all has been read."""
        for _ in range(4):
            self.finish()
        self.wait(LAG_S)
        self.sample()
        assert not self.writes, f"{self.name} does not come to rest: {self.writes}"

    def report(self, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        self.soon = False
        report = self.guard.report(self.now, loads)
        self._answered += [
            f"{answer.mark.epoch}.{answer.mark.seq} {answer.gpu or 'all'} {answer.verdict}"
            + (f": {answer.detail}" if answer.detail else "")
            for answer in report.answers
        ]
        return report

    # ---- what can be seen ----

    def answers(self) -> list[str]:
        """What became of the grants, as the reports since the last look say it."""
        self.report()
        answered, self._answered = self._answered, []
        return answered

    def shown(self, gpu: str = "g0") -> str:
        """One GPU as the next report shows it."""
        one = next(each for each in self.report().gpus if each.gpu == gpu)
        ill = "" if one.health is GpuHealth.OK else f", {one.health.value}: {one.problem}"
        return f"{watts(one.limit_mw)} of {watts(one.grant_mw)}{' void' if one.void else ''}{ill}"

    @property
    def most_mw(self) -> int:
        """What all its GPUs take at worst: now, or when they come back up by themselves to a grant in force."""
        grants_mw = {gpu: 0 if one.void else one.grant_mw for gpu, one in self.guard._gpus.items()}
        return sum(max(device.most_mw, grants_mw[gpu]) for gpu, device in self.devices.items())

    def limit_mw(self, gpu: str = "g0") -> int:
        return self.devices[gpu].limit_mw


def in_words(duty: Duty) -> str:
    match duty:
        case Persist(memory):
            return f"persist epoch {memory.epoch} of {memory.controller_id}, start {memory.starts}"
        case Write(gpu, limit_mw):
            return f"write {gpu} {watts(limit_mw)}"
        case Say(level, event, about, detail):
            return f"{level}: {event} {about}: {detail}"
        case FindHolders(gpu):
            return f"who holds {gpu}"
        case ReportSoon():
            return "report soon"


def landed(**options: object) -> Host:
    """A host that has come up."""
    host = Host(**options)  # type: ignore[arg-type]
    host.settle()
    return host


def greeted(**options: object) -> Host:
    """A host that has come up and knows controller c in epoch 1."""
    host = landed(**options)
    host.greet()
    return host
