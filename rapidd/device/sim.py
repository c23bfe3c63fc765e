"""Simulated GPUs behind the state files of one folder, which engines on the same host share as they would hardware."""

from collections.abc import Callable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from threading import Event

from rapid.core.errors import ConfigInvalid, DeviceError
from rapid.simgpu import SimGpu
from rapidd.device.base import Device, DeviceEvent, DeviceInfo, Holder, LimitReading, PowerReading

# A draw reading is off by this share, one standard deviation, and never by more than three (assumed: within the 5 %
# that H100 boards are off). The energy counter is exact, as on the boards it stands for.
SENSOR_NOISE = 0.01
_MOST_SIGMAS = 3.0
# The sum of four random bytes is close to normal: mean 4 * 127.5, variance 4 * (256**2 - 1) / 12.
_BYTES_MEAN, _BYTES_SIGMA = 510.0, 147.8


class SimBackend:
    """Every `*.gpu` file of a folder, by the index written in it.

    `clock` gives seconds of the host's monotonic clock, the time that the simulated engines go by too. `noise` 0 makes
    the draw exact. Raises ConfigInvalid for a folder without state files; a file that cannot be used is a fault.
    """

    def __init__(self, folder: Path, clock: Callable[[], float], *, noise: float = SENSOR_NOISE) -> None:
        paths = sorted(folder.glob("*.gpu"))
        if not paths:
            raise ConfigInvalid("device.path", f"{folder} holds no *.gpu file; rapidctl sim-gpus makes such a folder")
        devices: list[SimDevice] = []
        faults: list[DeviceError] = []
        self._open = ExitStack()
        for path in paths:
            try:
                devices.append(SimDevice(self._open.enter_context(SimGpu.open(path)), clock, noise))
            except DeviceError as error:
                faults.append(error)
        by_index = sorted(devices, key=lambda device: (device.info.index, device.info.gpu))
        self.devices: tuple[Device, ...] = tuple(by_index)
        self.faults = tuple(faults)
        self._closed = Event()

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        self._closed.wait(timeout_s)  # a file tells nothing by itself
        return None

    def close(self) -> None:
        self._closed.set()
        self._open.close()


class SimDevice:
    """One simulated GPU; obeys `Device`."""

    def __init__(self, gpu: SimGpu, clock: Callable[[], float], noise: float) -> None:
        self._sim, self._clock, self._noise = gpu, clock, noise
        self._readings = 0
        spec = gpu.spec
        self.info = DeviceInfo(spec.gpu, spec.index, spec.name, "simulated", spec.floor_mw, spec.ceiling_mw)

    def set_limit(self, limit_mw: int) -> None:
        self._sim.set_limit(limit_mw, self._clock())

    def read_limit(self) -> LimitReading:
        reading = self._sim.read_limit()
        return LimitReading(reading.requested_mw, reading.enforced_mw)

    def read_power(self) -> PowerReading:
        at_s = self._clock()
        draw_mw = round(self._sim.draw_mw(at_s) * self._gain())
        return PowerReading(draw_mw, self._sim.energy_mj(at_s))

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        return self.read_limit(), self.read_power()

    def processes(self) -> tuple[int, ...]:
        return ()  # the engines write to the file, which does not know who they are

    def holders(self) -> tuple[Holder, ...]:
        return ()

    def _gain(self) -> float:
        """What the sensor makes of a draw this time: the same for the same GPU and number of the reading."""
        self._readings += 1
        dice = blake2b(f"{self.info.gpu}:{self._readings}".encode(), digest_size=4).digest()
        sigmas = (sum(dice) - _BYTES_MEAN) / _BYTES_SIGMA
        return 1.0 + self._noise * max(-_MOST_SIGMAS, min(_MOST_SIGMAS, sigmas))
