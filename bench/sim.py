"""How fast the simulator is: simulated seconds per second of one core; cost and memory against the length of the trace.

    host     8 GPUs, 12 requests/s, fixed roles and limits: the engines and the router alone
    rapid    the same host under core.Control and core.Guard with policy rapid
    fleet    128 nodes of 8 GPUs, 2,000 requests/s, policy rapid

Requests come out of seeded dice while the run goes on, so nothing holds a trace. Every 20 s the load swings between
long prompts and long answers, so that the policy has work. Every point is a process of its own; it says how much CPU
time the run took, from its set-up to its last request, and the most memory that the process ever had. Medians of
several runs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from random import Random
from statistics import median

from rapid.sim.cluster import Cluster, uniform_host
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world.scenario import Scenario
from rapid.sim.world.site import simulate

PROFILE = "mi300x-8b"
LIMIT_MW = 600_000  # the budget per GPU
SWING_S = 20.0
MEAN_TOKENS = ((7000, 120), (800, 800))  # prompt and answer, exponential, while the load is on this side
MAX_PROMPT_TOKENS = 32_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is run, at which load, and for how long: seconds of the trace, times each of the lengths."""

    nodes: int
    rate_rps: float
    seconds: float
    lengths: tuple[int, ...]
    run: Callable[["Case", float], "Ran"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run."""

    sim_s: float  # simulated, lead-in and drain included
    requests: int  # that finished


@dataclass(frozen=True, slots=True)
class Point:
    """A run and what it cost."""

    sim_s: float
    requests: int
    cpu_s: float
    peak_mib: float  # of the whole process


def requests(case: Case, seconds: float) -> Iterator[Request]:
    dice, at_s, number = Random(f"bench/{case.nodes}/{case.rate_rps}"), 0.0, 0
    while (at_s := at_s + dice.expovariate(case.rate_rps)) < seconds:
        prompt, answer = MEAN_TOKENS[int(at_s / SWING_S) % 2]
        prompt_tokens = 1 + min(MAX_PROMPT_TOKENS, int(dice.expovariate(1 / prompt)))
        yield Request(number, at_s, prompt_tokens, 1 + int(dice.expovariate(1 / answer)))
        number += 1


def alone(case: Case, seconds: float) -> Ran:
    """The cluster without a controller."""
    finished = 0

    def count(item: Finished) -> None:
        nonlocal finished
        finished += 1

    profile = profile_named(PROFILE)
    cluster = Cluster(profile, uniform_host(profile, 4, 4, LIMIT_MW), on_finished=count)
    for request in requests(case, seconds):
        cluster.offer(request)
    cluster.finish()
    return Ran(cluster.now_s, finished)


def controlled(case: Case, seconds: float) -> Ran:
    """A site under core.Control."""
    scenario = Scenario(profile_named(PROFILE), budget_mw=case.nodes * 8 * LIMIT_MW, prefill=4, nodes=case.nodes)
    outcome = simulate(scenario, requests(case, seconds))
    assert outcome.over_budget_s == 0.0, f"over budget for {outcome.over_budget_s} s"
    return Ran(scenario.world.lead_in_s + outcome.sim_s, outcome.requests - outcome.unfinished)


CASES = {
    "host": Case(1, 12.0, 200.0, (1, 4, 16), alone),
    "rapid": Case(1, 12.0, 200.0, (1, 4, 16), controlled),
    "fleet": Case(128, 2000.0, 40.0, (1, 4), controlled),
}


def measure(name: str, seconds: float) -> Point:
    """One run in this process."""
    case = CASES[name]
    began_s = time.process_time()
    ran = case.run(case, seconds)
    cpu_s = time.process_time() - began_s
    return Point(ran.sim_s, ran.requests, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(name: str, seconds: float, runs: int) -> Point:
    """Medians of several runs, each in a process of its own."""
    points = []
    for _ in range(runs):
        command = [sys.executable, "-m", "bench.sim", "--point", name, str(seconds)]
        points.append(Point(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))
    cpu_s, peak_mib = median(point.cpu_s for point in points), median(point.peak_mib for point in points)
    return replace(points[0], cpu_s=cpu_s, peak_mib=peak_mib)


def show(name: str, length: int, point: Point) -> None:
    case = CASES[name]
    print(
        f"{name:6s} {8 * case.nodes:5d} {case.rate_rps:7,.0f} | {length:3d} x {case.seconds:3.0f} s "
        f"{point.requests:8,d} | {point.sim_s:7,.0f} s {point.cpu_s:7.2f} s {point.sim_s / point.cpu_s:7,.1f} x | "
        f"{point.cpu_s / point.requests * 1e6:6,.0f} us | {point.peak_mib:7,.1f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--point", nargs=2, metavar=("CASE", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        name, seconds = options.point
        print(json.dumps(asdict(measure(name, float(seconds)))))
        return
    print(
        f"rapid.sim, profile {PROFILE}, {LIMIT_MW // 1000} W per GPU, CPython {platform.python_version()}, "
        f"{platform.machine()}, one core of {os.cpu_count()}; medians of {options.runs} runs"
    )
    print("case    GPUs   req/s |       trace requests | simulated  CPU time real time | per req. | peak memory")
    for name in options.cases:
        for length in CASES[name].lengths:
            show(name, length, measured(name, length * CASES[name].seconds, options.runs))


if __name__ == "__main__":
    main()
