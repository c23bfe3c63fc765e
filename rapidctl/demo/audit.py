"""The judge of the demo: it asks nobody who took part, only the devices, which write down every change of their limit.

A host is judged from the moment its first rapidd said READY. Before that its GPUs have the limit they left the factory
with, and by the order of start no engine runs yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rapid.sim.world.checkers import BudgetVerdict, LimitHistory, check_budget
from rapid.simgpu import SimGpu


@dataclass(frozen=True, slots=True)
class Finding:
    """What the devices of one host say: whether the budget held, and how much power was moved.

    raised_mw  sum of all raises while it was judged
    """

    verdict: BudgetVerdict
    histories: tuple[LimitHistory, ...]
    raised_mw: int


def judge(gpu_files: Sequence[Path], factory_mw: int, *, budget_mw: int, start_s: float, end_s: float) -> Finding:
    """Read every device's own record and hold the sum of limits against the budget. Raises DeviceError."""
    histories = tuple(_history(file, factory_mw) for file in gpu_files)
    verdict = check_budget(histories, [(start_s, budget_mw)], start_s=start_s, end_s=end_s)
    raised_mw = sum(_raised_mw(history, start_s, end_s) for history in histories)
    return Finding(verdict, histories, raised_mw)


def energy_mj(gpu_files: Sequence[Path], at_s: float) -> int:
    """What the devices' own counters say together."""
    total_mj = 0
    for file in gpu_files:
        with SimGpu.open(file) as gpu:
            total_mj += gpu.energy_mj(at_s)
    return total_mj


def _history(file: Path, factory_mw: int) -> LimitHistory:
    with SimGpu.open(file) as gpu:
        changes = tuple((record.at_s, record.limit_mw) for record in gpu.records())
        return LimitHistory(gpu.spec.gpu, factory_mw, changes)


def _raised_mw(history: LimitHistory, start_s: float, end_s: float) -> int:
    steps = pairwise([(start_s, history.factory_mw), *history.changes])
    return sum(max(0, after - before) for (_, before), (at_s, after) in steps if start_s <= at_s < end_s)
