"""What the ledger held and what the driver enforced, as two histories on one clock, and where they disagree."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tools.fake_gpu import Record

NOBODY = 0  # in a driver's record: no process wrote this, the driver itself or a test did


@dataclass(frozen=True, slots=True)
class Held:
    """From at_ns of CLOCK_MONOTONIC on, the ledger held this for a GPU."""

    at_ns: int
    gpu: str
    held_mw: int


@dataclass(frozen=True, slots=True)
class Above:
    """A limit that stood above what was held for its GPU, and who had set it."""

    gpu: str
    from_ns: int
    to_ns: int
    limit_mw: int
    held_mw: int
    pid: int

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "the driver itself"
        lasted_ms = (self.to_ns - self.from_ns) / 1e6
        return f"{self.gpu}: {self.limit_mw} mW set by {who}, {self.held_mw} mW held, for {lasted_ms:.1f} ms"


def above(record: Sequence[Record], books: Sequence[Held], end_ns: int) -> list[Above]:
    """Every stretch of time in which a limit was above what was held, oldest first, up to end_ns.

    Before its first line in `books` nothing is held for a GPU; before its first in `record` it has no limit.
    """
    found: list[Above] = []
    for gpu in sorted({entry.gpu for entry in record}):
        moments: list[Record | Held] = [entry for entry in record if entry.gpu == gpu]
        moments += [held for held in books if held.gpu == gpu]
        moments.sort(key=lambda moment: moment.at_ns)
        limit_mw, pid, held_mw = 0, NOBODY, 0
        ends_ns = [moment.at_ns for moment in moments[1:]] + [end_ns]
        for moment, to_ns in zip(moments, ends_ns, strict=True):
            if isinstance(moment, Held):
                held_mw = moment.held_mw
            else:
                # What was asked for comes into force when whatever holds the device lower goes away.
                limit_mw, pid = max(moment.asked_mw, moment.enforced_mw), moment.pid
            if limit_mw > held_mw:
                found.append(Above(gpu, moment.at_ns, to_ns, limit_mw, held_mw, pid))
    return sorted(found, key=lambda each: each.from_ns)


def breaches(stretches: Iterable[Above]) -> list[Above]:
    """Those that a process has made. What a driver does when it is loaded anew, nobody can hold beforehand."""
    return [each for each in stretches if each.pid != NOBODY]


def unwritten_s(stretches: Iterable[Above]) -> float:
    """How long a limit that no process had set stood above what was held, in seconds."""
    return sum(each.to_ns - each.from_ns for each in stretches if each.pid == NOBODY) / 1e9
