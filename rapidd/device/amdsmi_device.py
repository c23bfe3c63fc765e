"""One AMD GPU: what it is, which abilities its driver has, its limit (AMD: power cap), its draw, and who uses it."""

from collections.abc import Callable
from ctypes import byref
from functools import reduce
from operator import or_
from pathlib import Path
from threading import Lock
from typing import Any

from rapid.core.cluster import Slowdown
from rapid.core.errors import DeviceError, DeviceLost, watts
from rapidd.device.amdsmi_status import ABSENT, DRIVER_GONE, LOST, failure, status_of
from rapidd.device.base import DeviceInfo, Holder, LimitReading, PowerReading
from rapidd.device.holders import holders_of
from rapidd.device.recovery import Calling, Loss

Handle = Any  # amdsmi_processor_handle

_UW_PER_MW = 1_000  # caps are in microwatts on a host that runs the amdgpu driver (amdsmi_power_cap_info_t)
_UJ_PER_MJ = 1_000
# The board's own cap; others exist on parts with two supplies (amdsmi_set_power_cap, sensor_ind).
_SENSOR = 0
# The kernel takes a cap of 0 for "back to the default", which may be more than anybody granted.
_FLOOR_MW = 1_000
# Assumed: how far back a draw may reach. MI300 and later tell one of the last samples, others a mean (power info).
_CURRENT_AGE_S, _AVERAGE_AGE_S = 0.125, 1.1
# A member that this GPU does not have is all ones, of 16 or of 32 bits, or "N/A".
_NOT_TOLD = (0xFFFF, 0xFFFFFFFF, "N/A")

_GUEST = "it belongs to a virtual machine, and a guest cannot set its limit: run rapidd on the host"
_PART = "it is part {} of a partitioned GPU, and only part 0 can set the limit of all"
_READ_ONLY = "its limit cannot be changed here: the kernel lets nobody write {}"
_FIXED = "its limit cannot be changed here: {} is both floor and ceiling"

# Members of amdsmi_violation_status_t: 0 or 1, all ones if not told.
_VIOLATIONS = {
    "active_ppt_pwr": Slowdown.POWER_CAP,
    "active_prochot_thrm": Slowdown.POWER_BRAKE,  # PROCHOT: a signal from outside, or the last resort against heat
    "active_socket_thrm": Slowdown.THERMAL,
    "active_vr_thrm": Slowdown.THERMAL,
    "active_hbm_thrm": Slowdown.THERMAL,
}


class AmdSmiDevice:
    """One AMD GPU; obeys `Device`. The constructor raises DeviceError for a GPU that cannot be used at all.

    `smi` is the package amdsmi; `root` is where /dev and /sys are.
    """

    def __init__(self, smi: Any, index: int, handle: Handle, root: Path) -> None:
        self._smi, self._root = smi, root
        self.gpu = f"index {index}"
        self.loss: Loss | None = None
        self.lock = Lock()
        with Calling(self, "read identity and limit range"):
            self.gpu = self._uuid(handle)
            self._open(index, handle)

    def open_again(self) -> None:
        try:
            for index, handle in enumerate(self._smi.amdsmi_get_processor_handles()):
                if self._uuid(handle) == self.gpu:
                    return self._open(index, handle)
        except self._smi.AmdSmiException as error:
            raise failure(self.gpu, "find it again", error) from error
        raise DeviceLost(self.gpu, "the driver does not show it any more")

    def understand(self, what: str, error: BaseException) -> tuple[DeviceError, bool] | None:
        if not isinstance(error, self._smi.AmdSmiException):
            return None
        return failure(self.gpu, what, error), status_of(error) in DRIVER_GONE

    def set_limit(self, limit_mw: int) -> None:
        self.info.check_range(limit_mw)
        with Calling(self, f"set the limit to {watts(limit_mw)}"):
            self._smi.amdsmi_set_power_cap(self._handle, _SENSOR, limit_mw * _UW_PER_MW)

    def read_limit(self) -> LimitReading:
        with Calling(self, "read the limit"):
            cap = self._smi.amdsmi_get_power_cap_info(self._handle)
        # The cap in force; what was asked for is not kept anywhere.
        return LimitReading(None, -(-cap["power_cap"] // _UW_PER_MW))

    def read_power(self) -> PowerReading:
        return self._read_power(clock=True)

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        return self.read_limit(), self._read_power(clock=clock)

    def _read_power(self, *, clock: bool) -> PowerReading:
        with Calling(self, "read the draw"):
            draw_mw = None if self._draw is None else self._draw_mw(self._handle)
            energy_mj = None if self._energy is None else _energy_mj(self._energy(self._handle))
            pace = self._perhaps(self._clock, self._handle) if clock else None
            violations = self._perhaps(self._violations, self._handle) if clock else None
        age_s = _CURRENT_AGE_S if self._draw == "current_socket_power" else _AVERAGE_AGE_S
        clock_mhz = None if pace is None else _told(pace["clk"])
        slowdown = None if violations is None else _slowdown(violations)
        return PowerReading(draw_mw, energy_mj, age_s, clock_mhz, slowdown)

    def processes(self) -> tuple[int, ...]:
        with Calling(self, "list its processes"):
            found = self._maybe(self._smi.amdsmi_get_gpu_process_list, self._handle) or ()
        return tuple(sorted({int(process["pid"]) for process in found}))

    def holders(self) -> tuple[Holder, ...]:
        return holders_of({self._file}) if self._file else ()

    def _uuid(self, handle: Handle) -> str:
        return str(self._smi.amdsmi_get_gpu_device_uuid(handle))

    def _open(self, index: int, handle: Handle) -> None:
        """Take the GPU behind this handle: its identity, range and abilities. Raises AmdSmiException or DeviceError."""
        smi = self._smi
        power = self._maybe(smi.amdsmi_get_power_info, handle) or {}
        told = [key for key in ("current_socket_power", "average_socket_power") if _told(power.get(key)) is not None]
        self._draw = told[0] if told else None
        self._energy = self._if_there(smi.amdsmi_get_energy_count, handle)
        self._clock = self._if_there(self._gfx_clock, handle)
        self._violations = self._if_there(self._violation_status, handle)
        render = (self._perhaps(smi.amdsmi_get_gpu_enumeration_info, handle) or {}).get("drm_render")
        self._file = None if _told(render) is None else self._root / f"dev/dri/renderD{render}"
        abilities = {
            "requested limit": None,
            "draw": self._draw,
            "instant draw": self._draw == "current_socket_power",
            "energy counter": self._energy,
            "clock": self._clock,
            "event reasons": self._violations,
            "processes": self._if_there(smi.amdsmi_get_gpu_process_list, handle),
            "error events": None,
        }
        self.info = self._describe(index, handle, tuple(name for name, there in abilities.items() if not there))
        self._handle = handle

    def _describe(self, index: int, handle: Handle, lacks: tuple[str, ...]) -> DeviceInfo:
        smi = self._smi
        bus = str(smi.amdsmi_get_gpu_device_bdf(handle))
        why_not, cap = self._why_not(handle, bus), self._maybe(smi.amdsmi_get_power_cap_info, handle)
        if cap is None:
            raise DeviceError(self.gpu, why_not or "the driver tells no limit for it")
        ceiling_mw = cap["max_power_cap"] // _UW_PER_MW
        floor_mw = max(_FLOOR_MW, -(-cap["min_power_cap"] // _UW_PER_MW))
        if why_not and not floor_mw <= ceiling_mw <= 10**9:
            # A guest may be told all ones for the range; what is in force stays so.
            floor_mw = ceiling_mw = -(-cap["power_cap"] // _UW_PER_MW)
        if not floor_mw <= ceiling_mw:
            raise DeviceError(self.gpu, f"limit range {watts(floor_mw)} to {watts(ceiling_mw)} makes no sense")
        name = self._perhaps(smi.amdsmi_get_gpu_asic_info, handle) or {}
        driver = self._perhaps(smi.amdsmi_get_gpu_driver_info, handle) or {}
        return DeviceInfo(
            self.gpu,
            index,
            str(name.get("market_name", "AMD GPU")),
            str(driver.get("driver_version", "")),
            floor_mw,
            ceiling_mw,
            bus=bus,
            unmanageable=why_not or (_FIXED.format(watts(floor_mw)) if floor_mw == ceiling_mw else ""),
            lacks=lacks,
        )

    def _why_not(self, handle: Handle, bus: str) -> str:
        """Why the limit cannot be changed here, found before anybody tries in need; empty if nothing speaks against."""
        smi = self._smi
        mode = (self._perhaps(smi.amdsmi_get_gpu_virtualization_mode, handle) or {}).get("mode")
        if mode == smi.AmdSmiVirtualizationMode.GUEST:
            return _GUEST
        part = _told((self._perhaps(smi.amdsmi_get_gpu_kfd_info, handle) or {}).get("current_partition_id"))
        if part:
            return _PART.format(part)
        # In an SR-IOV guest the amdgpu driver takes the write bit away (hwmon_attributes_visible in amdgpu_pm.c); root
        # passes every check of permissions, so it is the bit that tells.
        for file in (self._root / "sys/bus/pci/devices" / bus / "hwmon").glob("hwmon*/power1_cap"):
            if not file.stat().st_mode & 0o222:
                return _READ_ONLY.format(file.name)
        return ""

    def _draw_mw(self, handle: Handle) -> int | None:
        draw_w = _told(self._smi.amdsmi_get_power_info(handle)[self._draw])
        return None if draw_w is None else draw_w * 1000

    def _gfx_clock(self, handle: Handle) -> Any:
        return self._smi.amdsmi_get_clock_info(handle, self._smi.AmdSmiClkType.GFX)

    def _violation_status(self, handle: Handle) -> Any:
        # The package's own function makes 1,600 Python values of the struct, which would cost more than all else.
        wrapper = self._smi.amdsmi_wrapper
        status = wrapper.amdsmi_violation_status_t()
        if code := wrapper.amdsmi_get_violation_status(handle, byref(status)):
            raise self._smi.AmdSmiLibraryException(code)
        return status

    def _maybe(self, getter: Callable[[Handle], Any], handle: Handle) -> Any | None:
        """What the getter says; None for one that this driver or GPU does not have."""
        try:
            return getter(handle)
        except self._smi.AmdSmiException as error:
            if status_of(error) not in ABSENT:
                raise
            return None

    def _if_there(self, getter: Callable[[Handle], Any], handle: Handle) -> Callable[[Handle], Any] | None:
        """The getter, if this driver and GPU have it; one that fails just now is one that they have."""
        try:
            return None if self._maybe(getter, handle) is None else getter
        except self._smi.AmdSmiException as error:
            if status_of(error) in LOST:
                raise
            return getter

    def _perhaps(self, getter: Callable[[Handle], Any] | None, handle: Handle) -> Any | None:
        """What the getter says of something that is good to know; None for one that is absent, or fails just now."""
        try:
            return None if getter is None else getter(handle)
        except self._smi.AmdSmiException as error:
            if status_of(error) in LOST:
                raise
            return None


def _told(value: Any) -> int | None:
    return None if value is None or value in _NOT_TOLD else int(value)


def _energy_mj(count: Any) -> int:
    return int(count["energy_accumulator"] * count["counter_resolution"] / _UJ_PER_MJ)


def _slowdown(status: Any) -> Slowdown | None:
    """None if the GPU tells none of the reasons."""
    told = [(getattr(status, key), reason) for key, reason in _VIOLATIONS.items()]
    if all(active == 0xFF for active, _ in told):
        return None
    return reduce(or_, (reason for active, reason in told if active == 1), Slowdown(0))
