"""What to say of a journal that cannot be trusted or used: which file, what is wrong, and how to go on safely."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote

from rapid.core.errors import JournalCorrupt, RapidError

_FRESH = "fresh means that every GPU is booked at its ceiling until it has been heard, so that no limit rises before"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class JournalFailed(RapidError):
    """The journal cannot be opened or written now. What it does not hold may not be done. Fix the disk, or rights."""


@contextmanager
def judging(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into JournalCorrupt (damaged) or JournalFailed (cannot be used now)."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended codes carry the primary one in their low byte. A missing table or column has the code of bad SQL.
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED or str(error).startswith("no such ")
        if damaged:
            raise corrupt(path, f"is damaged ({error})") from error
        raise JournalFailed(f"journal {path}: {error}; free space, or fix the rights of its folder") from error
    except OSError as error:
        raise JournalFailed(f"journal {path}: {error.strerror}; free space, or fix the rights of its folder") from error


def corrupt(path: Path, problem: str) -> JournalCorrupt:
    """The error for the journal at `path`, with the commands that keep the file and start without it."""
    return JournalCorrupt(f"journal {path}: {problem}; the controller does not start from it. {way_out(path)}")


def way_out(path: Path) -> str:
    """How to put the journal at `path` aside and start fresh, as one line of shell commands and what they mean."""
    seen = epoch_seen(path)
    if seen is None:
        least = "N"
        source = "N is one more than the highest epoch that a node has seen; a node that refuses a lower one names it"
    else:
        least = str(seen + 1)
        source = f"epoch {seen} is the last one in the file; a node that has seen a higher one refuses and names it"
    aside = quote(str(_free_folder(path.parent)))
    return (
        f"To keep it and start fresh: mkdir {aside} && mv {quote(str(path))}* {aside}/ && "
        f"rapid-controller --config CONFIG --fresh --epoch-at-least {least} ({source}; {_FRESH})"
    )


def epoch_seen(path: Path) -> int | None:
    """The highest epoch that can still be read from a journal, however damaged; None if none can."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT max(epoch) FROM lives").fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row and isinstance(row[0], int) else None


def _free_folder(folder: Path) -> Path:
    number = 1
    while (aside := folder / f"aside-{number}").exists():
        number += 1
    return aside
