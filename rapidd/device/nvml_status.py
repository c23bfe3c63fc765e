"""What an NVML status means here: a GPU or driver that has gone, a missing right, an ability that is not there."""

from enum import IntEnum
from typing import Any

from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost


class Status(IntEnum):
    """The values of nvmlReturn_t that are told apart here."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    GPU_NOT_FOUND = 28


# An older driver or GPU that does not know a call or a field; a field number above its last is INVALID_ARGUMENT to it.
ABSENT = {Status.INVALID_ARGUMENT, Status.NOT_SUPPORTED, Status.FUNCTION_NOT_FOUND}

# The driver has gone, and with it every handle.
DRIVER_GONE = {Status.UNINITIALIZED, Status.DRIVER_NOT_LOADED, Status.LIB_RM_VERSION_MISMATCH}

# What each status of a loss means, and what to do.
_RELOAD = "the NVIDIA driver is not loaded, or was loaded anew: check nvidia-smi"
_RESET = (
    "look for Xid errors in dmesg; the GPU needs a reset or the host a reboot, and rapidd a restart if it does not "
    "find the GPU again by itself"
)
LOST = {
    Status.UNINITIALIZED: _RELOAD,
    Status.DRIVER_NOT_LOADED: _RELOAD,
    Status.LIB_RM_VERSION_MISMATCH: "libnvidia-ml.so.1 and the loaded driver differ: reboot after an upgrade",
    Status.NOT_FOUND: _RESET,
    Status.GPU_IS_LOST: _RESET,
    Status.RESET_REQUIRED: _RESET,
    Status.GPU_NOT_FOUND: _RESET,
}
_DENIED = {
    Status.NO_PERMISSION: "rapidd needs CAP_SYS_ADMIN, being root is not enough "
    "(systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: --cap-add=SYS_ADMIN)",
    Status.OPERATING_SYSTEM: "rapidd may not open /dev/nvidia* (systemd: DeviceAllow=char-nvidia* rw)",
}


def failure(gpu: str, what: str, error: Any) -> DeviceError:
    """The DeviceError for an NVMLError, with what to do about it."""
    status, problem = error.value, f"cannot {what}: {error} (NVML status {error.value})"
    if status in _DENIED:
        return DeviceDenied(gpu, f"{problem}; {_DENIED[status]}")
    if status in LOST:
        return DeviceLost(gpu, f"{problem}; {LOST[status]}")
    return DeviceError(gpu, problem)
