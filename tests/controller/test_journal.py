"""The journal keeps what it was given, refuses what it cannot trust, and says how to go on."""

import asyncio
import os
import re
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rapid.core.commands import Notice
from rapid.core.errors import JournalCorrupt, RapidError, Refused
from rapid.core.events import Ticked
from rapidctl.controller.damage import JournalFailed
from rapidctl.controller.journal import Journal, row
from rapidctl.controller.store import PRUNE_ROWS, JournalFile, Life, Row

LIFE = Life(epoch=7, controller_id="c1", started_wall_s=1.5, version="0", settings="{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "journal.sqlite3"


@contextmanager
def opened(path: Path, *, keep_lives: int = 8) -> Iterator[JournalFile]:
    with closing(JournalFile(path, keep_lives=keep_lives)) as file:
        yield file


def ticks(count: int, start: int = 0) -> list[Row]:
    return [row(Ticked(float(n)), [Notice("info", f"n{n}", "tick")]) for n in range(start, start + count)]


def filled(path: Path, rows: int = 200) -> None:
    with opened(path) as file:
        file.begin(LIFE, ticks(1))
        file.append(ticks(rows - 1, 1))


def test_a_new_journal_is_empty(path: Path) -> None:
    with opened(path) as file:
        assert file.last is None
        assert list(file.rows()) == []


def test_what_was_appended_comes_back_in_order(path: Path) -> None:
    with opened(path) as file:
        file.begin(LIFE, ticks(1))
        file.append(ticks(3, 1))
        file.append([])
        file.append(ticks(2, 4))
    with opened(path) as file:
        assert file.last == LIFE
        assert list(file.rows()) == ticks(6)


def test_only_the_last_life_is_replayed(path: Path) -> None:
    second = Life(epoch=8, controller_id="c1", started_wall_s=2.5, version="0", settings="{}")
    filled(path)
    with opened(path) as file:
        file.begin(second, ticks(1, 50))
        file.append(ticks(1, 51))
    with opened(path) as file:
        assert file.last == second
        assert list(file.rows()) == ticks(2, 50)


def test_old_lives_are_deleted_piece_by_piece(path: Path) -> None:
    rows = PRUNE_ROWS + 10
    with opened(path, keep_lives=1) as file:
        for _ in range(3):
            file.begin(LIFE, ticks(rows))
        assert count(path, "lives") == 2
        left = []
        for n in range(1, 4):
            file.append(ticks(1))
            left.append(count(path, "entries") - 2 * rows - n)
    assert left == [rows - PRUNE_ROWS, 0, 0]


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_deleting_goes_on_in_the_next_process(path: Path) -> None:
    filled(path, 100)
    with opened(path, keep_lives=0) as file:
        file.begin(LIFE, ticks(1))
    with opened(path, keep_lives=0) as file:
        file.begin(LIFE, ticks(1))
        file.append(ticks(1, 1))
    assert count(path, "entries") == 2


def test_what_was_committed_survives_a_copy_taken_at_any_moment(path: Path, tmp_path: Path) -> None:
    """A copy of the files is what a SIGKILL leaves behind."""
    with opened(path) as file:
        file.begin(LIFE, ticks(1))
        for step in range(1, 6):
            file.append(ticks(1, step))
            folder = shutil.copytree(path.parent, tmp_path / f"copy{step}")
            with opened(folder / path.name) as copy:
                assert list(copy.rows()) == ticks(step + 1)


def test_the_beginning_of_a_life_survives_the_loss_of_the_write_ahead_log(path: Path, tmp_path: Path) -> None:
    with opened(path) as file:
        file.begin(LIFE, ticks(1))
        folder = tmp_path / "copy"
        folder.mkdir()
        shutil.copy(path, folder)
    with opened(folder / path.name) as copy:
        assert copy.last == LIFE


def test_two_controllers_cannot_share_a_journal(path: Path) -> None:
    with opened(path), pytest.raises(Refused, match=rf"in use by another controller, process {os.getpid()};.*stop it"):
        JournalFile(path, keep_lives=8)
    with opened(path):
        pass


# ---- damage ----


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()

    return change


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a broken header": (lambda path: overwrite(path, 0, b"x" * 32), "is damaged (file is not a database)", "N"),
    "an empty file": (lambda path: os.truncate(path, 0), "is not the journal of a controller", "N"),
    "another application's file": (sql("PRAGMA application_id = 5"), "is not the journal of a controller", "8"),
    "a format of the future": (sql("PRAGMA user_version = 9"), "has format 9, and this version reads format 1", "8"),
    "a cut file": (lambda path: os.truncate(path, path.stat().st_size // 8192 * 4096), "is damaged", "N"),
    "a torn page": (lambda path: overwrite(path, 3 * 4096, b"\xff" * 4096), "is damaged", "8"),
    "a changed entry": (
        sql("UPDATE entries SET commands = '[]' WHERE n = 17"),
        "entry 17 does not follow from the one before it (checksum)",
        "8",
    ),
    "a lost entry": (sql("DELETE FROM entries WHERE n = 17"), "entry 17 does not follow", "8"),
    "swapped entries": (
        sql("UPDATE entries SET at_s = 33.0 - at_s WHERE n IN (17, 18)"),
        "entry 17 does not follow",
        "8",
    ),
    "an entry of another life": (sql("UPDATE entries SET life = 9 WHERE n = 17"), "entry 17 does not follow", "8"),
    "a changed epoch": (sql("UPDATE lives SET epoch = 3"), "life 1 is not what was written (checksum)", "4"),
    "a life without entries": (sql("DELETE FROM entries"), "life 1 has no entries", "8"),
    "a missing table": (sql("DROP TABLE entries"), "is damaged (no such table: entries)", "8"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_journal_is_refused_with_the_way_out(path: Path, what: str) -> None:
    damage, problem, epoch_at_least = DAMAGE[what]
    filled(path)
    damage(path)
    with pytest.raises(JournalCorrupt) as caught, opened(path) as file:
        list(file.rows())
    text = str(caught.value)
    assert text.startswith(f"journal {path}: ")
    assert problem in text
    assert f"mkdir {path.parent}/aside-1 && mv {path}* {path.parent}/aside-1/ && " in text
    assert f"--fresh --epoch-at-least {epoch_at_least} (" in text
    assert "every GPU is booked at its ceiling until it has been heard" in text
    assert "\n" not in text


def test_the_advice_works(path: Path) -> None:
    """Follow the words of the message to the letter, twice, with a folder name that a shell would take apart."""
    path = path.parent / "a b" / path.name
    for number in (1, 2):
        filled(path)
        overwrite(path, 0, b"x" * 32)
        with pytest.raises(JournalCorrupt) as caught:
            JournalFile(path, keep_lives=8)
        command = re.search(r"fresh: (mkdir .*) && rapid-controller", str(caught.value))
        assert command
        subprocess.run(command[1], shell=True, check=True)
        assert (path.parent / f"aside-{number}" / path.name).read_bytes().startswith(b"x" * 32)
        with opened(path) as file:
            assert file.last is None


def test_a_write_ahead_log_without_its_file_is_refused(path: Path) -> None:
    filled(path)
    path.rename(f"{path}-wal")
    with pytest.raises(JournalCorrupt, match=r"is missing, but its write-ahead log journal.sqlite3-wal is there"):
        JournalFile(path, keep_lives=8)


def test_a_draft_that_a_crash_left_behind_is_made_anew(path: Path) -> None:
    path.parent.mkdir()
    Path(f"{path}.new").write_bytes(b"half a hea")
    with opened(path) as file:
        assert file.last is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        JournalFailed, match=rf"journal {tmp_path}/file/journal.sqlite3: .*fix the rights of its folder"
    ):
        JournalFile(tmp_path / "file" / "journal.sqlite3", keep_lives=8)


# ---- the writer thread, and a disk that is full ----


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """No file of this process may grow past limit_bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_rows_are_on_disk_when_the_await_is_over(path: Path) -> None:
    journal = Journal(JournalFile(path, keep_lives=8))
    await journal.begin(LIFE, ticks(1))
    await asyncio.gather(*(journal.append(ticks(1, n)) for n in range(1, 5)))
    assert count(path, "entries") == 5
    assert journal.entries == 5
    journal.close()
    with opened(path) as file:
        assert list(file.rows()) == ticks(5)


async def test_a_full_disk_takes_all_of_a_batch_or_nothing(path: Path) -> None:
    journal = Journal(JournalFile(path, keep_lives=8))
    await journal.begin(LIFE, ticks(1))
    with full_disk(os.stat(path).st_size), pytest.raises(JournalFailed, match="free space"):
        await journal.append(ticks(5000, 1))
    assert count(path, "entries") == 1
    await journal.append(ticks(3, 1))
    journal.close()
    with opened(path) as file:
        assert list(file.rows()) == ticks(4)


async def test_a_disk_that_hangs_is_as_good_as_gone(path: Path) -> None:
    """Another connection that holds the write lock makes the commit wait as a hanging disk would."""
    journal = Journal(JournalFile(path, keep_lives=8), deadline_s=0.1)
    await journal.begin(LIFE, ticks(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalFailed, match=r"not written within 0.1 s; check the disk"):
            await journal.append(ticks(1, 1))
        other.execute("ROLLBACK")
    journal.close()


async def test_the_size_of_a_life_is_counted_anew_with_each(path: Path) -> None:
    journal = Journal(JournalFile(path, keep_lives=8))
    await journal.begin(LIFE, ticks(1))
    await journal.append(ticks(9, 1))
    ten = journal.size_bytes
    await journal.begin(LIFE, ticks(1))
    assert (journal.entries, journal.size_bytes) == (1, ten // 10)
    journal.close()


def test_errors_of_the_journal_are_rapid_errors() -> None:
    assert issubclass(JournalFailed, RapidError)
