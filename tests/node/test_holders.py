"""Who holds a device file open and could set a limit, as /proc and psutil tell it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from rapidd.device.holders import holders_of
from rapidd.device.nvml import NvmlBackend
from tools.fake_gpu import NOT_SUPPORTED, FakeGpus

HOLD = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
# Drops CAP_SYS_ADMIN first, as an engine runs that has no right to set a limit: capset(2) with all sets empty.
HOLD_WITHOUT_RIGHT = (
    "import ctypes; libc = ctypes.CDLL(None); "
    "assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0; " + HOLD
)


@contextmanager
def holding(file: Path, code: str = HOLD) -> Iterator[int]:
    """A process that has the file open; its pid."""
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(10.0)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    node = tmp_path / "nvidia0"
    node.touch()
    return node


@pytest.fixture
def may_set_limits() -> bool:
    """Whether processes that we start have CAP_SYS_ADMIN, as root's have outside containers."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & 1 << 21)


def test_a_process_that_could_set_a_limit_is_named(node: Path, may_set_limits: bool) -> None:
    with holding(node) as pid:
        found = {holder.pid: holder for holder in holders_of({node})}
        assert (pid in found) == may_set_limits
        if may_set_limits:
            assert (found[pid].name, found[pid].user) == (psutil.Process(pid).name(), psutil.Process().username())
    assert holders_of({node}) == ()


def test_a_process_without_the_right_is_no_candidate(node: Path) -> None:
    with holding(node, HOLD_WITHOUT_RIGHT):
        assert holders_of({node}) == ()


def test_we_are_no_candidate_and_neither_is_who_holds_another_file(node: Path, tmp_path: Path) -> None:
    other = tmp_path / "nvidia1"
    other.touch()
    with node.open(), holding(other) as pid:
        assert os.getpid() not in [holder.pid for holder in holders_of({node, other})]
        assert pid not in [holder.pid for holder in holders_of({node})]


def test_an_nvidia_gpu_is_held_by_its_minor_number(fake_nvml: FakeGpus, tmp_path: Path, may_set_limits: bool) -> None:
    fake_nvml.gpus[0].minor = 7
    fake_nvml.gpus[1].answer("nvmlDeviceGetMinorNumber", NOT_SUPPORTED)
    (tmp_path / "nvidia7").touch()
    backend = NvmlBackend(dev=tmp_path)
    with holding(tmp_path / "nvidia7") as pid:
        assert [holder.pid for holder in backend.devices[0].holders()] == [pid] * may_set_limits
        assert backend.devices[1].holders() == ()
    backend.close()
