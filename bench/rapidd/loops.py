"""The loops of bash and nvidia-smi that people run: loop.sh, on a stand-in for nvidia-smi (nvidia_smi.c)."""

import asyncio
import os
import resource
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.rapidd.host import FALLBACK_MW, Host, Keeper, Usage

HERE = Path(__file__).parent
ORDER_S = 20.0  # how long to wait at most
QUERY = ("--query-gpu=index,enforced.power.limit,power.limit,power.draw", "--format=csv,noheader,nounits")


def stand_in(host: Host) -> dict[str, str]:
    """Compile the stand-in; the environment in which nvidia-smi is it, on the GPUs of this host."""
    folder = host.folder / "bin"
    folder.mkdir()
    compiler = shutil.which("gcc") or "cc"  # there is one, the fake driver was compiled with it
    source, program = HERE / "nvidia_smi.c", folder / "nvidia-smi"
    subprocess.run([compiler, "-O2", "-o", str(program), str(source), "-ldl"], check=True, timeout=60)
    path = os.pathsep.join((str(folder), os.environ["PATH"]))
    return {**os.environ, **host.gpus.env(host.library), "PATH": path}


@asynccontextmanager
async def loop(host: Host, kind: str, pause_ms: int) -> AsyncIterator[Keeper]:
    """loop.sh of this kind, which has looked once."""
    grant = host.folder / "grant"
    keeper = Loop(grant, pause_ms / 1000)
    keeper.write(FALLBACK_MW, time.monotonic())
    arguments = (kind, grant, FALLBACK_MW // 1000, pause_ms, len(host.gpus.gpus))
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(HERE / "loop.sh"),
        *map(str, arguments),
        env=stand_in(host),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.TaskGroup() as tasks:
        try:
            listening = tasks.create_task(keeper.listen(process))
            yield keeper
            listening.cancel()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


class Loop:
    """Tells loop.sh what to hold by a file, and hears from it what it has seen."""

    def __init__(self, grant: Path, look_s: float) -> None:
        self.look_s = look_s
        self._grant, self._limit_mw = grant, 0
        self._process: psutil.Process | None = None
        self._seen = asyncio.Event()

    def usage(self) -> Usage:
        """Of bash and all that it has started: the time of those that have ended, the memory of those that have not."""
        assert self._process is not None
        cpu_s, rss_mb, files = 0.0, 0.0, 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
                rss_mb += process.memory_info().rss / 2**20
                files += process.num_fds()
            except psutil.NoSuchProcess:
                continue  # it ended meanwhile, and its time is its parent's now
        return Usage(cpu_s, rss_mb, files)

    async def order(self, limit_mw: int, until_s: float) -> None:
        self._seen.clear()
        self.write(limit_mw, until_s)
        async with asyncio.timeout(ORDER_S):
            await self._seen.wait()

    async def renew(self, until_s: float) -> None:
        self.write(self._limit_mw, until_s)

    async def serve(self) -> None:
        """Nobody asks a loop for anything."""

    def write(self, limit_mw: int, until_s: float) -> None:
        self._limit_mw = limit_mw
        until_us = int(1e6 * (until_s - time.monotonic() + time.time()))
        draft = self._grant.with_suffix(".draft")
        draft.write_text(f"{limit_mw // 1000} {until_us}\n")
        draft.replace(self._grant)

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        self._process = psutil.Process(process.pid)
        assert process.stdout is not None
        async for line in process.stdout:
            if int(line) * 1000 == self._limit_mw:
                self._seen.set()


def one_call(env: Mapping[str, str], calls: int = 20) -> tuple[float, float] | None:
    """Wall milliseconds (median) and processor milliseconds (mean) of one query by nvidia-smi; None: there is none."""
    program = shutil.which("nvidia-smi", path=env["PATH"])
    if program is None:
        return None
    took_s: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(calls):
        begun_s = time.perf_counter()
        if subprocess.run([program, *QUERY], env=env, stdout=subprocess.DEVNULL, check=False, timeout=60).returncode:
            return None
        took_s.append(time.perf_counter() - begun_s)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e3 * statistics.median(took_s), 1e3 * cpu_s / calls
