"""A look into a controller's journal from outside, beside the controller that may be writing it. Changes nothing."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rapidctl.controller.damage import corrupt, judging
from rapidctl.controller.store import APPLICATION, FORMAT


@dataclass(frozen=True, slots=True)
class Peek:
    """The last life in a journal, as far as it shows without replaying it."""

    epoch: int
    controller_id: str
    version: str
    size_bytes: int


def peek(path: Path) -> Peek | None:
    """None: there is no journal yet. Raises JournalCorrupt or JournalFailed, with the way out."""
    if not path.exists():
        return None
    with judging(path), closing(_open(path)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if (application, found) != (APPLICATION, FORMAT):
            raise corrupt(path, "is not the journal of a controller of this version, or has lost its header")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise corrupt(path, f"is damaged ({' '.join(str(verdict).split())})")
        columns = "epoch, controller_id, version"
        life = connection.execute(f"SELECT {columns} FROM lives ORDER BY life DESC LIMIT 1").fetchone()
        epoch, controller_id, version = life or (0, "", "")
        return Peek(epoch, controller_id, version, path.stat().st_size)


def _open(path: Path) -> sqlite3.Connection:
    # Without its log beside it nobody writes the file. SQLite would then make a new log, which might not be the
    # controller's to write when it starts; told that the file does not change, it makes none.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
