"""What only the simulated backend has: a folder of state files, a sensor that is off by a little, a clock."""

import statistics
from pathlib import Path

import pytest

from rapid.core.errors import ConfigInvalid
from rapid.sim.model.power import Lag
from rapid.simgpu import SimGpu, SimGpuSpec
from rapidd.device.open import open_backend
from rapidd.device.sim import SENSOR_NOISE, SimBackend

BUSY_MW = 600_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def create(folder: Path, index: int, gpu: str) -> SimGpu:
    spec = SimGpuSpec(gpu, index, "sim", 100_000, 700_000, idle_mw=50_000, lag=Lag(0.1, 0.1, 0.05))
    made = SimGpu.create(folder / f"{index}.gpu", spec, at_s=0.0)
    made.set_activity(BUSY_MW, until_s=1e6, at_s=0.0)
    return made


def draws(folder: Path, readings: int) -> list[int]:
    backend = SimBackend(folder, Clock())
    found = [backend.devices[0].read_power().draw_mw for _ in range(readings)]
    backend.close()
    return [draw_mw for draw_mw in found if draw_mw is not None]


def test_the_sensor_is_off_by_one_percent_and_never_by_more_than_three(tmp_path: Path) -> None:
    create(tmp_path, 0, "GPU-a")
    errors = [draw_mw / BUSY_MW - 1.0 for draw_mw in draws(tmp_path, 3000)]
    assert len(errors) == 3000
    assert abs(statistics.mean(errors)) < 0.001
    assert statistics.stdev(errors) == pytest.approx(SENSOR_NOISE, rel=0.1)
    assert max(map(abs, errors)) <= 3 * SENSOR_NOISE + 1e-5


def test_the_sensor_repeats_itself_for_one_gpu_and_differs_between_two(tmp_path: Path) -> None:
    create(tmp_path, 0, "GPU-a")
    assert draws(tmp_path, 20) == draws(tmp_path, 20)
    other = tmp_path / "other"
    other.mkdir()
    create(other, 0, "GPU-b")
    assert draws(tmp_path, 20) != draws(other, 20)


def test_energy_is_exact_whatever_the_sensor_says(tmp_path: Path) -> None:
    create(tmp_path, 0, "GPU-a")
    clock = Clock()
    backend = SimBackend(tmp_path, clock)
    clock.now_s = 10.0
    assert backend.devices[0].read_power().energy_mj == BUSY_MW * 10
    backend.close()


def test_the_draw_follows_a_cut_with_the_devices_lag_and_not_the_read_back(tmp_path: Path) -> None:
    create(tmp_path, 0, "GPU-a")
    clock = Clock()
    backend = SimBackend(tmp_path, clock, noise=0.0)
    (device,) = backend.devices
    device.set_limit(300_000)
    assert device.read_limit().enforced_mw == 300_000
    clock.now_s = 0.05
    assert device.read_power().draw_mw == BUSY_MW
    clock.now_s = 2.0
    assert device.read_power().draw_mw == pytest.approx(300_000, abs=10)
    backend.close()


def test_a_file_that_is_no_gpu_is_a_fault_and_the_others_open(tmp_path: Path) -> None:
    create(tmp_path, 1, "GPU-b")
    (tmp_path / "0.gpu").write_bytes(b"not a gpu")
    backend = SimBackend(tmp_path, Clock())
    assert [device.info.gpu for device in backend.devices] == ["GPU-b"]
    (fault,) = backend.faults
    assert str(tmp_path / "0.gpu") in str(fault)
    backend.close()


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_gpus_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        open_backend("sim", sim_dir=tmp_path / name, clock=Clock())
    folder = tmp_path / name
    assert str(caught.value) == (
        f"config key device.path: {folder} holds no *.gpu file; rapidctl sim-gpus makes such a folder"
    )


def test_a_simulated_backend_without_a_folder_is_a_config_error() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        open_backend("sim", clock=Clock())
    assert str(caught.value) == ('config key device.path: is needed with backend "sim": the folder of its *.gpu files')


def test_the_chosen_backend_is_opened(tmp_path: Path) -> None:
    create(tmp_path, 0, "GPU-a").close()
    backend = open_backend("sim", sim_dir=tmp_path, clock=Clock())
    assert [device.info.gpu for device in backend.devices] == ["GPU-a"]
    backend.close()
