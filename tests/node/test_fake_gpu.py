"""The fake driver that the tests of the node rest on: its script, its memory, its record, and the tool around it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.errors import DeviceError
from rapidd.device.nvml import NvmlBackend
from tests.wait import wait_for
from tools.fake_gpu import FakeGpus, Gpu

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
SET_AND_WAIT = """
import pynvml, sys
pynvml.nvmlInit()
pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0), int(sys.argv[1]))
"""


@pytest.fixture
def backend(fake_nvml: FakeGpus) -> Iterator[NvmlBackend]:
    backend = NvmlBackend()
    yield backend
    backend.close()


@pytest.fixture
def gpu(fake_nvml: FakeGpus) -> Gpu:
    return fake_nvml.gpus[0]


def read_mw(backend: NvmlBackend) -> int:
    return backend.devices[0].read_limit().enforced_mw


def setting(limit_mw: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SET_AND_WAIT, str(limit_mw)], env={**os.environ, **env})


def test_an_edit_acts_on_the_next_call_of_a_process_that_runs(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    text = fake_nvml.path.read_text()
    for limit_w in (300, 99, 200):
        # In place, as some editors do; the others rename, as FakeGpus.save does. The length tells two writes apart that
        # come within one tick of the kernel's clock for files, which a person's do not.
        fake_nvml.path.write_text(text.replace("cap_mw = 0 ", f"cap_mw = {limit_w}000 "))
        assert read_mw(backend) == limit_w * 1000


def test_a_file_that_an_editor_has_just_emptied_is_not_the_script(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    fake_nvml.path.write_text("")
    assert read_mw(backend) == 700_000
    fake_nvml.path.unlink()
    assert read_mw(backend) == 700_000


def test_a_mistake_in_the_script_is_named_by_its_line(tmp_path: Path, nvml_library: Path) -> None:
    fake = FakeGpus(tmp_path, gpus=1)
    fake.path.write_text("driver = 1\ncolour = red\n[GPU-a]\nfloor_w = 1\nlost = perhaps\nwhat\n")
    code = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"
    env = {**os.environ, **fake.env(nvml_library)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "1\n"
    assert done.stderr.splitlines() == [
        "fake GPU: line 2 of the script: the host has no colour",
        "fake GPU: line 4 of the script: a GPU has no floor_w",
        "fake GPU: line 5 of the script: no number is called perhaps",
        "fake GPU: line 6 of the script is neither [GPU] nor key = value",
    ]


def test_every_key_of_the_script_is_one_that_the_library_knows(tmp_path: Path, nvml_library: Path) -> None:
    fake = FakeGpus(tmp_path, gpus=2)
    fake.gpus[0].energy_mj, fake.gpus[0].pids, fake.gpus[0].xids, fake.gpus[0].foreign_mw = 1, (1, 2), (3,), (400_000,)
    fake.gpus[0].answer(186, 3)
    fake.gpus[0].answer("nvmlDeviceGetMigMode", 3)
    fake.answer("nvmlDeviceGetIndex", 3)
    env = {**os.environ, **fake.env(nvml_library)}
    done = subprocess.run(
        [sys.executable, "-c", "import pynvml; pynvml.nvmlInit()"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""


def test_the_record_names_the_process_that_set_a_limit(
    backend: NvmlBackend, gpu: Gpu, fake_nvml: FakeGpus, nvml_library: Path
) -> None:
    backend.devices[0].set_limit(500_000)
    other = setting(650_000, fake_nvml.env(nvml_library))
    assert other.wait(DEADLINE_S) == 0
    gpu.foreign_mw = (600_000,)
    assert read_mw(backend) == 600_000
    gpu.foreign_mw = (600_000, 550_000, 600_000)
    assert read_mw(backend) == 600_000
    found = [(entry.asked_mw, entry.pid) for entry in fake_nvml.record()]
    assert found == [(500_000, os.getpid()), (650_000, other.pid), (600_000, 0), (550_000, 0), (600_000, 0)]
    assert [entry.at_ns for entry in fake_nvml.record()] == sorted(entry.at_ns for entry in fake_nvml.record())


def test_a_test_may_write_as_somebody_else(backend: NvmlBackend, gpu: Gpu, fake_nvml: FakeGpus) -> None:
    gpu.cap_mw = 600_000
    gpu.write(650_000)
    assert backend.devices[0].read_limit().requested_mw == gpu.requested_mw == 650_000
    (entry,) = fake_nvml.record()
    assert (entry.asked_mw, entry.enforced_mw, entry.pid) == (650_000, 600_000, 0)


@pytest.mark.parametrize("limit_mw", [800_000, 300_000])
def test_who_is_killed_while_it_sets_a_limit_leaves_it_on_record(
    gpu: Gpu, fake_nvml: FakeGpus, nvml_library: Path, limit_mw: int
) -> None:
    gpu.ceiling_mw, gpu.set_delay_ms = 900_000, 60_000
    process = setting(limit_mw, fake_nvml.env(nvml_library))
    wait_for(lambda: gpu.requested_mw == limit_mw, DEADLINE_S, "the limit in force, the call not back")
    process.kill()
    process.wait(DEADLINE_S)
    assert [(entry.asked_mw, entry.pid) for entry in fake_nvml.record()] == [(limit_mw, process.pid)]


def test_a_reload_is_on_record_as_nobodys_write(backend: NvmlBackend, gpu: Gpu, fake_nvml: FakeGpus) -> None:
    gpu.default_mw = 650_000
    backend.devices[0].set_limit(300_000)
    fake_nvml.load()
    backend.close()
    again = NvmlBackend()
    assert read_mw(again) == 650_000
    again.close()
    mine = [(entry.asked_mw, entry.pid) for entry in fake_nvml.record() if entry.gpu == gpu.uuid]
    assert mine == [(300_000, os.getpid()), (650_000, 0)]


def test_energy_is_what_was_drawn_and_starts_anew_with_the_driver(
    backend: NvmlBackend, gpu: Gpu, fake_nvml: FakeGpus
) -> None:
    gpu.excess_mw = 2_000_000_000  # two megawatts show within a microsecond

    def energy_mj() -> int:
        return backend.devices[0].read_power().energy_mj or 0

    before_mj = energy_mj()
    wait_for(lambda: energy_mj() > before_mj, DEADLINE_S, "energy")
    gpu.excess_mw = 0
    still_mj = energy_mj()
    assert energy_mj() == still_mj
    fake_nvml.load()
    backend.close()
    again = NvmlBackend()
    assert again.devices[0].read_power().energy_mj == 0
    again.close()


def test_what_calls_poll_for_is_counted_and_what_they_sleep_for_is_not(
    backend: NvmlBackend, gpu: Gpu, fake_nvml: FakeGpus
) -> None:
    gpu.delay_us = 1_000
    read_mw(backend)
    assert fake_nvml.polled_s == 0
    gpu.delay_us, gpu.busy_us = 0, 5_000
    before_s = time.thread_time()
    read_mw(backend)
    assert 0 < fake_nvml.polled_s <= time.thread_time() - before_s


def test_the_fake_refuses_a_memory_of_another_layout(fake_nvml: FakeGpus) -> None:
    # The guard of all tests of the node: a field added on one side only must not be read as its neighbour.
    with fake_nvml.path.with_name("gpus.script.live").open("r+b") as file:
        file.write(bytes(ctypes.c_uint32(8)))
    with pytest.raises(DeviceError, match="NVML status 2"):
        NvmlBackend()


@pytest.mark.timeout(90)
def test_the_tool_runs_the_real_daemon_and_an_edit_is_seen(tmp_path: Path, nvml_library: Path) -> None:
    command = [sys.executable, "-m", "tools.fake_gpu", "--folder", str(tmp_path)]
    script, log = tmp_path / "gpus.script", tmp_path / "log"
    with log.open("wb") as out:
        tool = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(lambda: f"edit {script}" in log.read_text(), DEADLINE_S, "the guide")
        record = tmp_path / "gpus.script.record"
        wait_for(lambda: record.exists() and record.read_text().count(" 400000 400000 ") == 2, DEADLINE_S, "landing")
        draft = tmp_path / "edited"
        draft.write_text(script.read_text().replace("lost = no ", "lost = yes ", 1))
        draft.replace(script)
        wait_for(lambda: '"gpu lost"' in log.read_text(), DEADLINE_S, "the lost GPU in the daemon's log")
        os.killpg(tool.pid, signal.SIGINT)  # as a terminal does
        assert tool.wait(DEADLINE_S) == 1, log.read_text()
        assert "stopped above the fallback" in log.read_text(), "nobody knows where a lost GPU stands"
    finally:
        if tool.poll() is None:
            os.killpg(tool.pid, signal.SIGKILL)
        tool.wait(DEADLINE_S)
