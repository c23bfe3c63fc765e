"""One NVIDIA GPU: what it is, which abilities its driver has, its limit, its draw, and who uses it."""

from ctypes import addressof
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from rapid.core.errors import DeviceError, watts
from rapidd.device.base import DeviceInfo, Holder, LimitReading, PowerReading
from rapidd.device.holders import holders_of
from rapidd.device.nvml_read import Field, Handle, Values, first_of, maybe, perhaps, slowdown_of
from rapidd.device.nvml_status import DRIVER_GONE, LOST, failure
from rapidd.device.recovery import Calling, Loss

# How far back a draw may reach. The instant field on A100 and H100 is the mean of 25 ms, renewed every 100 ms (Yang,
# Adamek, Armour: Part-time Power Measurements, arXiv 2312.02741); assumed for the others. nvmlDeviceGetPowerUsage is a
# mean over 1 s from Ampere on (NVML reference) and instant before: counted as the worse of the two.
_INSTANT_AGE_S = 0.125
_USAGE_AGE_S = 1.1

# nvmlGpuVirtualizationMode_t: why rapidd leaves such a GPU alone. Passed through as a whole, it is like any other.
_VIRTUAL = {
    2: "it is a vGPU of this virtual machine: its limit is set on the host, so run rapidd there",
    3: "it serves vGPUs to virtual machines, which share its limit: leave it to the hypervisor",
    4: "it serves vSGA to virtual machines, which share its limit: leave it to the hypervisor",
}
_MIG = "MIG mode is on, and its instances share one limit: turn it off (nvidia-smi -i {} -mig 0) to have it managed"
_FIXED = "its limit cannot be changed here: {}"


class Session(Protocol):
    """NVML as it runs now; `events` is the set that Xid events come through, None where there is none."""

    nvml: Any
    driver: str
    events: Any | None


class NvmlDevice:
    """One NVIDIA GPU; obeys `Device`. The constructor raises DeviceError for a GPU that cannot be used at all.

    `dev` is the folder of the device files.
    """

    def __init__(self, session: Session, index: int, dev: Path) -> None:
        self._session, self._nvml, self._dev = session, session.nvml, dev
        self.gpu = f"index {index}"
        self.loss: Loss | None = None
        self.lock = Lock()
        with Calling(self, "read identity and limit range"):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            self.gpu = str(self._nvml.nvmlDeviceGetUUID(handle))
            self._open(handle)

    def open_again(self) -> None:
        try:
            self._open(self._nvml.nvmlDeviceGetHandleByUUID(self.gpu))
        except self._nvml.NVMLError as error:
            raise failure(self.gpu, "find it again", error) from error

    def has(self, handle: Handle) -> bool:
        """Whether an event with this handle is about this GPU."""
        return bool(handle) and addressof(handle.contents) == addressof(self._handle.contents)

    def understand(self, what: str, error: BaseException) -> tuple[DeviceError, bool] | None:
        if not isinstance(error, self._nvml.NVMLError):
            return None
        return failure(self.gpu, what, error), error.value in DRIVER_GONE

    def set_limit(self, limit_mw: int) -> None:
        self.info.check_range(limit_mw)
        with Calling(self, f"set the limit to {watts(limit_mw)}"):
            self._nvml.nvmlDeviceSetPowerManagementLimit(self._handle, limit_mw)

    def read_limit(self) -> LimitReading:
        with Calling(self, "read the limit"):
            told_mw = self._limits.read()
        return self._limit_reading(*told_mw)

    def read_power(self) -> PowerReading:
        with Calling(self, "read the draw"):
            return self._power_reading(*self._power.read(), clock=True)

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        with Calling(self, "read limit and draw"):
            enforced_mw, requested_mw, draw_mw, energy_mj = self._both.read()
            power = self._power_reading(draw_mw, energy_mj, clock=clock)
        return self._limit_reading(enforced_mw, requested_mw), power

    def processes(self) -> tuple[int, ...]:
        with Calling(self, "list its processes"):
            found = maybe(self._nvml, self._processes, self._handle) or ()
        return tuple(sorted({process.pid for process in found}))

    def holders(self) -> tuple[Holder, ...]:
        return holders_of({self._file}) if self._file else ()

    def _limit_reading(self, enforced_mw: int | None, requested_mw: int | None) -> LimitReading:
        if enforced_mw is None:
            raise DeviceError(self.gpu, "the driver does not tell which limit it enforces")
        return LimitReading(requested_mw, enforced_mw)

    def _power_reading(self, draw_mw: int | None, energy_mj: int | None, *, clock: bool) -> PowerReading:
        if not clock:
            return PowerReading(draw_mw, energy_mj, self._age_s)
        clock_mhz = perhaps(self._nvml, self._clock, self._handle, self._nvml.NVML_CLOCK_SM)
        reasons = perhaps(self._nvml, self._reasons, self._handle)
        slowdown = None if reasons is None else slowdown_of(reasons)
        return PowerReading(draw_mw, energy_mj, self._age_s, clock_mhz, slowdown)

    def _open(self, handle: Handle) -> None:
        """Take the GPU behind this handle: its identity, range and abilities. Raises NVMLError or DeviceError."""
        nvml = self._nvml
        limits = Values.probe(
            nvml,
            handle,
            [
                (Field.LIMIT_ENFORCED, nvml.nvmlDeviceGetEnforcedPowerLimit),
                (Field.LIMIT_REQUESTED, nvml.nvmlDeviceGetPowerManagementLimit),
            ],
        )
        power = Values.probe(
            nvml,
            handle,
            [
                (Field.DRAW_INSTANT, nvml.nvmlDeviceGetPowerUsage),
                (Field.ENERGY, nvml.nvmlDeviceGetTotalEnergyConsumption),
            ],
        )
        reasons = (nvml.nvmlDeviceGetCurrentClocksEventReasons, nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        processes = (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetComputeRunningProcesses_v2)
        self._limits, self._power, self._both = limits, power, limits + power
        self._age_s = _INSTANT_AGE_S if power.ways[0] is Field.DRAW_INSTANT else _USAGE_AGE_S
        self._clock = first_of(nvml, [nvml.nvmlDeviceGetClockInfo], handle, nvml.NVML_CLOCK_SM)
        self._reasons = first_of(nvml, reasons, handle)
        self._processes = first_of(nvml, processes, handle)
        minor = perhaps(nvml, nvml.nvmlDeviceGetMinorNumber, handle)
        self._file = None if minor is None else self._dev / f"nvidia{minor}"
        abilities = {
            "requested limit": limits.ways[1],
            "draw": power.ways[0],
            "instant draw": power.ways[0] is Field.DRAW_INSTANT,
            "energy counter": power.ways[1],
            "clock": self._clock,
            "event reasons": self._reasons,
            "processes": self._processes,
            "Xid events": self._listen(handle),
        }
        self.info = self._describe(handle, tuple(name for name, there in abilities.items() if not there))
        self._handle = handle

    def _describe(self, handle: Handle, lacks: tuple[str, ...]) -> DeviceInfo:
        nvml = self._nvml
        index = nvml.nvmlDeviceGetIndex(handle)
        floor_mw, ceiling_mw, fixed = self._range(handle)
        mig_on = (perhaps(nvml, nvml.nvmlDeviceGetMigMode, handle) or (0,))[0]
        virtual = _VIRTUAL.get(perhaps(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle) or 0, "")
        unmanageable = virtual or (_MIG.format(index) if mig_on else "") or fixed
        if ceiling_mw == 0:
            raise DeviceError(self.gpu, unmanageable)
        pci, warnings = perhaps(nvml, nvml.nvmlDeviceGetPciInfo, handle), []
        if perhaps(nvml, nvml.nvmlDeviceGetPersistenceMode, handle) == 0:
            warnings.append(
                "persistence mode is off: when the last process lets go of the GPU, the driver forgets its limit and "
                "goes back to the default; start nvidia-persistenced"
            )
        return DeviceInfo(
            self.gpu,
            index,
            str(nvml.nvmlDeviceGetName(handle)),
            self._session.driver,
            floor_mw,
            ceiling_mw,
            bus="" if pci is None else _text(pci.busId),
            unmanageable=unmanageable,
            lacks=lacks,
            warnings=tuple(warnings),
        )

    def _range(self, handle: Handle) -> tuple[int, int, str]:
        """Floor, ceiling (0: nobody knows), and why the limit cannot be changed here, if so."""
        nvml, (enforced_mw, requested_mw) = self._nvml, self._limits.read()
        found = maybe(nvml, nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
        if found is None:
            # What is enforced stays so, unless a cap from outside goes away, hence it is floor and ceiling.
            most_mw = max(enforced_mw or 0, requested_mw or 0)
            return most_mw, most_mw, _FIXED.format("the driver gives no range for it")
        floor_mw, ceiling_mw = found
        if not 0 < floor_mw <= ceiling_mw:
            raise DeviceError(self.gpu, f"limit range {watts(floor_mw)} to {watts(ceiling_mw)} makes no sense")
        fixed = ""
        if enforced_mw is None:
            fixed = _FIXED.format("the driver does not tell which limit it enforces")
        elif floor_mw == ceiling_mw:
            fixed = _FIXED.format(f"{watts(floor_mw)} is both floor and ceiling")
        return floor_mw, ceiling_mw, fixed

    def _listen(self, handle: Handle) -> bool:
        """Whether the Xids of this GPU come through the session's event set from now on."""
        nvml, xid = self._nvml, self._nvml.nvmlEventTypeXidCriticalError
        if self._session.events is None:
            return False
        if not (perhaps(nvml, nvml.nvmlDeviceGetSupportedEventTypes, handle) or 0) & xid:
            return False
        try:
            nvml.nvmlDeviceRegisterEvents(handle, xid, self._session.events)
        except nvml.NVMLError as error:
            if error.value in LOST:
                raise
            return False
        return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
