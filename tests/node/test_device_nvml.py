"""The NVML backend through the unmodified binding, on a fake driver: what is set, and what is read."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Slowdown
from rapid.core.errors import ConfigInvalid, DeviceDenied, DeviceError, DeviceLost, DeviceMismatch
from rapidd.device.base import Device, LimitReading, PowerReading
from rapidd.device.nvml import NvmlBackend
from rapidd.device.open import open_backend
from tests.node.at_work import AtWork
from tools.fake_gpu import NO_PERMISSION, FakeGpus, Gpu

ROOT = Path(__file__).parents[2]
GPU0 = "GPU-00000000-0000-4000-8000-000000000000"
SET = "nvmlDeviceSetPowerManagementLimit"
ENERGY, DRAW_INSTANT, ENFORCED, REQUESTED = 83, 186, 190, 192


@pytest.fixture
def backend(fake_nvml: FakeGpus) -> Iterator[NvmlBackend]:
    backend = NvmlBackend()
    yield backend
    backend.close()


@pytest.fixture
def device(backend: NvmlBackend) -> Device:
    return backend.devices[0]


@pytest.fixture
def gpu(fake_nvml: FakeGpus) -> Gpu:
    return fake_nvml.gpus[0]


def test_identity_and_range_come_from_the_driver(backend: NvmlBackend) -> None:
    info = backend.devices[1].info
    assert (info.gpu, info.index, info.bus) == ("GPU-00000001-0000-4000-8000-000000000000", 1, "00000000:02:00.0")
    assert (info.name, info.driver) == ("Fake H200", "999.42")
    assert (info.floor_mw, info.ceiling_mw) == (100_000, 700_000)
    assert backend.faults == ()


def test_the_v1_setter_is_used_and_what_took_effect_is_on_record(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    backend.devices[1].set_limit(400_000)
    (record,) = fake_nvml.record()
    assert (record.gpu, record.asked_mw, record.enforced_mw) == (backend.devices[1].info.gpu, 400_000, 400_000)
    assert record.pid == os.getpid()


def test_a_denied_set_says_which_right_is_missing_and_how_to_give_it(
    device: Device, gpu: Gpu, fake_nvml: FakeGpus
) -> None:
    gpu.answer(SET, NO_PERMISSION)
    with pytest.raises(DeviceDenied) as caught:
        device.set_limit(500_000)
    assert str(caught.value) == (
        f"gpu {GPU0}: cannot set the limit to 500 W: Insufficient Permissions (NVML status 4); rapidd needs "
        "CAP_SYS_ADMIN, being root is not enough (systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: "
        "--cap-add=SYS_ADMIN)"
    )
    assert fake_nvml.record() == []


def test_a_lost_gpu_is_lost_for_every_verb(backend: NvmlBackend, gpu: Gpu) -> None:
    gpu.lost = True
    device = backend.devices[0]
    for verb in (lambda: device.set_limit(500_000), device.read_limit, device.read_power, device.processes):
        with pytest.raises(DeviceLost, match=rf"gpu {GPU0}: cannot .*GPU is lost \(NVML status 15\); look for Xid"):
            verb()
    assert backend.devices[1].read_limit() == LimitReading(700_000, 700_000)


def test_a_cap_from_outside_shows_as_enforced_below_requested(device: Device, gpu: Gpu) -> None:
    gpu.cap_mw = 350_000
    device.set_limit(500_000)
    assert device.read_limit() == LimitReading(requested_mw=500_000, enforced_mw=350_000)


def test_an_instant_draw_is_as_old_as_the_sensor_may_make_it(device: Device, gpu: Gpu) -> None:
    gpu.demand_mw, gpu.energy_mj = 300_000, 7
    assert device.read_power() == PowerReading(300_000, 7, age_s=0.125, clock_mhz=1980, slowdown=Slowdown(0))


def test_a_gpu_at_its_limit_says_so_and_its_clock_falls(device: Device, gpu: Gpu) -> None:
    gpu.demand_mw = 600_000
    device.set_limit(300_000)
    power = device.read_power()
    assert (power.draw_mw, power.clock_mhz, power.slowdown) == (300_000, 990, Slowdown.POWER_CAP)


@pytest.mark.parametrize(
    ("reasons", "slowdown"),
    [
        (0x01, Slowdown(0)),  # idle is no slowdown
        (0x02, Slowdown.OTHER),  # locked clocks
        (0x04, Slowdown.POWER_CAP),
        (0x08, Slowdown.OTHER),  # hardware slowdown with no reason of its own
        (0x20, Slowdown.THERMAL),
        (0x48, Slowdown.THERMAL),
        (0x88, Slowdown.POWER_BRAKE),
        (0x8C, Slowdown.POWER_BRAKE | Slowdown.POWER_CAP),
        (0x8000, Slowdown.OTHER),  # not invented yet
    ],
)
def test_event_reasons_are_told_in_our_words(device: Device, gpu: Gpu, reasons: int, slowdown: Slowdown) -> None:
    gpu.reasons = reasons
    assert device.read_power().slowdown == slowdown


def test_energy_counts_what_is_drawn(device: Device, gpu: Gpu) -> None:
    gpu.energy_mj = 2**40
    assert device.read_power().energy_mj == 2**40


def test_processes_are_those_that_the_driver_lists(device: Device, gpu: Gpu) -> None:
    assert device.processes() == ()
    gpu.pids = (4711, 12, 4711)
    assert device.processes() == (12, 4711)


def test_the_status_of_one_value_counts_although_the_call_succeeded(device: Device, gpu: Gpu) -> None:
    gpu.answer(DRAW_INSTANT, 20)
    with pytest.raises(DeviceError, match=r"cannot read the draw: Insufficient Memory \(NVML status 20\)"):
        device.read_power()
    gpu.answer(ENFORCED, 15)
    with pytest.raises(DeviceLost, match="cannot read the limit: GPU is lost"):
        device.read_limit()


@pytest.mark.parametrize("field", [DRAW_INSTANT, ENERGY, ENFORCED, REQUESTED])
def test_one_value_that_fails_fails_what_is_read_together_and_not_the_rest(
    device: Device, gpu: Gpu, field: int
) -> None:
    gpu.answer(field, 20)
    with pytest.raises(DeviceError, match=r"cannot read limit and draw: Insufficient Memory \(NVML status 20\)"):
        device.read_both(clock=False)
    at_work = AtWork(device, time.monotonic)
    sample = at_work.sample()
    at_work.stop()
    of_limit = field in (ENFORCED, REQUESTED)
    assert (sample.limit is None, sample.power is None) == (of_limit, not of_limit)
    assert str(sample.error).startswith(f"gpu {gpu.uuid}: cannot read the {'limit' if of_limit else 'draw'}: ")


@pytest.mark.parametrize("getter", ["nvmlDeviceGetClockInfo", "nvmlDeviceGetCurrentClocksEventReasons"])
def test_a_sample_without_the_clock_is_one_call_of_the_driver(device: Device, gpu: Gpu, getter: str) -> None:
    """Each costs a host some hundred microseconds, for every GPU ten times a second."""
    gpu.answer(getter, 15)  # the GPU is lost to whoever asks for this
    for older in ("EnforcedPowerLimit", "PowerManagementLimit", "PowerUsage", "TotalEnergyConsumption"):
        gpu.answer(f"nvmlDeviceGet{older}", 15)
    assert device.read_both(clock=False)[0] == LimitReading(700_000, 700_000)
    with pytest.raises(DeviceLost):
        device.read_both(clock=True)


def test_a_clock_or_reason_that_fails_just_now_costs_no_reading(device: Device, gpu: Gpu) -> None:
    gpu.demand_mw = 300_000
    gpu.answer("nvmlDeviceGetClockInfo", 999)
    gpu.answer("nvmlDeviceGetCurrentClocksEventReasons", 999)
    power = device.read_power()
    assert (power.draw_mw, power.clock_mhz, power.slowdown) == (300_000, None, None)


def test_a_status_nobody_knows_is_still_one_line(device: Device, gpu: Gpu) -> None:
    gpu.answer(SET, 777)
    with pytest.raises(DeviceError) as caught:
        device.set_limit(500_000)
    assert str(caught.value) == f"gpu {GPU0}: cannot set the limit to 500 W: Fake error 777 (NVML status 777)"


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (
            9,
            DeviceLost,
            r"gpu \(all\): cannot start NVML: Driver Not Loaded \(NVML status 9\); the NVIDIA driver is not",
        ),
        (18, DeviceLost, "RM has detected an NVML/RM version mismatch.*differ: reboot after an upgrade"),
        (17, DeviceDenied, r"rapidd may not open /dev/nvidia\* \(systemd: DeviceAllow=char-nvidia\* rw\)"),
        (20, DeviceError, "cannot start NVML: Insufficient Memory"),
    ],
)
def test_a_driver_that_does_not_start_says_why(
    fake_nvml: FakeGpus, status: int, kind: type[DeviceError], message: str
) -> None:
    fake_nvml.answer("nvmlInitWithFlags", status)
    with pytest.raises(DeviceError, match=message) as caught:
        NvmlBackend()
    assert type(caught.value) is kind


def test_after_close_the_device_is_lost_and_closing_twice_is_harmless(fake_nvml: FakeGpus) -> None:
    backend = NvmlBackend()
    backend.close()
    with pytest.raises(DeviceLost, match=r"Uninitialized \(NVML status 1\); .*check nvidia-smi"):
        backend.devices[0].read_limit()
    assert backend.wait_event(60.0) is None
    backend.close()


def test_the_driver_may_round_down(device: Device, gpu: Gpu) -> None:
    gpu.step_mw = 5_000
    device.set_limit(412_345)
    assert device.read_limit() == LimitReading(410_000, 410_000)


def test_a_driver_that_rounds_up_is_caught_by_the_read_back(device: Device, gpu: Gpu) -> None:
    gpu.step_mw, gpu.round_up = 5_000, True
    at_work = AtWork(device, lambda: 1.0)
    done = at_work.write(412_345)
    at_work.stop()
    assert isinstance(done.error, DeviceMismatch)
    assert str(done.error) == f"gpu {GPU0}: limit set to 412.3 W but the device reads back 415 W"


OPEN_AND_LIST = (
    "from rapidd.device.open import open_backend; print(*[d.info.gpu for d in open_backend('nvml').devices])"
)


def test_another_process_finds_the_fake_by_library_path(nvml_library: Path, tmp_path: Path) -> None:
    fake = FakeGpus(tmp_path, gpus=1)
    done = _python(OPEN_AND_LIST, fake.env(nvml_library))
    assert (done.stdout, done.returncode) == (f"{GPU0}\n", 0), done.stderr


def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    # Found before any real one, and refused by the loader.
    (tmp_path / "libnvidia-ml.so.1").touch()
    done = _python(OPEN_AND_LIST, {"LD_LIBRARY_PATH": str(tmp_path)})
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "rapid.core.errors.ConfigInvalid: config key device.backend: nvml needs libnvidia-ml.so.1, which is not on "
        "this machine: install the NVIDIA driver (Debian: libnvidia-ml1; container: NVIDIA container toolkit with "
        "NVIDIA_DRIVER_CAPABILITIES=utility), or use another backend"
    )


def test_importing_the_backends_loads_neither_binding_nor_library() -> None:
    code = "import sys, rapidd.device.open, rapidd.device.nvml, rapidd.device.sim; sys.exit('pynvml' in sys.modules)"
    done = _python(code, {})
    assert done.returncode == 0, done.stderr


def test_the_message_of_a_mismatch_names_both_limits() -> None:
    error = DeviceMismatch(GPU0, asked_mw=400_000, read_mw=700_000)
    assert str(error) == f"gpu {GPU0}: limit set to 400 W but the device reads back 700 W"


def test_a_backend_nobody_knows_is_a_config_error() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        open_backend("cuda")
    assert str(caught.value) == "config key device.backend: no backend named 'cuda' (known: nvml, amdsmi, sim)"
    assert caught.value.key == "device.backend"


def _python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-c", code], {**os.environ, **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
