"""A real rapidd as a process of its own, on simulated GPUs that the test shares with it: 400..750 W, fallback 500 W."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio
import msgspec

from rapid.rpc import open_channel
from rapid.sim.model.power import Lag
from rapid.simgpu import SimGpu, SimGpuSpec
from tests.node.caller import DEADLINE_S, NODE
from tests.wait import wait_for

FLOOR_MW, FALLBACK_MW, CEILING_MW = 400_000, 500_000, 750_000
ROOT = Path(__file__).parents[2]


class Endpoints(msgspec.Struct, frozen=True):
    """What endpoints.json says."""

    pid: int
    incarnation: str
    address: str
    load_socket: str
    metrics: str


class Host:
    """A host with simulated GPUs; daemons come and go on it, one at a time."""

    def __init__(self, folder: Path, gpus: int = 2) -> None:
        self.folder, self.state = folder, folder / "state"
        self.config, self.log = folder / "rapidd.toml", folder / "rapidd.log"
        (folder / "gpus").mkdir()
        self.gpus: list[SimGpu] = []
        for index in range(gpus):
            spec = SimGpuSpec(f"GPU-{index}", index, "simulated", FLOOR_MW, CEILING_MW, 100_000, Lag(0.05, 0.05, 0.05))
            self.gpus.append(SimGpu.create(folder / "gpus" / f"{index}.gpu", spec, time.monotonic()))
        self.names = tuple(gpu.spec.gpu for gpu in self.gpus)
        self.configure()
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(str(folder / "notify"))
        self._notices.setblocking(False)
        self._processes: list[subprocess.Popen[bytes]] = []

    def configure(self, *, more: str = "", **changes: str) -> None:
        """Write the configuration: `changes` replace values by their key, as TOML; `more` is appended."""
        values = {
            "name": f'"{NODE}"',
            "fallback": '"500W"',
            "lease_max": '"60s"',
            "address": '"127.0.0.1:0"',
            "level": '"info"',
            "gpus": '"all"',
            "backend": '"sim"',
            **changes,
        }
        self.config.write_text(
            f"""
            [node]
            name = {values["name"]}
            state_dir = "state"
            [power]
            fallback = {values["fallback"]}
            lease_max = {values["lease_max"]}
            [device]
            backend = {values["backend"]}
            path = "gpus"
            gpus = {values["gpus"]}
            [listen]
            address = {values["address"]}
            load_socket = "{self.folder}/run/load.sock"
            metrics = "127.0.0.1:0"
            [log]
            level = {values["level"]}
            {more}
            """
        )

    def launch(
        self,
        *,
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        arguments: Sequence[str] = (),
        log: Path | None = None,
        program: Sequence[str] = ("rapidd",),
    ) -> subprocess.Popen[bytes]:
        """Start a daemon and wait for nothing. `log` is where it writes, if not where all do; `program` a module that
        takes its place, with its own first arguments."""
        with (log or self.log).open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *flags, "-m", *program, "--config", str(self.config), *arguments],
                cwd=ROOT,
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._processes.append(process)
        return process

    def refused(self, *, flags: Sequence[str] = (), arguments: Sequence[str] = ()) -> tuple[int, str]:
        """The exit code and the last line of a daemon that does not stay."""
        log = self.folder / f"refused-{len(self._processes)}.log"  # its own: another one may live, and write too
        code = self.launch(flags=flags, arguments=arguments, log=log).wait(DEADLINE_S)
        return code, (log.read_text().strip().splitlines() or [""])[-1]

    def start(self, *, env: Mapping[str, str] | None = None) -> "Daemon":
        """Start a daemon and wait until it is ready."""
        self.heard()
        process = self.launch(env=env)

        def ready() -> bool:
            assert process.poll() is None, f"rapidd ended with {process.returncode}:\n{self.log.read_text()}"
            return "READY=1" in self.heard()

        wait_for(ready, DEADLINE_S, "READY=1")
        endpoints = msgspec.json.decode((self.state / "endpoints.json").read_bytes(), type=Endpoints)
        assert endpoints.pid == process.pid
        return Daemon(self, process, endpoints)

    def heard(self) -> list[str]:
        """What daemons have told the service manager since the last call."""
        notices: list[str] = []
        while True:
            try:
                notices.append(self._notices.recv(4096).decode())
            except BlockingIOError:
                return notices

    def limits_mw(self) -> tuple[int, ...]:
        """What the devices enforce now."""
        return tuple(gpu.read_limit().enforced_mw for gpu in self.gpus)

    def wait_for_limits(self, limit_mw: int) -> None:
        wait_for(lambda: set(self.limits_mw()) == {limit_mw}, DEADLINE_S, f"every limit at {limit_mw} mW")

    def logged(self, event: str) -> list[dict[str, object]]:
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
        for gpu in self.gpus:
            gpu.close()


class Daemon:
    """One life of rapidd."""

    def __init__(self, host: Host, process: subprocess.Popen[bytes], endpoints: Endpoints) -> None:
        self.host, self.process, self.endpoints = host, process, endpoints
        self.incarnation = endpoints.incarnation

    def open_channel(self) -> grpc.aio.Channel:
        return open_channel(self.endpoints.address)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
