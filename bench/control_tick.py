"""How long the controller thinks: Control.step on one core, without gRPC and disk, with reports like those of nodes.

Each simulated node has 8 GPUs and 8 engine instances; it obeys its grants, draws 90 % of its limits, and reports twice
a second with 8 phase loads of two 20-bucket histograms each. The load swings between prefill and decode, so that the
policy has work. Encoding for the journal is a column of its own; so is the step of a report, of which there are two per
node and second.
"""

import argparse
import gc
import platform
import time
from dataclasses import dataclass

from rapid.core.cluster import (
    Domain,
    EngineHello,
    GpuReport,
    GrantBatch,
    Histogram,
    Mark,
    NodeReport,
    NodeSpec,
    Phase,
    PhaseLoad,
    Role,
    RoleProgress,
)
from rapid.core.commands import Command, OrderRole, SendGrants
from rapid.core.control import Control
from rapid.core.events import EngineCame, EngineMoved, Event, NodeHeard, Started, Ticked
from rapid.core.settings import Settings
from rapidctl.controller.journal import row

GPUS = 8
FLOOR_MW, CEILING_MW, FALLBACK_MW = 400_000, 750_000, 600_000
INTERVAL_S = 0.5
SWING_S = 20.0  # how long prefill, and then decode, is short of power
TTFT_BOUNDS_S = tuple(0.05 * 1.3**n for n in range(19))
TPOT_BOUNDS_S = tuple(0.005 * 1.15**n for n in range(19))


@dataclass
class Node:
    """One simulated host; its limits are those it was granted last."""

    name: str
    mark: Mark = Mark()
    limits_mw: dict[str, int] | None = None
    seq: int = 0

    def gpu(self, index: int) -> str:
        return f"GPU-{self.name}-{index:08d}-7f31-4c1a-9b5e-1d2c3b4a5f60"

    def obey(self, batch: GrantBatch) -> None:
        self.mark = batch.mark
        self.limits_mw = {**(self.limits_mw or {}), **dict(batch.limits_mw)}

    def report(self, at_s: float, roles: dict[str, Role]) -> NodeReport:
        self.seq += 1
        granted = self.limits_mw or {}
        gpus = []
        for index in range(GPUS):
            limit_mw = granted.get(self.gpu(index), FALLBACK_MW)
            gpus.append(
                GpuReport(
                    self.gpu(index), index, FLOOR_MW, CEILING_MW, FALLBACK_MW, limit_mw, at_s - INTERVAL_S, limit_mw,
                    not granted, int(limit_mw * 0.9), at_s - 0.01, int(at_s * limit_mw), limit_mw,
                )
            )  # fmt: skip
        loads = tuple(self.load(index, at_s, roles) for index in range(GPUS))
        return NodeReport(self.name, f"1-{self.name}", self.seq, at_s, self.mark, 4.5, tuple(gpus), loads)

    def load(self, index: int, at_s: float, roles: dict[str, Role]) -> PhaseLoad:
        name = f"{self.name}-e{index}"
        role = roles[name]
        short = (int(at_s / SWING_S) % 2 == 0) == (role is Role.PREFILL)
        done = int(at_s * 20)
        # Every second request misses its target while the phase is short, one in twenty otherwise.
        slow = done // 2 if short else done // 20
        counts = tuple([0] * 9 + [done - slow] + [0] * 8 + [slow, 0])
        ttft = Histogram(TTFT_BOUNDS_S, counts) if role is Role.PREFILL else Histogram()
        tpot = Histogram(TPOT_BOUNDS_S, counts) if role is Role.DECODE else Histogram()
        waiting = 12 if short else 0
        return PhaseLoad(
            name, role, at_s - 0.05, waiting, waiting * 900, 0.8 if short else 0.0, 40, 0.6, done + waiting, done,
            done * 900, done * 200, ttft, tpot,
        )  # fmt: skip


@dataclass
class Times:
    """How long one kind of event took, in seconds: the step, and making the journal's row of it."""

    step: list[float]
    encode: list[float]
    row_bytes: list[int]


class Bench:
    """A Control with its simulated nodes."""

    def __init__(self, count: int, policy: str) -> None:
        budget_mw = count * GPUS * FALLBACK_MW
        self.nodes = [Node(f"n{number:03d}") for number in range(count)]
        specs = tuple(NodeSpec(node.name, "site", GPUS, FLOOR_MW, CEILING_MW, FALLBACK_MW) for node in self.nodes)
        settings = Settings((Domain("site", budget_mw),), specs, policy=policy)
        settings.check()
        self.control = Control(settings)
        self.roles = {
            f"{node.name}-e{index}": Role.PREFILL if index < GPUS // 2 else Role.DECODE
            for node in self.nodes
            for index in range(GPUS)
        }
        self.by_name = {node.name: node for node in self.nodes}
        self.moves = self.grants = 0
        self.control.step(Started(0.0, 0.0, 1, "bench"))

    def begin(self) -> None:
        """All nodes report and all engines attach."""
        for node in self.nodes:
            node.mark = Mark(1, 0)
            self.obey(self.control.step(NodeHeard(0.0, node.report(1.0, self.roles))))
            for index in range(GPUS):
                name = f"{node.name}-e{index}"
                roles = (Role.PREFILL, Role.DECODE)
                hello = EngineHello(name, "i", node.name, (node.gpu(index),), self.roles[name], roles)
                self.control.step(EngineCame(0.0, hello))

    def run(self, rounds: int) -> tuple[Times, Times]:
        """One report of every node and one tick per round; the times of the ticks, and those of the reports."""
        ticks, reports = Times([], [], []), Times([], [], [])
        at_s = 1.0
        for _ in range(rounds):
            at_s += INTERVAL_S
            for number, node in enumerate(self.nodes):
                heard_s = at_s - INTERVAL_S + INTERVAL_S * number / len(self.nodes)
                self.time(NodeHeard(heard_s, node.report(heard_s, self.roles)), reports)
            self.finish_moves(self.time(Ticked(at_s), ticks), at_s)
        return ticks, reports

    def time(self, event: Event, times: Times) -> list[Command]:
        """Take an event, and write down how long that took."""
        began_s = time.perf_counter()
        commands = self.control.step(event)
        stepped_s = time.perf_counter()
        kept = row(event, commands)
        times.encode.append(time.perf_counter() - stepped_s)
        times.step.append(stepped_s - began_s)
        times.row_bytes.append(len(kept.event) + len(kept.commands))
        self.obey(commands)
        return commands

    def obey(self, commands: list[Command]) -> None:
        """Nodes put grants into force at once."""
        for command in commands:
            if isinstance(command, SendGrants):
                self.by_name[command.batch.node].obey(command.batch)
                self.grants += 1

    def finish_moves(self, commands: list[Command], at_s: float) -> None:
        """Engines change role at once."""
        for order in commands:
            if isinstance(order, OrderRole):
                self.roles[order.instance] = order.role
                self.moves += 1
                for phase in (Phase.SWITCHING, Phase.SERVING):
                    progress = RoleProgress(order.instance, "i", order.mark, phase, order.role)
                    self.control.step(EngineMoved(at_s, progress))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cell(times: list[float]) -> str:
    return f"{quantile(times, 0.5) * 1e3:8.2f} {quantile(times, 0.99) * 1e3:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=240)
    parser.add_argument("--policy", default="rapid")
    options = parser.parse_args()
    print(
        f"Control.step, policy {options.policy}, {options.rounds} ticks of {INTERVAL_S} s, CPython "
        f"{platform.python_version()}, {platform.machine()}, one core; p50 and p99 in ms"
    )
    print(
        "nodes  GPUs |         tick step |       tick encode |       report step |     report encode | report row | "
        "busy core | grants moves"
    )
    for count in options.nodes:
        bench = Bench(count, options.policy)
        bench.begin()
        gc.collect()
        ticks, reports = bench.run(options.rounds)
        busy_s = sum(map(sum, (ticks.step, ticks.encode, reports.step, reports.encode)))
        print(
            f"{count:5d} {count * GPUS:5d} | {cell(ticks.step)} | {cell(ticks.encode)} | {cell(reports.step)} | "
            f"{cell(reports.encode)} | {sum(reports.row_bytes) / len(reports.row_bytes) / 1e3:7.1f} kB | "
            f"{busy_s / (options.rounds * INTERVAL_S):9.1%} | {bench.grants:6d} {bench.moves:5d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
