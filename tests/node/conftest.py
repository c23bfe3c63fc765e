"""The fake GPU libraries for tests of the node: compiled once, and a scripted driver per test."""

from pathlib import Path

import pytest

from tools.fake_gpu import FakeGpus, NoCompiler, build, preload


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fake libnvidia-ml.so.1, loaded into this process."""
    try:
        library = build(tmp_path_factory.mktemp("fake_nvml"))
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
