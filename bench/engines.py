"""How long a change of role takes on each engine that `rapidctl attach` drives, step by step, idle and under traffic.

    .venv/bin/python -m bench.engines [--flips 40] [--only sglang exec]

Everything is real but the GPUs and the models: controller, rapidd, adapters, routers, NVIDIA Dynamo with its mocker. So
the figures say what RAPID, the routers and this machine add, and nothing of what an engine needs to rebuild itself: the
mock SGLang engine takes 50 ms for that, the mocker of Dynamo what it takes, exec what a small Python server needs to
start. `drain` is from the order until no request is left, the router's removal and 50 ms of quiet included.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from rapid.core.cluster import Phase, Role
from tests.controller.process import ROOT
from tests.engine.site import EngineSite
from tests.engines import dynamo_cluster, router_site
from tests.engines.dynamo_cluster import Cluster
from tests.engines.dynamo_site import Site
from tests.engines.dynamo_traffic import Traffic, steady
from tests.engines.ports import free_port
from tests.engines.router_site import RouterSite
from tests.node.caller import NODE
from tests.wait import wait_for

PREFILL, DECODE = Role.PREFILL, Role.DECODE
RATE_RPS, PROMPT, ANSWER = 30.0, 8, 30
SINCE = 20  # requests between two changes
STEPS = {"drain": ("draining", "switching"), "switch": ("switching", "warming"), "open": ("warming", "serving")}
ROW = "{:<14} {:<22} {:>5} {:>9} {:>15} {:>15} {:>15} {:>15}"


@dataclass(frozen=True, slots=True)
class Bench:
    """One engine under a site: whose log tells the times, how it is moved, and what traffic it can be given."""

    log: Path
    begins: Role
    flip: Callable[[Role], None]
    traffic: Callable[[], AbstractContextManager[Traffic | None]]
    load: str  # in words; empty: there is none


# ---- the sites ----


@contextlib.contextmanager
def routed(folder: Path, kind: str) -> Iterator[Bench]:
    """A mock SGLang engine, e3, of two that decode, behind a real router."""
    with RouterSite(folder, kind) as site:
        asks = steady(RATE_RPS, PROMPT, ANSWER)
        yield Bench(
            site.adapters["e3"].log,
            DECODE,
            lambda role: site.flip("e3", role),
            lambda: Traffic(site.url, asks),
            f"{RATE_RPS:g} requests/s of 0.6 s",
        )


@contextlib.contextmanager
def dynamo(folder: Path) -> Iterator[Bench]:
    """One of two decode workers of a real Dynamo, engines by its mocker."""
    roles = (PREFILL, PREFILL, DECODE, DECODE)
    with Cluster(folder / "dynamo", roles) as cluster, Site(folder, cluster) as site:

        def flip(role: Role) -> None:
            site.set_role("w3", role)
            site.becomes("w3", Phase.SERVING, role)

        asks = steady(RATE_RPS / 3, PROMPT, ANSWER)
        load = f"{RATE_RPS / 3:g} requests/s"
        yield Bench(site.adapters["w3"].log, DECODE, flip, lambda: Traffic(cluster.url, asks), load)


@contextlib.contextmanager
def restarted(folder: Path) -> Iterator[Bench]:
    """A small HTTP server, started anew for each role; nobody sends it anything."""
    with EngineSite(folder) as site:
        site.held("e1", Role.MIXED, name_of_folder="e1")
        site.becomes("e1", Phase.SERVING, Role.MIXED)
        port, state = free_port(), folder / "e0"
        run = f"{sys.executable} {ROOT / 'tests/engines/toy.py'} --role {{role}} --port {port} --folder {state}"
        words = ["--address", site.address, "attach", "exec", "--instance", "e0", "--node", NODE, "--gpu", "GPU-0"]
        words += ["--role", "prefill", "--run", run, "--ready-url", f"http://127.0.0.1:{port}/health"]
        engine = site.run("e0", state, [sys.executable, "-m", "rapidctl", *words, "--state-dir", str(state)])

        def flip(role: Role) -> None:
            site.set_role("e0", role)
            site.becomes("e0", Phase.SERVING, role)

        try:
            site.becomes("e0", Phase.SERVING, PREFILL)
            yield Bench(state / "log", PREFILL, flip, lambda: nullcontext(None), "")
        finally:
            engine.stop()  # and its own engine with it


KINDS: dict[str, tuple[str, Callable[[Path], AbstractContextManager[Bench]]]] = {
    "sglang": (router_site.MISSING["sglang"], lambda folder: routed(folder, "sglang")),
    "smg": (router_site.MISSING["smg"], lambda folder: routed(folder, "smg")),
    "dynamo": (dynamo_cluster.MISSING, dynamo),
    "exec": ("", restarted),
}
NAMES = {"sglang": "sglang-router", "smg": "smg", "dynamo": "dynamo", "exec": "exec"}


# ---- measuring ----


def changes(log: Path, since: int) -> list[dict[str, float]]:
    """The committed changes in an adapter's log: at which second each phase of one was told, by its name."""
    found: dict[str, dict[str, float]] = {}
    for line in log.read_bytes()[since:].decode().splitlines():
        if not line.startswith("{"):
            continue
        said: dict[str, Any] = json.loads(line)
        head, _, rest = str(said["event"]).partition(": ")
        if head.startswith("order ") and " as " in rest:
            at_s = datetime.fromisoformat(said["at"]).timestamp()
            found.setdefault(head, {}).setdefault(rest.partition(" as ")[0], at_s)
    return [one for one in found.values() if {"draining", "switching", "warming", "serving"} <= one.keys()]


def measure(bench: Bench, flips: int, *, loaded: bool) -> tuple[list[dict[str, float]], int, int]:
    """Changes to and fro; how many requests there were, and how many of them were lost."""
    since = bench.log.stat().st_size
    there, back = (PREFILL, DECODE) if bench.begins is DECODE else (DECODE, PREFILL)
    with bench.traffic() if loaded else nullcontext(None) as traffic:
        for _ in range(flips // 2):
            for role in (there, back):
                busy(traffic)
                bench.flip(role)
    sent, lost = (traffic.sent, len(traffic.lost)) if traffic is not None else (0, 0)
    return changes(bench.log, since), sent, lost


def busy(traffic: Traffic | None) -> None:
    """Until some requests have come since the last change: it is not one of an idle engine."""
    if traffic is not None:
        enough = traffic.sent + SINCE
        wait_for(lambda: traffic.sent >= enough, 60.0, "traffic")


def row(name: str, load: str, times: list[dict[str, float]], sent: int, lost: int) -> str:
    spans = [[one[end] - one[begin] for one in times] for begin, end in STEPS.values()]
    spans.append([one["serving"] - one["draining"] for one in times])
    figures = [f"{1000 * at(span, 50):.0f} / {1000 * at(span, 99):.0f} ms" for span in spans]
    return ROW.format(name, load, len(times), f"{lost} of {sent}" if sent else "-", *figures)


def at(values: list[float], percent: int) -> float:
    """A percentile; the greatest, where there are too few to tell."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--flips", type=int, default=40, help="changes in each row, half of them in either direction")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    if options.flips < 2 or options.flips % 2:
        parser.error("--flips must be an even number from 2 up")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; {options.flips} changes per row")
    print("times are p50 / p99; 'drain' has the router's removal and 50 ms of quiet in it\n")
    print(ROW.format("engine", "traffic", "flips", "lost", *STEPS, "all of it"))
    for kind in options.only:
        missing, site = KINDS[kind]
        if missing:
            print(f"{NAMES[kind]:<14} {missing}")
            continue
        with tempfile.TemporaryDirectory(prefix="bench") as folder, site(Path(folder)) as bench:
            print(row(NAMES[kind], "none", *measure(bench, options.flips, loaded=False)), flush=True)
            if bench.load:
                print(row(NAMES[kind], bench.load, *measure(bench, options.flips, loaded=True)), flush=True)


if __name__ == "__main__":
    main()
