"""Drives the guard: brings it what devices, controller and clock say, and performs the duties that come back, in order.

No decision about watts is made here. The enforcement loop turns whenever workers have news, when a lease ends, before
each report, and at least every TURN_S. Everything but the workers runs on one event loop, and nothing awaits in the
middle of a change.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rapid.core.cluster import GpuHealth, GrantAnswer, GrantBatch, Greeting, NodeReport, Renewal
from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost, DeviceMismatch, LimitRefused, RapidError
from rapid.core.guard import Duty, FindHolders, Guard, GuardedGpu, GuardMemory, Persist, ReportSoon, Say, Write
from rapidd.device.base import Device, DeviceEvent, Holder
from rapidd.inbox import Inbox
from rapidd.load.push import LoadTable, Looks
from rapidd.talk import Talk
from rapidd.worker import Event, HeldBy, Sampled, WriteDone

# The longest pause between two turns, and the longest within EAGER_S after a write or while a driver hangs. What cannot
# wait wakes the loop: a lease that ends, a limit that moved, a draw that may be too much, a write that was read back. A
# turn comes with every report; where those come twice a second there is none between them.
TURN_S, SOON_S = 0.6, 0.1
STUCK_S = 2.0  # assumed: a driver call that takes longer hangs
FIRST_READ_S = 2.0  # at start, how long the others wait for a driver that does not say which limit is in force
LAND_S = 3.0  # on the way out, how long to wait until every GPU has read back its fallback
EAGER_S = 1.0  # after a write, for how long samples are handled at once: they show that a cut has been obeyed
SHOW_S = 1.0  # how old the snapshot may become while no controller asks for reports
_ANSWERS_MAX = 4096  # as in one report; the oldest are forgotten first


class GpuWorker(Protocol):
    """What the agent asks of the one who makes all calls to a GPU: rapidd.worker.Worker."""

    @property
    def gpu(self) -> str: ...

    @property
    def busy_since_s(self) -> float | None: ...

    def submit_write(self, limit_mw: int) -> None: ...

    def submit_sample(self, *, clock: bool) -> None: ...

    def find_holders(self) -> None: ...


class Memory(Protocol):
    """Where what the guard remembers is kept: rapidd.state.State."""

    async def save_memory(self, memory: GuardMemory) -> None:
        """Return when it is on disk; raise OSError when it is not."""


# Who makes the calls to a device from now on, and what the guard is told of it; None: it is left alone.
Adopt = Callable[[Device], tuple[GpuWorker, GuardedGpu] | None]


@dataclass(frozen=True, slots=True)
class GpuCounts:
    """What this daemon has done to one GPU since it started."""

    writes: int = 0
    failures: int = 0
    mismatches: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The node at one moment, for whoever shows it; replaced whole and never changed, so any thread may read it."""

    report: NodeReport
    counts: Mapping[str, GpuCounts]
    looks: Mapping[str, Looks]
    reports_sent: int
    streams: int
    ready: bool


class Agent:
    """Enforces on the workers' GPUs what the guard asks for. `clock` is the node's monotonic time in seconds; `rescue`
    sees to it that a GPU whose driver hangs holds up no sample of others, and says whether there is one; `adopt` is
    asked when a GPU comes that was not there at the start."""

    def __init__(
        self,
        guard: Guard,
        workers: Sequence[GpuWorker],
        inbox: Inbox,
        *,
        loads: LoadTable,
        memory: Memory,
        talk: Talk,
        clock: Callable[[], float],
        rescue: Callable[[], bool] = lambda: False,
        adopt: Adopt = lambda device: None,
    ) -> None:
        self.ready = asyncio.Event()
        self._guard, self._inbox, self._loads, self._memory, self._talk = guard, inbox, loads, memory, talk
        self._workers = {worker.gpu: worker for worker in workers}
        self._clock, self._rescue, self._adopt = clock, rescue, adopt
        self._calm_at_s = clock() + EAGER_S
        self._land_by_s: float | None = None
        self._mistake: Exception | None = None
        self._over: asyncio.Future[bool] | None = None  # while the loop turns
        self._pet: Callable[[], None] = lambda: None
        self._alarm: asyncio.TimerHandle | None = None
        self._greeting = asyncio.Lock()
        self._listeners: set[asyncio.Event] = set()
        self._unsaid: deque[GrantAnswer] = deque(maxlen=_ANSWERS_MAX)
        self._counts = dict.fromkeys(self._workers, GpuCounts())
        self._health = dict.fromkeys(self._workers, GpuHealth.OK)
        self._reports_sent = 0
        self._perform(guard.begin(clock()))
        self.snapshot = self._look(clock())

    # ---- the enforcement loop ----

    async def run(self, pet: Callable[[], None]) -> bool:
        """Enforce until `stop` has landed the node; whether every GPU has read back its fallback by then.

        `pet` is called in every turn: a watchdog that watches anything else would miss a loop that hangs.
        """
        self._over, self._pet = asyncio.get_running_loop().create_future(), pet
        self._inbox.call(self._go)
        self._go()
        try:
            return await self._over
        finally:
            self._inbox.call(lambda: None)
            if self._alarm is not None:
                self._alarm.cancel()

    def _go(self) -> None:
        """One turn, and the alarm for the next: plain calls, since to resume a task would be another round of the event
        loop for each turn."""
        if self._over is None or self._over.done():
            return
        try:
            wake_at_s = self.turn()
            self._pet()
            if self._mistake is not None:
                raise self._mistake
        except Exception as mistake:
            self._over.set_exception(mistake)
            return
        if self._land_by_s is not None and (self._landed() or self._clock() >= self._land_by_s):
            self._over.set_result(self._landed())
            return
        if self._alarm is not None:
            self._alarm.cancel()
        pause_s = max(0.0, wake_at_s - self._clock())
        self._alarm = asyncio.get_running_loop().call_later(pause_s, self._go)

    def turn(self) -> float:
        """Take what workers delivered and look at the clock; when to turn again at the latest."""
        for event in self._inbox.take():
            self._perform(self._heard(event))
        at_s = self._clock()
        self._perform(self._guard.tick(at_s))
        self._watch(at_s)
        eager = at_s < self._calm_at_s
        soon = self._rescue() or eager
        self._inbox.eager, self._inbox.alarms_mw = eager, self._guard.alarms_mw()
        if at_s - self.snapshot.report.node_time_s >= SHOW_S:
            self.snapshot = self._look(at_s)
        if self._guard.ready:
            self.ready.set()
        deadline_s, turn_s = self._guard.next_deadline_s(), at_s + (SOON_S if soon else TURN_S)
        return turn_s if deadline_s is None else min(turn_s, deadline_s)

    def stop(self) -> None:
        """Give every grant up and go down; `run` returns when that is done, or after LAND_S."""
        at_s = self._clock()
        self._land_by_s = at_s + LAND_S
        self._perform(self._guard.stop(at_s))
        self._inbox.wake()

    def _landed(self) -> bool:
        return not self._guard.aloft

    # ---- what the controller says; called on the event loop ----

    async def greet(self, greeting: Greeting) -> None:
        """Take the controller's epoch when it is on disk. Raises Stale, or OSError when the disk does not take it."""
        async with self._greeting:
            with self._mistakes_end_the_daemon():
                duties = self._guard.greet(greeting, self._clock())
            for duty in duties:
                if isinstance(duty, Persist):
                    await self._memory.save_memory(duty.memory)
                    self._guard.persisted(duty.memory)
                else:
                    self._perform([duty])

    def grant(self, batch: GrantBatch) -> None:
        with self._mistakes_end_the_daemon():
            self._perform(self._guard.grant(batch, self._clock()))

    def renew(self, renewal: Renewal) -> None:
        with self._mistakes_end_the_daemon():
            self._perform(self._guard.renew(renewal, self._clock()))

    def report(self) -> NodeReport:
        """The node now, with every answer that no report has carried yet; the next report will not have them."""
        self._go()
        at_s = self._clock()
        with self._mistakes_end_the_daemon():
            report = self._loaded(self._guard.report(at_s, self._loads.fresh(at_s)))
        if self._unsaid:
            report = replace(report, answers=(*self._unsaid, *report.answers)[-_ANSWERS_MAX:])
            self._unsaid.clear()
        self._reports_sent += 1
        self.snapshot = self._show(report)
        return report

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever the controller should hear a report now; the listener clears it."""
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            yield news
        finally:
            self._listeners.discard(news)

    @property
    def unlanded(self) -> tuple[str, ...]:
        """The GPUs that stand between this node and being ready."""
        return self._guard.unlanded

    def unfence(self) -> None:
        """An operator says that whoever fought for a limit is gone."""
        self._perform(self._guard.unfence(self._clock()))

    # ---- what devices say ----

    def _heard(self, event: Event) -> list[Duty]:
        match event:
            case WriteDone():
                return self._wrote(event)
            case Sampled():
                return self._sampled(event)
            case HeldBy(gpu, holders):
                return self._guard.suspects(gpu, [_who(holder) for holder in holders])
            case DeviceEvent(gpu, kind, code, detail, device):
                if device is not None:
                    return self._found(device)
                return self._guard.happened(gpu, kind, code, detail, self._clock())

    def _found(self, device: Device) -> list[Duty]:
        """A GPU that was dead when this daemon started has come."""
        adopted = self._adopt(device)
        if adopted is None:
            return []
        worker, spec = adopted
        self._workers[spec.gpu], self._counts[spec.gpu], self._health[spec.gpu] = worker, GpuCounts(), GpuHealth.OK
        self._inbox.expect_one_more()
        say = Say("info", "gpu found", spec.gpu, "it did not answer when rapidd started; it goes to its floor first")
        return [say, *self._guard.add(spec, self._clock())]

    def _wrote(self, done: WriteDone) -> list[Duty]:
        self._calm_at_s = done.at_s + EAGER_S
        error, counts = done.error, self._counts[done.gpu]
        self._counts[done.gpu] = GpuCounts(
            counts.writes + 1,
            counts.failures + (error is not None),
            counts.mismatches + isinstance(error, DeviceMismatch),
        )
        limit_mw, requested_mw = (
            (None, None) if done.reading is None else (done.reading.enforced_mw, done.reading.requested_mw)
        )
        problem, health = ("", GpuHealth.OK) if error is None else (str(error), _health(error, lost=limit_mw is None))
        return self._guard.wrote(done.gpu, done.asked_mw, limit_mw, problem, health, done.at_s, requested_mw)

    def _sampled(self, sample: Sampled) -> list[Duty]:
        limit, power, error = sample.limit, sample.power, sample.error
        problem, health = ("", GpuHealth.OK) if error is None else (str(error), _health(error, lost=limit is None))
        self._note(sample.gpu, health, problem)
        return self._guard.sampled(
            sample.gpu,
            limit_mw=None if limit is None else limit.enforced_mw,
            requested_mw=None if limit is None else limit.requested_mw,
            limit_at_s=sample.limit_at_s,
            draw_mw=None if power is None else power.draw_mw,
            draw_at_s=sample.power_at_s,
            energy_mj=None if power is None else power.energy_mj,
            problem=problem,
            health=health,
            clock_mhz=None if power is None else power.clock_mhz,
            slowdown=None if power is None else power.slowdown,
        )

    def _watch(self, at_s: float) -> None:
        """A call that does not come back delivers nothing, so its GPU is reported lost from here."""
        for worker in self._workers.values():
            since_s = worker.busy_since_s
            if since_s is None or at_s - since_s < STUCK_S:
                continue
            hanging = DeviceLost(worker.gpu, f"the driver has not answered for {at_s - since_s:.0f} s")
            self._perform(self._sampled(Sampled(worker.gpu, None, None, hanging, at_s, at_s)))

    # ---- inside ----

    def _perform(self, duties: Sequence[Duty]) -> None:
        for duty in duties:
            match duty:
                case Write(gpu, limit_mw):
                    self._workers[gpu].submit_write(limit_mw)
                case FindHolders(gpu):
                    self._workers[gpu].find_holders()
                case Say(level, event, about, detail):
                    self._talk.say(level, event, about, detail)
                case ReportSoon():
                    for news in self._listeners:
                        news.set()
                case Persist():
                    raise AssertionError(f"only a greeting may change what is on disk: {duty}")

    def _look(self, at_s: float) -> Snapshot:
        """A snapshot outside of reporting; the answers wait for the next report."""
        report = self._loaded(self._guard.report(at_s, self._loads.fresh(at_s)))
        self._unsaid.extend(report.answers)
        return self._show(report)

    def _loaded(self, report: NodeReport) -> NodeReport:
        """The report, and what is wrong with loads."""
        problems = self._loads.problems()
        return replace(report, load_problems=problems) if problems else report

    def _show(self, report: NodeReport) -> Snapshot:
        counts, looks = dict(self._counts), self._loads.looks()
        return Snapshot(report, counts, looks, self._reports_sent, len(self._listeners), self._guard.ready)

    def _note(self, gpu: str, health: GpuHealth, problem: str) -> None:
        """Say so when a GPU falls ill or is well again, and let the controller know."""
        if health is self._health[gpu]:
            return
        self._health[gpu] = health
        self._perform(
            [Say("info" if health is GpuHealth.OK else "error", f"gpu {health.value}", gpu, problem), ReportSoon()]
        )

    @contextlib.contextmanager
    def _mistakes_end_the_daemon(self) -> Iterator[None]:
        """gRPC would turn a failed assertion into a status and go on; `run` raises it instead."""
        try:
            yield
        except RapidError:
            raise
        except Exception as mistake:
            self._mistake = mistake
            self._inbox.wake()
            raise


async def first_limits(workers: Sequence[GpuWorker], inbox: Inbox) -> dict[str, int | None]:
    """The limit in force on each GPU before anything is written; None where the driver did not tell in time."""
    limits_mw: dict[str, int | None] = {worker.gpu: None for worker in workers}
    unread, news = set(limits_mw), asyncio.Event()
    inbox.call(news.set)
    for worker in workers:
        worker.submit_sample(clock=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_READ_S):
            while unread:
                for event in inbox.take():
                    if not isinstance(event, Sampled):
                        continue  # the driver told something; every GPU is written in any case
                    limits_mw[event.gpu] = None if event.limit is None else event.limit.enforced_mw
                    unread.discard(event.gpu)
                if unread:
                    await news.wait()
                    news.clear()
    return limits_mw


def _health(error: DeviceError | LimitRefused, *, lost: bool) -> GpuHealth:
    """Which health a failed call shows; `lost`: the limit could not even be read."""
    if isinstance(error, DeviceDenied):
        return GpuHealth.DENIED
    if isinstance(error, DeviceMismatch):
        return GpuHealth.MISMATCH
    return GpuHealth.LOST if lost or isinstance(error, DeviceLost) else GpuHealth.OK


def _who(holder: Holder) -> str:
    return f"{holder.name} (pid {holder.pid}{f', {holder.user}' if holder.user else ''})"
