"""The journal's file: an append-only SQLite database of controller lives, with the events and commands of each.

Calls block. One process at a time owns the file, one thread at a time calls. Every row's checksum covers the row before
it in the same life, so a row that was changed, lost or swapped is found when the life is read.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from rapidctl.controller.damage import JournalFailed, corrupt, judging
from rapidctl.controller.lock import JournalLock

FORMAT = 1
APPLICATION = 0x52504A31  # "RPJ1" in SQLite's header, so that this database cannot be taken for another
BUSY_S = 5.0  # how long to wait for a person who looks into the file with another tool
PRUNE_ROWS = 256  # rows of old lives deleted with one commit: a few ms, so that no tick waits for a large delete

_SCHEMA = (
    """CREATE TABLE lives (
        life INTEGER PRIMARY KEY, first_n INTEGER NOT NULL, crc INTEGER NOT NULL, epoch INTEGER NOT NULL,
        controller_id TEXT NOT NULL, started_wall_s REAL NOT NULL, version TEXT NOT NULL, settings TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE entries (
        n INTEGER PRIMARY KEY, life INTEGER NOT NULL, crc INTEGER NOT NULL, at_s REAL NOT NULL, kind TEXT NOT NULL,
        event TEXT NOT NULL, commands TEXT NOT NULL
    ) STRICT""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


@dataclass(frozen=True, slots=True)
class Life:
    """One life of the controller: all its entries follow from its first event, Started, under its settings (JSON)."""

    epoch: int
    controller_id: str
    started_wall_s: float
    version: str
    settings: str


@dataclass(frozen=True, slots=True)
class Row:
    """One step: the event that was taken, and the commands that came of it, both as JSON."""

    at_s: float
    kind: str
    event: str
    commands: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a life stands in the file: its number, its first entry, and the checksum from which its chain goes on."""

    life: int = 0
    first_n: int = 1
    crc: int = 0


class JournalFile:
    """The open file. Every call raises JournalFailed for disk and rights, JournalCorrupt for what the file holds.

    last   the life begun last (None: the journal is new)
    """

    def __init__(self, path: Path, *, keep_lives: int) -> None:
        """Take the lock, make the file if there is none, and check it. `keep_lives` closed lives are kept.

        Raises Refused while another process owns the file.
        """
        self.path = path
        self.last: Life | None = None
        self._place = Place()
        self._next_n = 1
        self._crc = 0
        self._keep_from = 1
        self._keep_lives = keep_lives
        with ExitStack() as undo:
            lock = JournalLock(path)
            undo.callback(lock.release)
            _make_if_missing(path)
            with judging(path):
                uri = f"{path.absolute().as_uri()}?mode=rw"
                self._connection = sqlite3.connect(
                    uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False
                )
                undo.callback(self._connection.close)
                _check_file(self._connection, path)
                self._read_lives()
            self._undo = undo.pop_all()

    @property
    def number(self) -> int:
        """Of the life begun last (0: none)."""
        return self._place.life

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of the lock."""
        self._undo.close()

    # ---- reading, at start ----

    def rows(self) -> Iterator[Row]:
        """The rows of the last life, oldest first. Raises JournalCorrupt at the first that does not follow the one
        before it, and at the end if there were none."""
        n, crc = self._place.first_n, self._place.crc
        query = "SELECT n, life, crc, at_s, kind, event, commands FROM entries WHERE n >= ? ORDER BY n"
        with judging(self.path):
            for kept_n, life, kept_crc, *fields in self._connection.execute(query, (n,)):
                row = Row(*fields)
                crc = _row_crc(crc, n, row)
                if (kept_n, life, kept_crc) != (n, self._place.life, crc):
                    raise corrupt(self.path, f"entry {n} does not follow from the one before it (checksum)")
                yield row
                n += 1
        if self.last is not None and n == self._place.first_n:
            raise corrupt(self.path, f"life {self._place.life} has no entries")

    # ---- writing ----

    def begin(self, life: Life, rows: Sequence[Row]) -> None:
        """Durably begin a new life with its first rows, in one transaction: there is no life without its beginning."""
        assert rows, "a life begins with its Started event"
        number = self._place.life + 1
        place = Place(number, self._next_n, _life_crc(number, self._next_n, life))
        with self._transaction():
            self._connection.execute(
                "INSERT INTO lives VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, place.first_n, place.crc, *astuple(life)),
            )
            self._connection.execute("DELETE FROM lives WHERE life < ?", (number - self._keep_lives,))
            crc = self._insert(rows, number, place.crc)
        self.last, self._place = life, place
        self._next_n, self._crc = place.first_n + len(rows), crc
        self._keep_from = self._oldest_kept()
        with judging(self.path):
            # A life's beginning rests in the main file, even if someone loses the write-ahead log beside it.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def append(self, rows: Sequence[Row]) -> None:
        """Durably add rows to the life begun last, all or none, and delete some of those that are kept no longer."""
        assert self._crc, "begin a life first: a process does not go on with the life of another"
        with self._transaction():
            crc = self._insert(rows, self._place.life, self._crc)
            self._connection.execute(
                "DELETE FROM entries WHERE n < min(?, (SELECT min(n) FROM entries) + ?)", (self._keep_from, PRUNE_ROWS)
            )
        self._next_n, self._crc = self._next_n + len(rows), crc

    def _insert(self, rows: Sequence[Row], life: int, crc: int) -> int:
        values = []
        for n, row in enumerate(rows, self._next_n):
            crc = _row_crc(crc, n, row)
            values.append((n, life, crc, row.at_s, row.kind, row.event, row.commands))
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return crc

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with judging(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may already have rolled it back.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _read_lives(self) -> None:
        columns = "life, first_n, crc, epoch, controller_id, started_wall_s, version, settings"
        for number, first_n, crc, *life in self._connection.execute(f"SELECT {columns} FROM lives ORDER BY life"):
            self.last, self._place = Life(*life), Place(number, first_n, crc)
            if _life_crc(number, first_n, self.last) != crc:
                raise corrupt(self.path, f"life {number} is not what was written (checksum)")
        (last_n,) = self._connection.execute("SELECT max(n) FROM entries").fetchone()
        self._next_n = (last_n or 0) + 1
        self._keep_from = self._oldest_kept()

    def _oldest_kept(self) -> int:
        return int(self._connection.execute("SELECT coalesce(min(first_n), 1) FROM lives").fetchone()[0])


def _row_crc(before: int, n: int, row: Row) -> int:
    parts = (f"{n}", f"{row.at_s!r}", row.kind, row.event, row.commands)
    return zlib.crc32("\n".join(parts).encode(), before)


def _life_crc(number: int, first_n: int, life: Life) -> int:
    return zlib.crc32(repr((number, first_n, astuple(life))).encode())


def _make_if_missing(path: Path) -> None:
    """Make an empty journal under another name first, so that a file under the right name is always a whole one."""
    if path.exists():
        return
    if Path(f"{path}-wal").exists():
        raise corrupt(path, f"is missing, but its write-ahead log {path.name}-wal is there")
    draft = Path(f"{path}.new")
    with judging(path):
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            for statement in (*_SCHEMA, "PRAGMA journal_mode = WAL"):
                connection.execute(statement)
        draft.rename(path)
        # A rename is on disk only when its folder is.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _check_file(connection: sqlite3.Connection, path: Path) -> None:
    """Header, owner, format and structure. The rows are checked when they are read."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise corrupt(path, "is not the journal of a controller, or has lost its header")
    if found != FORMAT:
        raise corrupt(
            path, f"has format {found}, and this version reads format {FORMAT}; the version that wrote it can"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalFailed(f"journal {path}: its file system cannot carry a write-ahead log; use a local one")
    connection.execute("PRAGMA synchronous = FULL")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise corrupt(path, f"is damaged ({' '.join(verdict.split())})")
