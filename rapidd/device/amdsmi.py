"""AMD GPUs through the package amdsmi, extra [amd]. Sources: amdsmi.h and the package's own code, version 7.0.2."""

import contextlib
import io
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rapid.core.errors import ConfigInvalid, DeviceError
from rapidd.device.amdsmi_device import AmdSmiDevice
from rapidd.device.amdsmi_status import failure
from rapidd.device.base import Device, DeviceEvent
from rapidd.device.recovery import Recovery, Watch

# The package of ROCm 7 speaks to version 26 of the library; packages that come with ROCm itself bear its number.
_LIBRARY_OF = {7: 26}


class AmdSmiBackend:
    """Every GPU that AMD SMI shows, by UUID; one that is lost is found again while somebody waits for events.

    Raises ConfigInvalid where package or library is missing or they do not fit, DeviceLost or DeviceError where the
    library does not start. `root` is where /dev and /sys are.
    """

    def __init__(self, *, root: Path = Path("/")) -> None:
        self._smi, self._root = _load(), root
        self._start()
        devices: list[AmdSmiDevice] = []
        faults: list[DeviceError] = []
        try:
            _check_version(self._smi)
            for index, handle in enumerate(self._smi.amdsmi_get_processor_handles()):
                try:
                    devices.append(AmdSmiDevice(self._smi, index, handle, root))
                except DeviceError as error:
                    faults.append(error)
        except self._smi.AmdSmiException as error:
            self._stop()
            raise failure("(all)", "list the GPUs", error) from error
        except ConfigInvalid:
            self._stop()
            raise
        self.devices: tuple[Device, ...] = tuple(devices)
        self.faults = tuple(faults)
        recovery = Recovery(devices, self._restart, time.monotonic, missing=len(faults), search=self._search)
        self._watch = Watch(recovery)

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        return self._watch.wait_event(timeout_s)

    def close(self) -> None:
        self._watch.close(self._stop)

    def _search(self, known: Collection[str]) -> list[AmdSmiDevice]:
        smi, found = self._smi, []
        with contextlib.suppress(smi.AmdSmiException):
            for index, handle in enumerate(smi.amdsmi_get_processor_handles()):
                # One that still does not answer may do so at the next search.
                with contextlib.suppress(smi.AmdSmiException, DeviceError):
                    if str(smi.amdsmi_get_gpu_device_uuid(handle)) not in known:
                        found.append(AmdSmiDevice(smi, index, handle, self._root))
        return found

    def _start(self) -> None:
        try:
            self._smi.amdsmi_init()
        except self._smi.AmdSmiException as error:
            raise failure("(all)", "start AMD SMI", error) from error

    def _stop(self) -> None:
        with contextlib.suppress(self._smi.AmdSmiException):
            self._smi.amdsmi_shut_down()

    def _restart(self) -> None:
        self._stop()
        self._start()


def _load() -> Any:
    """The package, which opens its library when it is imported."""
    try:
        with _talk_kept_away():
            import amdsmi  # Here and not above, so that the package imports on any machine.
    except ImportError as error:
        missing = "amdsmi needs the Python package amdsmi, which is missing: pip install rapid-power[amd]"
        raise ConfigInvalid("device.backend", missing) from error
    except (KeyError, AttributeError, OSError) as error:
        # KeyError: no library. AttributeError: one that lacks a function which the package knows.
        raise ConfigInvalid("device.backend", f"{_NO_LIBRARY} ({type(error).__name__}: {error})") from error
    return amdsmi


_NO_LIBRARY = (
    "amdsmi needs libamd_smi.so of the ROCm release that the Python package is for: install amd-smi-lib, and set "
    "ROCM_PATH if ROCm is not in /opt/rocm"
)


@contextlib.contextmanager
def _talk_kept_away() -> Iterator[None]:
    """The package prints to stdout that it found no library, before it fails."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _check_version(smi: Any) -> None:
    """The major version is that of the binary interface: with another, what is read is not what was meant."""
    ours, theirs = str(smi.__version__), smi.amdsmi_get_lib_version()
    major = int(ours.split(".")[0])
    if theirs["major"] != _LIBRARY_OF.get(major, major):
        found = f"{theirs['major']}.{theirs['minor']}.{theirs['release']}"
        raise ConfigInvalid(
            "device.backend",
            f"the Python package amdsmi {ours} does not fit libamd_smi.so {found}, which has another major version: "
            "install the package of the same ROCm release",
        )
