"""One thread and one bounded queue per GPU: set, read back, compare. Nothing else calls a device.

The queue holds at most one write, one sample and one listing of processes, done in that order: an older sample can
wait, a cut cannot. Samples are mostly taken by a thread that several GPUs share (rounds.py), in the worker's turns.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from msgspec import Struct

from rapid.core.errors import DeviceError, DeviceMismatch, LimitRefused
from rapidd.device.base import Device, DeviceEvent, Holder, LimitReading, PowerReading


@dataclass(frozen=True, slots=True)
class WriteDone:
    """A write has ended; `reading` is what the device said after it, None if it said nothing.

    No error: the device enforces and remembers at most `asked_mw`; less means that something else holds it lower.
    With an error the write may have landed or not; only `reading` tells. `at_s` is taken after the read-back, so the
    reading held at that time or before.
    """

    gpu: str
    asked_mw: int
    reading: LimitReading | None
    error: DeviceError | LimitRefused | None
    at_s: float


class Sampled(Struct, frozen=True):
    """A reading of limit and power; None for one that failed, `error` says why (the first, if both did).

    `limit_at_s` is taken after the limit was read, `power_at_s` before the power was, less the age of the sensor's
    figure. Each errs to the side that proves less: a `power_at_s` at or after the `limit_at_s` (or `WriteDone.at_s`) of
    a read-back means that all of the draw was measured after that limit was seen in force, whatever the calls took.
    """

    gpu: str
    limit: LimitReading | None
    power: PowerReading | None
    error: DeviceError | None
    limit_at_s: float
    power_at_s: float


@dataclass(frozen=True, slots=True)
class HeldBy:
    """Who holds the GPU open, as `find_holders` was asked."""

    gpu: str
    holders: tuple[Holder, ...]


Event = WriteDone | Sampled | HeldBy | DeviceEvent

_Reading = TypeVar("_Reading", LimitReading, PowerReading)


class Worker:
    """Makes every call to one device, one at a time, and delivers one event per piece of work in the order of the work:
    on a thread of its own, but for `sample_now`, which works on its caller's.

    `deliver` runs on that thread (pass one that hands over to the event loop) and must not raise; `clock` is read
    there. Whatever a device raises comes as an event. Any thread may call any method; none waits but `sample_now`, for
    its sample, and `stop`.
    """

    def __init__(self, device: Device, deliver: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self.gpu = device.info.gpu
        self._device, self._deliver, self._clock = device, deliver, clock
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # held through each piece of work, until its event is delivered
        self._bell: SimpleQueue[None] = SimpleQueue()  # one ring for each thing submitted
        self._write_mw: int | None = None
        self._write_outstanding = (
            False  # From submit_write until just before its WriteDone; at most one, as Guard says.
        )
        self._sample_wanted = self._clock_wanted = False
        self._listing: Callable[[tuple[int, ...]], None] | None = None
        self._stopping = False
        self._busy_since_s: float | None = None
        self._finding = False
        # A driver call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"gpu-{device.info.index}", daemon=True)

    @property
    def busy_since_s(self) -> float | None:
        """Since when the device has been at one piece of work, None when it is idle. A high age is a hanging driver."""
        return self._busy_since_s

    def start(self) -> None:
        self._thread.start()

    def submit_write(self, limit_mw: int) -> None:
        """Set limit_mw next. At most one write is outstanding: the guard waits for WriteDone before it asks again."""
        with self._lock:
            assert not self._stopping, f"gpu {self.gpu}: write of {limit_mw} mW after stop"
            assert not self._write_outstanding, f"gpu {self.gpu}: write of {limit_mw} mW while another is outstanding"
            self._write_mw, self._write_outstanding = limit_mw, True
        self._bell.put(None)

    def submit_sample(self, *, clock: bool) -> None:
        """Read limit and power soon, and if `clock` what else the device tells; one that waits already is enough."""
        with self._lock:
            self._clock_wanted |= clock
            if self._sample_wanted:
                return
            self._sample_wanted = True
        self._bell.put(None)

    def sample_now(self, *, clock: bool) -> None:
        """The same here and now, on the caller's thread; if the device is at work, or has a write to do, its own thread
        will do it after that."""
        if self._write_outstanding or not self._turn.acquire(blocking=False):
            self.submit_sample(clock=clock)
            return
        try:
            if not self._stopping:
                self._do(partial(self._sample, clock=clock))
        finally:
            self._turn.release()

    def find_holders(self) -> None:
        """Find out who holds the device open, and deliver it. It asks the operating system and takes its time, so it
        has a thread for itself; once at a time is enough."""
        with self._lock:
            if self._finding or self._stopping:
                return
            self._finding = True
        threading.Thread(target=self._find, name=f"holders-{self._device.info.index}", daemon=True).start()

    def submit_list(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """List the processes on the device when there is nothing else to do, and call `done` on this worker's thread;
        with nothing if the device does not tell. Of two that wait the later is done, the other never."""
        with self._lock:
            self._listing = done
        self._bell.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Drop what has not begun, wait for what has; False if it did not end in timeout_s, so a driver call hangs.

        A write that matters on the way out is to be awaited first, by its WriteDone.
        """
        with self._lock:
            self._stopping = True
        self._bell.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self._bell.get()
            with self._turn:
                while (work := self._next()) is not None:
                    self._do(work)

    def _do(self, work: Callable[[], Event | None]) -> None:
        """A piece of work, in our turn."""
        self._busy_since_s = self._clock()
        event = work()
        self._busy_since_s = None
        if isinstance(event, WriteDone):
            with self._lock:
                self._write_outstanding = False
        if event is not None:
            self._deliver(event)

    def _find(self) -> None:
        try:
            holders = self._device.holders()
        except Exception:
            holders = ()  # a name for a log line is not worth a daemon
        with self._lock:
            self._finding = False
        self._deliver(HeldBy(self.gpu, holders))

    def _next(self) -> Callable[[], Event | None] | None:
        """The next piece of work; None when there is none."""
        with self._lock:
            if self._stopping:
                return None
            if self._write_mw is not None:
                limit_mw, self._write_mw = self._write_mw, None
                return partial(self._write, limit_mw)
            if self._sample_wanted:
                clock, self._sample_wanted, self._clock_wanted = self._clock_wanted, False, False
                return partial(self._sample, clock=clock)
            if self._listing is not None:
                done, self._listing = self._listing, None
                return partial(self._list, done)
            return None

    def _write(self, limit_mw: int) -> WriteDone:
        error: DeviceError | LimitRefused | None = None
        try:
            self._device.set_limit(limit_mw)
        except LimitRefused as refused:
            error = refused
        except Exception as failure:
            error = self._as_device_error(failure)
        # Read back even after an error: a write that timed out may have landed.
        reading, read_error = self._try(self._device.read_limit)
        error = error or read_error or (_mismatch(self.gpu, limit_mw, reading) if reading else None)
        return WriteDone(self.gpu, limit_mw, reading, error, self._clock())

    def _sample(self, *, clock: bool) -> Sampled:
        begun_s = self._clock()
        try:
            limit, power = self._device.read_both(clock=clock)
        except Exception:
            return self._sample_apart()
        return Sampled(self.gpu, limit, power, None, limit_at_s=self._clock(), power_at_s=begun_s - power.age_s)

    def _sample_apart(self) -> Sampled:
        """What can still be read when not all can be."""
        limit, limit_error = self._try(self._device.read_limit)
        limit_at_s = self._clock()
        power_at_s = self._clock()
        power, power_error = self._try(self._device.read_power)
        if power is not None:
            power_at_s -= power.age_s
        return Sampled(self.gpu, limit, power, limit_error or power_error, limit_at_s, power_at_s)

    def _list(self, done: Callable[[tuple[int, ...]], None]) -> None:
        try:
            done(self._device.processes())
        except Exception:
            done(())  # a device that fails says so at the next sample

    def _try(self, read: Callable[[], _Reading]) -> tuple[_Reading | None, DeviceError | None]:
        try:
            return read(), None
        except Exception as failure:
            return None, self._as_device_error(failure)

    def _as_device_error(self, failure: Exception) -> DeviceError:
        """Keep a DeviceError; wrap anything else, the backend's own mistake, with the original as its cause."""
        if isinstance(failure, DeviceError):
            return failure
        error = DeviceError(self.gpu, f"unexpected {type(failure).__name__} from the device backend: {failure}")
        error.__cause__ = failure
        return error


def _mismatch(gpu: str, asked_mw: int, reading: LimitReading) -> DeviceMismatch | None:
    """An error if the device holds on to more than it was asked for; less is a clamp or a driver's rounding.

    The requested limit counts as well as the enforced one: it comes into force when an outside cap below it goes away.
    """
    most_mw = max(reading.enforced_mw, reading.requested_mw or 0)
    return DeviceMismatch(gpu, asked_mw=asked_mw, read_mw=most_mw) if most_mw > asked_mw else None
