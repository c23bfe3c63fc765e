"""Compile the fake libnvidia-ml.so.1 and script it while a process runs on it. No pytest in here."""

import ctypes
import mmap
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("fake_nvml.c")
MAX_GPUS = 16
NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST = 3, 4, 15


class NoCompiler(Exception):
    """There is no gcc or cc on this machine."""


def build(folder: Path) -> Path:
    """Compile the fake into `folder` and return the library's path; raise NoCompiler where there is none."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompiler("the fake NVML library needs gcc or cc (Debian: apt install gcc libc6-dev)")
    library = folder / LIBRARY
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True, timeout=60)
    return library


def preload(library: Path) -> None:
    """Load the fake into this process, for good: by its SONAME the binding finds it before any real driver."""
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


class Gpu(ctypes.Structure):
    """One GPU as the fake sees it; `struct gpu` of fake_nvml.c says what each field does. Writes act at once."""

    _fields_ = (
        ("uuid", ctypes.c_char * 80),
        ("name", ctypes.c_char * 80),
        ("floor_mw", ctypes.c_uint32),
        ("ceiling_mw", ctypes.c_uint32),
        ("requested_mw", ctypes.c_uint32),
        ("cap_mw", ctypes.c_uint32),
        ("step_mw", ctypes.c_uint32),
        ("demand_mw", ctypes.c_uint32),
        ("excess_mw", ctypes.c_uint32),
        ("fault", ctypes.c_uint32),
        ("set_fault", ctypes.c_uint32),
        ("sticks", ctypes.c_uint32),
        ("fields_fault", ctypes.c_uint32),
        ("legacy_fault", ctypes.c_uint32),
        ("delay_ms", ctypes.c_uint32),
        ("field_fault", ctypes.c_uint8 * 256),
        ("persistence", ctypes.c_uint32),
        ("energy_mj", ctypes.c_uint64),
    )

    @property
    def enforced_mw(self) -> int:
        requested_mw, cap_mw = int(self.requested_mw), int(self.cap_mw)
        return min(requested_mw, cap_mw or requested_mw)


class _State(ctypes.Structure):
    _fields_ = (
        ("state_bytes", ctypes.c_uint32),
        ("gpu_bytes", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("init_fault", ctypes.c_uint32),
        ("driver", ctypes.c_char * 80),
        ("gpus", Gpu * MAX_GPUS),
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One limit that took effect, at_ns of CLOCK_MONOTONIC. A raise is noted just before it acts, a cut just after."""

    at_ns: int
    gpu: str
    asked_mw: int
    enforced_mw: int


class FakeNvml:
    """The state that one host's fake driver runs on; `env` is what a process needs to run on it."""

    def __init__(self, folder: Path, *, gpus: int, floor_mw: int = 100_000, ceiling_mw: int = 700_000) -> None:
        assert 0 <= gpus <= MAX_GPUS
        self.path, self._record = folder / "nvml.state", folder / "nvml.record"
        self.path.write_bytes(bytes(ctypes.sizeof(_State)))
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._state = _State.from_buffer(self._map)
        self._state.state_bytes, self._state.gpu_bytes = ctypes.sizeof(_State), ctypes.sizeof(Gpu)
        self._state.count, self._state.driver = gpus, b"999.42"
        for index, gpu in enumerate(self.gpus):
            gpu.uuid, gpu.name = f"GPU-{index:08x}-0000-4000-8000-000000000000".encode(), b"Fake H200"
            gpu.floor_mw, gpu.ceiling_mw, gpu.requested_mw = floor_mw, ceiling_mw, ceiling_mw

    @property
    def gpus(self) -> list[Gpu]:
        return [self._state.gpus[index] for index in range(self._state.count)]

    def fail_init(self, status: int) -> None:
        self._state.init_fault = status

    def env(self, library: Path | None = None) -> dict[str, str]:
        """Variables to add for a process; with `library` it also finds the fake before any real driver."""
        env = {"FAKE_NVML_STATE": str(self.path), "FAKE_NVML_RECORD": str(self._record)}
        if library is not None:
            paths = (str(library.parent), os.environ.get("LD_LIBRARY_PATH", ""))
            env["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        return env

    def record(self) -> list[Record]:
        """Every limit that took effect so far, oldest first."""
        if not self._record.exists():
            return []
        rows = [line.split() for line in self._record.read_text().splitlines()]
        return [Record(int(at_ns), gpu, int(asked), int(enforced)) for at_ns, gpu, asked, enforced in rows]
