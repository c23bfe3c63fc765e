"""rapidctl as a process on a terminal of a given size."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.wait import wait_for

DEADLINE_S = 30.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs `rapidctl` with these arguments; `seen` is all that it has written, escapes and all."""

    def __init__(
        self, *arguments: str, address: str, columns: int = 80, rows: int = 40, env: Mapping[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, "-m", "rapidctl", "--address", address, *arguments]
        self._environment = {**os.environ, "TERM": "xterm-256color", "TZ": "UTC", **(env or {})}
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._chunks: list[bytes] = []

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        self.process = subprocess.Popen(
            self._command, stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment, start_new_session=True
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        os.close(self._ours)

    @property
    def seen(self) -> str:
        return b"".join(self._chunks).decode().replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """What was written, without escapes."""
        return _ESCAPES.sub("", self.seen)

    def wait_text(self, text: str, times: int = 1) -> None:
        """Wait until the text has been written so often."""

        def there() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {text!r}: {self.text}"
            return self.text.count(text) >= times

        wait_for(there, DEADLINE_S, f"{text!r} on the terminal")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Wait for the end of the process and of its output; its exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # Linux says EIO when the last process has left the terminal.
                return
            if not chunk:
                return
            self._chunks.append(chunk)
