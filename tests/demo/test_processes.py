"""Programs that die, do not start, do not stop, and lose their parent."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rapid.core.errors import Unreachable
from rapidctl.demo.processes import MAX_STARTS, Keeper, Program, ProgramFailed, Running, until
from tests.wait import wait_for, wait_until

SOON_S = 10.0
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS


def program(folder: Path, code: str, name: str = "one") -> Program:
    return Program(name, (sys.executable, "-c", code), folder / f"{name}.log")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_killed_program_is_started_again(tmp_path: Path) -> None:
    heard: list[str] = []
    keeper = Keeper(heard.append)
    one = keeper.start(program(tmp_path, SLEEPS))
    first = one.pid
    assert first is not None
    watching = asyncio.create_task(keeper.watch())
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: one.pid not in (None, first), SOON_S, "a second life")
    watching.cancel()
    assert (one.starts, keeper.restarts) == (2, 1)
    assert heard == ["one was killed by SIGKILL; starting it again"]
    await keeper.stop(["one"], SOON_S)


async def test_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    keeper = Keeper(print)
    one = keeper.start(program(tmp_path, STUBBORN))
    await wait_until(lambda: (tmp_path / "one.log").read_text() == "up\n", SOON_S, "it is up")
    pid = one.pid
    assert pid is not None
    await keeper.stop(["one"], 0.2)
    assert not lives(pid)


async def test_program_that_ends_at_its_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    keeper = Keeper(print)
    keeper.start(program(tmp_path, "raise SystemExit('no such budget')"))
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ProgramFailed, match=r"one did not stay up; its last words: no such budget \(log: .*\)"):
            await keeper.watch()


@pytest.mark.parametrize(("code", "again"), [(1, True), (2, False)])
async def test_program_that_ends_later_is_started_again_unless_its_config_is_wrong(
    tmp_path: Path, code: int, again: bool
) -> None:
    heard: list[str] = []
    keeper = Keeper(heard.append)
    keeper.proven = True
    one = keeper.start(program(tmp_path, f"raise SystemExit({code})"))
    watching = asyncio.create_task(keeper.watch())
    await wait_until(lambda: watching.done() or one.starts > 1, SOON_S, "it is started again, or given up")
    assert (one.starts > 1) is again
    assert heard[:1] == (["one ended with exit code 1; starting it again"] if again else [])
    watching.cancel()
    await asyncio.wait([watching])
    assert isinstance(watching.exception(), ProgramFailed) if not again else watching.cancelled()
    keeper.kill_all()


async def test_wait_that_takes_too_long_is_named() -> None:
    with pytest.raises(Unreachable, match=r"both hosts are ready: not within 0.1 s"):
        await until(lambda: False, "both hosts are ready", 0.1)


def test_pauses_between_starts_grow_and_starts_are_bounded(tmp_path: Path) -> None:
    one = Running(program(tmp_path, "raise SystemExit(3)"))
    one.start(0.0)
    assert wait_for(lambda: one.look(1.0), SOON_S, "it has ended") == 3
    assert not one.due(1.05)
    assert one.due(1.1)
    one.start(1.1)
    wait_for(lambda: one.look(1.2), SOON_S, "it has ended")
    assert not one.due(1.35)
    assert one.due(1.4)
    one.starts = MAX_STARTS
    with pytest.raises(ProgramFailed, match=f"died {MAX_STARTS} times"):
        one.start(2.0)


def test_program_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from rapidctl.demo.processes import Keeper, Program
import sys
one = Keeper(print).start(Program("one", (sys.executable, "-c", {SLEEPS!r}), Path({str(tmp_path / "one.log")!r})))
print(one.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert lives(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not lives(pid), SOON_S, "the program is gone")
