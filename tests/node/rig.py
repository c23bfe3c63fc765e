"""An agent on scripted workers and a clock that the test moves: two GPUs of 100..700 W, fallback 400 W, at 700 W."""

import structlog
from structlog.testing import CapturingLogger

from rapid.core.cluster import GpuReport, GrantBatch, Greeting, Mark, Renewal
from rapid.core.errors import DeviceError
from rapid.core.guard import Guard, GuardedGpu, GuardMemory
from rapid.core.vigil import Vigil
from rapidd.agent import Agent
from rapidd.device.base import Holder, LimitReading, PowerReading
from rapidd.inbox import Inbox
from rapidd.load.push import LoadTable
from rapidd.talk import Talk
from rapidd.worker import HeldBy, Sampled, WriteDone

FLOOR_MW, FALLBACK_MW, CEILING_MW = 100_000, 400_000, 700_000
GPUS = ("GPU-a", "GPU-b")
INCARNATION = "1-life"  # the first start, and the word that the rig gives
CONTROLLER = "controller-a"


class ScriptedWorker:
    """Does its work at once unless it is held; obeys `GpuWorker`."""

    def __init__(self, gpu: str, rig: "Rig") -> None:
        self.gpu, self._rig = gpu, rig
        self.limit_mw, self.draw_mw = CEILING_MW, 90_000
        self.error: DeviceError | None = None
        self.clock_mhz: int | None = None
        self.held = False
        self.busy_since_s: float | None = None
        self.writes: list[int] = []
        self.holders: tuple[Holder, ...] = ()

    def submit_write(self, limit_mw: int) -> None:
        self.writes.append(limit_mw)
        if not self.held:
            self.finish_write()

    def finish_write(self) -> None:
        if self.error is None:
            self.limit_mw = self.writes[-1]
        done = WriteDone(self.gpu, self.writes[-1], self._reading(), self.error, self._rig.now_s)
        self._rig.inbox.deliver(done)

    def sample(self) -> None:
        """As it is done in every round."""
        if self.held:
            return
        at_s = self._rig.now_s
        power = None if self.error else PowerReading(self.draw_mw, 5_000, clock_mhz=self.clock_mhz)
        self._rig.inbox.deliver(Sampled(self.gpu, self._reading(), power, self.error, at_s, at_s))

    def submit_sample(self, *, clock: bool) -> None:
        self.sample()

    def find_holders(self) -> None:
        self._rig.inbox.deliver(HeldBy(self.gpu, self.holders))

    def _reading(self) -> LimitReading | None:
        return None if self.error else LimitReading(self.limit_mw, self.limit_mw)


class ScriptedMemory:
    """Keeps what it is given, or fails as told; obeys `Memory`."""

    def __init__(self) -> None:
        self.kept: list[GuardMemory] = []
        self.error: OSError | None = None

    async def save_memory(self, memory: GuardMemory) -> None:
        if self.error is not None:
            raise self.error
        self.kept.append(memory)


class Rig:
    """Make it inside of a test's event loop."""

    def __init__(
        self, memory: GuardMemory | None = None, hard_budget_mw: int | None = None, vigil: Vigil | None = None
    ) -> None:
        self.now_s = 1000.0
        self.inbox = Inbox(len(GPUS))
        self.workers = {gpu: ScriptedWorker(gpu, self) for gpu in GPUS}
        self.memory = ScriptedMemory()
        self.loads = LoadTable(4)
        self.lines = CapturingLogger()
        log = structlog.wrap_logger(self.lines, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
        specs = [
            GuardedGpu(gpu, index, FLOOR_MW, CEILING_MW, FALLBACK_MW, self.workers[gpu].limit_mw)
            for index, gpu in enumerate(GPUS)
        ]
        self.guard = Guard(
            node="node-1",
            incarnation="life",
            gpus=specs,
            memory=memory or GuardMemory(),
            hard_budget_mw=hard_budget_mw,
            vigil=vigil,
        )
        self.talk = Talk(log, self.clock)

    def begin(self) -> Agent:
        self.agent = Agent(
            self.guard,
            list(self.workers.values()),
            self.inbox,
            loads=self.loads,
            memory=self.memory,
            talk=self.talk,
            clock=self.clock,
        )
        return self.agent

    def clock(self) -> float:
        return self.now_s

    def turn(self, after_s: float = 0.0) -> float:
        """One turn of the loop after_s from now, then a sample of each GPU; how long it lets the loop sleep."""
        self.now_s += after_s
        sleeps_s = self.agent.turn() - self.now_s
        self.sample()
        return sleeps_s

    def sample(self) -> None:
        for worker in self.workers.values():
            worker.sample()

    async def lead(self, epoch: int = 1, controller_id: str = CONTROLLER) -> None:
        self.turn()
        await self.agent.greet(Greeting(epoch, controller_id))

    def grant(self, seq: int, limit_mw: int, *, lease_s: float = 5.0, epoch: int = 1) -> None:
        """The same limit for every GPU, and a turn to let it come into force."""
        limits_mw = tuple((gpu, limit_mw) for gpu in GPUS)
        mark = Mark(epoch, seq)
        self.agent.grant(
            GrantBatch("node-1", self.guard.incarnation, CONTROLLER, mark, self.now_s + lease_s, limits_mw)
        )
        self.turn()

    def renew(self, *, lease_s: float = 5.0, epoch: int = 1) -> None:
        self.agent.renew(Renewal("node-1", self.guard.incarnation, CONTROLLER, epoch, self.now_s + lease_s))

    def limits_mw(self) -> tuple[int, ...]:
        """What is in force on the devices."""
        return tuple(worker.limit_mw for worker in self.workers.values())

    def gpu(self, index: int = 0) -> GpuReport:
        return self.agent.report().gpus[index]

    def logged(self, event: str) -> list[str]:
        """The details of the lines with this event."""
        return [call.kwargs["detail"] for call in self.lines.calls if call.kwargs["event"] == event]
