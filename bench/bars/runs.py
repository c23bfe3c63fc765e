"""One run of a policy, many of them side by side, and the rates at which a policy attains so much."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from random import Random

from bench.bars.wrong import RIGHT, Wrong
from bench.evaluation.grid import Cell, scenario
from bench.evaluation.windows import Window
from rapid.sim.model.requests import Request
from rapid.sim.oracle import looks
from rapid.sim.study import RateSearch, sustained
from rapid.sim.traces.burst import FLIP_S, MIXES
from rapid.sim.world.scenario import ORACLE
from rapid.sim.world.site import Site
from rapidctl.sim.options import PolicyChoice

FLIPS, STEADY = "flips", "steady"  # made here, by seed, so that flips keep their 20 s at every rate
STEADY_MIX = (1000, 500)  # input and output tokens: both phases have much to do
FLIPS_S = 80.0  # of arrivals: each mix twice
DRAIN_S = 240.0
NEAR = 0.05  # a rate is where a policy attains a level if it comes that near

UNIFORM, POWER, RAPID = (PolicyChoice(name) for name in ("uniform", "power", "rapid"))
_KEPT = (UNIFORM, POWER, RAPID)  # nobody tunes these: what they attain is remembered


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy in a cell, at a rate, in a world that may not be as it believes."""

    policy: PolicyChoice
    cell: Cell
    rate_rps: float
    seed: int
    seeds: int
    seconds: float
    wrong: Wrong = RIGHT

    def requests(self) -> list[Request]:
        setting = self.cell.setting
        if setting.trace == FLIPS:
            return _poisson(self, MIXES, FLIPS_S)
        if setting.trace == STEADY:
            return _poisson(self, (STEADY_MIX,), self.seconds)
        capacity = setting.engine.kv_capacity_tokens
        return Window(setting.trace, capacity, self.rate_rps, self.seconds, self.seed, self.seeds).requests()


def attainment(trial: Trial) -> float:
    """Of one run. Fails if it was ever over its budget."""
    policy = trial.policy
    world = scenario(trial.cell, policy.name, trial.seed)
    engine, parts = trial.wrong.engine(world.profile), trial.wrong.parts(world.profile)
    world = replace(world, profile=engine, policy_settings={**world.policy_settings, **dict(policy.settings)})
    foresight = looks(world.slo)[0] if policy.name == ORACLE else None
    outcome = Site(world, trial.requests(), policy=foresight, parts=parts).run(DRAIN_S)
    assert outcome.over_budget_s == 0, trial
    return outcome.attainment


@dataclass(frozen=True, slots=True)
class Found:
    """What a policy attains, by rate."""

    points: Mapping[float, float]

    def near(self, level: float) -> float | None:
        """The rate tried at which it attained most nearly that. None: no rate comes near."""
        rate_rps = min(self.points, key=lambda tried: abs(self.points[tried] - level))
        return rate_rps if abs(self.points[rate_rps] - level) <= NEAR else None

    def sustained(self, level: float) -> float | None:
        """The greatest rate at which it attains that, read off between those tried."""
        return sustained(self.points, level).rate_rps


class Runner:
    """Runs trials on the pool, but for those of plain policies that it remembers from earlier calls."""

    def __init__(self, pool: Pool, memory: Path, *, seeds: int, seconds: float, fresh: bool) -> None:
        self.seeds, self.seconds = seeds, seconds
        self._pool, self._path = pool, memory
        self._kept = {} if fresh else _read(memory)
        self._ended_s = time.monotonic()

    def means(self, asked: Sequence[Trial]) -> list[float]:
        """What each attains as a mean over the seeds; the seed of a trial does not matter."""
        trials = [replace(each, seed=seed) for each in asked for seed in range(self.seeds)]
        found = self._all(trials)
        return [sum(found[at : at + self.seeds]) / self.seeds for at in range(0, len(found), self.seeds)]

    def trial(self, policy: PolicyChoice, cell: Cell, rate_rps: float, wrong: Wrong = RIGHT) -> Trial:
        return Trial(policy, cell, rate_rps, 0, self.seeds, self.seconds, wrong)

    def search(
        self, policy: PolicyChoice, first_rps: Mapping[Cell, float], levels: Sequence[float]
    ) -> Mapping[Cell, "Found"]:
        """Rates around those where the policy attains each level, in every cell. first_rps: where a search begins."""
        searches = {cell: RateSearch(rate_rps, levels) for cell, rate_rps in first_rps.items()}
        while asked := [self.trial(policy, cell, rate) for cell in searches for rate in searches[cell].next_rates()]:
            for trial, mean in zip(asked, self.means(asked), strict=True):
                searches[trial.cell].tell(trial.rate_rps, mean)
        return {cell: Found(search.points) for cell, search in searches.items()}

    def _all(self, trials: Sequence[Trial]) -> list[float]:
        todo = [trial for trial in trials if _key(trial) not in self._kept]
        fresh = {}
        for count, (trial, share) in enumerate(zip(todo, self._pool.imap(attainment, todo), strict=True), 1):
            fresh[_key(trial)] = share
            if time.monotonic() - self._ended_s > 5.0:
                self._ended_s = time.monotonic()
                print(f"  {trial.policy} on {trial.cell.setting.trace}: {count} of {len(todo)} runs", file=sys.stderr)
        found = [fresh[key] if (key := _key(trial)) in fresh else self._kept[key] for trial in trials]
        plain = {_key(trial): fresh[_key(trial)] for trial in todo if trial.policy in _KEPT}
        if plain:
            self._kept = {**_read(self._path), **self._kept, **plain}
            unfinished = self._path.with_suffix(".part")
            unfinished.write_text(json.dumps(self._kept))
            unfinished.replace(self._path)
        return found


def _key(trial: Trial) -> str:
    return repr(trial)


def _read(path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _poisson(trial: Trial, mixes: Sequence[tuple[int, int]], seconds: float) -> list[Request]:
    """The mixes in turns of FLIP_S."""
    dice = Random(f"{trial.cell.setting.trace} {trial.seed}")
    found: list[Request] = []
    at_s = dice.expovariate(trial.rate_rps)
    while at_s < seconds:
        found.append(Request(len(found), at_s, *mixes[int(at_s // FLIP_S) % len(mixes)]))
        at_s += dice.expovariate(trial.rate_rps)
    return found
