"""What rapidd costs a host, and how fast a grant is in force: a real daemon on 8 simulated GPUs, over loopback gRPC."""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import psutil

from rapid.core.cluster import GrantBatch, Greeting, Mark, Renewal
from rapid.rpc import open_channel
from rapid.sim.model.power import Lag
from rapid.simgpu import SimGpu, SimGpuSpec
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_report, encode_grants, encode_greeting, encode_renewal

GPUS = 8
SAMPLE_S, REPORT_S, RENEW_S, LEASE_S = 0.1, 0.5, 0.5, 5.0
SETTLE_S = 3.0  # after the start, before anything is measured
START_S = 20.0
CPU_TARGET, RSS_TARGET_MB, GRANT_TARGET_MS = 0.01, 64.0, 20.0
NAMES = tuple(f"GPU-{index}" for index in range(GPUS))

Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the daemon used while it did its steady work. cpu is a share of one core."""

    cpu: float
    rss_mb: float
    switches_per_s: float
    reports_per_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look at the steady work")
    parser.add_argument("--grants", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder)) as (process, endpoints):
        cost, latencies_ms = asyncio.run(measure(process, endpoints, options.seconds, options.grants))
    return show(cost, latencies_ms, options.seconds)


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """A daemon that is ready, and where it listens."""
    (folder / "gpus").mkdir()
    for index, name in enumerate(NAMES):
        spec = SimGpuSpec(name, index, "simulated", 400_000, 750_000, 100_000, Lag(0.05, 0.05, 0.05))
        SimGpu.create(folder / "gpus" / f"{index}.gpu", spec, time.monotonic()).close()
    (folder / "rapidd.toml").write_text(
        f"""
        node = {{ name = "bench", state_dir = "state" }}
        power = {{ fallback = "500W" }}
        device = {{ backend = "sim", path = "gpus" }}
        report = {{ sample_interval = "{SAMPLE_S}s" }}
        listen = {{ address = "127.0.0.1:0", load_socket = "{folder}/run/load.sock", metrics = "127.0.0.1:0" }}
        """
    )
    command = [sys.executable, "-m", "rapidd", "--config", str(folder / "rapidd.toml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid), wait_for_endpoints(folder / "state" / "endpoints.json", process)
        finally:
            process.terminate()


def wait_for_endpoints(path: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    until_s = time.monotonic() + START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until_s:
            raise SystemExit(f"rapidd did not start within {START_S:g} s")
        time.sleep(0.05)
    endpoints: dict[str, str] = json.loads(path.read_text())
    return endpoints


class Controller:
    """Says what a controller says, and reads on all the while: reports so far, and the answers to the last grant."""

    def __init__(self, call: Call, incarnation: str) -> None:
        self._call, self._incarnation = call, incarnation
        self._seq = 0
        self._applied: set[str] = set()
        self._all_applied = asyncio.Event()
        self.reports = 0

    async def grant(self, limit_mw: int) -> float:
        """Grant every GPU this limit; seconds until the last one is reported as read back."""
        self._seq += 1
        self._applied.clear()
        self._all_applied.clear()
        begun_s = time.perf_counter()
        limits_mw = tuple((gpu, limit_mw) for gpu in NAMES)
        until_s = time.monotonic() + LEASE_S
        batch = GrantBatch("bench", self._incarnation, "bench", Mark(1, self._seq), until_s, limits_mw)
        await self._call.write(encode_grants(batch))
        async with asyncio.timeout(LEASE_S):
            await self._all_applied.wait()
        return time.perf_counter() - begun_s

    async def renew(self, pause_s: float) -> None:
        while True:
            until_s = time.monotonic() + LEASE_S
            await self._call.write(encode_renewal(Renewal("bench", self._incarnation, "bench", 1, until_s)))
            await asyncio.sleep(pause_s)

    async def listen(self) -> None:
        async for response in self._call:
            self.reports += 1
            for answer in decode_report(response).answers:
                if answer.mark.seq == self._seq and answer.verdict == "applied":
                    self._applied.add(answer.gpu)
            if len(self._applied) == GPUS:
                self._all_applied.set()


async def measure(
    process: psutil.Process, endpoints: dict[str, str], seconds: float, grants: int
) -> tuple[Cost, list[float]]:
    """The cost of steady work, and milliseconds from each grant to its last read-back."""
    async with open_channel(endpoints["address"]) as channel, asyncio.TaskGroup() as tasks:
        call: Call = node_pb2_grpc.NodeServiceStub(channel).Enforce()
        await call.write(encode_greeting(Greeting(1, "bench"), report_interval_s=REPORT_S))
        controller = Controller(call, endpoints["incarnation"])
        tasks.create_task(controller.listen())
        await controller.grant(600_000)
        renewing = tasks.create_task(controller.renew(RENEW_S))
        await asyncio.sleep(SETTLE_S)
        cost = await steady(controller, process, seconds)
        renewing.cancel()
        # No two grants in a row are equal, or nothing would have to be written.
        latencies_ms = [1e3 * await controller.grant(600_000 + number % 100 * 1_000) for number in range(grants)]
        await call.done_writing()
    return cost, latencies_ms


async def steady(controller: Controller, process: psutil.Process, seconds: float) -> Cost:
    """What the daemon uses while limits hold and nothing changes."""
    reports, begun_s, cpu, switches = (
        controller.reports,
        time.monotonic(),
        process.cpu_times(),
        process.num_ctx_switches(),
    )
    await asyncio.sleep(seconds)
    took_s, later, more = time.monotonic() - begun_s, process.cpu_times(), process.num_ctx_switches()
    cpu_s = later.user + later.system - cpu.user - cpu.system
    switched = more.voluntary + more.involuntary - switches.voluntary - switches.involuntary
    rss_mb = process.memory_info().rss / 2**20
    return Cost(cpu_s / took_s, rss_mb, switched / took_s, (controller.reports - reports) / took_s)


def show(cost: Cost, latencies_ms: list[float], seconds: float) -> int:
    """Print the table with its conditions; the exit code says whether every target is met."""
    quantiles_ms = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    rows = (
        ("CPU, share of one core", f"{cost.cpu:.2%}", f"< {CPU_TARGET:.0%}", cost.cpu < CPU_TARGET),
        ("resident memory", f"{cost.rss_mb:.1f} MB", f"< {RSS_TARGET_MB:g} MB", cost.rss_mb < RSS_TARGET_MB),
        ("context switches", f"{cost.switches_per_s:.0f}/s", "", True),
        ("grant to read-back, p50", f"{quantiles_ms[49]:.1f} ms", "", True),
        (
            "grant to read-back, p99",
            f"{quantiles_ms[98]:.1f} ms",
            f"< {GRANT_TARGET_MS:g} ms",
            quantiles_ms[98] < GRANT_TARGET_MS,
        ),
    )
    print(
        f"rapidd with {GPUS} simulated GPUs, samples every {SAMPLE_S * 1e3:g} ms, {cost.reports_per_s:.1f} reports/s "
        f"and {1 / RENEW_S:g} renewals/s, over {seconds:g} s; then {len(latencies_ms)} grants to all GPUs, one "
        f"after the other, over loopback without TLS. Python {platform.python_version()}, grpcio {grpc.__version__}, "
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}"
    )
    for name, value, target, met in rows:
        print(f"  {name:<26}{value:>12}   {target:<9}{'' if met else 'MISSED'}")
    return 0 if all(met for *_, met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
