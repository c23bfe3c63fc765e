"""Commands of the operator's: what they say, and what comes of those that fail, hang or talk without end."""

import asyncio
import os
from pathlib import Path

import pytest

from rapidctl.engines.ask import CommandFailed, command_of, run
from tests.wait import wait_until

WITHIN_S = 20.0


async def test_a_command_finds_what_it_must_know_in_its_environment() -> None:
    assert await run(("sh", "-c", "echo $RAPID_ROLE $HOME"), {"RAPID_ROLE": "decode"}, WITHIN_S) == (
        f"decode {os.environ['HOME']}\n"
    )


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3", "exited with 3"),
        ("echo one; echo two >&2; exit 3", "exited with 3: two"),
        ("echo only; exit 4", "exited with 4: only"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("yes", "wrote more than 64 KiB"),
    ],
)
async def test_a_command_that_fails_says_how(script: str, says: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        await run(("sh", "-c", script), {}, WITHIN_S)
    assert says in str(raised.value)
    assert str(raised.value).startswith("`sh -c ")


async def test_a_program_that_is_not_there_says_so() -> None:
    with pytest.raises(CommandFailed, match=r"`/no/such --x` cannot be run: no such file or directory"):
        await run(("/no/such", "--x"), {}, WITHIN_S)


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; wait"
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s"):
        await run(("sh", "-c", script), {}, 0.5)
    pid = int(pids.read_text())
    await wait_until(lambda: not _lives(pid), WITHIN_S, "the end of what it started")


async def test_a_command_that_is_given_up_is_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    running = asyncio.create_task(run(("sh", "-c", f"echo $$ > {pids}; sleep 600"), {}, WITHIN_S))
    await wait_until(lambda: pids.exists() and pids.read_text().strip(), WITHIN_S, "its start")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until(lambda: not _lives(int(pids.read_text())), WITHIN_S, "its end")


def test_words_are_split_as_a_shell_would() -> None:
    assert command_of("run", "a 'b c' --d=\"e f\"") == ("a", "b c", "--d=e f")
    assert command_of("run", "") == ()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
