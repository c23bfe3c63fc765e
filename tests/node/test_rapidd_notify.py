"""What systemd hears from a real rapidd over a real datagram socket: ready, alive, and nothing from one that hangs."""

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rapid.simgpu import Faults
from tests.node.caller import DEADLINE_S
from tests.node.daemon import CEILING_MW, FALLBACK_MW, Endpoints, Host
from tests.wait import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

ALIVE = "WATCHDOG=1"
WATCHED = {"WATCHDOG_USEC": "500000"}  # so a sign of life is due every quarter of a second
INTERVALS = 6  # of them, in which nothing must be heard: three times what systemd would wait


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as host:
        yield host


@pytest.fixture
def metronome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Another host, whose daemon is well: what it says tells how much time has passed for the one that is not."""
    with Host(tmp_path_factory.mktemp("metronome"), gpus=1) as host:
        host.start(env=WATCHED)
        yield host


def pass_intervals(metronome: Host) -> None:
    heard = metronome.heard()
    heard.clear()

    def enough() -> bool:
        heard.extend(metronome.heard())
        return heard.count(ALIVE) >= INTERVALS

    wait_for(enough, DEADLINE_S, f"{INTERVALS} signs of life of the other daemon")


def fell_silent(host: Host, metronome: Host) -> bool:
    host.heard()
    pass_intervals(metronome)
    return host.heard() == []


def wait_alive(host: Host) -> None:
    wait_for(lambda: ALIVE in host.heard(), DEADLINE_S, ALIVE)


# ---- READY=1 ----


def test_ready_comes_after_the_last_gpu_has_read_back_its_fallback(host: Host) -> None:
    host.gpus[1].set_faults(Faults(sticks=True), 0.0)  # it takes every write, and enforces none
    host.launch()
    wait_for(lambda: host.logged("limit not in force"), DEADLINE_S, "the mismatch in the log")
    assert host.limits_mw() == (FALLBACK_MW, CEILING_MW)
    assert host.heard() == []
    host.gpus[1].set_faults(Faults(), 0.0)
    heard: list[str] = []

    def ready() -> bool:
        heard.extend(host.heard())
        return "READY=1" in heard

    wait_for(ready, DEADLINE_S, "READY=1")
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert heard[:2] == ["STATUS=enforces the limits of 2 GPUs", "READY=1"]


# ---- WATCHDOG=1 ----


def test_the_enforcement_loop_says_again_and_again_that_it_lives(host: Host) -> None:
    host.start(env=WATCHED)
    for _ in range(4):
        wait_alive(host)


def test_a_stopped_daemon_falls_silent_and_goes_on_when_it_may(host: Host, metronome: Host) -> None:
    daemon = host.start(env=WATCHED)
    wait_alive(host)
    daemon.process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{daemon.process.pid}/stat")
    wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", DEADLINE_S, "it is stopped")
    assert fell_silent(host, metronome)
    daemon.process.send_signal(signal.SIGCONT)
    wait_alive(host)


def test_a_loop_that_hangs_falls_silent_though_the_rest_of_the_process_lives(host: Host, metronome: Host) -> None:
    """The log goes into a pipe that nobody reads, as when the system's logger hangs; a line of it stops the loop."""
    pipe = host.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = host.launch(env=WATCHED, log=pipe)
        wait_for(lambda: "READY=1" in host.heard(), DEADLINE_S, "READY=1")
        endpoints = msgspec.json.decode((host.state / "endpoints.json").read_bytes(), type=Endpoints)
        fill(pipe)
        process.send_signal(signal.SIGHUP)  # it will want to say what it has read
        wait_for(lambda: fell_silent(host, metronome), DEADLINE_S, "silence for three times what systemd would wait")
        with urllib.request.urlopen(f"http://{endpoints.metrics}/metrics", timeout=DEADLINE_S) as page:
            assert b"rapidd_gpu_limit_watts" in page.read()
        wait_for(
            lambda: os.read(reader, 65536) and ALIVE in host.heard(), DEADLINE_S, f"{ALIVE} after the pipe was read"
        )
    finally:
        os.close(reader)


def fill(pipe: Path) -> None:
    """Until nothing more goes in. Opened anew, so that only this end does not wait."""
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            while True:
                try:
                    os.write(writer, b"\n" * size)
                except BlockingIOError:
                    break
    finally:
        os.close(writer)
