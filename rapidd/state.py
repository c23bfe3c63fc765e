"""The state folder: a lock against a second daemon, what the guard remembers, and the addresses in use.

lock             held while the daemon lives; holds its pid, for people
guard.json       the highest epoch seen and whose it is; on disk before the epoch counts as taken
endpoints.json   where this daemon listens; made after binding, gone when the daemon stops in order
"""

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import msgspec

from rapid.core.errors import ConfigInvalid, JournalCorrupt, Refused
from rapid.core.guard import GuardMemory

_FOLDER_MODE = 0o750
_SAVE_TIMEOUT_S = 5.0  # assumed: a disk that is slower than this is not one to wait for
_LARGEST_MEMORY_BYTES = 4096


class State:
    """The state folder of one daemon, which has it for itself while `locked()` lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._memory_file = folder / "guard.json"
        self._endpoints_file = folder / "endpoints.json"
        self._saving: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other daemon out. Raises Refused if one is there, ConfigInvalid for an unusable folder."""
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lock := self._open_lock())
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
                raise Refused(
                    f"another rapidd (pid {pid}) holds {self.folder}; one daemon per host is enough"
                ) from None
            # The pid is only a hint for people; a full disk must not keep a daemon from landing its GPUs.
            with contextlib.suppress(OSError):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            # What an earlier daemon that was killed has left here is not true any more.
            with contextlib.suppress(OSError):
                self._endpoints_file.unlink(missing_ok=True)
            yield

    def load_memory(self) -> GuardMemory:
        """What the last daemon here knew; nothing on a new host. Raises JournalCorrupt if it cannot be trusted."""
        try:
            with self._memory_file.open("rb") as file:
                text = file.read(_LARGEST_MEMORY_BYTES)
            memory = msgspec.json.decode(text, type=GuardMemory)
            if min(memory.epoch, memory.starts) < 0:
                raise ValueError(f"epoch {memory.epoch} or starts {memory.starts} is below 0")
        except FileNotFoundError:
            return GuardMemory()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise JournalCorrupt(
                f"{self._memory_file}: {error}; the highest epoch seen is not known any more. Make sure that no old "
                "controller is running, move the file away, and start again"
            ) from error
        return memory

    async def save_memory(self, memory: GuardMemory) -> None:
        """Put it on disk for good, or raise OSError; a disk that hangs is TimeoutError, which is one.

        The work is done on a thread, so that a slow disk keeps nobody waiting but the caller, and one save at a time,
        so that an older one cannot end after a newer one.
        """
        async with asyncio.timeout(_SAVE_TIMEOUT_S):
            if self._saving is not None:
                await asyncio.wait([self._saving])
            write = partial(replace_file, self._memory_file, msgspec.json.encode(memory), durable=True)
            self._saving = _on_a_thread("save-memory", write)
            await asyncio.shield(self._saving)

    @contextlib.contextmanager
    def published(self, endpoints: Mapping[str, str | int]) -> Iterator[None]:
        """Tell in endpoints.json where this daemon listens, for as long as this lasts. Raises OSError."""
        replace_file(self._endpoints_file, msgspec.json.encode(dict(endpoints)), durable=False)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._endpoints_file.unlink(missing_ok=True)

    def _open_lock(self) -> int:
        try:
            self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            return os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigInvalid("state_dir", f"{self.folder} cannot be used: {error.strerror}") from error


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """At every moment the file holds either all of the content or what it held before; also after a power cut if
    durable, for which this waits for the disk. Raises OSError."""
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    if not durable:
        return
    # The new name is on disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _on_a_thread(name: str, work: partial[None]) -> "asyncio.Future[None]":
    """Run it on a thread that does not keep the process from ending, as those of an executor would."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(outcome)
