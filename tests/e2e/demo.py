"""Starting the demo from tests, looking into it while it runs, and seeing that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.wait import wait_for

START_WITHIN_S = 60.0  # on a machine that does other things too
END_WITHIN_S = 90.0


class RunningDemo:
    """`rapidctl demo` as a process of its own, in a folder of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder / "run"
        self._out, self._err = folder / "out", folder / "err"
        argv = [sys.executable, "-m", "rapidctl", "demo", "--folder", str(self.folder), *words]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder)
        self.seen: set[int] = set()

    @property
    def talk(self) -> str:
        return self._err.read_text()

    @property
    def words(self) -> str:
        return self._out.read_text()

    def document(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.words.splitlines()[-1])

    def programs(self) -> dict[str, int]:
        """Process ids by host and name, as in predictive/e3."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            self.seen.add(child.pid)
            if name := self._name(child):
                found[name] = child.pid
        return found

    def wait_ready(self) -> None:
        wait_for(self._is_ready, START_WITHIN_S, "the demo is ready")
        self.programs()

    def wait_traffic(self) -> None:
        """Until the first line of progress, 5 s after the first request may have come."""
        wait_for(lambda: "  5 s of" in self.talk, START_WITHIN_S, "requests have come")

    def wait_end(self) -> int:
        """The exit code."""
        wait_for(lambda: self.process.poll() is not None, END_WITHIN_S, "the demo has ended")
        return self.process.returncode

    def left_behind(self) -> list[int]:
        """Which of the processes that it was seen to have are still there."""
        return [pid for pid in self.seen if _lives(pid)]

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the demo ended with {self.process.returncode}: {self.talk}{self.words}")
        return "ready in" in self.talk

    def _name(self, child: psutil.Process) -> str:
        """From its working files; empty: it has just been forked, or has just ended."""
        try:
            words = child.cmdline()
        except psutil.Error:
            return ""
        if "--instance" in words:
            return f"{words[words.index('--node') + 1]}/{words[words.index('--instance') + 1]}"
        for module, name in (("rapidd", "rapidd"), ("rapidctl.controller", "controller")):
            if module in words:
                return f"{Path(words[-1]).parent.name}/{name}"
        return ""


def steady_trace(folder: Path, seconds: int) -> Path:
    """40 requests a second that a host serves with ease, each within a second or so."""
    path = folder / "steady.csv"
    rows = [f"{number / 40},1500,60" for number in range(1, 40 * seconds + 2)]
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return path


@contextmanager
def running_demo(*words: str) -> Iterator[RunningDemo]:
    """Ends it whatever happens. The folder is short: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:
        demo = RunningDemo(Path(folder), *words)
        try:
            yield demo
        finally:
            if demo.process.poll() is None:
                demo.process.send_signal(signal.SIGTERM)
                try:
                    demo.process.wait(20)
                finally:
                    demo.process.kill()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    """At once, as the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)
