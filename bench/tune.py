"""What the settings of a policy are worth: mean SLO attainment on the cells that policies are tuned on.

    python -m bench.tune uniform rapid rapid:prefill_queue=0.5,decode_queue=0.5 predictive predictive:reserve=0.05

Eight development traces on four engines, a corner each, in windows of 60 s: at 80, 70 and 57 % of the ceilings with 1,
1.3 and .75 times the rate that the evaluation's rule chooses, and twice at 57 % with that rate, where most is lost.
160 cells; with --quick only one of the first three windows for each, 32. `rapidctl sim` has the names of settings. Two
minutes for the loads on two cores, then about a minute for a policy, many for the oracle (here with its short look).
"""

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pool

from bench.evaluation.grid import Cell, Setting, scenario
from bench.evaluation.rule import choose
from bench.evaluation.windows import Window
from rapid.sim.oracle import looks
from rapid.sim.world.scenario import ORACLE
from rapid.sim.world.site import simulate
from rapidctl.sim.options import PolicyChoice, policy_choice

TRACES = ("azure", "azure-code", "mooncake", "servegen-mlarge", "servegen-r1", "longbench", "sonnet", "burst")
ENGINES = (
    ("mi300x-8b", "shallow,gentle"),
    ("h200-8b", "steep,sharp"),
    ("mi300x-8b-paper", "steep,gentle"),
    ("h100-70b-tp4", "shallow,sharp"),
)
# Seed and window, speed, budget.
VARIANTS = ((0, 1.0, 0.80), (2, 1.3, 0.70), (1, 0.75, 0.57), (0, 1.0, 0.57), (1, 1.0, 0.57))
QUICK = 3  # of them, in turns
SEEDS, SECONDS, DRAIN_S = 3, 60.0, 240.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy in a cell."""

    policy: PolicyChoice
    cell: Cell
    seed: int
    speed: float
    rate_rps: float


def rate_of(setting: Setting) -> float:
    return choose(setting, SEEDS, SECONDS).rate_rps


def attainment(trial: Trial) -> float:
    setting, policy = trial.cell.setting, trial.policy
    capacity = setting.engine.kv_capacity_tokens
    window = Window(setting.trace, capacity, trial.rate_rps, SECONDS, trial.seed, SEEDS, trial.speed)
    world = scenario(trial.cell, policy.name, trial.seed)
    world = replace(world, policy_settings={**world.policy_settings, **dict(policy.settings)})
    foresight = looks(world.slo)[0] if policy.name == ORACLE else None
    outcome = simulate(world, window.requests(), policy=foresight, max_drain_s=DRAIN_S)
    assert outcome.over_budget_s == 0, trial
    return outcome.attainment


def trials(policy: PolicyChoice, settings: Sequence[Setting], rates: Sequence[float], *, quick: bool) -> list[Trial]:
    found = []
    for number, (setting, rate_rps) in enumerate(zip(settings, rates, strict=True)):
        for seed, speed, share in [VARIANTS[number % QUICK]] if quick else VARIANTS:
            found.append(Trial(policy, Cell(setting, share), seed, speed, rate_rps))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", type=policy_choice, default=[policy_choice("rapid")])
    parser.add_argument("--quick", action="store_true", help="32 cells instead of 160")
    options = parser.parse_args()
    settings = [Setting(trace, *engine) for trace in TRACES for engine in ENGINES]
    with Pool() as pool:
        rates = pool.map(rate_of, settings, chunksize=1)
        cells = len(settings) * (1 if options.quick else len(VARIANTS))
        print(f"{cells} cells, CPython {platform.python_version()}; mean attainment, and of the worst cell")
        for policy in options.policies:
            shares = pool.map(attainment, trials(policy, settings, rates, quick=options.quick), chunksize=1)
            print(f"{policy!s:60} {sum(shares) / len(shares):.4f} {min(shares):.4f}", flush=True)


if __name__ == "__main__":
    main()
