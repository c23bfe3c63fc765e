"""A host of fake NVIDIA GPUs under real daemons, whose disk can be full."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kills.keeper import CEILING_MW, FALLBACK_MW
from tests.node.caller import DEADLINE_S
from tests.node.daemon import Host
from tests.wait import wait_until
from tools.fake_gpu import FakeGpus, Gpu, NoCompiler, build

DEMAND_MW = 650_000  # so that each GPU draws what it may
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Libraries:
    """What is preloaded into a daemon, or found before the driver."""

    nvml: Path
    full_disk: Path


def build_libraries(folder: Path) -> Libraries:
    """Compile both. Raises NoCompiler."""
    nvml = build(folder)
    compiler, library = shutil.which("gcc") or shutil.which("cc"), folder / "full_disk.so"
    if compiler is None:
        raise NoCompiler
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(HERE / "full_disk.c")], check=True, timeout=60)
    return Libraries(nvml, library)


class KillHost(Host):
    """Two GPUs of 100..700 W with work for 650 W each, at 700 W before the first daemon; fallback 400 W."""

    def __init__(self, folder: Path, libraries: Libraries) -> None:
        super().__init__(folder, gpus=0)
        self.address = f"unix:{folder}/node.sock"
        self.configure(backend='"nvml"', fallback=f'"{FALLBACK_MW // 1000}W"', address=f'"{self.address}"')
        self.driver = FakeGpus(folder, gpus=2)
        for gpu in self.driver.gpus:
            gpu.demand_mw = DEMAND_MW
        self.names = tuple(gpu.uuid for gpu in self.driver.gpus)
        self._full = folder / "full"
        self.env = self.driver.env(libraries.nvml)
        self._env = {
            **self.env,
            "LD_PRELOAD": str(libraries.full_disk),
            "FULL_DISK": f"{self.state}:{self.log}",
            "FULL_DISK_WHILE": str(self._full),
        }

    def boot(self) -> None:
        """Put on record what the driver starts with."""
        for gpu in self.driver.gpus:
            gpu.write(CEILING_MW)

    def begin(self, program: Sequence[str] = ("rapidd",)) -> subprocess.Popen[bytes]:
        """A daemon on its way."""
        self.heard()
        return self.launch(env=self._env, program=program)

    async def ready(self, process: subprocess.Popen[bytes]) -> None:
        def is_ready() -> bool:
            assert process.poll() is None, f"rapidd ended with {process.returncode}:\n{self.log.read_text()}"
            return "READY=1" in self.heard()

        await wait_until(is_ready, DEADLINE_S, "READY=1")

    def fill_disk(self) -> None:
        """From now on nothing more fits beside what a daemon has in its state folder and its log."""
        self._full.touch()

    def free_disk(self) -> None:
        self._full.unlink()

    def limits_mw(self) -> tuple[int, ...]:
        """What is asked of each GPU, and in force unless something else holds it lower."""
        return tuple(gpu.requested_mw for gpu in self.driver.gpus)

    def has_set(self, process: subprocess.Popen[bytes], gpu: Gpu, least_mw: int, most_mw: int) -> bool:
        """Whether this process has set a limit in this range."""
        return any(
            (entry.pid, entry.gpu) == (process.pid, gpu.uuid) and least_mw <= entry.asked_mw <= most_mw
            for entry in self.driver.record()
        )
