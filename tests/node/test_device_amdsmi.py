"""The AMD backend through the unmodified package amdsmi, on a fake library: what only AMD GPUs have, or lack."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rapid.core.cluster import EventKind, Slowdown
from rapid.core.errors import ConfigInvalid, DeviceDenied, DeviceError, DeviceLost
from rapidd.device.amdsmi import AmdSmiBackend
from rapidd.device.base import LimitReading, PowerReading
from tools.fake_gpu import FakeGpus, Gpu

ROOT = Path(__file__).parents[2]
GPU0 = "00000000-0000-4000-8000-000000000000"
NOT_SUPPORTED, NO_PERM, UNKNOWN_DATA, NOT_FOUND = 2, 10, 43, 31
SET, CAP, POWER = "amdsmi_set_power_cap", "amdsmi_get_power_cap_info", "amdsmi_get_power_info"
ENERGY, CLOCK, VIOLATIONS = "amdsmi_get_energy_count", "amdsmi_get_clock_info", "amdsmi_get_violation_status"
PROCESSES = "amdsmi_get_gpu_process_list"
ALWAYS_LACKS = {"requested limit", "error events"}
DEADLINE_S, SHORT_S = 10.0, 0.02

Open = Callable[[], AmdSmiBackend]


@pytest.fixture
def opened(fake_amdsmi: FakeGpus, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as held:

        def opened() -> AmdSmiBackend:
            backend = AmdSmiBackend(root=tmp_path)
            held.callback(backend.close)
            return backend

        yield opened


@pytest.fixture
def gpu(fake_amdsmi: FakeGpus) -> Gpu:
    return fake_amdsmi.gpus[0]


def unmanageable(opened: Open) -> str:
    backend = opened()
    assert backend.faults == ()
    assert backend.devices[1].info.unmanageable == "", "the other GPU is none the worse"
    return backend.devices[0].info.unmanageable


def test_identity_and_range_come_from_the_driver(opened: Open) -> None:
    info = opened().devices[1].info
    assert (info.gpu, info.index, info.bus) == ("00000001-0000-4000-8000-000000000000", 1, "0000:02:00.0")
    assert (info.name, info.driver) == ("Fake MI300X", "999.42")
    assert (info.floor_mw, info.ceiling_mw, info.unmanageable) == (100_000, 700_000, "")
    assert set(info.lacks) == ALWAYS_LACKS


def test_a_floor_of_nothing_is_a_watt_because_zero_means_the_default(opened: Open, gpu: Gpu) -> None:
    gpu.floor_mw = 0
    assert opened().devices[0].info.floor_mw == 1_000


def test_a_cap_is_set_in_whole_watts_and_read_back(opened: Open, fake_amdsmi: FakeGpus) -> None:
    device = opened().devices[0]
    device.set_limit(412_345)
    assert device.read_limit() == LimitReading(None, 412_000)
    (record,) = fake_amdsmi.record()
    assert (record.gpu, record.asked_mw, record.pid) == (GPU0, 412_000, os.getpid())


def test_draw_energy_clock_and_reasons_are_read(opened: Open, gpu: Gpu) -> None:
    gpu.demand_mw, gpu.energy_mj = 600_000, 1_000_000
    device = opened().devices[0]
    device.set_limit(300_000)
    power = device.read_power()
    assert power.energy_mj == pytest.approx(1_000_000, abs=1)
    assert power == PowerReading(300_000, power.energy_mj, 0.125, clock_mhz=990, slowdown=Slowdown.POWER_CAP)


def test_an_older_gpu_tells_a_mean_which_is_older_too(opened: Open, gpu: Gpu) -> None:
    gpu.demand_mw = 300_000
    gpu.answer(0, 1)  # the fake then tells the mean alone
    backend = opened()
    assert "instant draw" in backend.devices[0].info.lacks
    power = backend.devices[0].read_power()
    assert (power.draw_mw, power.age_s) == (300_000, 1.1)


@pytest.mark.parametrize(
    ("reasons", "slowdown"),
    [
        (0, Slowdown(0)),
        (0x04, Slowdown.POWER_CAP),
        (0x20, Slowdown.THERMAL),
        (0x60, Slowdown.THERMAL),
        (0x84, Slowdown.POWER_BRAKE | Slowdown.POWER_CAP),
    ],
)
def test_violations_are_told_in_our_words(opened: Open, gpu: Gpu, reasons: int, slowdown: Slowdown) -> None:
    gpu.reasons = reasons
    assert opened().devices[0].read_power().slowdown == slowdown


def test_processes_are_those_that_the_driver_lists(opened: Open, gpu: Gpu) -> None:
    device = opened().devices[0]
    gpu.pids = (4711, 12)
    assert device.processes() == (12, 4711)


@pytest.mark.parametrize(
    ("absent", "lacks"),
    [
        (POWER, {"draw", "instant draw"}),
        (ENERGY, {"energy counter"}),
        (CLOCK, {"clock"}),
        (VIOLATIONS, {"event reasons"}),
        (PROCESSES, {"processes"}),
        ("amdsmi_get_gpu_enumeration_info", set()),
        ("amdsmi_get_gpu_kfd_info", set()),
        ("amdsmi_get_gpu_virtualization_mode", set()),
        ("amdsmi_get_gpu_asic_info", set()),
        ("amdsmi_get_gpu_driver_info", set()),
    ],
)
@pytest.mark.parametrize("status", [NOT_SUPPORTED, 3, 40])
def test_a_missing_ability_is_named_and_costs_no_other(
    opened: Open, gpu: Gpu, absent: str, lacks: set[str], status: int
) -> None:
    gpu.demand_mw, gpu.pids = 800_000, (7,)
    gpu.answer(absent, status)
    device = opened().devices[0]
    assert (set(device.info.lacks), device.info.unmanageable) == (ALWAYS_LACKS | lacks, "")
    power = device.read_power()
    assert power.draw_mw == (None if "draw" in lacks else 700_000)
    assert (power.energy_mj is None) == ("energy counter" in lacks)
    assert (power.clock_mhz is None) == ("clock" in lacks)
    assert (power.slowdown is None) == ("event reasons" in lacks)
    assert device.processes() == (() if "processes" in lacks else (7,))
    device.set_limit(400_000)
    assert device.read_limit().enforced_mw == 400_000


@pytest.mark.parametrize(
    "function",
    [
        "amdsmi_get_gpu_enumeration_info",
        "amdsmi_get_gpu_kfd_info",
        "amdsmi_get_gpu_virtualization_mode",
        "amdsmi_get_gpu_asic_info",
        "amdsmi_get_gpu_driver_info",
    ],
)
def test_a_function_that_is_good_to_have_costs_no_gpu_when_it_fails(opened: Open, gpu: Gpu, function: str) -> None:
    gpu.answer(function, UNKNOWN_DATA)
    assert unmanageable(opened) == ""


def test_what_fails_just_now_is_not_given_up(opened: Open, gpu: Gpu) -> None:
    gpu.answer(CLOCK, UNKNOWN_DATA)
    gpu.answer(VIOLATIONS, UNKNOWN_DATA)
    device = opened().devices[0]
    assert (device.read_power().clock_mhz, device.read_power().slowdown) == (None, None)
    gpu.answer(CLOCK, 0)
    gpu.answer(VIOLATIONS, 0)
    assert (device.read_power().clock_mhz, device.read_power().slowdown) == (1980, Slowdown(0))


# ---- where the limit cannot be lowered ----


def test_a_guest_is_told_to_run_rapidd_on_the_host(opened: Open, gpu: Gpu) -> None:
    gpu.virtualization = 3
    assert unmanageable(opened) == (
        "it belongs to a virtual machine, and a guest cannot set its limit: run rapidd on the host"
    )


@pytest.mark.parametrize("mode", [0, 1, 2, 4])
def test_bare_metal_and_passed_through_gpus_are_managed(opened: Open, gpu: Gpu, mode: int) -> None:
    gpu.virtualization = mode
    assert unmanageable(opened) == ""


def test_a_guest_without_a_range_is_booked_at_what_is_in_force(opened: Open, gpu: Gpu) -> None:
    gpu.virtualization, gpu.floor_mw, gpu.ceiling_mw = 3, 2**32 - 1, 2**32 - 1
    info = opened().devices[0].info
    assert (info.floor_mw, info.ceiling_mw) == (700_000, 700_000)


def test_a_guest_without_any_limit_is_a_fault_that_says_so(opened: Open, gpu: Gpu) -> None:
    gpu.virtualization = 3
    gpu.answer(CAP, NOT_SUPPORTED)
    (fault,) = opened().faults
    assert str(fault).startswith(f"gpu {GPU0}: it belongs to a virtual machine")


def test_only_the_first_part_of_a_gpu_can_set_a_limit(opened: Open, gpu: Gpu) -> None:
    gpu.partition = 2
    assert unmanageable(opened) == "it is part 2 of a partitioned GPU, and only part 0 can set the limit of all"


def test_a_cap_that_the_kernel_lets_nobody_write_is_found_at_start(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "sys/bus/pci/devices/0000:01:00.0/hwmon/hwmon3/power1_cap"
    file.parent.mkdir(parents=True)
    file.touch(0o444)
    assert unmanageable(opened) == "its limit cannot be changed here: the kernel lets nobody write power1_cap"
    file.chmod(0o644)
    assert unmanageable(opened) == ""


def test_a_range_of_one_limit_cannot_be_managed(opened: Open, gpu: Gpu) -> None:
    gpu.floor_mw = gpu.ceiling_mw
    assert unmanageable(opened) == "its limit cannot be changed here: 700 W is both floor and ceiling"


def test_a_range_without_sense_is_a_fault(opened: Open, gpu: Gpu) -> None:
    gpu.floor_mw = 800_000
    (fault,) = opened().faults
    assert str(fault) == f"gpu {GPU0}: limit range 800 W to 700 W makes no sense"


# ---- what goes wrong ----


def test_a_denied_set_says_what_is_missing(opened: Open, gpu: Gpu, fake_amdsmi: FakeGpus) -> None:
    device = opened().devices[0]
    gpu.answer(SET, NO_PERM)
    with pytest.raises(DeviceDenied) as caught:
        device.set_limit(500_000)
    assert str(caught.value) == (
        f"gpu {GPU0}: cannot set the limit to 500 W: AMDSMI_STATUS_NO_PERM - Permission Denied (AMD SMI status 10); "
        "rapidd must be root to set a limit, and not in a virtual machine: a guest may not, whoever it is"
    )
    assert fake_amdsmi.record() == []


def test_another_status_is_one_line(opened: Open, gpu: Gpu) -> None:
    device = opened().devices[0]
    gpu.answer(CAP, 30)
    with pytest.raises(DeviceError) as caught:
        device.read_limit()
    assert (
        str(caught.value) == f"gpu {GPU0}: cannot read the limit: AMDSMI_STATUS_BUSY - Device busy (AMD SMI status 30)"
    )


def test_a_lost_gpu_is_told_and_works_again_when_it_is_back(opened: Open, fake_amdsmi: FakeGpus, gpu: Gpu) -> None:
    backend = opened()
    device = backend.devices[0]
    gpu.lost = True
    with pytest.raises(DeviceLost, match=r"AMDSMI_STATUS_NOT_FOUND.*look for amdgpu errors in dmesg"):
        device.read_limit()
    lost = backend.wait_event(DEADLINE_S)
    assert lost is not None
    assert (lost.gpu, lost.kind) == (GPU0, EventKind.LOST)
    assert backend.wait_event(SHORT_S) is None
    fake_amdsmi.gpus.reverse()
    gpu.lost = False
    back = backend.wait_event(DEADLINE_S)
    assert back is not None
    assert (back.gpu, back.kind) == (GPU0, EventKind.BACK)
    assert (device.info.gpu, device.info.index) == (GPU0, 1)
    device.set_limit(300_000)
    assert device.read_limit().enforced_mw == 300_000


def test_a_gpu_that_was_lost_at_the_start_comes_with_its_device_when_it_is_back(
    opened: Open, fake_amdsmi: FakeGpus
) -> None:
    fake_amdsmi.gpus[0].lost = True
    backend = opened()
    assert (len(backend.devices), len(backend.faults)) == (1, 1)
    assert backend.wait_event(SHORT_S) is None
    fake_amdsmi.gpus[0].lost = False
    event = backend.wait_event(DEADLINE_S)
    assert event is not None
    assert (event.gpu, event.kind) == (GPU0, EventKind.BACK)
    assert event.device is not None
    event.device.set_limit(250_000)
    assert event.device.read_limit().enforced_mw == 250_000


def test_a_driver_that_is_loaded_again_is_opened_again(opened: Open, fake_amdsmi: FakeGpus) -> None:
    backend = opened()
    backend.devices[0].set_limit(300_000)
    fake_amdsmi.unload()
    with pytest.raises(DeviceLost, match="AMDSMI_STATUS_DRIVER_NOT_LOADED"):
        backend.devices[0].read_limit()
    assert (event := backend.wait_event(DEADLINE_S)) is not None
    assert event.kind is EventKind.LOST
    fake_amdsmi.load()
    kinds = [event.kind for event in (backend.wait_event(DEADLINE_S) for _ in range(3)) if event]
    assert kinds == [EventKind.BACK, EventKind.RELOADED, EventKind.RELOADED]
    assert backend.devices[0].read_limit().enforced_mw == 700_000


def test_a_driver_that_does_not_start_says_why(fake_amdsmi: FakeGpus) -> None:
    fake_amdsmi.unload()
    with pytest.raises(DeviceLost, match=r"gpu \(all\): cannot start AMD SMI: .*the amdgpu driver is not loaded"):
        AmdSmiBackend()


def test_a_library_of_another_major_version_is_refused(fake_amdsmi: FakeGpus) -> None:
    fake_amdsmi.driver = "lib 27"
    fake_amdsmi.save()
    with pytest.raises(ConfigInvalid, match=r"amdsmi 7\.\S+ does not fit libamd_smi.so 27\.0\.2, .*same ROCm release"):
        AmdSmiBackend()


def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    # Found before any real one, and refused by the loader.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libamd_smi.so").touch()
    (tmp_path / "libamd_smi.so").touch()
    code = "from rapidd.device.open import open_backend; open_backend('amdsmi')"
    env = {**os.environ, "ROCM_PATH": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert done.stdout == "", "the package prints what it did not find; that is kept away"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rapid.core.errors.ConfigInvalid: config key device.backend: amdsmi needs libamd_smi.so of")


def test_importing_the_backend_loads_neither_package_nor_library() -> None:
    code = "import sys, rapidd.device.amdsmi; sys.exit('amdsmi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False)
    assert done.returncode == 0
