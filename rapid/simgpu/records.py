"""What a simulated GPU itself writes down: every change of its enforced limit, in a file beside its state.

The flip of the state is the moment a limit becomes the enforced one; its record is written right after, by place and
not by appending. A writer killed in between leaves the log one record short: the state still holds that change, so a
reader completes the log from it, and the next writer does so on disk.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from rapid.core.errors import DeviceError

_RECORD = struct.Struct("<QQqq")  # seq, time in ns, limit in mW, process id
MAX_RECORDS = 1_000_000  # 32 MB; at ten changes a second, more than a day


@dataclass(frozen=True, slots=True)
class LimitRecord:
    """From at_ns of the host's monotonic clock on, the device enforced limit_mw. seq counts from 1."""

    seq: int
    at_ns: int
    limit_mw: int
    writer: int  # process id

    @property
    def at_s(self) -> float:
        return self.at_ns / 1e9


def log_path(path: Path) -> Path:
    """The log beside a state file."""
    return path.with_name(f"{path.name}.limits")


class LimitLog:
    """The log of one GPU, open for writing. All calls are made by the one writer that holds the state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(log_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        os.close(self._descriptor)

    def complete(self, last: LimitRecord | None) -> None:
        """Writes the last record if it is not there yet. None: no change yet."""
        if last is not None and os.fstat(self._descriptor).st_size < last.seq * _RECORD.size:
            packed = _RECORD.pack(last.seq, last.at_ns, last.limit_mw, last.writer)
            os.pwrite(self._descriptor, packed, (last.seq - 1) * _RECORD.size)

    def check_room(self, seq: int) -> None:
        if seq > MAX_RECORDS:
            raise DeviceError(str(self._path), f"its log of limits is full at {MAX_RECORDS:,} records")


def read_log(path: Path, last: LimitRecord | None) -> tuple[LimitRecord, ...]:
    """All records, the last one from the state if the log lacks it. Raises DeviceError if they do not count from 1."""
    content = log_path(path).read_bytes()
    whole = len(content) - len(content) % _RECORD.size
    found = [LimitRecord(*fields) for fields in _RECORD.iter_unpack(content[:whole])]
    if last is not None and len(found) == last.seq - 1:
        found.append(last)
    if [record.seq for record in found] != list(range(1, len(found) + 1)) or (last and len(found) < last.seq):
        raise DeviceError(str(path), "its log of limits has lost records")
    return tuple(found)
