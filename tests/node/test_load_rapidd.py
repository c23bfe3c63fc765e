"""A real rapidd reads the metrics of engines over HTTP, and what it makes of them arrives over gRPC.

One engine is well, one hangs, one shows 50 MB, one restarts, one is no engine: each in its own way, all at once.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from rapid.core.cluster import NodeReport, PhaseLoad, Role
from tests.node.caller import DEADLINE_S, Call, grants, greet, next_report
from tests.node.daemon import Daemon, Host
from tests.node.engines import PAGES, Vllm
from tests.node.metrics_server import Answer, MetricsServer, endless, hang, metrics_server, page
from tests.node.test_rapidd_nvml import NvmlHost
from tools.fake_gpu import NoCompiler

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
GRANTED_MW = 600_000


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as host:
        yield host


def table(instance: str, server: MetricsServer, more: str = "", kind: str = "vllm") -> str:
    return f"""
            [[engine]]
            instance = "{instance}"
            kind = "{kind}"
            url = "{server.url}"
            interval = "200ms"
            {more}
    """


@dataclass
class Engines:
    """What the daemon finds on its host."""

    good: Vllm
    restarting: MetricsServer
    servers: list[MetricsServer]
    tables: str


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    good, restarting = Vllm(started_s=1.0), Vllm(started_s=1.0)
    restarting.serve(100, received=484)
    async with AsyncExitStack() as stack:

        async def serve(answer: Answer) -> MetricsServer:
            return await stack.enter_async_context(metrics_server(answer))

        servers = [
            await serve(page(good.page)),
            await serve(hang),
            await serve(endless()),
            await serve(page(restarting.page)),
            await serve(page(lambda: b"<html>", "text/html")),
            await serve(page((PAGES / "dynamo_prefill.txt").read_bytes)),
        ]
        well, hanging, flood, again, wrong, dynamo = servers
        tables = "".join(
            [
                table("good", well, 'gpus = ["GPU-0", "GPU-1"]'),
                table("hanging", hanging, 'gpus = ["GPU-0"]'),
                table("flood", flood),
                table("restarting", again, 'role = "decode"\ngpus = ["GPU-1"]'),
                table("wrong", wrong),
                table("worker", dynamo, kind="dynamo"),
            ]
        )
        yield Engines(good, again, servers, tables)


async def started(host: Host, tables: str) -> Daemon:
    """Start while the engines of this test go on answering."""
    host.configure(more=tables)
    return await asyncio.to_thread(host.start)


async def report_that(call: Call, shows: Callable[[NodeReport], object]) -> NodeReport:
    async with asyncio.timeout(DEADLINE_S):
        while not shows(report := await next_report(call)):
            pass
    return report


def load_of(report: NodeReport, instance: str) -> PhaseLoad | None:
    return next((load for load in report.loads if load.instance == instance), None)


async def test_loads_and_troubles_arrive_in_the_report_and_limits_are_enforced_meanwhile(
    host: Host, engines: Engines
) -> None:
    daemon = await started(host, engines.tables)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        _, hanging, flood, _, wrong, _ = (server.url for server in engines.servers)
        problems = {
            "hanging": f"{hanging} gave no whole page within 2 s",
            "flood": f"{flood} its page is longer than 8 MiB, the most that is read",
            "wrong": f"{wrong} answered 'text/html', must be text/plain: no metrics are at this url",
            "worker": "its GPUs are not known: the driver lists no process on any GPU; set engine.worker.gpus",
        }
        report = await report_that(
            call, lambda report: dict(report.load_problems) == problems and len(report.loads) == 3
        )
        assert {load.instance for load in report.loads} == {"good", "restarting", "worker"}
        worker, restarting = load_of(report, "worker"), load_of(report, "restarting")
        assert worker is not None
        assert restarting is not None
        assert (worker.role, worker.waiting_requests, worker.gpus) == (Role.PREFILL, 18, ())
        assert (restarting.role, restarting.finished, restarting.gpus) == (Role.DECODE, 0, ("GPU-1",))

        # What it counts is counted, while it also does what it is there for.
        await call.write(grants(1, GRANTED_MW, incarnation=daemon.incarnation, gpus=host.names))
        engines.good.serve(10, ttft_s=0.3)
        engines.good.waiting[0].set(5)
        engines.good.running[0].set(2)
        report = await report_that(
            call, lambda report: (load := load_of(report, "good")) is not None and load.finished == 10
        )
        good = load_of(report, "good")
        assert good is not None
        assert (good.role, good.waiting_requests, good.running_requests) == (Role.MIXED, 5, 2)
        assert (good.prompt_tokens, good.output_tokens, good.waiting_tokens) == (5_000, 900, 2_500)
        assert dict(zip(good.ttft.bounds_s, good.ttft.counts, strict=False))[0.5] == 10
        assert (sum(good.tpot.counts), good.gpus) == (10, ("GPU-0", "GPU-1"))
        assert 0 <= report.node_time_s - good.at_s < 2
        await report_that(call, lambda report: {gpu.limit_mw for gpu in report.gpus} == {GRANTED_MW})

        # It restarts: it counts from zero, and the load goes on from where it was.
        again = Vllm(started_s=2.0)
        again.serve(7, received=484)
        engines.restarting.answer = page(again.page)
        report = await report_that(
            call, lambda report: (load := load_of(report, "restarting")) is not None and load.finished == 7
        )
        restarting = load_of(report, "restarting")
        assert restarting is not None
        assert (sum(restarting.tpot.counts), sum(restarting.ttft.counts)) == (7, 0)

        # The hanging one comes round.
        engines.servers[1].answer = page(Vllm().page)
        await report_that(call, lambda report: "hanging" not in dict(report.load_problems))
    assert [line["about"] for line in host.logged("engine restarted")] == ["restarting"]
    missing = [str(line["about"]) for line in host.logged("load missing")]
    assert set(missing) == {"flood", "hanging", "wrong"}
    assert missing.count("wrong") == 1  # though it was looked at many times
    assert [line["about"] for line in host.logged("load is well")] == ["hanging"]
    assert await asyncio.to_thread(daemon.stop) == 0


@pytest.fixture
def nvidia(tmp_path: Path) -> Iterator[NvmlHost]:
    try:
        with NvmlHost(tmp_path) as host:
            yield host
    except NoCompiler as error:
        pytest.skip(str(error))


@pytest.fixture
def child() -> Iterator[int]:
    """A process that this one has started."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


async def test_gpus_are_found_by_the_processes_that_the_driver_lists(nvidia: NvmlHost, child: int) -> None:
    async with metrics_server(page(Vllm().page)) as server:
        nvidia.nvml.gpus[1].pids = (child,)  # this process listens, its child computes
        nvidia.configure(backend='"nvml"', more=table("vllm-0", server))
        daemon = await asyncio.to_thread(nvidia.start, env=nvidia.env)
        async with daemon.open_channel() as channel:
            call = await greet(channel, interval_s=0.1)
            report = await report_that(
                call, lambda report: (load := load_of(report, "vllm-0")) is not None and load.gpus
            )
    assert [load.gpus for load in report.loads] == [(nvidia.names[1],)]
    assert report.load_problems == ()


def test_an_engine_on_a_gpu_that_is_not_here_stops_the_start(host: Host) -> None:
    host.configure(more='[[engine]]\ninstance = "a"\nkind = "vllm"\nurl = "http://127.0.0.1:1/"\ngpus = ["GPU-9"]\n')
    assert host.refused() == (
        2,
        "rapidd: config key engine.a.gpus: this host has no gpu GPU-9 (it has: GPU-0, GPU-1)",
    )
