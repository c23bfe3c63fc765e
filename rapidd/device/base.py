"""What the daemon asks of a GPU: a handful of verbs, each with its unit. Every backend obeys it.

Calls block and may be slow; only the worker of a GPU makes them, one at a time.
`holders` and `wait_event` say otherwise.
"""

from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct  # for what is made for every sample: a frozen dataclass takes ten times as long

from rapid.core.cluster import EventKind, Slowdown
from rapid.core.errors import DeviceError, LimitRefused


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What does not change in the life of a driver. `gpu` is the UUID; an index may change after a reset.

    bus           PCI bus id; empty: none, or not known
    unmanageable  why rapidd must not manage it, in one line: MIG, vGPU, the limit cannot be lowered here. Such a GPU
                  is booked at its ceiling and never written. Empty: rapidd manages it
    lacks         optional abilities that this driver or GPU does not have, found once at start: "instant draw",
                  "energy counter", "requested limit", "event reasons", "Xid events", ...
    warnings      what an operator should put right, one line each: persistence mode is off, ...
    """

    gpu: str
    index: int
    name: str
    driver: str
    floor_mw: int
    ceiling_mw: int
    bus: str = ""
    unmanageable: str = ""
    lacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def check_range(self, limit_mw: int) -> None:
        """Raise LimitRefused for a limit that the device would not take."""
        if not self.floor_mw <= limit_mw <= self.ceiling_mw:
            raise LimitRefused(self.gpu, asked_mw=limit_mw, floor_mw=self.floor_mw, ceiling_mw=self.ceiling_mw)


class LimitReading(Struct, frozen=True, gc=False):
    """The limit that user space last asked for (None: the driver does not tell) and the one the device enforces.

    They differ while someone else, a BMC say, holds a lower limit; when that goes away the requested one is in force.
    """

    requested_mw: int | None
    enforced_mw: int


class PowerReading(Struct, frozen=True, gc=False):
    """Draw, energy counter, clock of the processors, and why it is slow. None: the device cannot tell; a draw that is
    not told counts as the worst it could be.

    `age_s` is how far the draw may reach back before the call: the sensor's averaging plus its update period.
    """

    draw_mw: int | None
    energy_mj: int | None
    age_s: float = 0.0
    clock_mhz: int | None = None
    slowdown: Slowdown | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a device open, and so could set its limit. `user` is empty where it is not known."""

    pid: int
    name: str
    user: str


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """What the driver told of a GPU without being asked. `code` is the number of an Xid; `detail` one line or empty.

    `device` comes with a GPU that is BACK and was among the faults of its backend: from now on it can be used.
    """

    gpu: str
    kind: EventKind
    code: int = 0
    detail: str = ""
    device: "Device | None" = None


class Device(Protocol):
    """One GPU. Raises DeviceDenied, DeviceLost or DeviceError; LimitRefused for a limit outside floor..ceiling.

    A GPU that is lost keeps its Device: calls raise DeviceLost until it is back, and then work again, with the same
    UUID and perhaps another index.
    """

    @property
    def info(self) -> DeviceInfo: ...

    def set_limit(self, limit_mw: int) -> None:
        """Ask the device to enforce limit_mw. Returning says nothing: read it back."""

    def read_limit(self) -> LimitReading: ...

    def read_power(self) -> PowerReading: ...

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        """Limit and power in as few calls of the driver as can be: this is what is read ten times a second. Raises if
        either cannot be read. Without `clock`, clock and slowdown are left out, which take calls of their own."""

    def processes(self) -> tuple[int, ...]:
        """The pids that compute on this GPU, as the driver lists them; () where it cannot."""

    def holders(self) -> tuple[Holder, ...]:
        """Who holds the device open now, without this process. Slow, asks the operating system and never the driver,
        and raises nothing; any thread may call it."""


class Backend(Protocol):
    """All GPUs of this host that the driver shows."""

    @property
    def devices(self) -> tuple[Device, ...]: ...

    @property
    def faults(self) -> tuple[DeviceError, ...]:
        """Why a GPU that the driver shows is not among `devices`, one each: one dead GPU must not stop the others."""

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        """The next event of any GPU, waiting for it; None when the time is up or `close` was called. Raises nothing.
        One that was dead at first is looked for meanwhile, as far as the backend can.

        Called from one thread of its own, again and again. A backend without events sleeps until then.
        """

    def close(self) -> None: ...
