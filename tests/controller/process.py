"""A real rapid-controller as a process of its own; its folder outlives it, so that another can go on from it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.wait import wait_for

DEADLINE_S = 30.0  # a process starts in half a second on a machine that has nothing else to do
ROOT = Path(__file__).parents[2]
CONFIG = """
[[domain]]
name = "host"
budget = "{budget}"
[[node]]
name = "{node}"
address = "{node_address}"
domain = "host"
gpus = {gpus}
floor = "400W"
ceiling = "750W"
fallback = "500W"
[policy]
name = "uniform"
[control]
{control}
[journal]
path = "journal.sqlite3"
{journal}
[listen]
address = "{address}"
metrics = "{metrics}"
[log]
format = "json"
{more}
"""
NOBODY = "127.0.0.1:1"
USUAL = {
    "budget": "1.2kW",
    "node": "node-1",
    "node_address": NOBODY,
    "gpus": "2",
    "control": "",
    "journal": "",
    "address": "127.0.0.1:0",
    "metrics": "127.0.0.1:0",
    "more": "",
}


class Controllers:
    """Processes of one configuration, one after the other or (in tests of that) at once."""

    def __init__(self, folder: Path, **values: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config, self.log = folder, folder / "controller.toml", folder / "controller.log"
        self.journal = folder / "journal.sqlite3"
        self.configure(**values)
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "ntf"))
        self._notices.setblocking(False)
        self._processes: list[subprocess.Popen[bytes]] = []

    def configure(self, **values: str) -> None:
        """Write the configuration; `values` replace what is in CONFIG."""
        self.config.write_text(CONFIG.format(**USUAL | values))

    def launch(
        self, *arguments: str, flags: Sequence[str] = (), before: str = "", log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one and wait for nothing. `before` is a shell command run in the process before it becomes ours; `log`
        is where it writes, if not where all do."""
        command = [sys.executable, *flags, "-m", "rapidctl.controller", "--config", str(self.config), *arguments]
        if before:
            command = ["sh", "-c", f'{before}; exec "$@"', "sh", *command]
        with (log or self.log).open("ab") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "ntf"), "WATCHDOG_USEC": "1000000"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._processes.append(process)
        return process

    def start(self, *arguments: str, before: str = "") -> "Controller":
        """Start one and wait until it is ready."""
        self.heard()
        process = self.launch(*arguments, before=before)

        def ready() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}:\n{self.log.read_text()}"
            return "READY=1" in self.heard()

        wait_for(ready, DEADLINE_S, "READY=1")
        return Controller(self, process)

    def refused(self, *arguments: str, flags: Sequence[str] = ()) -> tuple[int, str]:
        """The exit code and the last line of one that does not stay."""
        log = self.folder / f"refused-{len(self._processes)}.log"  # its own: another one may live, and write too
        code = self.launch(*arguments, flags=flags, log=log).wait(DEADLINE_S)
        return code, (log.read_text().strip().splitlines() or [""])[-1]

    def heard(self) -> list[str]:
        """What they have told the service manager since the last call."""
        notices: list[str] = []
        while True:
            try:
                notices.append(self._notices.recv(4096).decode())
            except BlockingIOError:
                return notices

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines with this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE_S)
        self._notices.close()


class Controller:
    """One that was ready once."""

    def __init__(self, home: Controllers, process: subprocess.Popen[bytes]) -> None:
        self.home, self.process = home, process
        self.endpoints: dict[str, Any] = json.loads((home.folder / "endpoints.json").read_bytes())
        assert self.endpoints["pid"] == process.pid

    @property
    def address(self) -> str:
        return str(self.endpoints["address"])

    @property
    def epoch(self) -> int:
        return int(self.endpoints["epoch"])

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
