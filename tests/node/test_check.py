"""`rapidd --check`: every red finding is planted and seen, and nothing is changed by looking."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from rapid.core.findings.base import Finding, Grade
from rapid.simgpu import Faults
from rapid.tls import TlsConfig
from rapidd.check import Report, check
from rapidd.check_page import page
from rapidd.process import noticed, rights, running_pid
from tests.certificates import issue
from tests.node.caller import DEADLINE_S
from tests.node.daemon import CEILING_MW, FALLBACK_MW, Host
from tests.node.engines import Vllm
from tests.node.metrics_server import hang, metrics_server
from tests.node.metrics_server import page as metrics_page
from tests.wait import wait_for
from tools.fake_gpu import FakeGpus, NoCompiler, build

NOON_S = 1_794_916_800.0  # 2026-11-17 12:00:00 UTC
YEAR_S = 365 * 86_400.0


class HandClock:
    """A host's clocks, as told."""

    def __init__(self, wall_s: float = NOON_S) -> None:
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        return 1000.0

    def wall_s(self) -> float:
        return self._wall_s


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as host:
        yield host


@pytest.fixture
def tls(host: Host) -> TlsConfig:
    made = issue(trustme.CA(), host.folder / "tls", "h1.example")
    made.key.chmod(0o600)
    configure(host, made)
    return made


def configure(host: Host, tls: TlsConfig) -> None:
    host.configure(more=f'[tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"')


def found(host: Host, topic: str, grade: Grade, wall_s: float = NOON_S) -> Finding:
    """The one finding of this topic and grade."""
    report = check(host.config, HandClock(wall_s))
    (one,) = [f for f in report.findings if f.topic == topic and f.grade is grade]
    return one


def is_red(host: Host, topic: str, what: str, wall_s: float = NOON_S) -> Finding:
    one = found(host, topic, Grade.RED, wall_s)
    assert what in one.what
    return one


# ---- a host in order ----


def test_a_host_in_order_has_nothing_red(host: Host, tls: TlsConfig) -> None:
    report = check(host.config, HandClock())
    assert [f for f in report.findings if f.grade is Grade.RED] == []
    topics = {f.topic for f in report.findings}
    assert topics >= {
        "config",
        "rapidd",
        "permission",
        "gpu",
        "range",
        "limit",
        "on loss",
        "state",
        "certificate",
        "key",
    }


def test_looking_changes_nothing(host: Host, tls: TlsConfig) -> None:
    def everything() -> list[tuple[Path, bytes]]:
        return sorted((path, path.read_bytes()) for path in host.folder.rglob("*") if path.is_file())

    before = everything()
    check(host.config, HandClock())
    assert everything() == before
    assert not host.state.exists()


# ---- the engines of this host ----


async def looked_at(host: Host, url: str, kind: str = "vllm") -> Finding:
    host.configure(more=f'[[engine]]\ninstance = "i0"\nkind = "{kind}"\nurl = "{url}"')
    report = await asyncio.to_thread(check, host.config, HandClock())
    (one,) = [f for f in report.findings if f.topic == "engine"]
    assert one.about == ("i0",)
    return one


async def test_an_engine_whose_metrics_can_be_read_is_green(host: Host) -> None:
    async with metrics_server(metrics_page(Vllm().page)) as server:
        assert (await looked_at(host, server.url)).grade is Grade.GREEN


async def test_an_engine_that_does_not_run_is_yellow_with_what_to_do(host: Host) -> None:
    async with metrics_server(metrics_page(Vllm().page)) as server:
        url = server.url
    one = await looked_at(host, url)
    assert (one.grade, one.what) == (Grade.YELLOW, f"{url} cannot be reached: connection refused")
    assert one.todo == "start the engine; if it runs, put engine.i0.url right"


async def test_an_address_that_is_none_of_metrics_is_red(host: Host) -> None:
    async with metrics_server(metrics_page(lambda: b"<html>", kind="text/html")) as server:
        one = await looked_at(host, server.url)
    what = f"{server.url} answered 'text/html', must be text/plain: no metrics are at this url"
    assert (one.grade, one.what) == (Grade.RED, what)
    assert one.todo == "put engine.i0.url right: vLLM shows them at /metrics of its API server"


async def test_an_engine_of_another_kind_is_red(host: Host) -> None:
    async with metrics_server(metrics_page(Vllm().page)) as server:
        one = await looked_at(host, server.url, "sglang")
    assert one.grade is Grade.RED
    assert "these are metrics of vLLM, kind is sglang" in one.what


async def test_metrics_that_nobody_knows_are_yellow(host: Host) -> None:
    async with metrics_server(metrics_page(lambda: b"node_load1 0.5\n")) as server:
        one = await looked_at(host, server.url)
    assert (one.grade, one.what) == (Grade.YELLOW, f"{server.url} its page has no vllm:num_requests_waiting")


async def test_engines_that_hang_are_looked_at_side_by_side(host: Host) -> None:
    async with metrics_server(hang) as server:
        engines = "\n".join(f'[[engine]]\ninstance = "i{i}"\nkind = "vllm"\nurl = "{server.url}"' for i in range(8))
        host.configure(more=engines)
        report = await asyncio.to_thread(check, host.config, HandClock())
    hung = [f for f in report.findings if f.topic == "engine"]
    assert len(hung) == 8
    assert {f.what for f in hung} == {f"{server.url} gave no whole page within 2 s"}
    assert len(server.requests) == 8


# ---- what is red ----


def test_a_configuration_that_cannot_be_used(host: Host) -> None:
    host.configure(fallback="500")
    one = is_red(host, "config", "config key power.fallback: 500 is not a power; write it as '500W' or '0.5kW'")
    assert one.todo == f"put it right in {host.config}; nothing else was looked at"


def test_a_configuration_that_everybody_can_write(host: Host) -> None:
    host.config.chmod(0o666)
    is_red(host, "config", "is valid, but has mode 0666: every user may change it")


def test_a_gpu_that_does_not_answer(host: Host) -> None:
    host.gpus[1].set_faults(Faults(lost=True), 0.0)
    one = is_red(host, "gpu", "cannot be read: gpu GPU-1: it has fallen off the bus")
    assert one.about == ("gpu 1",)
    assert "dmesg" in one.todo


def test_a_gpu_whose_file_is_none(host: Host) -> None:
    (host.folder / "gpus" / "1.gpu").write_bytes(b"not a device")
    is_red(host, "gpu", "1.gpu")


def test_a_host_without_gpus(host: Host) -> None:
    for file in (host.folder / "gpus").iterdir():
        file.unlink()
    is_red(host, "gpu", "holds no *.gpu file")


def test_a_gpu_that_is_named_and_not_there(host: Host) -> None:
    host.configure(gpus='["GPU-7"]')
    is_red(host, "gpu", "this host has no gpu GPU-7 (it has: GPU-0, GPU-1)")


def test_a_fallback_that_the_gpu_does_not_take(host: Host) -> None:
    host.configure(fallback='"900W"')
    one = is_red(host, "range", "fallback 900 W is outside what it accepts, 400 W..750 W: rapidd will not start")
    assert one.about == ("gpu 0", "gpu 1")


def test_a_gpu_without_a_fallback(host: Host) -> None:
    host.configure(fallback='{ "GPU-0" = "500W" }')
    assert is_red(host, "range", "has no fallback").about == ("gpu 1",)


def test_fallbacks_above_the_hosts_own_budget(host: Host) -> None:
    host.configure(lease_max='"60s"\nhard_budget = "900W"')
    what = "within 60 s 2 GPUs together may draw 1000 W at most, above power.hard_budget, 900 W"
    assert is_red(host, "on loss", what).todo == "lower power.fallback, or raise power.hard_budget"


def test_a_memory_that_cannot_be_trusted(host: Host) -> None:
    host.state.mkdir()
    (host.state / "guard.json").write_text('{"epoch": 7, "contr')
    is_red(host, "state", "the highest epoch seen is not known any more")


def test_a_tls_file_that_is_missing(host: Host, tls: TlsConfig) -> None:
    tls.cert.unlink()
    is_red(host, "tls", f"config key tls.cert: there is no file {tls.cert}")


def test_a_certificate_that_has_ended(host: Host, tls: TlsConfig) -> None:
    report = check(host.config, HandClock(1100 * YEAR_S))  # those of the tests hold until the year 3000
    ended = [f.what for f in report.findings if f.topic == "certificate" and f.grade is Grade.RED]
    assert len(ended) == 2
    assert ended[0].startswith(f"{tls.cert} ended ")
    assert ended[1].startswith(f"{tls.ca} ended ")
    assert all(what.endswith("on 3000-01-01") for what in ended)


def test_a_certificate_that_ends_soon_is_yellow(host: Host, tls: TlsConfig) -> None:
    report = check(host.config, HandClock(32_503_680_000.0 - 10 * 86_400))
    soon = [f.what for f in report.findings if f.topic == "certificate" and f.grade is Grade.YELLOW]
    assert soon[0] == f"{tls.cert} ends in 10 days, on 3000-01-01"


def test_a_certificate_of_another_authority(host: Host, tls: TlsConfig) -> None:
    trustme.CA().cert_pem.write_to_path(str(tls.ca))
    is_red(host, "certificate", "its authority does not vouch for it (unable to get local issuer certificate)")


def test_a_key_that_others_can_read(host: Host, tls: TlsConfig) -> None:
    tls.key.chmod(0o644)
    is_red(host, "key", f"{tls.key} has mode 0644: every user may read or change it")


# ---- who runs, and what it may do ----


def test_a_process_without_the_capability_may_set_no_limit() -> None:
    code = "import os, sys\nif os.getuid() == 0: os.setuid(65534)\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as nobody:
        assert nobody.stdout is not None
        nobody.stdout.readline()
        told = rights("nvml", nobody.pid)
        nobody.communicate()
    assert (told.who, told.needs, told.has, told.is_daemon) == (
        f"rapidd (pid {nobody.pid})",
        "CAP_SYS_ADMIN",
        False,
        True,
    )
    assert not rights("nvml", nobody.pid).has, "a process that has ended may nothing"


def test_a_lock_file_that_nobody_holds_is_no_daemon(host: Host) -> None:
    host.state.mkdir()
    (host.state / "lock").write_text(f"{os.getpid()}\n")
    assert running_pid(host.state) is None


@pytest.mark.e2e
def test_what_the_daemon_has_noticed_is_told(host: Host) -> None:
    host.configure(more="[fence]\nrepairs = 1")
    host.start()
    host.gpus[0].set_limit(CEILING_MW, 0.0, writer=1)
    wait_for(lambda: host.logged("limit moved"), DEADLINE_S, "the move in the log")
    wait_for(lambda: noticed(host.state).get("GPU-0"), DEADLINE_S, "the move on the page")
    assert "was moved by others (1 by another process) and set back" in found(host, "writers", Grade.YELLOW).what
    host.wait_for_limits(FALLBACK_MW)
    host.gpus[0].set_limit(CEILING_MW, 0.0, writer=1)
    wait_for(lambda: noticed(host.state)["GPU-0"].given_up, DEADLINE_S, "it is given up")
    assert is_red(host, "gpu", "is not managed any more: others fight over its limit").about == ("gpu 0",)


@pytest.mark.e2e
def test_the_daemon_that_runs_is_known_and_left_in_peace(host: Host) -> None:
    daemon = host.start()
    report = check(host.config, HandClock())
    assert f"runs (pid {daemon.process.pid})" in [f.what for f in report.findings]
    assert [gpu.enforced_mw for gpu in report.gpus] == [FALLBACK_MW, FALLBACK_MW]
    assert daemon.stop() == 0


# ---- NVIDIA GPUs, through the real binding ----


@pytest.mark.e2e
def test_what_is_wrong_with_nvidia_gpus_is_found_and_their_driver_was_only_read(tmp_path: Path) -> None:
    nvml = FakeGpus(tmp_path, gpus=3)
    try:
        library = build(tmp_path)
    except NoCompiler as error:
        pytest.skip(str(error))
    nvml.gpus[0].persistence = False
    nvml.gpus[1].mig = True
    nvml.gpus[2].cap_mw = 450_000
    with Host(tmp_path, gpus=0) as host:
        host.configure(backend='"nvml"')
        command = [sys.executable, "-m", "rapidd", "--config", str(host.config), "--check", "--json"]
        env = {**os.environ, **nvml.env(library)}
        told = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    document = json.loads(told.stdout)
    wrong = {(f["topic"], *f["about"]): f for f in document["findings"] if f["grade"] != "green"}
    assert "persistence mode is off" in wrong["persistence", "gpu 0"]["what"]
    assert wrong["persistence", "gpu 0"]["do"] == "systemctl enable --now nvidia-persistenced"
    assert wrong["gpu", "gpu 1"]["what"].startswith("cannot be managed: ")
    assert "enforces 450 W, though 700 W was asked for: a BMC or the VBIOS holds it" in wrong["limit", "gpu 2"]["what"]
    assert document["on_loss"]["sum_w"] == 500 + 700 + 500
    assert list(nvml.record()) == []


# ---- the command line ----


@pytest.mark.e2e
def test_red_is_exit_1_in_words_and_in_json(host: Host) -> None:
    host.gpus[1].set_faults(Faults(lost=True), 0.0)
    command = [sys.executable, "-m", "rapidd", "--config", str(host.config), "--check"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.splitlines()[-1].startswith("1 red, ")
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    document = json.loads(as_json.stdout)
    assert (as_json.returncode, document["ok"]) == (1, False)
    assert document["on_loss"]["sum_w"] == 500.0 + 750.0  # one that does not answer cannot be brought down
    assert [f["about"] for f in document["findings"] if f["grade"] == "red"] == [["gpu 1"]]


@pytest.mark.e2e
def test_nothing_red_is_exit_0_and_json_alone_is_a_usage_error(host: Host) -> None:
    command = [sys.executable, "-m", "rapidd", "--config", str(host.config)]
    assert subprocess.run([*command, "--check"], capture_output=True, timeout=DEADLINE_S, check=False).returncode == 0
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (told.returncode, told.stdout) == (2, "")
    assert "--json goes with --check" in told.stderr


def test_the_page_shows_every_gpu_and_their_sum_in_80_columns(host: Host) -> None:
    lines = page(check(host.config, HandClock()), 80, coloured=False)
    assert [line for line in lines if len(line) > 80 and str(host.folder) not in line] == []
    at = lines.index("when the controller is lost, at the latest after 60 s:")
    assert lines[at + 1 : at + 5] == [
        "GPU  NOW W  ON LOSS W  FLOOR W  CEILING W  UUID",
        "0      750        500      400        750  GPU-0",
        "1      750        500      400        750  GPU-1",
        "sum   1500       1000      800       1500",
    ]


def test_colours_are_for_terminals(host: Host) -> None:
    report: Report = check(host.config, HandClock())
    assert "\x1b" not in "".join(page(report, None, coloured=False))
    assert "\x1b[32mgreen   \x1b[0mconfig" in page(report, None, coloured=True)[0]
