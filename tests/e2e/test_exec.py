"""`rapidctl attach exec` as a process, under a real controller: its engine killed, and it itself killed."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from rapidctl.engines.life import read_record
from tests.controller.process import DEADLINE_S, ROOT
from tests.engine.site import Engine, EngineSite
from tests.engines.ports import free_port
from tests.node.caller import NODE
from tests.wait import wait_for

PREFILL, DECODE = Role.PREFILL, Role.DECODE


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EngineSite]:
    with EngineSite(tmp_path) as site:
        site.held("e1", Role.MIXED, name_of_folder="e1")
        site.becomes("e1", Phase.SERVING, Role.MIXED)
        yield site
        site.clear()
        stop(tmp_path / "e0")


def stop(folder: Path) -> None:
    """Killed with the site, an adapter would leave its engine behind."""
    record = read_record(folder / "e0.engine")
    if record is not None and record.lives():
        os.killpg(record.pid, signal.SIGKILL)


def adapter(site: EngineSite, folder: Path) -> Engine:
    """Of a toy engine, e0."""
    port = free_port()
    run = f"{sys.executable} {ROOT / 'tests/engines/toy.py'} --role {{role}} --port {port} --folder {folder}"
    words = ["--address", site.address, "attach", "exec", "--instance", "e0", "--node", NODE, "--gpu", "GPU-0"]
    words += ["--role", "prefill", "--run", run, "--ready-url", f"http://127.0.0.1:{port}/health"]
    words += ["--state-dir", str(folder), "--engine-log", str(folder / "engine.log")]
    engine = site.run("e0", folder, [sys.executable, "-m", "rapidctl", *words])
    site.becomes("e0", Phase.SERVING, PREFILL)
    return engine


def pid_of(folder: Path) -> int:
    record = read_record(folder / "e0.engine")
    assert record is not None
    return record.pid


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_an_engine_that_dies_is_told_and_comes_back_in_its_role(site: EngineSite, tmp_path: Path) -> None:
    adapter(site, tmp_path / "e0")
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.SERVING, DECODE)
    pid = pid_of(tmp_path / "e0")

    os.kill(pid, signal.SIGKILL)

    site.becomes("e0", Phase.GONE)
    told = f"engine gone: it said goodbye: its engine has ended: process {pid} was killed by SIGKILL"
    wait_for(lambda: any(told in str(line["event"]) for line in events(site)), DEADLINE_S, told)
    site.becomes("e0", Phase.SERVING, DECODE)
    assert pid_of(tmp_path / "e0") != pid


def test_an_adapter_that_is_killed_leaves_an_engine_that_the_next_one_goes_on_with(
    site: EngineSite, tmp_path: Path
) -> None:
    engine = adapter(site, tmp_path / "e0")
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.SERVING, DECODE)
    pid = pid_of(tmp_path / "e0")

    engine.kill()

    site.becomes("e0", Phase.GONE)
    assert lives(pid), "it serves on"
    engine.start()
    site.becomes("e0", Phase.SERVING, DECODE)
    assert pid_of(tmp_path / "e0") == pid
    assert engine.stop() == 0
    assert not lives(pid), "SIGTERM ends both"


def test_an_adapter_gives_an_engine_up_that_never_stays(site: EngineSite, tmp_path: Path) -> None:
    folder = tmp_path / "e0"
    words = ["--address", site.address, "attach", "exec", "--instance", "e0", "--node", NODE, "--gpu", "GPU-0"]
    words += ["--role", "prefill", "--run", "sh -c 'echo no such model >&2; exit 3'", "--ready-command", "false"]
    words += ["--state-dir", str(folder), "--engine-log", str(folder / "engine.log"), "--restarts", "0"]
    engine = site.run("e0", folder, [sys.executable, "-m", "rapidctl", *words])
    assert engine.process.wait(DEADLINE_S) == 1
    last = engine.log.strip().splitlines()[-1]
    assert last.startswith("rapidctl: given up after 1 deaths in a row, the last: e0: start as prefill: process ")
    assert "exited with code 3, its last words: no such model" in last


def events(site: EngineSite) -> list[dict[str, object]]:
    lines = [line for line in site.home.log.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]
