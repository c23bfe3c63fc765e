"""NVIDIA GPUs through nvidia-ml-py.

Sources: nvml.h and the NVML API reference for the meaning of calls, fields and statuses. The v2 setter is never used:
its Python wrapper drops the status, so a refused limit looks like a set one.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from ctypes import byref
from math import ceil
from pathlib import Path
from typing import Any

from rapid.core.cluster import EventKind
from rapid.core.errors import ConfigInvalid, DeviceError
from rapidd.device.base import Device, DeviceEvent
from rapidd.device.nvml_device import NvmlDevice
from rapidd.device.nvml_status import Status, failure
from rapidd.device.recovery import Recovery, Watch

# NVIDIA, "Xid Errors" (docs.nvidia.com/deploy/xid-errors), those that say something about the GPU itself.
_XIDS = {
    31: "memory page fault of an application",
    43: "an application's work was stopped",
    45: "an application's work was cleaned up",
    48: "double-bit memory error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "memory row remapped",
    64: "memory row could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many single-bit memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "the GPU's system processor does not answer",
    120: "the GPU's system processor failed",
}


class NvmlBackend:
    """Every GPU that NVML shows, by UUID; one that is lost is found again while somebody waits for events.

    Raises ConfigInvalid where NVML is not installed, DeviceLost or DeviceError where it does not start.
    Not usable after a fork: NVML has threads and handles of its own. `dev` is the folder of the device files.
    """

    def __init__(self, *, dev: Path = Path("/dev")) -> None:
        self._session, self._dev = NvmlSession(), dev
        devices: list[NvmlDevice] = []
        faults: list[DeviceError] = []
        nvml = self._session.nvml
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    devices.append(NvmlDevice(self._session, index, dev))
                except DeviceError as error:
                    faults.append(error)
        except nvml.NVMLError as error:
            self._session.stop()
            raise failure("(all)", "list the GPUs", error) from error
        self._nvml_devices = devices
        self.devices: tuple[Device, ...] = tuple(devices)
        self.faults = tuple(faults)
        recovery = Recovery(devices, self._session.restart, time.monotonic, missing=len(faults), search=self._search)
        self._watch = Watch(recovery, self._listen)

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        return self._watch.wait_event(timeout_s)

    def close(self) -> None:
        self._watch.close(self._session.stop)

    def _search(self, known: Collection[str]) -> list[NvmlDevice]:
        nvml, found = self._session.nvml, []
        with suppress(nvml.NVMLError):
            for index in range(nvml.nvmlDeviceGetCount()):
                # One that still does not answer may do so at the next search.
                with suppress(nvml.NVMLError, DeviceError):
                    if nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)) not in known:
                        found.append(NvmlDevice(self._session, index, self._dev))
        self._nvml_devices += found
        return found

    def _listen(self, timeout_s: float) -> DeviceEvent | None:
        if self._session.events is None:
            self._watch.rest(timeout_s)
            return None
        data, wait = self._session.nvml.c_nvmlEventData_t(), self._session.nvml.nvmlLib.nvmlEventSetWait_v2
        # Not by the binding's function, which raises whenever nothing happens: twice a second, for ever. Rounded
        # up: with no milliseconds left to wait, the caller would ask again and again until its time is up.
        if status := wait(self._session.events, byref(data), ceil(1000 * timeout_s)):
            if status != Status.TIMEOUT:
                self._watch.rest(timeout_s)  # it did not wait, so we do
            return None
        number = int(data.eventData)
        detail = f"Xid {number}: {_XIDS[number]}" if number in _XIDS else f"Xid {number}"
        return DeviceEvent(self._uuid(data.device), EventKind.XID, number, detail)

    def _uuid(self, handle: Any) -> str:
        try:
            return str(self._session.nvml.nvmlDeviceGetUUID(handle))
        except self._session.nvml.NVMLError:
            return next((device.gpu for device in self._nvml_devices if device.has(handle)), "")


class NvmlSession:
    """The library while it is started, the version of its driver, and the set that its events come through."""

    def __init__(self) -> None:
        try:
            import pynvml  # Here and not above, so that the package imports on any machine.
        except ImportError as error:
            missing = "nvml needs the Python package nvidia-ml-py, which is missing"
            raise ConfigInvalid("device.backend", missing) from error
        self.nvml: Any = pynvml
        self.events: Any | None = None
        self._start()

    def restart(self) -> None:
        """End and start anew, for a driver that was loaded anew: every handle is void. Raises DeviceError."""
        self.stop()
        self._start()

    def stop(self) -> None:
        # If the driver has gone before us, there is nothing left to release.
        with suppress(self.nvml.NVMLError):
            if self.events is not None:
                self.nvml.nvmlEventSetFree(self.events)
        self.events = None
        with suppress(self.nvml.NVMLError):
            self.nvml.nvmlShutdown()

    def _start(self) -> None:
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError as error:
            if error.value == Status.LIBRARY_NOT_FOUND:
                raise ConfigInvalid("device.backend", _NO_LIBRARY) from error
            raise failure("(all)", "start NVML", error) from error
        self.driver = ""
        with suppress(self.nvml.NVMLError):
            self.driver = str(self.nvml.nvmlSystemGetDriverVersion())
        with suppress(self.nvml.NVMLError):
            self.events = self.nvml.nvmlEventSetCreate()


_NO_LIBRARY = (
    "nvml needs libnvidia-ml.so.1, which is not on this machine: install the NVIDIA driver (Debian: libnvidia-ml1; "
    "container: NVIDIA container toolkit with NVIDIA_DRIVER_CAPABILITIES=utility), or use another backend"
)
