"""The checks of tests/gpu, which CI never runs on a GPU, run on the fake driver: they pass there, and they can fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fake_gpu import FUNCTION_NOT_FOUND, NOT_SUPPORTED, FakeGpus

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path: Path) -> FakeGpus:
    fake = FakeGpus(tmp_path, gpus=2)
    for gpu in fake.gpus:
        gpu.demand_mw, gpu.pids = 300_000, (1, 2)
    return fake


def check(fake: FakeGpus, library: Path) -> tuple[int, str]:
    """The exit code of the checks on this driver, and what they say."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", "-n", "0", "tests/gpu"]
    env = {**os.environ, **fake.env(library)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout


def test_they_pass_on_a_gpu_of_today_and_set_nothing(fake: FakeGpus, nvml_library: Path) -> None:
    code, said = check(fake, nvml_library)
    assert (code, " skipped" in said) == (0, False), said
    assert fake.record() == []


def test_they_pass_on_an_older_driver(fake: FakeGpus, nvml_library: Path) -> None:
    for gpu in fake.gpus:
        gpu.answer("nvmlDeviceGetFieldValues", FUNCTION_NOT_FOUND)
        gpu.answer("nvmlDeviceGetTotalEnergyConsumption", NOT_SUPPORTED)
        gpu.answer("nvmlDeviceGetCurrentClocksEventReasons", FUNCTION_NOT_FOUND)
        gpu.answer("nvmlDeviceGetMigMode", NOT_SUPPORTED)
    code, said = check(fake, nvml_library)
    assert (code, " skipped" in said) == (0, False), said


def test_they_fail_on_a_driver_that_contradicts_itself(fake: FakeGpus, nvml_library: Path) -> None:
    fake.gpus[0].energy_mj, fake.gpus[0].delay_ms = 7, 20
    fake.gpus[1].answer("nvmlDeviceGetMinorNumber", 999)
    code, said = check(fake, nvml_library)
    assert code == 1
    for name in ("draw_is_watts_and_energy", "every_function_answers", "a_sample_fits"):
        assert f"FAILED tests/gpu/test_gpu_nvml.py::test_{name}" in said


def test_they_say_why_they_are_skipped(fake: FakeGpus, nvml_library: Path) -> None:
    fake.unload()
    code, said = check(fake, nvml_library)
    assert code == 0
    assert "cannot start NVML: Driver Not Loaded" in said
