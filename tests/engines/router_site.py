"""A whole site around a real sglang-router or smg in PD mode: a real controller, a real rapidd, mock SGLang engines,
and a real `rapidctl attach` for each. Needs `make routers`.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc

from rapid.core.cluster import Decision, Phase, Role
from rapid.core.errors import RapidError
from rapid.core.status import InstanceStatus, Status
from rapid.v1 import controller_pb2 as v1
from rapid.v1.controller_pb2_grpc import ControllerServiceStub
from rapid.wire.common import encode_role
from rapid.wire.errors import error_of
from rapid.wire.operator import decode_decisions
from rapid.wire.status import decode_status
from tests.controller.process import Controllers
from tests.engines.dynamo_cluster import ROOT, WITHIN_S, Process, write_model
from tests.engines.ports import free_port
from tests.node.caller import NODE
from tests.node.daemon import Host
from tests.wait import wait_for

RPC_WITHIN_S = 5.0
CONTROL = """
tick = "200ms"
rpc_timeout = "500ms"
margin = "100ms"
lease = "3s"
silent_after = "1s"
drain = "10s"
switch_timeout = "10s"
"""
COMMANDS = {
    "sglang": (".venv-sglang-router", ("bin/python", "-m", "sglang_router.launch_router")),
    "smg": (".venv-smg", ("bin/smg", "launch")),
}
MISSING = {
    kind: "" if (ROOT / folder).exists() else f"{kind}'s router is not here: run `make routers`"
    for kind, (folder, _) in COMMANDS.items()
}


class MockEngine:
    """One engine process."""

    def __init__(self, name: str, role: Role, model: Path, log: Path) -> None:
        self.name, self.launched, self.port, self.bootstrap_port = name, role, free_port(), free_port()
        words = ["--port", str(self.port), "--role", role.value, "--bootstrap-port", str(self.bootstrap_port)]
        command = [sys.executable, "-m", "tests.engines.mock_sglang", *words, "--model", str(model)]
        self.process = Process(name, command, dict(os.environ), log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> dict[str, Any]:
        """What it counted."""
        return cast(dict[str, Any], fetch(f"{self.url}/test"))

    def plant(self, fault: str, value: str = "yes") -> None:
        fetch(f"{self.url}/test", {fault: value})


class RouterSite:
    """Two engines launched as prefill, two as decode. `kind` is both the router and the adapters before it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        model = write_model(folder / "model")
        roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
        self.engines = [MockEngine(f"e{at}", role, model, folder / f"engine-{at}.log") for at, role in enumerate(roles)]
        self.port = free_port()
        self.router = self._router()
        self.host = Host(folder, gpus=len(self.engines))
        self.host.configure(address=f'"unix:{folder}/n.sock"')
        self.address = f"unix:{folder}/c.sock"
        self.home = Controllers(
            folder / "c",
            node_address=f"unix:{folder}/n.sock",
            address=self.address,
            gpus=str(len(self.engines)),
            budget="2200W",
            control=CONTROL,
        )
        self.adapters = {engine.name: self._adapter(engine) for engine in self.engines}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for engine in self.engines:
            engine.process.start()
        self.router.start()
        self.host.start()
        self.controller = self.home.start()
        wait_for(lambda: self.status().nodes[0].gpus, WITHIN_S, "the node's report")
        for adapter in self.adapters.values():
            adapter.start()
        for engine in self.engines:
            self.becomes(engine.name, Phase.SERVING, engine.launched)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.adapters.values(), self.router, *(engine.process for engine in self.engines)):
            if process.alive:
                process.kill()
        self.home.__exit__(kind, error, trace)
        self.host.__exit__(kind, error, trace)

    # ---- the operator ----

    def status(self) -> Status:
        with grpc.insecure_channel(self.address) as channel:
            answer = ControllerServiceStub(channel).GetStatus(v1.GetStatusRequest(), timeout=RPC_WITHIN_S)
            return decode_status(answer)

    def set_role(self, name: str, role: Role) -> None:
        """Raises what the controller refuses it with."""
        request = v1.SetRoleRequest(instance=name, role=encode_role(role), by="test")
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
            return one if one is not None and one.phase is phase and role in (None, one.role) else None

        try:
            one = wait_for(there, WITHIN_S, f"{name} {phase.value} {role.value if role else ''}")
        except TimeoutError as late:
            tail = self.adapters[name].log.read_text()[-3000:]
            raise TimeoutError(f"{late}\n{self.instance(name)}\n{tail}") from late
        assert one is not None
        return one

    def flip(self, name: str, role: Role) -> None:
        """Order it, and wait until it serves."""
        self.set_role(name, role)
        self.becomes(name, Phase.SERVING, role)

    def phase(self, name: str) -> Phase | None:
        one = self.instance(name)
        return None if one is None else one.phase

    def decisions(self) -> tuple[Decision, ...]:
        """The last ones, newest first."""
        request = v1.ListDecisionsRequest(limit=100)
        with grpc.insecure_channel(self.address) as channel:
            return decode_decisions(ControllerServiceStub(channel).ListDecisions(request, timeout=RPC_WITHIN_S))

    # ---- the router ----

    def listed(self) -> dict[str, list[str]]:
        """By engine, the pools in which the router lists it healthy; empty while it does not answer."""
        found: dict[str, list[str]] = {engine.name: [] for engine in self.engines}
        by_port = {engine.port: engine.name for engine in self.engines}
        try:
            workers = fetch(f"{self.url}/workers")["workers"]
        except OSError:
            return found
        for worker in workers:
            if worker["is_healthy"]:
                found[by_port[int(worker["url"].rpartition(":")[2])]].append(worker["worker_type"])
        return found

    # ---- inside ----

    def _router(self) -> Process:
        folder, words = COMMANDS[self.kind]
        program, *rest = words
        command: Sequence[str] = [
            *(str(ROOT / folder / program), *rest, "--host", "127.0.0.1", "--port", str(self.port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--pd-disaggregation"),
            *("--policy", "round_robin", "--disable-retries", "--disable-circuit-breaker"),
            *("--worker-startup-check-interval", "1", "--health-check-interval-secs", "2"),
        ]
        return Process("router", command, {**os.environ, "HF_HUB_OFFLINE": "1"}, self.folder / "router.log")

    def words(self, name: str, gpu: str = "") -> Sequence[str]:
        """How its adapter is started."""
        at = int(name[1:])
        return [
            *(sys.executable, "-m", "rapidctl", "--address", self.address, "attach", self.kind),
            *("--instance", name, "--node", NODE, "--gpu", gpu or self.host.names[at], "--router-url", self.url),
            *("--engine-url", self.engines[at].url, "--load-socket", f"{self.folder}/run/load.sock"),
        ]

    def _adapter(self, engine: MockEngine) -> Process:
        command = self.words(engine.name)
        return Process(engine.name, command, dict(os.environ), self.folder / f"adapter-{engine.name}.log")


def fetch(url: str, body: object = None) -> Any:
    """JSON of a GET, or of a POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=RPC_WITHIN_S) as answer:
        return json.loads(answer.read())
