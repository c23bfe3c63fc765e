"""What came of the grid, as results.json has it, from which text and figures are made.

An entry is one policy in one cell: its attainments seed by seed, and means over the seeds of everything else. In the
file it is an array, since there are thousands; `columns` there says what stands where.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.evaluation.grid import Cell, Grid, Setting
from bench.evaluation.rule import Load
from bench.evaluation.tasks import Run
from rapid.core.errors import RapidError
from rapid.sim.world.outcome import PerRole

DIGITS = 4  # significant ones of every number in the file


class OverBudget(RapidError):
    """The limits in force summed to more than the budget: a bug, and no evaluation."""


class Roles(NamedTuple):
    """A mean per role; None: no instance had it."""

    prefill: float | None
    decode: float | None
    mixed: float | None


class Entry(NamedTuple):
    """One policy in one cell. Sums over the seeds end in _sum; all else but attainment is a mean over them."""

    trace: str
    profile: str
    corner: str
    share: float
    policy: str
    speed: float  # 1, but in the sweep
    attainment: tuple[float, ...]  # by seed
    ttft_attainment: float
    tpot_attainment: float
    requests_sum: int
    unfinished_sum: int
    over_budget_s: float  # the greatest of all runs
    errors_sum: int
    role_moves: float
    watts_moved: float
    joules_per_output_token: float | None
    instances: Roles
    limit_w: Roles
    draw_w: Roles

    @property
    def cell(self) -> Cell:
        return Cell(Setting(self.trace, self.profile, self.corner), self.share)

    @property
    def mean(self) -> float:
        return sum(self.attainment) / len(self.attainment)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The load of a setting. apart: no request is in the windows of two seeds."""

    setting: Setting
    load: Load
    apart: bool


@dataclass(frozen=True, slots=True)
class Results:
    """Everything. work_s: processor time of the runs; sources: the digest of what made them."""

    grid: Grid
    sources: str
    work_s: float
    loads: tuple[Chosen, ...]
    entries: tuple[Entry, ...]
    sweep: tuple[Entry, ...]

    @property
    def everything(self) -> tuple[Entry, ...]:
        return self.entries + self.sweep


def entry(cell: Cell, policy: str, speed: float, runs: Sequence[Run]) -> Entry:
    """Of the runs with all seeds, in order."""
    setting = cell.setting
    return Entry(
        trace=setting.trace,
        profile=setting.profile,
        corner=setting.corner,
        share=cell.share,
        policy=policy,
        speed=speed,
        attainment=tuple(run.attainment for run in runs),
        ttft_attainment=_mean([run.ttft_attainment for run in runs]),
        tpot_attainment=_mean([run.tpot_attainment for run in runs]),
        requests_sum=sum(run.requests for run in runs),
        unfinished_sum=sum(run.unfinished for run in runs),
        over_budget_s=max(run.over_budget_s for run in runs),
        errors_sum=sum(run.errors for run in runs),
        role_moves=_mean([run.role_moves for run in runs]),
        watts_moved=_mean([run.watts_moved for run in runs]),
        joules_per_output_token=_some([run.joules_per_output_token for run in runs]),
        instances=_roles([run.instances for run in runs]),
        limit_w=_roles([run.limit_w for run in runs]),
        draw_w=_roles([run.draw_w for run in runs]),
    )


def check_budget(results: Results) -> None:
    """Raise OverBudget, naming the worst run, unless the budget held at every instant of every run."""
    over = [each for each in results.everything if each.over_budget_s > 0]
    if over:
        worst = max(over, key=lambda each: each.over_budget_s)
        raise OverBudget(
            f"policy {worst.policy}, {worst.cell}: over the budget for {worst.over_budget_s:g} s, allowed is 0 s; "
            f"{len(over)} of {len(results.everything)} entries are over: nothing is written"
        )


def save(results: Results, path: Path) -> None:
    """As JSON, an entry to a line, so that a change of one shows as a change of one. Rewritten in one go."""
    parts = {"columns": Entry._fields, **msgspec.to_builtins(results)}
    lines = {key: parts.pop(key) for key in ("loads", "entries", "sweep")}
    head = ",\n".join(f"{_json(key)}:{_json(value)}" for key, value in parts.items())
    body = ",\n".join(f"{_json(key)}:[\n" + ",\n".join(map(_json, rows)) + "\n]" for key, rows in lines.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text("{" + head + ",\n" + body + "}\n")
    unfinished.replace(path)


def load(path: Path) -> Results:
    """What save() has written."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def _json(value: object) -> str:
    return msgspec.json.encode(_rounded(value)).decode()


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _some(values: Sequence[float | None]) -> float | None:
    """The mean of those that there are."""
    measured = [value for value in values if value is not None]
    return _mean(measured) if measured else None


def _roles(values: Sequence[PerRole]) -> Roles:
    return Roles(
        _some([each.prefill for each in values]),
        _some([each.decode for each in values]),
        _some([each.mixed for each in values]),
    )
