"""GPUs that are lost come back by themselves: who notices it, who looks for them and how often, what is told of it."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Lock
from typing import Protocol

from rapid.core.cluster import EventKind
from rapid.core.errors import DeviceError, DeviceLost
from rapidd.device.base import Device, DeviceEvent

# Between two searches for GPUs that were dead at the start: they come back after a reset, which takes a person.
SEARCH_FIRST_S, SEARCH_LONGEST_S = 1.0, 15.0
# Between two tries. A driver that has just been loaded holds nothing back, so it must not wait long for its limits.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 0.5
_LOCK_WAIT_S = 0.1  # for a call that is under way
_EVENTS_MAX = 256
# A driver cannot be woken from its wait for an event: this is how long a loss, or the end, may have to wait for it.
SLICE_S = 0.5


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a device is lost. `whole_driver`: and all others too, so that only starting the library anew can help."""

    problem: str
    whole_driver: bool


class Losable(Protocol):
    """A device that makes its driver calls under `lock`, and none while it has a `loss`."""

    gpu: str
    loss: Loss | None
    lock: Lock

    def open_again(self) -> None:
        """Find the device and probe it anew; the caller holds `lock`. Raises DeviceError: then it is lost as before."""


class Driven(Losable, Protocol):
    """A device whose driver's errors can be understood."""

    def understand(self, what: str, error: BaseException) -> tuple[DeviceError, bool] | None:
        """What it means that a call which was to do `what` raised this, and whether the whole driver has gone. None:
        the driver has not raised it."""


class Calling:
    """`with Calling(device, "read the limit"):` around calls of its driver, of which it makes one at a time: none while
    it is lost, and what the driver says of a loss is remembered. Raises DeviceError for the driver's errors.

    A class, as it is entered for every sample: a generator takes four times as long.
    """

    __slots__ = ("_device", "_what")

    def __init__(self, device: Driven, what: str) -> None:
        self._device, self._what = device, what

    def __enter__(self) -> None:
        device = self._device
        # Who looks for a lost device holds the lock meanwhile, perhaps for long.
        if (loss := device.loss) is None:
            device.lock.acquire()
            if (loss := device.loss) is None:
                return
            device.lock.release()
        raise DeviceLost(device.gpu, loss.problem)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        device = self._device
        try:
            if error is None or (meant := device.understand(self._what, error)) is None:
                return
            found, whole_driver = meant
            if isinstance(found, DeviceLost):
                device.loss = Loss(str(found).removeprefix(f"gpu {device.gpu}: "), whole_driver)
        finally:
            device.lock.release()
        raise found from error


class Recovered(Losable, Device, Protocol):
    """What a search finds."""


class Recovery:
    """Looks for lost devices, in turns that one thread takes, and tells what became of them.

    `restart` ends the driver's library and starts it again; it raises DeviceError. It is never called for the sake of
    one device while another is in use: with persistence mode off, letting go of a GPU takes its limit away.

    `missing` devices were dead at the start; `search` gives those that the driver shows now besides the known.
    """

    def __init__(
        self,
        devices: Iterable[Losable],
        restart: Callable[[], None],
        clock: Callable[[], float],
        *,
        missing: int = 0,
        search: Callable[[Collection[str]], Iterable[Recovered]] = lambda known: (),
    ) -> None:
        self._devices, self._restart, self._clock = list(devices), restart, clock
        self._missing, self._search = missing, search
        self._search_pause_s, self._search_s = SEARCH_FIRST_S, clock() + SEARCH_FIRST_S
        self._told: set[str] = set()  # GPUs of which LOST was told and BACK was not
        self._events: deque[DeviceEvent] = deque(maxlen=_EVENTS_MAX)
        self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0

    def turn(self) -> None:
        """Tell of new losses, and try to undo them if it is time to."""
        if self._missing > 0 and self._clock() >= self._search_s:
            self._find()
        lost = [device for device in self._devices if device.loss is not None]
        for device in lost:
            if device.loss is not None and device.gpu not in self._told:
                self._told.add(device.gpu)
                self._events.append(DeviceEvent(device.gpu, EventKind.LOST, detail=device.loss.problem))
        if not lost:
            self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0
        elif self._clock() >= self._next_s:
            self._try(lost)
            self._next_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def next_event(self) -> DeviceEvent | None:
        return self._events.popleft() if self._events else None

    def _find(self) -> None:
        for device in self._search([each.gpu for each in self._devices]):
            self._devices.append(device)
            self._events.append(DeviceEvent(device.gpu, EventKind.BACK, device=device))
            self._missing -= 1
        self._search_s = self._clock() + self._search_pause_s
        self._search_pause_s = min(2 * self._search_pause_s, SEARCH_LONGEST_S)

    def _try(self, lost: Sequence[Losable]) -> None:
        whole_driver = any(device.loss is not None and device.loss.whole_driver for device in lost)
        if not whole_driver:
            found = [self._reopened(device) for device in lost]
            if any(found) or len(lost) < len(self._devices):
                return
        with ExitStack() as locks:
            if not all(_locked(device, locks) for device in self._devices):
                return  # a call hangs in the driver; pulling the library from under it would crash the process
            try:
                self._restart()
            except DeviceError:
                return
            for device in self._devices:
                if self._open_again(device) and whole_driver:
                    self._events.append(DeviceEvent(device.gpu, EventKind.RELOADED))

    def _reopened(self, device: Losable) -> bool:
        with ExitStack() as locks:
            return _locked(device, locks) and self._open_again(device)

    def _open_again(self, device: Losable) -> bool:
        try:
            device.open_again()
        except DeviceError as error:
            device.loss = device.loss or Loss(str(error).removeprefix(f"gpu {device.gpu}: "), whole_driver=False)
            return False
        device.loss = None
        if device.gpu in self._told:
            self._told.remove(device.gpu)
            self._events.append(DeviceEvent(device.gpu, EventKind.BACK))
        return True


class Watch:
    """The one wait for events: those that the driver tells, through `listen`, and those of the recovery.

    `listen` waits for at most the seconds given; without it nobody but the recovery has something to tell.
    """

    def __init__(self, recovery: Recovery, listen: Callable[[float], DeviceEvent | None] | None = None) -> None:
        self._recovery, self._listen = recovery, listen or self.rest
        self._closed, self._turn = Event(), Lock()

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        end_s = time.monotonic() + timeout_s
        while True:
            with self._turn:
                if self._closed.is_set():
                    return None
                self._recovery.turn()
                left_s = max(0.0, end_s - time.monotonic())
                if event := self._recovery.next_event() or self._listen(min(left_s, SLICE_S)):
                    return event
                if left_s <= SLICE_S:
                    return None

    def rest(self, timeout_s: float) -> None:
        """Wait for nothing but the end."""
        self._closed.wait(timeout_s)

    def close(self, end: Callable[[], None]) -> None:
        """End the wait and then the library, which must not go under it. If a call hangs the process ends without."""
        self._closed.set()
        if self._turn.acquire(timeout=4 * SLICE_S):
            end()
            self._turn.release()


def _locked(device: Losable, locks: ExitStack) -> bool:
    if not device.lock.acquire(timeout=_LOCK_WAIT_S):
        return False
    locks.callback(device.lock.release)
    return True
