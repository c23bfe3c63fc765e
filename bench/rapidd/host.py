"""The host of the benchmark: fake NVIDIA GPUs, what their driver's calls take, and who keeps their limits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.fake_gpu import FakeGpus, build

FALLBACK_MW, CEILING_MW = 500_000, 700_000
GRANTS_MW = (600_000, 610_000)  # no two orders in a row are equal, or nothing would have to be written
DEMAND_MW = 450_000  # below the fallback, so that no draw is in the way of what is timed
# A value goes from the GPU's firmware to the driver. In its own history of such calls (NVRM, "RPC history") one
# takes 0.09 to 0.14 ms (NVIDIA/open-gpu-kernel-modules#446) and 0.5 ms (NVIDIA/DCGM#144); one nvmlDeviceGetPowerUsage
# took 0.36 ms on a K40m (wookayin/gpustat#76). Whether a call for four values takes as long as for one, or up to four
# times that, tools/read_nvml tells on a real GPU.
CALL_US = 300
# It polls meanwhile, and its caller's processor is busy: kernel_gsp.c of NVIDIA/open-gpu-kernel-modules goes round in
# _kgspRpcRecvPoll, with an osSpinLoop that does nothing (os.c). Whoever asks for a value pays for that, in whatever
# language, so it is told apart from what a keeper takes itself.
SET_MS = 5  # assumed: how much longer setting a limit takes, after it is in force


@dataclass(frozen=True, slots=True)
class Usage:
    """What somebody uses of the host: processor seconds since the start; memory and open files now."""

    cpu_s: float
    rss_mb: float
    files: int


class Keeper(Protocol):
    """Who keeps the limits of the host. All times are seconds of the monotonic clock."""

    look_s: float  # how often it looks at the GPUs

    def usage(self) -> Usage: ...

    async def order(self, limit_mw: int, until_s: float) -> None:
        """Have every GPU hold this limit until then; return when the keeper has read it back."""

    async def renew(self, until_s: float) -> None:
        """What was ordered holds until then."""

    async def serve(self) -> None:
        """What it has to do for others now and then."""


@dataclass(frozen=True, slots=True)
class Host:
    """GPUs in a folder of their own."""

    folder: Path
    gpus: FakeGpus
    library: Path

    @classmethod
    def make(cls, folder: Path, gpus: int) -> "Host":
        """Raises NoCompiler."""
        library = build(folder)
        fake = FakeGpus(folder, gpus=gpus, ceiling_mw=CEILING_MW)
        host = cls(folder, fake, library)
        for gpu in fake.gpus:
            gpu.demand_mw, gpu.set_delay_ms = DEMAND_MW, SET_MS
        host.wait(poll_us=CALL_US)
        return host

    @property
    def polled_s(self) -> float:
        """Processor seconds that the driver's calls have polled for, since the start."""
        return self.gpus.polled_s

    def wait(self, *, sleep_us: int = 0, poll_us: int = 0) -> None:
        """From now on each call of the driver sleeps, or polls its GPU, for this long."""
        for gpu in self.gpus.gpus:
            gpu.delay_us, gpu.busy_us = sleep_us, poll_us

    def holds(self, limit_mw: int) -> bool:
        return all(gpu.enforced_mw == limit_mw for gpu in self.gpus.gpus)
