"""How long it takes from an order on the bus to the answer that all limits are read back, and what the bus costs.

A real mosquitto with TLS, a real rapid-controller, and simulated nodes of eight GPUs with the real guard behind real
gRPC, sampled every 100 ms; their draw follows a lower limit after 200 ms. Cuts by a fifth come as signed orders, and
are taken back in between; the clock is that of the one who orders. All of it shares the cores of one machine.
"""

import argparse
import asyncio
import itertools
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from rapid.core.cluster import Greeting
from rapid.rpc import Context, start_server
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import Greeted, decode_enforce, encode_report
from tests.controller.process import ROOT, Controllers
from tests.core.hosts import Host, W
from tests.facility.broker import Broker, Client, Signer
from tests.facility.plant import stamp
from tests.wait import wait_for

GPUS = 8
SAMPLE_S, REPORT_S = 0.1, 0.5  # as rapidd does by default
TARGET_S = 2.0  # for 100 nodes, with all that has to settle
DEADLINE_S = 60.0
FLOOD = 10_000
NODE = '[[node]]\nname = "n{n}"\naddress = "unix:{folder}/n{n}.sock"\ndomain = "host"\ngpus = 8\nfloor = "100W"\n'
NODE += 'ceiling = "700W"\nfallback = "400W"\n'


class SimNode(node_pb2_grpc.NodeServiceServicer):
    """A node: the real guard, and devices that obey at once and draw all they may."""

    def __init__(self, name: str) -> None:
        limits = {f"GPU-{name}-{index}": 400 * W for index in range(GPUS)}
        self.host = Host(limits, name=name, now=time.monotonic())
        for device in self.host.devices.values():
            device.energy_mj, device.metered_s = 0.0, self.host.now
        self.host.settle()
        self.news = asyncio.Event()

    async def Describe(self, request: node_pb2.DescribeRequest, context: object) -> node_pb2.DescribeResponse:
        return node_pb2.DescribeResponse(node=self.host.name)

    async def Enforce(self, requests: object, context: Context) -> None:  # type: ignore[override]
        first = await context.read()
        assert isinstance(first, node_pb2.EnforceRequest)
        greeted = decode_enforce(first, node=self.host.name)
        assert isinstance(greeted, Greeted)
        self.hear(greeted.greeting)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.obey(context))
            tasks.create_task(self.sample())
            tasks.create_task(self.tell(context))

    def hear(self, message: Any) -> None:
        self.catch_up()
        self.host.hear(message)
        while self.host.writes:
            for gpu in list(self.host.writes):
                self.host.finish(gpu)
        if self.host.soon:
            self.news.set()

    async def obey(self, context: Context) -> None:
        while isinstance(request := await context.read(), node_pb2.EnforceRequest):
            order = decode_enforce(request, node=self.host.name)
            assert not isinstance(order, Greeted | Greeting)
            self.hear(order)

    async def sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.catch_up()
            self.host.sample()
            if self.host.soon:
                self.news.set()

    async def tell(self, context: Context) -> None:
        while True:
            await context.write(encode_report(self.host.report()))
            self.news.clear()
            self.host.words.clear()
            try:
                await asyncio.wait_for(self.news.wait(), REPORT_S)
            except TimeoutError:
                continue

    def catch_up(self) -> None:
        self.host.wait(max(0.0, time.monotonic() - self.host.now))


async def serve(folder: Path, nodes: int) -> None:
    """All nodes in this process, for ever."""
    servers = []
    for number in range(nodes):
        node = SimNode(f"n{number}")

        def add(server: grpc.aio.Server, node: SimNode = node) -> None:
            node_pb2_grpc.add_NodeServiceServicer_to_server(node, server)

        address = {"listen.address": f"unix:{folder}/n{number}.sock"}
        servers.append(await start_server(address, add, services=["rapid.v1.NodeService"]))
    (folder / "ready").touch()
    await asyncio.Event().wait()


class Bench:
    """One size of site."""

    def __init__(self, folder: Path, nodes: int, stack: ExitStack) -> None:
        self.nodes, self.budget_w = nodes, nodes * GPUS * 600
        self.broker = stack.enter_context(Broker(folder / "broker", more="set_tcp_nodelay true"))
        self.broker.start()
        self.key = Signer("bms-1")
        stack.enter_context(process("-m", "bench.facility", "--serve", str(nodes), "--folder", str(folder)))
        wait_for((folder / "ready").exists, DEADLINE_S, "the nodes serve")
        self.home = stack.enter_context(Controllers(folder / "c"))
        self.key.publish(self.home.folder / "bms.pem")
        (self.home.folder / "password").write_text("secret")
        self.home.config.write_text(self.config(folder))
        self.home.start()
        self.client = stack.enter_context(Client(self.broker, topics=("rapid/v1/s1/domain/host/#",)))
        self.client.wait_for("rapid/v1/s1/domain/host", {"compliant": True}, deadline_s=DEADLINE_S)
        self.numbers = itertools.count(1)

    def config(self, folder: Path) -> str:
        tables = "".join(NODE.format(n=number, folder=folder) for number in range(self.nodes))
        return (
            f'[[domain]]\nname = "host"\nbudget = "{self.budget_w}W"\n{tables}[policy]\nname = "uniform"\n'
            '[journal]\npath = "journal.sqlite3"\n[listen]\naddress = "127.0.0.1:0"\nmetrics = ""\n'
            f'[mqtt]\nbroker = "{self.broker.address}"\nsite = "s1"\n'
            'username = "rapid-s1"\npassword_file = "password"\n'
            f'tls = {{ ca = "{self.broker.ca}" }}\n'
            '[[mqtt.key]]\nkid = "bms-1"\nsource = "bms"\nfile = "bms.pem"\n'
        )

    def order(self, budget_w: float | None) -> tuple[float, float]:
        """Seconds until an order is accepted, and until it is in force."""
        name = f"o{next(self.numbers)}"
        made = {"site": "s1", "domain": "host", "id": name, "issued": stamp(), "budget_w": budget_w}
        message = self.key.sign(made)
        began_s = time.monotonic()
        self.client.send("rapid/v1/s1/domain/host/budget/set", message, wait=False)
        took = [self.until(name, outcome) - began_s for outcome in ("accepted", "in_force")]
        return took[0], took[1]

    def until(self, name: str, outcome: str) -> float:
        """When the answer came."""
        topic = "rapid/v1/s1/domain/host/budget/result"
        wanted = f'"outcome":"{outcome}"', f'"id":"{name}"'

        def there() -> bool:
            return any(it.topic == topic and all(word in it.payload.decode() for word in wanted) for it in self.heard())

        end_s = time.monotonic() + DEADLINE_S
        while not there():
            if time.monotonic() > end_s:
                raise TimeoutError(f"order {name} was not {outcome} within {DEADLINE_S:g} s")
            time.sleep(0.001)
        return time.monotonic()

    def heard(self) -> list[Any]:
        return self.client.heard[-50:]

    def trials(self, count: int) -> tuple[list[float], list[float]]:
        accepted, in_force = [], []
        for trial in range(count + 2):
            first_s, then_s = self.order(0.8 * self.budget_w)
            if trial >= 2:  # the first two warm it up
                accepted.append(first_s)
                in_force.append(then_s)
            self.order(None)
            time.sleep(0.7)  # limits go back up, and ticks and reports are met at another phase
        return accepted, in_force

    def gaps_s(self, since: int) -> list[float]:
        """Between the ticks of the loop after the first `since`."""
        with closing(sqlite3.connect(f"file:{self.home.journal}?mode=ro", uri=True)) as journal:
            query = "SELECT at_s FROM entries WHERE kind = 'Ticked' ORDER BY n"
            ticks = [at_s for (at_s,) in journal.execute(query)][since:]
        return [after - before for before, after in itertools.pairwise(ticks)]

    def pace(self, seconds: float) -> Iterator[tuple[str, list[float]]]:
        """Gaps between ticks with an idle bus, a broker that hangs, and a flood of forged orders."""
        forged = Signer("bms-1").sign({"site": "s1"})
        for what in ("idle", "broker hangs", f"flood of {FLOOD:,} forged orders"):
            since = len(self.gaps_s(0)) + 1
            if what == "broker hangs":
                self.broker.hang()
            if what.startswith("flood"):
                for number in range(FLOOD):
                    self.client.send("rapid/v1/s1/domain/host/budget/set", forged, wait=number % 200 == 199)
            else:
                time.sleep(seconds)
            self.broker.go_on()
            yield what, self.gaps_s(since)


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    """A process of ours, ended at the end."""
    started = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    try:
        yield
    finally:
        started.kill()
        started.wait()


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.folder, options.serve))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, policy uniform, {options.trials} cuts each")
    print(f"{'nodes':>5} {'GPUs':>5}  {'accepted':>16}  {'in force':>16}")
    print(f"{'':>5} {'':>5}  {'p50':>7} {'p99':>8}  {'p50':>7} {'p99':>8}")
    worst_s = 0.0
    for nodes in options.nodes:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf")))
            bench = Bench(folder, nodes, stack)
            accepted, in_force = bench.trials(options.trials)
            cells = [f"{quantile(each, share):7.3f}" for each in (accepted, in_force) for share in (0.5, 0.99)]
            print(f"{nodes:5} {nodes * GPUS:5}  {cells[0]} {cells[1]} s {cells[2]} {cells[3]} s", flush=True)
            worst_s = quantile(in_force, 0.99)
            if nodes == options.nodes[-1]:
                print(f"gaps between ticks of 0.5 s, {nodes} nodes:   median      p99      max")
                for what, gaps in bench.pace(20.0):
                    figures = (statistics.median(gaps), quantile(gaps, 0.99), max(gaps))
                    print(f"  {what:38} {' '.join(f'{gap_s:8.3f}' for gap_s in figures)} s", flush=True)
    print(f"target: {TARGET_S:g} s for 100 nodes; {'kept' if worst_s <= TARGET_S else 'MISSED'}")
    return 0 if worst_s <= TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
