"""A whole site around a Dynamo cluster: a real controller, a real rapidd on fake NVIDIA GPUs, an adapter per worker."""

import os
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
from tests.controller.process import Controller, Controllers
from tests.engines.dynamo_cluster import WITHIN_S, Cluster, Process, Worker
from tests.node.caller import NODE
from tests.node.daemon import Host
from tests.wait import wait_for
from tools.fake_gpu import FakeGpus, build

FLOOR_MW, FALLBACK_MW, CEILING_MW = 400_000, 500_000, 750_000
DEMAND_MW = 600_000  # what each fake GPU draws if it may: the mocker itself draws nothing
CONTROL = """
tick = "500ms"
drain = "20s"
switch_timeout = "10s"
"""
RPC_WITHIN_S = 5.0


class Site:
    """One host with as many GPUs as the cluster has workers; w0 has the first. `gpu_mw` for each is the budget."""

    def __init__(
        self, folder: Path, cluster: Cluster, *, policy: str = "uniform", gpu_mw: int = 550_000, more: str = ""
    ) -> None:
        self.folder, self.cluster = folder, cluster
        gpus = len(cluster.workers)
        self.budget_mw = gpu_mw * gpus
        self.host = Host(folder, gpus=0)
        self.host.configure(backend='"nvml"', address=f'"unix:{folder}/n.sock"')
        self.driver = FakeGpus(folder, gpus=gpus, floor_mw=FLOOR_MW, ceiling_mw=CEILING_MW)
        for gpu in self.driver.gpus:
            gpu.demand_mw = DEMAND_MW
        self.address = f"unix:{folder}/c.sock"
        self.home = Controllers(
            folder / "c",
            node_address=f"unix:{folder}/n.sock",
            address=self.address,
            gpus=str(gpus),
            budget=f"{self.budget_mw // 1000}W",
            control=CONTROL,
            more=more,
        )
        text = self.home.config.read_text()
        self.home.config.write_text(text.replace('name = "uniform"', f'name = "{policy}"'))
        self.adapters = {worker.name: self._adapter(worker) for worker in cluster.workers}
        self.ready_ns = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        self.daemon = self.host.start(env=self.driver.env(build(self.folder)))
        self.controller: Controller = self.home.start()
        for adapter in self.adapters.values():
            adapter.start()
        for worker in self.cluster.workers:
            self.becomes(worker.name, Phase.SERVING)
        wait_for(self._all_managed, WITHIN_S, "every GPU reported")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for adapter in self.adapters.values():
            if adapter.alive:
                adapter.kill()
        self.home.__exit__(kind, error, trace)
        self.host.__exit__(kind, error, trace)

    def start_controller(self) -> None:
        """The next life, which goes on from the journal."""
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

    def becomes(self, name: str, phase: Phase, role: Role | None = None) -> InstanceStatus:
        """Wait until the controller says so."""

        def there() -> InstanceStatus | None:
            one = self.instance(name)
            return one if one is not None and one.phase is phase and role in (None, one.role) else None

        try:
            one = wait_for(there, WITHIN_S, f"{name} {phase.value} {role.value if role else ''}")
        except TimeoutError as late:
            raise TimeoutError(
                f"{late}\n{self.instance(name)}\n{self.adapters[name].log.read_text()[-2000:]}"
            ) from late
        assert one is not None
        return one

    # ---- power ----

    def worst_mw(self) -> int:
        """The greatest sum of limits that was in force at any instant since the daemon was ready, by the driver's own
        record."""
        limits = dict.fromkeys((gpu.uuid for gpu in self.driver.gpus), CEILING_MW)
        worst = 0
        for entry in self.driver.record():
            limits[entry.gpu] = entry.enforced_mw
            if all(limit <= FALLBACK_MW for limit in limits.values()) or worst:
                worst = max(worst, sum(limits.values()))
        return worst

    # ---- inside ----

    def _all_managed(self) -> bool:
        nodes = self.status().nodes
        return bool(nodes) and len(nodes[0].gpus) == len(self.cluster.workers)

    def _adapter(self, worker: Worker) -> Process:
        gpu = self.driver.gpus[self.cluster.workers.index(worker)].uuid
        words: Sequence[str] = [
            *("--address", self.address, "attach", "dynamo", "--instance", worker.name, "--node", NODE, "--gpu", gpu),
            *("--control", str(worker.control), "--frontend-url", self.cluster.url, "--worker-url", worker.url),
            *("--load-socket", f"{self.folder}/run/load.sock"),
        ]
        command = [sys.executable, "-m", "rapidctl", *words]
        return Process(worker.name, command, dict(os.environ), self.folder / f"adapter-{worker.name}.log")
