"""A small value in a file that many processes read and write, and that no crash can tear.

Two slots and a generation word. A writer fills the slot that is not current and then flips the word, one aligned store
of 8 bytes: a process killed at any point leaves the old value or the new one. Writers exclude each other by flock,
which the kernel releases with its holder. Readers take no lock: they read the word, the slot and the word again. x86
keeps the order of stores; on machines that do not, the checksum of a slot makes a reader look again.
"""

import fcntl
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapid.core.errors import DeviceError

_MAGIC = b"RAPIDGPU"
_LAYOUT = 1
_PREFIX = struct.Struct("<8sII")  # magic, layout, bytes of a value
_CHECKSUM = struct.Struct("<I")
_GENERATION_WORD = 2  # 64-bit word number, behind the prefix
_HEADER_AT, _SLOTS_AT, _SLOT_BYTES = 64, 512, 512
_FILE_BYTES = 4096
MAX_HEADER_BYTES = _SLOTS_AT - _HEADER_AT
MAX_VALUE_BYTES = _SLOT_BYTES - _CHECKSUM.size

_MAX_READS = 1000  # a writer would have to overtake a reader twice in each of them
_LOCK_PAUSE_S, _MAX_LOCK_TRIES = 0.0005, 2000  # about 1 s; a writer holds the lock for some 20 us


class SlotFile:
    """One value of fixed size behind an unchanging header. A handle may be shared by threads, not across a fork."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._map = mmap.mmap(descriptor, _FILE_BYTES)
        self._words = memoryview(self._map)[:_HEADER_AT].cast("Q")
        self._value_bytes: int = _PREFIX.unpack_from(self._map)[2]
        self._mutex = threading.Lock()

    @classmethod
    def create(cls, path: Path, header: bytes, value: bytes) -> "SlotFile":
        """Makes the file, whole from the first moment it can be seen. Raises DeviceError if it exists."""
        assert len(header) <= MAX_HEADER_BYTES
        assert len(value) <= MAX_VALUE_BYTES
        content = bytearray(_FILE_BYTES)
        _PREFIX.pack_into(content, 0, _MAGIC, _LAYOUT, len(value))
        content[_HEADER_AT : _HEADER_AT + len(header)] = header
        slot = value + _CHECKSUM.pack(zlib.crc32(value))
        content[_SLOTS_AT : _SLOTS_AT + len(slot)] = slot
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            draft.write_bytes(content)
            os.link(draft, path)
        except OSError as error:
            raise DeviceError(str(path), f"cannot make its state file: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return cls.open(path, len(value))

    @classmethod
    def open(cls, path: Path, value_bytes: int) -> "SlotFile":
        """Raises DeviceError if the file cannot be opened or does not hold a value of that size."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(str(path), f"cannot open its state file: {error.strerror}") from error
        prefix = os.pread(descriptor, _PREFIX.size, 0)
        wanted = _PREFIX.pack(_MAGIC, _LAYOUT, value_bytes)
        if os.fstat(descriptor).st_size != _FILE_BYTES or prefix != wanted:
            os.close(descriptor)
            raise DeviceError(str(path), "this is not the state file of a simulated GPU of this version")
        return cls(path, descriptor)

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._descriptor)

    def header(self, header_bytes: int) -> bytes:
        return self._map[_HEADER_AT : _HEADER_AT + header_bytes]

    @property
    def generation(self) -> int:
        """How often the value was replaced: as long as this does not change, neither does the value."""
        return self._words[_GENERATION_WORD]

    def read(self) -> bytes:
        """The current value. Never blocks. Raises DeviceError if the file is damaged."""
        for _ in range(_MAX_READS):
            generation = self._words[_GENERATION_WORD]
            at = _SLOTS_AT + (generation & 1) * _SLOT_BYTES
            slot = self._map[at : at + self._value_bytes + _CHECKSUM.size]
            value = slot[: self._value_bytes]
            if self._words[_GENERATION_WORD] == generation and slot[self._value_bytes :] == _CHECKSUM.pack(
                zlib.crc32(value)
            ):
                return value
        raise DeviceError(str(self._path), f"its state file is damaged: no whole value in {_MAX_READS} reads")

    def write(self, value: bytes) -> None:
        """Replaces the value. Only inside of writing()."""
        assert self._mutex.locked()
        assert len(value) == self._value_bytes
        generation = self._words[_GENERATION_WORD] + 1
        at = _SLOTS_AT + (generation & 1) * _SLOT_BYTES
        self._map[at : at + self._value_bytes + _CHECKSUM.size] = value + _CHECKSUM.pack(zlib.crc32(value))
        self._words[_GENERATION_WORD] = generation

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps all other writers out. Raises DeviceError if one of them does not let go."""
        with self._mutex:
            self._lock()
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _lock(self) -> None:
        for _ in range(_MAX_LOCK_TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE_S)
        waited_s = _MAX_LOCK_TRIES * _LOCK_PAUSE_S
        raise DeviceError(str(self._path), f"another process has held its state file for {waited_s:g} s")
