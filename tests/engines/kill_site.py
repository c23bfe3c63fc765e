"""A whole site around sglang-router: a real controller, a real rapidd on fake NVIDIA GPUs, real adapters, and engines
that speak as SGLang does. Every one of them is a process that can be killed and started again."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
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
from tests.controller.process import Controller, Controllers
from tests.engines.dynamo_cluster import Process, write_model
from tests.engines.ports import free_port
from tests.node.caller import NODE
from tests.node.daemon import Host
from tests.wait import wait_for
from tools.fake_gpu import FakeGpus, Record, build

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-sglang-router/bin/python"
MISSING = "" if PYTHON.exists() else "sglang-router is not here: run `make routers`"
PREFILL, DECODE = Role.PREFILL, Role.DECODE
ROLES = {"p0": PREFILL, "d0": DECODE, "d1": DECODE}  # as they are launched
VICTIM = "d1"  # whose role changes, so that somebody else serves either role
FLOOR_MW, FALLBACK_MW, CEILING_MW = 400_000, 500_000, 750_000
BUDGET_MW = 3 * 550_000
# Watts follow roles, so that every change of a role moves some; the budget cannot give all that is asked for.
POLICY = 'name = "static"\nsettings = { prefill_mw = 700000, decode_mw = 450000 }'
CONTROL = """
tick = "100ms"
rpc_timeout = "500ms"
margin = "100ms"
lease = "3s"
silent_after = "1s"
drain = "10s"
switch_timeout = "20s"
"""
WITHIN_S = 40.0
RPC_WITHIN_S = 5.0


@dataclass
class Worker:
    """One engine, and its adapter."""

    name: str
    port: int
    bootstrap_port: int
    folder: Path
    engine: Process
    adapter: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self) -> dict[str, Any]:
        """What it says of itself."""
        return read(f"{self.url}/test")

    def hold(self, step: str) -> None:
        (self.folder / "stopped").unlink(missing_ok=True)
        (self.folder / f"hold-{step}").touch()

    def let_go(self) -> None:
        for hold in self.folder.glob("hold-*"):
            hold.unlink()

    def stopped_at(self) -> str:
        path = self.folder / "stopped"
        return path.read_text() if path.exists() else ""


class KillSite:
    """p0 prefill, d0 and d1 decode, each with a GPU of its own. Policy `static` moves no role by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host(folder, gpus=0)
        self.host.configure(backend='"nvml"', address=f'"unix:{folder}/n.sock"')
        self.driver = FakeGpus(folder, gpus=len(ROLES), floor_mw=FLOOR_MW, ceiling_mw=CEILING_MW)
        for gpu in self.driver.gpus:
            gpu.demand_mw = CEILING_MW
        self.address = f"unix:{folder}/c.sock"
        self.home = Controllers(
            folder / "c",
            node_address=f"unix:{folder}/n.sock",
            address=self.address,
            gpus=str(len(ROLES)),
            budget=f"{BUDGET_MW // 1000}W",
            control=CONTROL,
        )
        text = self.home.config.read_text()
        self.home.config.write_text(text.replace('name = "uniform"', POLICY))
        model = write_model(folder / "model")
        self.router_url = f"http://127.0.0.1:{free_port()}"
        self.workers = {name: self._worker(name, model) for name in ROLES}
        self.router = self._router()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for worker in self.workers.values():
            worker.engine.start()
        self.router.start()
        self.host.start(env=self.driver.env(build(self.folder)))
        self.controller: Controller = self.home.start()
        wait_for(lambda: len(self.status().nodes[0].gpus) == len(ROLES), WITHIN_S, "every GPU reported")
        for worker in self.workers.values():
            wait_for(lambda worker=worker: _answers(worker.url), WITHIN_S, worker.name)  # type: ignore[misc]
            worker.adapter.start()
        for name, role in ROLES.items():
            self.becomes(name, Phase.SERVING, role)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [self.router, *(each for one in self.workers.values() for each in (one.adapter, one.engine))]:
            if process.alive:
                process.kill()
        self.home.__exit__(kind, error, trace)
        self.host.__exit__(kind, error, trace)

    def restart_controller(self) -> None:
        self.controller = self.home.start()

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

    def shown(self, name: str) -> dict[str, Any]:
        """What `rapidctl status --json` says of an instance."""
        command = [sys.executable, "-m", "rapidctl", "--address", self.address, "status", "--json"]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN_S)
        told: list[dict[str, Any]] = json.loads(done.stdout)["instances"]
        return next(one for one in told if one["instance"] == name)

    def becomes(self, name: str, phase: Phase, role: Role | None = None) -> InstanceStatus:
        """Wait until the controller says so."""

        def there() -> InstanceStatus | None:
            one = self.instance(name)
            return one if one is not None and one.phase is phase and role in (None, one.role) else None

        what = f"{name} {phase.value} {role.value if role else ''}"
        try:
            one = wait_for(there, WITHIN_S, what)
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.instance(name)}\n{self.story()}") from late
        assert one is not None
        return one

    # ---- the router ----

    def listed(self, name: str) -> list[tuple[str, bool]]:
        """How the router lists a worker: (pool, healthy), one for each entry. Nothing while it does not answer."""
        try:
            workers = read(f"{self.router_url}/workers")["workers"]
        except (OSError, ValueError):
            return []
        return [(one["worker_type"], one["is_healthy"]) for one in workers if one["url"] == self.workers[name].url]

    def story(self) -> str:
        """What the router lists, and the last words of every adapter, for who looks into a failure."""
        lines = [f"{name}: {self.listed(name)}" for name in ROLES]
        lines += [line for one in self.workers.values() for line in one.adapter.log.read_text().splitlines()[-8:]]
        return "\n".join(lines)

    # ---- power ----

    def worst_mw(self) -> int:
        """The greatest sum of limits that was in force at any instant, by the driver's own record."""
        return worst_mw(self.driver.record(), [gpu.uuid for gpu in self.driver.gpus])

    # ---- inside ----

    def _worker(self, name: str, model: Path) -> Worker:
        port, bootstrap_port, folder = free_port(), free_port(), self.folder / name
        folder.mkdir()
        engine = [sys.executable, "-m", "tests.engines.held_sglang", "--port", str(port), "--role", ROLES[name].value]
        engine += ["--bootstrap-port", str(bootstrap_port), "--model", str(model), "--folder", str(folder)]
        gpu = self.driver.gpus[list(ROLES).index(name)].uuid
        adapter = [sys.executable, "-m", "rapidctl", "--address", self.address, "attach", "sglang", "--instance", name]
        adapter += ["--node", NODE, "--gpu", gpu, "--engine-url", f"http://127.0.0.1:{port}"]
        adapter += ["--router-url", self.router_url]
        return Worker(
            name,
            port,
            bootstrap_port,
            folder,
            Process(f"engine {name}", engine, dict(os.environ), folder / "engine.log"),
            Process(f"adapter {name}", adapter, dict(os.environ), folder / "adapter.log"),
        )

    def _router(self) -> Process:
        """As a deployment starts it: with the workers as they were launched. Its retries are on; so is its circuit
        breaker, which none of its options turns off in this mode."""
        port = self.router_url.rpartition(":")[2]
        words = ["-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", port, "--pd-disaggregation"]
        words += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        words += [
            "--policy",
            "round_robin",
            "--worker-startup-check-interval",
            "1",
            "--health-check-interval-secs",
            "1",
        ]
        for name, role in ROLES.items():
            worker = self.workers[name]
            bootstrap = [str(worker.bootstrap_port)] if role is PREFILL else []
            words += [f"--{role.value}", worker.url, *bootstrap]
        return Process("router", [str(PYTHON), *words], dict(os.environ), self.folder / "router.log")


def worst_mw(record: Sequence[Record], gpus: Sequence[str]) -> int:
    """The greatest sum of limits, from when every GPU has come down to its fallback for the first time."""
    limits, worst = dict.fromkeys(gpus, CEILING_MW), 0
    for entry in record:
        limits[entry.gpu] = max(entry.enforced_mw, entry.asked_mw)
        if worst or all(limit <= FALLBACK_MW for limit in limits.values()):
            worst = max(worst, sum(limits.values()))
    return worst


def read(url: str) -> dict[str, Any]:
    """Raises OSError and ValueError."""
    with urllib.request.urlopen(url, timeout=RPC_WITHIN_S) as answer:
        said: dict[str, Any] = json.loads(answer.read())
        return said


def _answers(url: str) -> bool:
    try:
        return bool(read(f"{url}/v1/models"))
    except (OSError, ValueError):
        return False
