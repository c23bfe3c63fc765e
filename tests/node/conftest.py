"""The fake GPU libraries for tests of the node: compiled once, and a scripted driver per test."""

from pathlib import Path

import pytest

from tools.fake_gpu import FakeGpus, NoBinding, NoCompiler, build, preload


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fake libnvidia-ml.so.1, loaded into this process."""
    try:
        library = build(tmp_path_factory.mktemp("fake_nvml"), strict=True)
    except NoCompiler as error:
        pytest.skip(str(error))
    preload(library)
    return library


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """A driver with two GPUs (100..700 W, at 700 W) that the binding in this process finds."""
    fake = FakeGpus(tmp_path, gpus=2)
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture(scope="session")
def amdsmi_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fake libamd_smi.so, loaded into this process."""
    try:
        library = build(tmp_path_factory.mktemp("fake_amdsmi"), "amdsmi", strict=True)
    except (NoCompiler, NoBinding) as error:
        pytest.skip(str(error))
    preload(library)
    return library


@pytest.fixture
def fake_amdsmi(amdsmi_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """A driver with two AMD GPUs (100..700 W, at 700 W) that the package in this process finds."""
    fake = FakeGpus(tmp_path, "amdsmi", gpus=2)
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    # A real ROCm would be found before the fake.
    monkeypatch.delenv("ROCM_PATH", raising=False)
    monkeypatch.delenv("ROCM_HOME", raising=False)
    return fake
