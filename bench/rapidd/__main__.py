"""The benchmark of rapidd, as a command."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

import bench.rapidd
from bench.rapidd.daemon import daemon
from bench.rapidd.host import CALL_US, DEMAND_MW, SET_MS, Host, Keeper
from bench.rapidd.loops import loop, one_call, stand_in
from bench.rapidd.show import print_head, print_row, print_targets, print_waits
from bench.rapidd.trials import Found, Plan, Share, examine, renewing, share
from tools.fake_gpu import NoCompiler

GPUS, TARGET_GPUS = (1, 8, 16), 8
WINDOWS = 5
LOOPS = {
    "nvidia-smi, once a second": ("each", 1000),
    "nvidia-smi, ten a second": ("each", 100),
    "nvidia-smi -lms 100": ("stream", 100),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    gpus: int
    keep: Callable[[Host], AbstractAsyncContextManager[Keeper]]
    plan: Plan


def main() -> int:
    options = parse()
    plan: Plan = options.plan
    few = Plan(min(plan.windows, WINDOWS), plan.window_s, max(1, plan.trials // 4))
    cases = [Case("rapidd", gpus, daemon, plan) for gpus in options.gpus]
    for name, (kind, pause_ms) in LOOPS.items() if options.loops else ():
        cases += [Case(name, gpus, partial(loop, kind=kind, pause_ms=pause_ms), few) for gpus in options.gpus]
    print(conditions(plan, few))
    print_head()
    found: list[tuple[Case, Found]] = []
    try:
        for case in cases:
            found.append((case, asyncio.run(run(case))))
            print_row(case.name, case.gpus, found[-1][1])
        print_waits(TARGET_GPUS, asyncio.run(by_wait(few)))
        print(smi_costs())
    except NoCompiler as error:
        print(error)
        return 1
    ours = [it for case, it in found if case.keep is daemon and case.gpus == TARGET_GPUS]
    return 0 if all(print_targets(TARGET_GPUS, it) for it in ours) else 1


async def run(case: Case) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        host = Host.make(Path(folder), case.gpus)
        async with case.keep(host) as keeper:
            return await examine(host, keeper, case.plan)


async def by_wait(plan: Plan) -> list[tuple[str, list[Share]]]:
    """What rapidd takes of a core, by what the driver does while a call waits for the GPU."""
    waits = {
        "answers at once": (0, 0),
        f"sleeps for {CALL_US / 1000:g} ms": (CALL_US, 0),
        f"polls for {CALL_US / 1000:g} ms": (0, CALL_US),
    }
    found: list[tuple[str, list[Share]]] = []
    with tempfile.TemporaryDirectory() as folder:
        host = Host.make(Path(folder), TARGET_GPUS)
        async with daemon(host) as keeper, renewing(keeper):
            for name, (sleep_us, poll_us) in waits.items():
                host.wait(sleep_us=sleep_us, poll_us=poll_us)
                found.append((name, [await share(host, keeper, plan.window_s) for _ in range(plan.windows)]))
    return found


def smi_costs() -> str:
    """What one nvidia-smi costs: the stand-in, and the real one where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        host = Host.make(Path(folder), TARGET_GPUS)
        imitated = one_call(stand_in(host))
    real, text = one_call(os.environ), "one look by {}: {:.0f} ms, {:.1f} ms of processor time"
    rows = [text.format(f"the stand-in for nvidia-smi at {TARGET_GPUS} GPUs", *imitated)] if imitated else []
    rows += [text.format("the real nvidia-smi on this host", *real)] if real else ["no real nvidia-smi on this host"]
    return "\n".join(rows)


def conditions(plan: Plan, few: Plan) -> str:
    draw_w, call_ms = DEMAND_MW / 1000, CALL_US / 1000
    return f"""\
rapidd on fake NVIDIA GPUs that draw {draw_w:g} W. A call of their driver polls for {call_ms:g} ms, as NVIDIA's does,
and one that sets a limit sleeps for {SET_MS} ms more (host.py says from where). Ten samples a second, each of one call
a GPU for four values, and once a second of two calls more; a controller on loopback, without TLS, hears 2 reports and
sends 2 renewals a second; /metrics is read once a window; no engines.
CPU: processor time by wall time in {plan.windows} windows of {plan.window_s:g} s, without what the driver polls for in
the keeper's calls, which stands beside it. Each latency {plan.trials} times.
Loops: loop.sh, on a stand-in for nvidia-smi that is lighter than the real one. Each latency {few.trials} times.
CPython {platform.python_version()}, grpcio {grpc.__version__}, {os.cpu_count()} cores ({platform.machine()}), \
load {os.getloadavg()[0]:.1f}; to wake and go back to sleep takes Python {wake_us():.0f} us of processor time here"""


def wake_us(wakes: int = 40, pause_s: float = 0.05) -> float:
    """What this machine charges for a thread that wakes now and then, which is most of what rapidd does."""
    before_s = time.process_time()
    for _ in range(wakes):
        time.sleep(pause_s)
    return 1e6 * (time.process_time() - before_s) / wakes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=bench.rapidd.__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=GPUS, help="default: 1 8 16")
    parser.add_argument(
        "--windows",
        type=int,
        default=WINDOWS,
        help=f"of steady work; more make a long run of rapidd (default: {WINDOWS})",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of one window (default: 10)")
    parser.add_argument("--trials", type=int, default=40, help="of each latency (default: 40)")
    parser.add_argument("--no-loops", dest="loops", action="store_false", help="rapidd alone")
    options = parser.parse_args()
    options.plan = Plan(options.windows, options.seconds, options.trials)
    return options


if __name__ == "__main__":
    sys.exit(main())
