"""One thing to compute, frozen, so that it can go to another process and be recognised among what has been done."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from bench.evaluation.grid import LOAD_SHARE, Cell, Setting, scenario
from bench.evaluation.meter import Meter
from bench.evaluation.rule import Load, choose
from bench.evaluation.windows import Window
from rapid.sim.model.requests import Request
from rapid.sim.oracle import looks
from rapid.sim.world.outcome import Outcome, PerRole
from rapid.sim.world.scenario import ORACLE, Scenario
from rapid.sim.world.site import PolicyMaker, Site

DRAIN_S = 240.0  # after the last arrival; a reasoning answer takes minutes


@dataclass(frozen=True, slots=True)
class LoadTask:
    """The load of a setting."""

    setting: Setting
    seeds: int
    seconds: float

    def __str__(self) -> str:
        return f"load of {self.setting.trace} on {self.setting.profile} ({self.setting.corner})"

    @property
    def key(self) -> str:
        return _key("load", repr(self), repr(scenario(Cell(self.setting, LOAD_SHARE), "uniform", 0)))


@dataclass(frozen=True, slots=True)
class RunTask:
    """One policy in one cell with one seed, at the rate that was chosen, or `speed` times as fast."""

    cell: Cell
    policy: str
    seed: int
    seeds: int
    seconds: float
    rate_rps: float
    speed: float = 1.0

    def __str__(self) -> str:
        return f"{self.policy} in {self.cell}, seed {self.seed}"

    @property
    def key(self) -> str:
        return _key("run", repr(self.scenario), repr(self.window))

    @property
    def scenario(self) -> Scenario:
        return scenario(self.cell, self.policy, self.seed)

    @property
    def window(self) -> Window:
        setting = self.cell.setting
        capacity = setting.engine.kv_capacity_tokens
        return Window(setting.trace, capacity, self.rate_rps, self.seconds, self.seed, self.seeds, self.speed)


Task = LoadTask | RunTask


@dataclass(frozen=True, slots=True)
class Run:
    """What is kept of a run. Watts are means of a GPU of a role while requests arrived."""

    attainment: float
    ttft_attainment: float
    tpot_attainment: float
    requests: int
    unfinished: int
    over_budget_s: float
    errors: int
    role_moves: int
    watts_moved: float
    joules_per_output_token: float | None
    instances: PerRole
    limit_w: PerRole
    draw_w: PerRole
    work_s: float  # of the processor


def work(task: Task, tell: Callable[[float], None]) -> Load | Run:
    """Do it. Nobody is told of a share: every task is short."""
    if isinstance(task, LoadTask):
        return choose(task.setting, task.seeds, task.seconds)
    began_s = time.process_time()
    world, requests = task.scenario, task.window.requests()
    if task.policy != ORACLE:
        outcome, draw_w = _run(world, requests, None)
    else:  # as far as the better of its looks
        looked = [_run(world, requests, policy) for policy in looks(world.slo)]
        outcome, draw_w = max(looked, key=lambda each: each[0].attainment)
    return _kept(outcome, draw_w, time.process_time() - began_s)


def _run(world: Scenario, requests: list[Request], policy: PolicyMaker | None) -> tuple[Outcome, PerRole]:
    meter = Meter(requests[-1].arrival_s)
    site = Site(world, requests, policy=policy, watch=meter)
    meter.look_at(site)
    return site.run(DRAIN_S), meter.draw_w


def _kept(outcome: Outcome, draw_w: PerRole, work_s: float) -> Run:
    return Run(
        attainment=outcome.attainment,
        ttft_attainment=outcome.ttft_attainment,
        tpot_attainment=outcome.tpot_attainment,
        requests=outcome.requests,
        unfinished=outcome.unfinished,
        over_budget_s=outcome.over_budget_s,
        errors=outcome.why.errors,
        role_moves=outcome.role_moves,
        watts_moved=outcome.watts_moved,
        joules_per_output_token=outcome.joules_per_output_token,
        instances=outcome.why.instances,
        limit_w=outcome.why.limit_w,
        draw_w=draw_w,
        work_s=round(work_s, 3),
    )


def _key(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()
