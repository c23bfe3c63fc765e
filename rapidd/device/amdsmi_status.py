"""What a status of the AMD SMI library means here; amdsmi.h, amdsmi_status_t, names them."""

from enum import IntEnum
from typing import Any

from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost


class Status(IntEnum):
    """The values of amdsmi_status_t that are told apart here."""

    NOT_SUPPORTED = 2
    NOT_YET_IMPLEMENTED = 3
    DRM_ERROR = 6
    NO_PERM = 10
    DIRECTORY_NOT_FOUND = 20
    NOT_FOUND = 31
    NOT_INIT = 32
    DRIVER_NOT_LOADED = 34
    NO_DATA = 40
    NO_DRV = 51
    FILE_NOT_FOUND = 52


ABSENT = {Status.NOT_SUPPORTED, Status.NOT_YET_IMPLEMENTED, Status.NO_DATA, Status.FILE_NOT_FOUND}

# The driver has gone, and with it every handle.
DRIVER_GONE = {Status.NOT_INIT, Status.DRIVER_NOT_LOADED, Status.NO_DRV}

_RELOAD = "the amdgpu driver is not loaded, or was loaded anew: check amd-smi"
_RESET = "look for amdgpu errors in dmesg; the GPU needs a reset or the host a reboot"
LOST = {
    **dict.fromkeys(DRIVER_GONE, _RELOAD),
    **dict.fromkeys((Status.DRM_ERROR, Status.DIRECTORY_NOT_FOUND, Status.NOT_FOUND), _RESET),
}
_DENIED = "rapidd must be root to set a limit, and not in a virtual machine: a guest may not, whoever it is"


def status_of(error: Any) -> int:
    """The status in an AmdSmiException; 0 for one of the Python package's own."""
    return int(getattr(error, "err_code", None) or 0)


def failure(gpu: str, what: str, error: Any) -> DeviceError:
    """The DeviceError for an AmdSmiException, with what to do about it."""
    status = status_of(error)
    words = getattr(error, "err_info", None) or type(error).__name__
    problem = f"cannot {what}: {words} (AMD SMI status {status})"
    if status == Status.NO_PERM:
        return DeviceDenied(gpu, f"{problem}; {_DENIED}")
    if status in LOST:
        return DeviceLost(gpu, f"{problem}; {LOST[Status(status)]}")
    return DeviceError(gpu, problem)
