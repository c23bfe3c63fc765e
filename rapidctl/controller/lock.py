"""The lock beside a journal: two controllers that share one would book each other's watts as free."""

import fcntl
import os
from pathlib import Path

from rapid.core.errors import Refused
from rapidctl.controller.damage import judging


class JournalLock:
    """Held by one process until it lets go or dies, however it dies. The file stays, so that all lock the same one."""

    def __init__(self, path: Path) -> None:
        """Take the lock of the journal at `path`, making its folder. Raises Refused naming the process that has it."""
        with judging(path):
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Refused(
                f"journal {path} is in use by another controller, process {owner}; two may never share one: "
                "stop it, or give this one a journal of its own"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
