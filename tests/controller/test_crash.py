"""Killed at any point, between any two of its words, the controller has never done what its journal does not hold, and
the next one goes on without a watt too much."""

import sqlite3
from contextlib import closing
from pathlib import Path

from rapid.core.commands import SendGrants
from rapid.core.control import Control
from rapidctl.controller import codec
from rapidctl.controller.recover import recover
from rapidctl.controller.store import JournalFile
from tests.controller.fakes import HandClock
from tests.controller.world import Host, Shell, live, story


def journaled(path: Path) -> list[str]:
    """The commands of all lives in the journal, one JSON each, in order."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT commands FROM entries ORDER BY n").fetchall()
    return [codec.encode(command).decode() for (text,) in rows for command in codec.decode_commands(text.encode())]


async def whole_story(path: Path) -> tuple[Host, Shell]:
    clock = HandClock()
    host = Host(clock)
    return host, await live(path, host, clock, story(host), None)


async def test_the_story_is_one_in_which_things_happen(tmp_path: Path) -> None:
    """Or the tests below would prove nothing."""
    host, shell = await whole_story(tmp_path / "j.sqlite3")
    grants = [command for command in shell.performed if isinstance(command, SendGrants)]
    assert [command.batch.limits_mw[0][1] for command in grants] == [600_000, 450_000, 600_000, 400_000]
    assert (host.peak_mw, host.sum_mw) == (2_400_000, 1_600_000)
    assert shell.points > 60


async def test_killed_at_any_point_it_has_done_only_what_is_journaled_and_the_next_life_goes_on(tmp_path: Path) -> None:
    _, whole = await whole_story(tmp_path / "whole.sqlite3")
    for kill_at in range(1, whole.points + 1):
        path = tmp_path / f"{kill_at}" / "j.sqlite3"
        clock = HandClock()
        host = Host(clock)
        moments = story(host)
        first = await live(path, host, clock, moments, kill_at)
        done = [codec.encode(command).decode() for command in first.performed]
        assert journaled(path)[: len(done)] == done, f"killed at point {kill_at}"
        second = await live(path, host, clock, moments, None)
        assert host.peak_mw <= 2_400_000, f"killed at point {kill_at}"
        assert host.sum_mw <= second.mind.ledger.domains["host"].budget_mw, f"killed at point {kill_at}"
        if second.recovered is not None:
            assert (second.loop.greeting.epoch, second.recovered.differs) == (2, 0)


async def test_a_replay_gives_the_same_commands_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite3"
    await whole_story(path)
    with closing(JournalFile(path, keep_lives=3)) as file:
        before = recover(file, Control)
    assert before is not None
    assert (before.number, before.differs, before.life.epoch) == (2, 0, 1), "the life of the process had two parts"
    assert before.entries > 5
    assert before.snapshot.budgets_mw == (("host", 1_600_000),)
