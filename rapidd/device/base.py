"""What the daemon asks of a GPU: a handful of verbs, each with its unit. Every backend obeys it.

Calls block and may be slow; only the GPU's own worker thread makes them.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What does not change in the life of a driver. `gpu` is the UUID; an index may change after a reset."""

    gpu: str
    index: int
    name: str
    driver: str
    floor_mw: int
    ceiling_mw: int


@dataclass(frozen=True, slots=True)
class LimitReading:
    """The limit that user space last asked for (None: the driver does not tell) and the one the device enforces."""

    requested_mw: int | None
    enforced_mw: int


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Instant draw and the energy counter. None: the device cannot tell; it counts as the worst it could be."""

    draw_mw: int | None
    energy_mj: int | None


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

    def close(self) -> None: ...
