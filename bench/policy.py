"""How long a policy thinks: CPU time of decide() for fleets that it knows well by then, and of state().

The fleet is that of the tests: engines as fluids, that obey at once. What is asked for swings between long prompts with
short answers and short prompts with long ones, so that the policy has work; before the first decision is timed it has
seen two minutes of that. state() is taken once, when a life of the controller begins.
"""

import argparse
import gc
import platform
import time
from collections.abc import Iterator

from rapid.core.cluster import Targets
from rapid.core.policy import Policy, StatefulPolicy, make
from tests.core.fluid import TICK_S, Asked, Fluid

SWING_S = 20.0
WARM_S = 120.0
TARGETS_MS = {8: 2.0, 1000: 50.0}  # one decision on one core
SIZES = (8, 1000)
POLICIES = ("rapid", "predictive")


def swing(gpus: int) -> Iterator[Asked]:
    """Enough to keep either phase short of watts, in turns."""
    each, long = gpus / 8, int(SWING_S / TICK_S)
    while True:
        yield from [Asked(11.0 * each, 6_000.0, 100.0)] * long
        yield from [Asked(30.0 * each, 400.0, 400.0)] * long


def fleet(gpus: int) -> Fluid:
    nodes = max(1, gpus // 8)
    return Fluid(nodes, gpus // nodes)


class Bench:
    """A policy in its fleet."""

    def __init__(self, name: str, gpus: int) -> None:
        self.policy: Policy = make(name, {})
        self.fleet, self._load = fleet(gpus), swing(gpus)

    def turn(self) -> tuple[Targets, float]:
        """One tick; what the policy wants, and how long it thought in seconds."""
        view = self.fleet.turn(next(self._load))
        began_s = time.thread_time()
        targets = self.policy.decide(view)
        took_s = time.thread_time() - began_s
        self.fleet.obey(targets)
        return targets, took_s

    def run(self, rounds: int) -> tuple[list[float], list[float]]:
        """How long the decisions took after the warm-up: all, and those with something to weigh or to change."""
        for _ in range(int(WARM_S / TICK_S)):
            self.turn()
        gc.collect()
        turns = [self.turn() for _ in range(rounds)]
        busy = [took_s for targets, took_s in turns if targets.candidates or targets.limits_mw or targets.roles]
        return [took_s for _, took_s in turns], busy

    def state_s(self) -> float | None:
        """How long state() takes (None: it has none)."""
        if not isinstance(self.policy, StatefulPolicy):
            return None
        began_s = time.thread_time()
        self.policy.state()
        return time.thread_time() - began_s


def quantile_ms(values_s: list[float], share: float) -> float:
    ordered = sorted(values_s)
    return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=240)
    parser.add_argument("--policy", nargs="+", default=POLICIES)
    options = parser.parse_args()
    print(
        f"CPU time of decide(), {options.rounds} ticks of {TICK_S} s after {WARM_S:.0f} s, CPython "
        f"{platform.python_version()}, {platform.machine()}, one core; p50 and p99 in ms"
    )
    print("policy      GPUs |              all |     those at work | of all |  target met | state() ms | limits roles")
    for gpus in options.gpus:
        for name in options.policy:
            bench = Bench(name, gpus)
            every, busy = bench.run(options.rounds)
            cells = [quantile_ms(values, share) for values in (every, busy) for share in (0.5, 0.99)]
            target_ms, state_s = TARGETS_MS.get(gpus), bench.state_s()
            verdict = "" if target_ms is None else f"{'yes' if cells[1] < target_ms else 'NO'} ({target_ms:.0f} ms)"
            print(
                f"{name:10} {gpus:5d} | {cells[0]:7.2f} {cells[1]:8.2f} | {cells[2]:8.2f} {cells[3]:8.2f} | "
                f"{len(busy) / len(every):6.0%} | {verdict:>11} | {1e3 * (state_s or 0.0):10.2f} | "
                f"{bench.fleet.limit_changes:6d} {bench.fleet.role_changes:5d}",
                flush=True,
            )


if __name__ == "__main__":
    main()
