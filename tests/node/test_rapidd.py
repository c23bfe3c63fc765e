"""rapidd as a process, on simulated GPUs: from start-up to the way out, over every way of being cut short."""

import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rapid.core.cluster import GpuHealth, PhaseLoad, Role
from rapid.rpc import open_channel
from rapid.simgpu import Faults
from rapid.v1 import load_pb2_grpc
from rapid.wire.common import encode_push
from tests.node.caller import DEADLINE_S, end_of, grants, greet, next_report, report_with
from tests.node.daemon import CEILING_MW, FALLBACK_MW, Daemon, Host
from tests.wait import wait_for, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as host:
        yield host


def granted(host: Host, daemon: Daemon, limit_mw: int, *, seq: int = 1, lease_s: float = 10.0) -> Any:
    return grants(seq, limit_mw, lease_s=lease_s, incarnation=daemon.incarnation, gpus=host.names)


# ---- start ----


async def test_every_gpu_is_at_its_fallback_before_the_daemon_is_ready(host: Host) -> None:
    assert host.limits_mw() == (CEILING_MW, CEILING_MW)
    daemon = host.start()
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    async with daemon.open_channel() as channel:
        checker: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="rapid.v1.NodeService")
        answer = await checker.Check(request, timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_daemon_that_may_not_set_limits_is_not_ready_until_it_may(host: Host) -> None:
    host.gpus[1].set_faults(Faults(denied=True), 0.0)
    process = host.launch()
    wait_for(lambda: host.logged("limit not in force"), DEADLINE_S, "the problem in the log")
    assert "no permission" in str(host.logged("limit not in force")[0]["detail"])
    assert host.heard() == []
    assert not (host.state / "endpoints.json").exists()
    host.gpus[1].set_faults(Faults(), 0.0)
    wait_for(lambda: "READY=1" in host.heard(), DEADLINE_S, "READY=1")
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert process.poll() is None


def test_sigterm_ends_a_start_that_waits_for_a_gpu(host: Host) -> None:
    host.gpus[1].set_faults(Faults(denied=True), 0.0)
    process = host.launch()
    wait_for(lambda: host.logged("limit not in force"), DEADLINE_S, "the problem in the log")
    process.terminate()
    assert process.wait(DEADLINE_S) == 1  # one GPU is still above its fallback
    assert host.logged("stopped above the fallback")
    assert "READY=1" not in host.heard()


def test_an_empty_folder_of_gpus_ends_with_2_and_says_how_to_fill_it(host: Host) -> None:
    for file in (host.folder / "gpus").iterdir():
        file.unlink()
    code, line = host.refused()
    assert code == 2
    assert line.startswith(f"rapidd: config key device.path: {host.folder}/gpus holds no *.gpu file")


def test_a_second_daemon_is_refused_and_the_first_goes_on(host: Host) -> None:
    daemon = host.start()
    code, line = host.refused()
    assert (code, line) == (
        1,
        f"rapidd: another rapidd (pid {daemon.process.pid}) holds {host.state}; one daemon per host is enough",
    )
    assert daemon.process.poll() is None
    assert daemon.stop() == 0


# ---- grants ----


async def test_a_grant_reaches_the_devices_and_its_end_lands_them_in_time(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(batch := granted(host, daemon, 700_000, lease_s=1.0))
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")
        report = await report_with(call, 700_000)
        while not all(gpu.void for gpu in report.gpus):
            report = await report_with(call, FALLBACK_MW)
    assert report.lease_left_s == 0
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    for gpu in host.gpus:
        landed = gpu.records()[-1]
        late_s = landed.at_s - batch.grants.not_after_s
        assert landed.limit_mw == FALLBACK_MW
        assert 0.0 <= late_s <= 0.5, f"landed {late_s:.3f} s after the end of the lease"


async def test_a_lost_gpu_is_reported_and_the_other_is_granted(host: Host) -> None:
    daemon = host.start()
    host.gpus[0].set_faults(Faults(lost=True), 0.0)
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        report = await next_report(call)
        while report.gpus[0].health is not GpuHealth.LOST:
            report = await next_report(call)
        assert report.gpus[0].problem == "gpu GPU-0: it has fallen off the bus"
        assert report.gpus[0].draw_mw is None
        await call.write(granted(host, daemon, 700_000))
        await wait_until(lambda: host.gpus[1].read_limit().enforced_mw == 700_000, DEADLINE_S, "the healthy one")
        answers = {answer.gpu: answer.verdict for answer in report.answers}
        while len(answers) < 2:
            answers |= {answer.gpu: answer.verdict for answer in (await next_report(call)).answers}
        assert answers == {"GPU-0": "failed", "GPU-1": "applied"}


async def test_a_foreign_writer_is_put_right(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        await call.write(granted(host, daemon, 600_000))
        await wait_until(lambda: host.limits_mw() == (600_000, 600_000), DEADLINE_S, "granted limits")
        host.gpus[0].set_limit(CEILING_MW, 0.0, writer=1)
        await wait_until(lambda: host.limits_mw() == (600_000, 600_000), DEADLINE_S, "put back")
        await wait_until(lambda: host.logged("limit moved"), DEADLINE_S, "a log line")


# ---- ways to be cut short ----


async def test_sigkill_keeps_the_limits_and_the_next_life_lands_them(host: Host) -> None:
    first = host.start()
    async with first.open_channel() as channel:
        call = await greet(channel, epoch=3)
        batch = grants(1, 700_000, epoch=3, lease_s=60.0, incarnation=first.incarnation, gpus=host.names)
        await call.write(batch)
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")
        first.kill()
    assert host.limits_mw() == (700_000, 700_000)
    second = host.start()
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert second.incarnation != first.incarnation
    async with second.open_channel() as channel:
        # What was meant for the life before is refused, also when its lease still runs.
        call = await greet(channel, epoch=3)
        await call.write(batch)
        answers = (await next_report(call)).answers
        while not answers:
            answers = (await next_report(call)).answers
        assert answers[0].verdict == "refused"
        assert f"meant for incarnation {first.incarnation}" in answers[0].detail
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_the_epoch_seen_outlives_the_daemon(host: Host) -> None:
    first = host.start()
    async with first.open_channel() as channel:
        await next_report(await greet(channel, epoch=7))
        first.kill()
    second = host.start()
    async with second.open_channel() as channel:
        assert await end_of(await greet(channel, epoch=6)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "node node-1: epoch 6 is lower than epoch 7, which it has seen",
        )
        assert await end_of(await greet(channel, epoch=7, controller_id="controller-b")) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "node node-1: epoch 7 belongs to controller controller-a, not to controller-b",
        )
        await next_report(await greet(channel, epoch=7))


async def test_sigterm_ends_the_stream_lands_and_says_that_it_stops(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel)
        await call.write(granted(host, daemon, 700_000, lease_s=60.0))
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")
        host.heard()
        daemon.process.send_signal(signal.SIGTERM)
        assert await end_of(call) == (grpc.StatusCode.UNAVAILABLE, "node node-1: the daemon stops")
    assert daemon.process.wait(DEADLINE_S) == 0
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert host.heard() == ["STOPPING=1"]
    assert not (host.state / "endpoints.json").exists()


async def test_sigterm_with_a_gpu_that_cannot_land_is_no_success(host: Host) -> None:
    daemon = host.start()
    async with daemon.open_channel() as channel:
        call = await greet(channel)
        await call.write(granted(host, daemon, 700_000, lease_s=60.0))
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")
        host.gpus[0].set_faults(Faults(denied=True), 0.0)
        assert daemon.stop() == 1
    assert host.limits_mw() == (700_000, FALLBACK_MW)
    assert host.logged("stopped above the fallback")


async def test_a_state_folder_that_cannot_be_written_refuses_the_greeting_and_nothing_rises(host: Host) -> None:
    daemon = host.start()
    # A folder where the file is to be made: this stops root as well, which permissions would not.
    (host.state / "guard.json.tmp").mkdir()
    async with daemon.open_channel() as channel:
        call = await greet(channel, epoch=2)
        await call.write(grants(1, 700_000, epoch=2, incarnation=daemon.incarnation, gpus=host.names))
        code, details = await end_of(call)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == ("node node-1: epoch 2 is not taken, it cannot be kept in the state folder: Is a directory")
        assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
        (host.state / "guard.json.tmp").rmdir()
        call = await greet(channel, epoch=2)
        await call.write(grants(1, 700_000, epoch=2, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")


def test_a_memory_that_cannot_be_trusted_stops_the_start_before_anything_is_taken(host: Host) -> None:
    host.state.mkdir()
    (host.state / "guard.json").write_text('{"epoch": 7, "contr')
    code, line = host.refused()
    assert code == 1
    assert line.startswith(f"rapidd: {host.state}/guard.json: ")
    assert "move the file away, and start again" in line


# ---- what else it offers ----


async def test_pushed_load_travels_in_the_report(host: Host) -> None:
    daemon = host.start()
    async with open_channel(f"unix:{daemon.endpoints.load_socket}") as engine, daemon.open_channel() as channel:
        call = await greet(channel, interval_s=0.1)
        at_s = (await next_report(call)).node_time_s
        load = PhaseLoad("engine-0", Role.DECODE, at_s, running_requests=5)
        pusher: Any = load_pb2_grpc.LoadServiceStub(engine)
        assert (await pusher.Push(iter([encode_push(load)]), timeout=DEADLINE_S)).taken == 1
        while not (loads := (await next_report(call)).loads):
            pass
        assert loads == (load,)


def test_metrics_show_the_node(host: Host) -> None:
    daemon = host.start()

    def page() -> str:
        with urllib.request.urlopen(f"http://{daemon.endpoints.metrics}/metrics", timeout=DEADLINE_S) as answer:
            text = answer.read().decode()
        assert isinstance(text, str)
        return text

    wait_for(lambda: 'rapidd_gpu_limit_watts{gpu="GPU-1",index="1"} 500.0' in page(), DEADLINE_S, "the limit")
    assert "rapidd_ready 1.0" in page()
    assert f'incarnation="{daemon.incarnation}"' in page()


def test_sighup_takes_the_log_level_and_names_what_needs_a_restart(host: Host) -> None:
    daemon = host.start()
    host.configure(level='"warning"', fallback='"450W"', name='"other"')
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: host.logged("configuration needs a restart"), DEADLINE_S, "the warning")
    assert host.logged("configuration needs a restart")[0]["keys"] == ["node.name", "power.fallback"]
    assert host.logged("configuration read") == []  # info is not logged any more
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


def test_sighup_with_a_bad_file_keeps_the_configuration_and_says_why(host: Host) -> None:
    daemon = host.start()
    host.configure(more="colour = 3")
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: host.logged("configuration kept"), DEADLINE_S, "the error")
    assert "log.colour" in str(host.logged("configuration kept")[0]["detail"])
    assert daemon.stop() == 0


# ---- bad input ----


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fallback": '"900W"'}, "power.fallback: 900 W is outside what gpu GPU-0 accepts, 400 W..750 W"),
        (
            {"fallback": '{ default = "500W", "GPU-1" = "300W" }'},
            "power.fallback.GPU-1: 300 W is outside what gpu GPU-1 accepts, 400 W..750 W",
        ),
        (
            {"fallback": '{ default = "500W", "GPU-9" = "500W" }'},
            "power.fallback.GPU-9: this host has no gpu GPU-9 (it has: GPU-0, GPU-1)",
        ),
        ({"gpus": '["GPU-7"]'}, "device.gpus: this host has no gpu GPU-7 (it has: GPU-0, GPU-1)"),
        ({"fallback": "500"}, "power.fallback: 500 is not a power; write it as '500W' or '0.5kW'"),
        ({"more": "[power.x]"}, "power.x: is unknown"),
        ({"address": '"0.0.0.0:7601"'}, "listen.address: other hosts can reach 0.0.0.0:7601, so it needs TLS"),
    ],
)
def test_a_bad_configuration_ends_with_2_and_names_the_key(host: Host, changes: dict[str, str], line: str) -> None:
    host.configure(**changes)
    code, last = host.refused()
    assert code == 2
    assert last.startswith(f"rapidd: config key {line}")
    assert host.limits_mw() == (CEILING_MW, CEILING_MW)


def test_a_port_that_is_taken_ends_with_2_and_leaves_the_gpus_landed(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        host.configure(address=f'"{address}"')
        code, last = host.refused()
    assert code == 2
    assert last.startswith(f"rapidd: config key listen.address: cannot listen on {address}: ")
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


def test_a_host_without_a_usable_gpu_ends_with_3(host: Host) -> None:
    for file in (host.folder / "gpus").glob("*.gpu"):
        file.write_bytes(b"not a device")
    code, last = host.refused()
    assert code == 3
    assert last == "rapidd: no usable GPU found through sim; is the driver loaded?"


def test_rapidd_does_not_run_without_its_assertions(host: Host) -> None:
    code, last = host.refused(flags=("-O",))
    assert code == 2
    assert last == "rapidd: rapidd relies on its assertions: do not run it under python -O or PYTHONOPTIMIZE"
    assert host.limits_mw() == (CEILING_MW, CEILING_MW)


def test_check_config_says_that_it_is_valid_and_touches_nothing(host: Host) -> None:
    code, last = host.refused(arguments=("--check-config",))
    assert (code, last) == (0, f"{host.config} is valid")
    assert not host.state.exists()
