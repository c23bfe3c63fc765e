"""The NVML backend through the unmodified binding, on a fake driver."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.errors import ConfigInvalid, DeviceDenied, DeviceError, DeviceLost, DeviceMismatch
from rapidd.device.base import LimitReading, PowerReading
from rapidd.device.nvml import NvmlBackend
from rapidd.device.open import open_backend
from tests.fake_nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, FakeNvml

ROOT = Path(__file__).parents[2]
GPU0 = "GPU-00000000-0000-4000-8000-000000000000"
ENERGY, DRAW_INSTANT, ENFORCED, REQUESTED = 83, 186, 190, 192


@pytest.fixture
def backend(fake_nvml: FakeNvml) -> Iterator[NvmlBackend]:
    backend = NvmlBackend()
    yield backend
    backend.close()


def test_identity_and_range_come_from_the_driver(backend: NvmlBackend) -> None:
    info = backend.devices[0].info
    assert (info.gpu, info.index, info.name, info.driver) == (GPU0, 0, "Fake H200", "999.42")
    assert (info.floor_mw, info.ceiling_mw) == (100_000, 700_000)
    assert backend.faults == ()


def test_the_v1_setter_is_used_and_what_took_effect_is_on_record(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    backend.devices[1].set_limit(400_000)
    (record,) = fake_nvml.record()
    assert (record.gpu, record.asked_mw, record.enforced_mw) == (backend.devices[1].info.gpu, 400_000, 400_000)


def test_a_denied_set_says_which_right_is_missing_and_how_to_give_it(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].set_fault = NO_PERMISSION
    with pytest.raises(DeviceDenied) as caught:
        backend.devices[0].set_limit(500_000)
    assert str(caught.value) == (
        f"gpu {GPU0}: cannot set the limit to 500 W: Insufficient Permissions (NVML status 4); rapidd needs "
        "CAP_SYS_ADMIN, being root is not enough (systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: "
        "--cap-add=SYS_ADMIN)"
    )
    assert fake_nvml.record() == []


def test_a_lost_gpu_is_lost_for_every_verb(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].fault = GPU_IS_LOST
    device = backend.devices[0]
    for verb in (lambda: device.set_limit(500_000), device.read_limit, device.read_power):
        with pytest.raises(DeviceLost, match=rf"gpu {GPU0}: cannot .*GPU is lost \(NVML status 15\); look for Xid"):
            verb()
    assert backend.devices[1].read_limit() == LimitReading(700_000, 700_000)


def test_a_gpu_that_is_lost_at_start_does_not_stop_the_others(fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].fault = GPU_IS_LOST
    backend = NvmlBackend()
    try:
        assert [device.info.index for device in backend.devices] == [1]
        (fault,) = backend.faults
        assert isinstance(fault, DeviceLost)
        assert str(fault).startswith("gpu index 0: cannot read identity and limit range: GPU is lost")
    finally:
        backend.close()


def test_a_limit_range_without_sense_is_a_fault(fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[1].floor_mw = 800_000
    backend = NvmlBackend()
    try:
        assert [str(fault) for fault in backend.faults] == [
            "gpu GPU-00000001-0000-4000-8000-000000000000: limit range 800 W to 700 W makes no sense"
        ]
    finally:
        backend.close()


def test_a_cap_from_outside_shows_as_enforced_below_requested(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].cap_mw = 350_000
    backend.devices[0].set_limit(500_000)
    assert backend.devices[0].read_limit() == LimitReading(requested_mw=500_000, enforced_mw=350_000)


@pytest.mark.parametrize("absent", [NOT_SUPPORTED, 2, 13])
def test_a_field_that_is_absent_falls_back_to_its_own_getter(
    backend: NvmlBackend, fake_nvml: FakeNvml, absent: int
) -> None:
    gpu = fake_nvml.gpus[0]
    gpu.cap_mw, gpu.demand_mw, gpu.energy_mj = 350_000, 300_000, 2**40
    for field in (ENERGY, DRAW_INSTANT, ENFORCED, REQUESTED):
        gpu.field_fault[field] = absent
        assert backend.devices[0].read_limit() == LimitReading(700_000, 350_000)
        power = backend.devices[0].read_power()
        assert (power.draw_mw, power.energy_mj) == (300_000, 2**40)


def test_a_driver_without_field_values_is_read_through_the_older_getters(
    backend: NvmlBackend, fake_nvml: FakeNvml
) -> None:
    gpu = fake_nvml.gpus[0]
    gpu.fields_fault, gpu.demand_mw, gpu.energy_mj = 13, 300_000, 5
    assert backend.devices[0].read_limit() == LimitReading(700_000, 700_000)
    # The older draw is a mean over a second, so it may reach back further than the instant one.
    assert backend.devices[0].read_power() == PowerReading(300_000, 5, age_s=1.1)


def test_an_instant_draw_is_as_old_as_the_sensor_may_make_it(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].demand_mw = 300_000
    assert backend.devices[0].read_power() == PowerReading(300_000, 0, age_s=0.125)


def test_what_the_driver_does_not_tell_is_none_and_not_zero(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    gpu = fake_nvml.gpus[0]
    gpu.legacy_fault = NOT_SUPPORTED
    for field in (ENERGY, DRAW_INSTANT, REQUESTED):
        gpu.field_fault[field] = NOT_SUPPORTED
    assert backend.devices[0].read_limit() == LimitReading(requested_mw=None, enforced_mw=700_000)
    power = backend.devices[0].read_power()
    assert (power.draw_mw, power.energy_mj) == (None, None)


def test_a_gpu_that_does_not_tell_its_enforced_limit_cannot_be_managed(
    backend: NvmlBackend, fake_nvml: FakeNvml
) -> None:
    fake_nvml.gpus[0].fields_fault = fake_nvml.gpus[0].legacy_fault = NOT_SUPPORTED
    with pytest.raises(DeviceError, match=f"gpu {GPU0}: the driver does not tell which limit it enforces"):
        backend.devices[0].read_limit()


def test_the_status_of_one_value_counts_although_the_call_succeeded(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].field_fault[ENFORCED] = GPU_IS_LOST
    with pytest.raises(DeviceLost, match="cannot read the limit: GPU is lost"):
        backend.devices[0].read_limit()
    fake_nvml.gpus[0].field_fault[DRAW_INSTANT] = 20
    with pytest.raises(DeviceError, match=r"cannot read the draw: Insufficient Memory \(NVML status 20\)"):
        backend.devices[0].read_power()


def test_a_status_nobody_knows_is_still_one_line(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].set_fault = 777
    with pytest.raises(DeviceError) as caught:
        backend.devices[0].set_limit(500_000)
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
    fake_nvml: FakeNvml, status: int, kind: type[DeviceError], message: str
) -> None:
    fake_nvml.fail_init(status)
    with pytest.raises(DeviceError, match=message) as caught:
        NvmlBackend()
    assert type(caught.value) is kind


def test_after_close_the_device_is_lost_and_closing_twice_is_harmless(fake_nvml: FakeNvml) -> None:
    backend = NvmlBackend()
    backend.close()
    with pytest.raises(DeviceLost, match=r"Uninitialized \(NVML status 1\); .*restart rapidd"):
        backend.devices[0].read_limit()
    backend.close()


def test_the_driver_may_round_down(backend: NvmlBackend, fake_nvml: FakeNvml) -> None:
    fake_nvml.gpus[0].step_mw = 5_000
    backend.devices[0].set_limit(412_345)
    assert backend.devices[0].read_limit() == LimitReading(410_000, 410_000)


def test_the_fake_refuses_a_state_of_another_layout(fake_nvml: FakeNvml) -> None:
    # The guard of all tests above: a field added on one side only must not be read as its neighbour.
    with fake_nvml.path.open("r+b") as file:
        file.write(bytes(ctypes.c_uint32(8)))
    with pytest.raises(DeviceError, match="NVML status 25"):
        NvmlBackend()


OPEN_AND_LIST = (
    "from rapidd.device.open import open_backend; print(*[d.info.gpu for d in open_backend('nvml').devices])"
)


def test_another_process_finds_the_fake_by_library_path(nvml_library: Path, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
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
    assert str(caught.value) == "config key device.backend: no backend named 'cuda' (known: nvml, sim)"
    assert caught.value.key == "device.backend"


def _python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-c", code], {**os.environ, **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
