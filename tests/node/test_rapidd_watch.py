"""rapidd as a process, and those who move its limits; and what it does by itself when the node draws too much."""

import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapid.core.cluster import GpuReport, NodeReport
from rapid.core.watched import Mover
from rapid.simgpu import Faults
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import decode_description
from tests.node.caller import DEADLINE_S, Call, grants, greet, next_report
from tests.node.daemon import CEILING_MW, FALLBACK_MW, FLOOR_MW, Daemon, Host
from tests.wait import wait_for, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

STRANGER = 4242  # who writes, in the device's own record


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as host:
        yield host


async def granted(host: Host, daemon: Daemon, call: Call, limit_mw: int, seq: int = 1) -> None:
    await call.write(grants(seq, limit_mw, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
    await wait_until(lambda: set(host.limits_mw()) == {limit_mw}, DEADLINE_S, f"{limit_mw} mW on every GPU")


async def report_where(call: Call, told: Any) -> NodeReport:
    report = await next_report(call)
    while not told(report):
        report = await next_report(call)
    return report


def meddle(host: Host, limit_mw: int) -> None:
    host.gpus[0].set_limit(limit_mw, time.monotonic(), writer=STRANGER)


def metrics(daemon: Daemon) -> str:
    with urllib.request.urlopen(f"http://{daemon.endpoints.metrics}/metrics", timeout=DEADLINE_S) as page:
        return str(page.read().decode())


async def test_a_foreign_write_is_repaired_within_a_second_and_attributed(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await granted(host, daemon, call, 600_000)
        meddle(host, CEILING_MW)
        report = await report_where(call, lambda report: report.gpus[0].watch.repairs == 1)
        await wait_until(lambda: host.limits_mw() == (600_000, 600_000), DEADLINE_S, "put back")
        call.cancel()
    watch = report.gpus[0].watch
    assert watch.moves == ((Mover.PROCESS, 1),)
    assert watch.last_move == "another process: 600 W to 750 W; 600 W is ours"
    foreign, repair = host.gpus[0].records()[-2:]
    assert (foreign.writer, foreign.limit_mw) == (STRANGER, CEILING_MW)
    assert (repair.writer, repair.limit_mw) == (daemon.process.pid, 600_000)
    assert repair.at_s - foreign.at_s < 1.0
    page = metrics(daemon)
    assert 'rapidd_gpu_limit_moves_total{gpu="GPU-0",index="0",mover="process"} 1.0' in page


async def test_a_limit_that_is_held_down_from_outside_is_told_and_left_alone(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await granted(host, daemon, call, 600_000)
        host.gpus[0].set_faults(Faults(external_limit_mw=450_000), time.monotonic())
        report = await report_where(call, lambda report: report.gpus[0].limit_mw == 450_000)
        assert report.gpus[0].watch.moves == ((Mover.OUTSIDE, 1),)
        host.gpus[0].set_faults(Faults(), time.monotonic())
        report = await report_where(call, lambda report: report.gpus[0].limit_mw == 600_000)
        call.cancel()
    assert dict(report.gpus[0].watch.moves) == {Mover.OUTSIDE: 2}
    assert report.gpus[0].watch.repairs == 0


async def fenced(host: Host, call: Call) -> GpuReport:
    """A stranger sets the limit of GPU-0 again as soon as it is put right."""
    while True:
        if host.limits_mw()[0] != CEILING_MW:
            meddle(host, CEILING_MW)
        first = (await next_report(call)).gpus[0]
        if first.watch.unmanaged:
            return first


async def test_one_who_fights_back_gets_the_gpu_until_the_daemon_is_reloaded(host: Host) -> None:
    host.configure(more="[fence]\nrepairs = 3")
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await granted(host, daemon, call, 600_000)
        given_up = await fenced(host, call)
        assert given_up.watch.unmanaged.startswith("its limit was moved again after 3 repairs within 60 s")
        assert (given_up.void, given_up.limit_mw) == (True, CEILING_MW)
        assert host.logged("gpu fenced")
        assert 'rapidd_gpu_managed{gpu="GPU-0",index="0"} 0.0' in metrics(daemon)
        writes = len(host.gpus[0].records())
        await call.write(grants(2, 650_000, lease_s=60.0, incarnation=daemon.incarnation, gpus=host.names))
        answers: dict[str, str] = {}
        while len(answers) < 2:
            answers |= {answer.gpu: answer.verdict for answer in (await next_report(call)).answers}
        assert answers == {"GPU-0": "refused", "GPU-1": "applied"}
        assert len(host.gpus[0].records()) == writes

        daemon.process.send_signal(signal.SIGHUP)
        await report_where(call, lambda report: not report.gpus[0].watch.unmanaged)
        await wait_until(lambda: host.limits_mw()[0] == FALLBACK_MW, DEADLINE_S, "its fallback")
        call.cancel()
    assert daemon.stop() == 0


async def test_a_node_that_draws_more_than_it_may_cuts_without_its_controller(host: Host) -> None:
    hard_mw = 1_200_000
    host.configure(fallback='"500W"\nhard_budget = "1200W"', more="[fence]\nrepairs = 1")
    daemon = host.start()
    now_s = time.monotonic()
    for gpu in host.gpus:
        gpu.set_activity(CEILING_MW, now_s + 300.0, now_s)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await granted(host, daemon, call, 600_000)
        await fenced(host, call)  # GPU-0 draws 750 W from now on, and nobody here may change that
        report = await report_where(call, lambda report: report.watch.excursion)
        assert report.watch.excursions == 1
        assert report.gpus[1].grant_mw == 600_000, "the grant stands, so the ledger must go on holding it"
        await wait_until(
            lambda: sum(gpu.draw_mw(time.monotonic()) for gpu in host.gpus) <= hard_mw, DEADLINE_S, "the hard budget"
        )
        call.cancel()
    assert host.logged("excursion")
    assert FLOOR_MW <= host.limits_mw()[1] < 600_000
    assert all(record.limit_mw <= 600_000 for record in host.gpus[1].records()), "it never rises above its grant"
    assert "rapidd_excursions_total 1.0" in metrics(daemon)


async def test_compliance_is_measured_by_energy(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.5)
        report = await report_where(call, lambda report: report.watch.watched_s >= 4.0)
        call.cancel()
    assert report.watch.over_s == 0.0
    assert report.watch.unmeasured_s <= report.watch.watched_s / 2, "the first window may lack its beginning"


async def test_describe_says_what_can_be_said_of_each_gpu(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        stub: Any = node_pb2_grpc.NodeServiceStub(channel)
        told = decode_description(await stub.Describe(node_pb2.DescribeRequest(), timeout=DEADLINE_S))
    assert [(gpu.unmanageable, gpu.bus) for gpu in told.gpus] == [("", ""), ("", "")]


def test_a_daemon_that_was_stopped_for_a_while_has_not_measured(host: Host) -> None:
    daemon = host.start()
    wait_for(lambda: "rapidd_watched_seconds_total 2" in metrics(daemon), DEADLINE_S, "the first window")
    daemon.process.send_signal(signal.SIGSTOP)
    at_s = time.monotonic()
    wait_for(lambda: time.monotonic() - at_s > 3.0, DEADLINE_S, "three seconds")
    daemon.process.send_signal(signal.SIGCONT)

    def unmeasured_s() -> float:
        (line,) = (line for line in metrics(daemon).splitlines() if line.startswith("rapidd_unmeasured_seconds_total"))
        return float(line.split()[1])

    wait_for(lambda: unmeasured_s() >= 3.0, DEADLINE_S, "what was not seen")
