"""Fake GPU drivers: C libraries that the real bindings drive, and that a text file scripts while processes run on them.

`FakeGpus` writes that file and reads what the driver remembers; `build` compiles a library. `python -m tools.fake_gpu`
runs the real daemon on them, on any machine with a C compiler. No pytest in here.
"""

import ctypes
import fcntl
import importlib.util
import mmap
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

MAX_GPUS = 16
HERE = Path(__file__).parent
LIBRARIES = {"nvml": "libnvidia-ml.so.1", "amdsmi": "libamd_smi.so"}
_LOOKS = {"nvml": ("Fake H200", "GPU-", "00000000"), "amdsmi": ("Fake MI300X", "", "0000")}

# nvmlReturn_t, the ones that tests speak of. A person writes them into the script by name.
UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION = 1, 2, 3, 4
DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST = 9, 13, 15
COUNTED = 2**64 - 1  # energy_mj: not fixed


class NoCompiler(Exception):
    """There is no gcc or cc on this machine."""


class NoBinding(Exception):
    """The Python package that the fake library is for is not installed."""


def build(folder: Path, kind: str = "nvml", *, strict: bool = False) -> Path:
    """Compile the fake library "nvml" or "amdsmi" into `folder`; its path. Raises NoCompiler or NoBinding.

    `strict`: a warning is an error, which it must not be for whoever has a newer compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompiler("a fake GPU library needs gcc or cc (Debian: apt install gcc libc6-dev)")
    library = folder / LIBRARIES[kind]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", f"-Wl,-soname,{library.name}"]
    flags += ["-Werror"] if strict else []
    flags.append("-Wl,-Bsymbolic")  # both fakes may live in one process, each with its own half of host.c
    sources = [str(HERE / "host.c"), str(HERE / f"{kind}.c")]
    if kind == "amdsmi":
        stubs = folder / "stubs.c"
        stubs.write_text(
            "".join(f"__attribute__((weak)) int {name}(void) {{ return 2; }}\n" for name in _amdsmi_names())
        )
        sources.append(str(stubs))
    subprocess.run([compiler, *flags, "-o", str(library), *sources, "-lpthread"], check=True, timeout=60)
    return library


def _amdsmi_names() -> list[str]:
    """Every function that the Python package amdsmi looks up when it is imported, without importing it."""
    found = importlib.util.find_spec("amdsmi")
    if found is None or found.origin is None:
        raise NoBinding("the fake AMD library needs the Python package amdsmi (pip install amdsmi)")
    wrapper = Path(found.origin).with_name("amdsmi_wrapper.py").read_text()
    return sorted(set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper)))


def preload(library: Path) -> None:
    """Load the fake into this process, for good: by its SONAME the binding finds it before any real driver."""
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _doc(default: Any, what: str) -> Any:
    return field(default=default, metadata={"what": what})


@dataclass
class Gpu:
    """One GPU of the script; what each key means stands behind it. An assignment acts at once, in every process."""

    uuid: str
    name: str = "Fake H200"
    bus: str = _doc("", "PCI bus id")
    minor: int = _doc(0, "of its device file")
    floor_mw: int = 100_000
    ceiling_mw: int = 700_000
    default_mw: int = _doc(0, "the limit that a fresh driver starts with; 0: the ceiling")
    demand_mw: int = _doc(0, "what the load would draw without a limit")
    excess_mw: int = _doc(0, "drawn above what is allowed, by a GPU that does not obey")
    energy_mj: int = _doc(COUNTED, "a counter that stands still; without this line it counts what is drawn")
    cap_mw: int = _doc(0, "held from outside, by a BMC say: never enforce more than this; 0: nobody does")
    foreign_mw: tuple[int, ...] = _doc((), "each limit that is added at the end is set once, by somebody else")
    step_mw: int = _doc(0, "a limit is rounded down to a multiple of this; 0: exact")
    round_up: bool = _doc(False, "... up")
    sticks: bool = _doc(False, "setting a limit answers success and changes nothing")
    clock_mhz: int = _doc(1980, "of the processors, without a limit in the way")
    reasons: int = _doc(0, "bits of nvmlClocksEventReasons, besides the power cap that follows from the draw")
    persistence: bool = _doc(True, "persistence mode")
    mig: bool = _doc(False, "MIG mode")
    virtualization: int = _doc(0, "NVML: passthrough, vgpu, host_vgpu; AMD: host, guest, passthrough")
    partition: int = _doc(0, "AMD: which part of the GPU this is; only the first can set a limit")
    lost: bool = _doc(False, "it has fallen off the bus; a process must ask for it anew when it is back")
    xids: tuple[int, ...] = _doc((), "each Xid that is added at the end is reported once")
    pids: tuple[int, ...] = _doc((), "the processes that compute on it")
    delay_ms: int = _doc(0, "every call takes this long, before it does anything")
    delay_us: int = _doc(0, "... and this long")
    busy_us: int = _doc(0, "... and keeps the processor busy this long, as a driver that polls its GPU does")
    set_delay_ms: int = _doc(0, "setting a limit takes this long, after the limit is in force")
    answers: dict[str, int] = field(default_factory=dict)
    _owner: "FakeGpus | None" = field(default=None, repr=False, compare=False)

    def __setattr__(self, key: str, value: object) -> None:
        assert key in self.__dataclass_fields__, key
        object.__setattr__(self, key, value)
        if owner := self.__dict__.get("_owner"):
            owner.save()

    def answer(self, key: str | int, status: int) -> None:
        """Let a function, by its C name, or a field, by its number, answer this status; 0: let it do its work again."""
        self.answers = {**self.answers, f"field_{key}" if isinstance(key, int) else key: status}

    @property
    def requested_mw(self) -> int:
        """What user space last asked for and the driver took, after rounding."""
        assert self._owner is not None
        return self._owner.requested_mw(self)

    @property
    def enforced_mw(self) -> int:
        return min(self.requested_mw, self.cap_mw or self.requested_mw)

    def write(self, limit_mw: int) -> None:
        """Set the limit as some other process would; on record at once, with pid 0."""
        assert self._owner is not None
        self._owner.write(self, limit_mw)


class _Slot(ctypes.Structure):
    _fields_ = (
        ("uuid", ctypes.c_char * 80),
        ("requested_mw", ctypes.c_uint32),
        ("loads", ctypes.c_uint32),
        ("foreign", ctypes.c_uint32),
        ("energy_uj", ctypes.c_uint64),
        ("at_ns", ctypes.c_uint64),
        ("polled_ns", ctypes.c_uint64),
    )


class _Live(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint32), ("slots", ctypes.c_uint32), ("slot", _Slot * MAX_GPUS))


@dataclass(frozen=True, slots=True)
class Record:
    """One limit that took effect, at_ns of CLOCK_MONOTONIC. A raise is noted just before it acts, a cut just after.

    pid is the process that called; 0: none did, the script or a test moved the limit, or the driver was loaded anew.
    """

    at_ns: int
    gpu: str
    asked_mw: int
    enforced_mw: int
    pid: int


class FakeGpus:
    """The GPUs of one host, as their driver shows them; `env` is what a process needs to run on it."""

    def __init__(
        self, folder: Path, kind: str = "nvml", *, gpus: int, floor_mw: int = 100_000, ceiling_mw: int = 700_000
    ) -> None:
        assert 0 <= gpus <= MAX_GPUS
        name, prefix, domain = _LOOKS[kind]
        self.path = folder / "gpus.script"
        self.driver, self.loaded, self.loads = "999.42", True, 1
        self.answers: dict[str, int] = {}
        self._saved_ns = 0
        self.gpus = [
            Gpu(
                f"{prefix}{index:08x}-0000-4000-8000-000000000000",
                name,
                bus=f"{domain}:{index + 1:02X}:00.0",
                minor=index,
                floor_mw=floor_mw,
                ceiling_mw=ceiling_mw,
            )
            for index in range(gpus)
        ]
        self.record_path = self.path.with_name("gpus.script.record")
        self._live_path = self.path.with_name("gpus.script.live")
        self._live_path.write_bytes(bytes(ctypes.sizeof(_Live)))
        with self._live_path.open("r+b") as file:
            self._live = _Live.from_buffer(mmap.mmap(file.fileno(), 0))
        self._live.bytes, self._live.slots = ctypes.sizeof(_Live), gpus
        for gpu, slot in zip(self.gpus, self._live.slot, strict=False):
            slot.uuid, slot.requested_mw, slot.loads = gpu.uuid.encode(), gpu.ceiling_mw, self.loads
            slot.at_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            gpu._owner = self
        self.save()

    def answer(self, function: str, status: int) -> None:
        """Let a function answer this status for every GPU, or for none if it is about none; 0: no longer."""
        self.answers[function] = status
        self.save()

    def unload(self) -> None:
        """The driver is gone."""
        self.loaded = False
        self.save()

    def load(self) -> None:
        """The driver is loaded, perhaps again: limits and counters start anew, and every process must start NVML."""
        self.loaded, self.loads = True, self.loads + 1
        self.save()

    def save(self) -> None:
        """Write the script, at once and as a whole."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(self.script())
        # The library knows a new script by inode, size and time; all three may repeat within a tick of the kernel.
        self._saved_ns = max(self._saved_ns + 1, time.time_ns())
        os.utime(draft, ns=(self._saved_ns, self._saved_ns))
        draft.replace(self.path)

    def script(self) -> str:
        """The text that scripts the GPUs as they are now; what a key means stands behind its first line."""
        rows = [
            "# Edit and save: the next call of the driver, in whatever process, goes by it. Power is in milliwatts.",
            "# A line such as `nvmlDeviceGetMigMode = not_supported` lets a function answer that status and do nothing",
            "# else, above the first [GPU] for all of them; `field_186 = not_supported` does so for one field.",
            _row("driver", self.driver),
            _row("loaded", self.loaded, "no: there is no driver"),
            _row("loads", self.loads, "more: it was loaded again, and limits and counters start anew"),
            *(_row(function, status) for function, status in self.answers.items() if status),
        ]
        for number, gpu in enumerate(self.gpus):
            rows += ["", f"[{gpu.uuid}]"]
            rows += [
                _row(key.name, getattr(gpu, key.name), "" if number else key.metadata.get("what", ""))
                for key in fields(gpu)
                if key.name not in ("uuid", "answers", "_owner") and getattr(gpu, key.name) != COUNTED
            ]
            rows += [_row(key, status) for key, status in gpu.answers.items() if status]
        return "\n".join(rows) + "\n"

    def env(self, library: Path | None = None) -> dict[str, str]:
        """Variables to add for a process; with `library` it also finds the fake before any real driver."""
        env = {"FAKE_GPU_SCRIPT": str(self.path)}
        if library is not None:
            paths = (str(library.parent), os.environ.get("LD_LIBRARY_PATH", ""))
            # amdsmi looks into these folders first.
            env |= {"ROCM_HOME": "", "ROCM_PATH": ""} if library.name == LIBRARIES["amdsmi"] else {}
            env["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        return env

    def record(self) -> list[Record]:
        """Every limit that took effect so far, oldest first."""
        if not self.record_path.exists():
            return []
        rows = [line.split() for line in self.record_path.read_text().splitlines()]
        return [Record(int(at), gpu, int(asked), int(enforced), int(pid)) for at, gpu, asked, enforced, pid in rows]

    def requested_mw(self, gpu: Gpu) -> int:
        return int(self._slot(gpu).requested_mw)

    def write(self, gpu: Gpu, limit_mw: int) -> None:
        with self.frozen():
            enforced_mw, at_ns = min(limit_mw, gpu.cap_mw or limit_mw), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            with self.record_path.open("a") as file:
                file.write(f"{at_ns} {gpu.uuid} {limit_mw} {enforced_mw} 0\n")
            self._slot(gpu).requested_mw = limit_mw

    @property
    def polled_s(self) -> float:
        """Processor seconds that calls have spent polling their GPUs (`busy_us`), whoever made them."""
        return sum(int(slot.polled_ns) for slot in self._live.slot) / 1e9

    def _slot(self, gpu: Gpu) -> _Slot:
        slots: ctypes.Array[_Slot] = self._live.slot
        return next(slot for slot in slots if slot.uuid == gpu.uuid.encode())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While this lasts no limit takes effect and no energy is counted: every call that would do so waits."""
        with self._live_path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _row(key: str, value: object, what: str = "") -> str:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, tuple):
        value = " ".join(map(str, value))
    return f"{key} = {value}".ljust(32) + f"# {what}" if what else f"{key} = {value}"
