"""A real controller, a real rapidd with two simulated GPUs, and engines as processes of their own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc

from rapid.core.cluster import Phase, Role
from rapid.core.errors import RapidError
from rapid.core.status import InstanceStatus, Status
from rapid.v1 import controller_pb2 as v1
from rapid.v1.controller_pb2_grpc import ControllerServiceStub
from rapid.wire.common import encode_role
from rapid.wire.errors import error_of
from rapid.wire.status import decode_status
from tests.controller.process import DEADLINE_S, ROOT, Controller, Controllers
from tests.node.caller import NODE
from tests.node.daemon import Host
from tests.wait import wait_for

CONTROL = """
tick = "100ms"
rpc_timeout = "500ms"
margin = "100ms"
lease = "3s"
silent_after = "1s"
drain = "6s"
switch_timeout = "6s"
"""
RPC_WITHIN_S = 5.0


class Engine:
    """One engine process, and the folder that it looks at."""

    def __init__(self, name: str, folder: Path, command: Sequence[str]) -> None:
        self.name, self.folder, self._command = name, folder, command
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    # ---- engines of tests.engine.held ----

    def hold(self, step: str) -> None:
        (self.folder / f"hold-{step}").touch()

    def let_go(self, step: str) -> None:
        (self.folder / f"hold-{step}").unlink(missing_ok=True)

    def fault(self, step: str, words: str) -> None:
        (self.folder / f"raise-{step}").write_text(words)

    @property
    def steps(self) -> list[str]:
        path = self.folder / "steps"
        return path.read_text().split() if path.exists() else []


class EngineSite:
    """The host's GPUs are GPU-0 and GPU-1. Policy `uniform` moves no role by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "h").mkdir()
        self.host = Host(folder / "h")
        self.host.configure(address=f'"unix:{folder}/h/n.sock"')
        self.host.start()
        self.address = f"unix:{folder}/c.sock"
        self.home = Controllers(
            folder / "c", node_address=f"unix:{folder}/h/n.sock", address=self.address, control=CONTROL
        )
        self.controller: Controller = self.home.start()
        self._engines: list[Engine] = []
        wait_for(lambda: self.status().nodes[0].gpus, DEADLINE_S, "the node's report")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self.home.__exit__(kind, error, trace)
        self.host.__exit__(kind, error, trace)

    def restart_controller(self) -> None:
        """kill -9, and the next life goes on from the journal."""
        self.controller.kill()
        self.controller = self.home.start()

    # ---- engines ----

    def held(self, name: str, role: Role, *, name_of_folder: str) -> Engine:
        """An engine of tests.engine.held; e0 has GPU-0, e1 GPU-1."""
        folder = self.folder / name_of_folder
        words = ["-m", "tests.engine.held", *self.words(name, role), "--folder", str(folder)]
        return self.run(name, folder, [sys.executable, *words])

    def words(self, name: str, role: Role) -> list[str]:
        """What every engine program is told."""
        given = {"instance": name, "role": role.value, "node": NODE, "gpu": f"GPU-{name[1:]}", "address": self.address}
        return [word for key, value in given.items() for word in (f"--{key}", value)]

    def run(self, name: str, folder: Path, command: Sequence[str]) -> Engine:
        engine = Engine(name, folder, command)
        self._engines.append(engine)
        return engine

    def clear(self) -> None:
        """No engine is left."""
        for engine in self._engines:
            if engine.process.poll() is None:
                engine.kill()
        self._engines.clear()

    # ---- the operator ----

    def status(self) -> Status:
        with grpc.insecure_channel(self.address) as channel:
            answer = ControllerServiceStub(channel).GetStatus(v1.GetStatusRequest(), timeout=RPC_WITHIN_S)
            return decode_status(answer)

    def set_role(self, name: str, role: Role | None, *, park: bool = False) -> None:
        """Raises what the controller refuses it with."""
        request = v1.SetRoleRequest(instance=name, role=encode_role(role), park=park, by="test")
        with grpc.insecure_channel(self.address) as channel:
            try:
                ControllerServiceStub(channel).SetRole(request, timeout=RPC_WITHIN_S)
            except grpc.RpcError as failure:
                raise error_of(cast(Any, failure), address=self.address) from failure

    def instance(self, name: str) -> InstanceStatus | None:
        try:
            return next((one for one in self.status().instances if one.instance == name), None)
        except (grpc.RpcError, RapidError):
            return None

    def becomes(self, name: str, phase: Phase, role: Role | None = None) -> InstanceStatus:
        """Wait until the controller says so."""

        def there() -> InstanceStatus | None:
            one = self.instance(name)
            fits = one is not None and one.phase is phase and role in (None, one.role)
            return one if fits else None

        what = f"{name} {phase.value} {role.value if role else ''}"
        one = wait_for(there, DEADLINE_S, what)
        assert one is not None
        return one
