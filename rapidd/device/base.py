"""What the daemon asks of a GPU: a handful of verbs, each with its unit. Every backend obeys it.

Calls block and may be slow; only the GPU's own worker thread makes them.
"""

from dataclasses import dataclass
from typing import Protocol

from rapid.core.errors import DeviceError, LimitRefused


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What does not change in the life of a driver. `gpu` is the UUID; an index may change after a reset."""

    gpu: str
    index: int
    name: str
    driver: str
    floor_mw: int
    ceiling_mw: int

    def check_range(self, limit_mw: int) -> None:
        """Raise LimitRefused for a limit that the device would not take."""
        if not self.floor_mw <= limit_mw <= self.ceiling_mw:
            raise LimitRefused(self.gpu, asked_mw=limit_mw, floor_mw=self.floor_mw, ceiling_mw=self.ceiling_mw)


@dataclass(frozen=True, slots=True)
class LimitReading:
    """The limit that user space last asked for (None: the driver does not tell) and the one the device enforces.

    They differ while someone else, a BMC say, holds a lower limit; when that goes away the requested one is in force.
    """

    requested_mw: int | None
    enforced_mw: int


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Draw and the energy counter. None: the device cannot tell; it counts as the worst it could be.

    `age_s` is how far the draw may reach back before the call: the sensor's averaging plus its update period.
    """

    draw_mw: int | None
    energy_mj: int | None
    age_s: float = 0.0


class Device(Protocol):
    """One GPU. Raises DeviceDenied, DeviceLost or DeviceError; LimitRefused for a limit outside floor..ceiling."""

    @property
    def info(self) -> DeviceInfo: ...

    def set_limit(self, limit_mw: int) -> None:
        """Ask the device to enforce limit_mw. Returning says nothing: read it back."""

    def read_limit(self) -> LimitReading: ...

    def read_power(self) -> PowerReading: ...


class Backend(Protocol):
    """All GPUs of this host that the driver shows."""

    @property
    def devices(self) -> tuple[Device, ...]: ...

    @property
    def faults(self) -> tuple[DeviceError, ...]:
        """Why a GPU that the driver shows is not among `devices`, one each: one dead GPU must not stop the others."""

    def close(self) -> None: ...
