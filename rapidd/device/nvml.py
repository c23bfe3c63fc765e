"""NVIDIA GPUs through nvidia-ml-py.

Sources: nvml.h and the NVML API reference for the meaning of calls, fields and statuses. The v2 setter is never used:
its Python wrapper drops the status, so a refused limit looks like a set one.
"""

from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from threading import Event
from typing import Any

from rapid.core.errors import ConfigInvalid, DeviceDenied, DeviceError, DeviceLost, watts
from rapidd.device.base import Device, DeviceEvent, DeviceInfo, Holder, LimitReading, PowerReading


class _Field(IntEnum):
    """Fields of nvmlDeviceGetFieldValues; power in milliwatts, energy in millijoules since the driver was loaded."""

    ENERGY = 83
    DRAW_INSTANT = 186
    LIMIT_ENFORCED = 190
    LIMIT_REQUESTED = 192


class _Status(IntEnum):
    """The values of nvmlReturn_t that are told apart here."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    DRIVER_NOT_LOADED = 9
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    GPU_NOT_FOUND = 28


# An older driver or GPU that does not know a call or a field; a field number above its last is INVALID_ARGUMENT to it.
_ABSENT = {_Status.INVALID_ARGUMENT, _Status.NOT_SUPPORTED, _Status.FUNCTION_NOT_FOUND}

_RELOAD = "the NVIDIA driver is not loaded, or was reloaded: check nvidia-smi, then restart rapidd"
_RESET = "look for Xid errors in dmesg; the GPU needs a reset or the host a reboot"
_LOST = {
    _Status.UNINITIALIZED: _RELOAD,
    _Status.DRIVER_NOT_LOADED: _RELOAD,
    _Status.LIB_RM_VERSION_MISMATCH: "libnvidia-ml.so.1 and the loaded driver differ: reboot after an upgrade",
    _Status.GPU_IS_LOST: _RESET,
    _Status.RESET_REQUIRED: _RESET,
    _Status.GPU_NOT_FOUND: _RESET,
}
_DENIED = {
    _Status.NO_PERMISSION: "rapidd needs CAP_SYS_ADMIN, being root is not enough "
    "(systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: --cap-add=SYS_ADMIN)",
    _Status.OPERATING_SYSTEM: "rapidd may not open /dev/nvidia* (systemd: DeviceAllow=char-nvidia* rw)",
}

# How far back a draw may reach. The instant field on A100 and H100 is the mean of 25 ms, renewed every 100 ms (Yang,
# Adamek, Armour: Part-time Power Measurements, arXiv 2312.02741); assumed for the others. nvmlDeviceGetPowerUsage is a
# mean over 1 s from Ampere on (NVML reference) and instant before: counted as the worse of the two.
_INSTANT_AGE_S = 0.125
_USAGE_AGE_S = 1.1

# By nvmlValueType_t: the member of nvmlValue_t that holds the value.
_MEMBER = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class NvmlBackend:
    """Every GPU that NVML shows, by UUID.

    Raises ConfigInvalid where NVML is not installed, DeviceLost or DeviceError where it does not start.
    Not usable after a fork: NVML has threads and handles of its own.
    """

    def __init__(self) -> None:
        self._nvml = _start()
        self._closed = Event()
        devices: list[Device] = []
        faults: list[DeviceError] = []
        try:
            driver = str(self._nvml.nvmlSystemGetDriverVersion())
            for index in range(self._nvml.nvmlDeviceGetCount()):
                try:
                    devices.append(NvmlDevice(self._nvml, index, driver))
                except DeviceError as error:
                    faults.append(error)
        except self._nvml.NVMLError as error:
            self.close()
            raise _failure("(all)", "list the GPUs", error) from error
        self.devices, self.faults = tuple(devices), tuple(faults)

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        self._closed.wait(timeout_s)
        return None

    def close(self) -> None:
        self._closed.set()
        # If the driver has gone before us, there is nothing left to release.
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


class NvmlDevice:
    """One NVIDIA GPU; obeys `Device`."""

    def __init__(self, nvml: Any, index: int, driver: str) -> None:
        self._nvml = nvml
        self._gpu = f"index {index}"
        try:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
            self._gpu = str(nvml.nvmlDeviceGetUUID(self._handle))
            name = str(nvml.nvmlDeviceGetName(self._handle))
            floor_mw, ceiling_mw = nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        except nvml.NVMLError as error:
            raise _failure(self._gpu, "read identity and limit range", error) from error
        if not 0 < floor_mw <= ceiling_mw:
            raise DeviceError(self._gpu, f"limit range {watts(floor_mw)} to {watts(ceiling_mw)} makes no sense")
        self.info = DeviceInfo(self._gpu, index, name, driver, floor_mw, ceiling_mw)

    def set_limit(self, limit_mw: int) -> None:
        self.info.check_range(limit_mw)
        try:
            self._nvml.nvmlDeviceSetPowerManagementLimit(self._handle, limit_mw)
        except self._nvml.NVMLError as error:
            raise _failure(self._gpu, f"set the limit to {watts(limit_mw)}", error) from error

    def read_limit(self) -> LimitReading:
        nvml, what = self._nvml, "read the limit"
        enforced_mw, requested_mw = self._fields(what, _Field.LIMIT_ENFORCED, _Field.LIMIT_REQUESTED)
        if enforced_mw is None:
            enforced_mw = self._get(what, nvml.nvmlDeviceGetEnforcedPowerLimit)
        if requested_mw is None:
            requested_mw = self._get(what, nvml.nvmlDeviceGetPowerManagementLimit)
        if enforced_mw is None:
            raise DeviceError(self._gpu, "the driver does not tell which limit it enforces, so rapidd cannot manage it")
        return LimitReading(requested_mw, enforced_mw)

    def read_power(self) -> PowerReading:
        nvml, what = self._nvml, "read the draw"
        age_s = _INSTANT_AGE_S
        draw_mw, energy_mj = self._fields(what, _Field.DRAW_INSTANT, _Field.ENERGY)
        if draw_mw is None:
            draw_mw, age_s = self._get(what, nvml.nvmlDeviceGetPowerUsage), _USAGE_AGE_S
        if energy_mj is None:
            energy_mj = self._get(what, nvml.nvmlDeviceGetTotalEnergyConsumption)
        return PowerReading(draw_mw, energy_mj, age_s)

    def processes(self) -> tuple[int, ...]:
        return ()

    def holders(self) -> tuple[Holder, ...]:
        return ()

    def _fields(self, what: str, *fields: _Field) -> list[int | None]:
        """One value per field, None for a field that this driver or GPU does not have."""
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(self._handle, fields)
        except self._nvml.NVMLError as error:
            if error.value in _ABSENT:
                return [None] * len(fields)
            raise _failure(self._gpu, what, error) from error
        return [self._value(what, value) for value in values]

    def _value(self, what: str, value: Any) -> int | None:
        # Each value has a status of its own; the status of the call says nothing about it.
        status = value.nvmlReturn
        if status == _Status.SUCCESS:
            return int(getattr(value.value, _MEMBER[value.valueType]))
        if status in _ABSENT:
            return None
        raise _failure(self._gpu, what, self._nvml.NVMLError(status))

    def _get(self, what: str, getter: Callable[[Any], int]) -> int | None:
        """The one value of an older getter, None where this driver or GPU does not have it."""
        try:
            return getter(self._handle)
        except self._nvml.NVMLError as error:
            if error.value in _ABSENT:
                return None
            raise _failure(self._gpu, what, error) from error


def _start() -> Any:
    """The binding, with NVML initialised."""
    try:
        import pynvml  # Here and not above, so that the package imports on any machine.
    except ImportError as error:
        raise ConfigInvalid("device.backend", "nvml needs the Python package nvidia-ml-py, which is missing") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == _Status.LIBRARY_NOT_FOUND:
            raise ConfigInvalid("device.backend", _NO_LIBRARY) from error
        raise _failure("(all)", "start NVML", error) from error
    return pynvml


_NO_LIBRARY = (
    "nvml needs libnvidia-ml.so.1, which is not on this machine: install the NVIDIA driver (Debian: libnvidia-ml1; "
    "container: NVIDIA container toolkit with NVIDIA_DRIVER_CAPABILITIES=utility), or use another backend"
)


def _failure(gpu: str, what: str, error: Any) -> DeviceError:
    """The DeviceError for an NVMLError, with what to do about it."""
    status, problem = error.value, f"cannot {what}: {error} (NVML status {error.value})"
    if status in _DENIED:
        return DeviceDenied(gpu, f"{problem}; {_DENIED[status]}")
    if status in _LOST:
        return DeviceLost(gpu, f"{problem}; {_LOST[status]}")
    return DeviceError(gpu, problem)
