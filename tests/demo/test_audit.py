"""The judge of the demo: what it finds, and what it leaves out."""

from pathlib import Path

import pytest

from rapid.sim.model.power import Lag
from rapid.simgpu import SimGpu, SimGpuSpec
from rapidctl.demo.audit import energy_mj, judge

FACTORY_MW, BUDGET_MW = 750_000, 1_200_000
READY_S, END_S = 10.0, 20.0
Change = tuple[float, int]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two GPUs that were brought to 600 W just before the daemon was ready."""
    made = [tmp_path / "0.gpu", tmp_path / "1.gpu"]
    for index, file in enumerate(made):
        spec = SimGpuSpec(f"g{index}", index, "sim", 400_000, FACTORY_MW, 140_000, Lag(0.1, 0.3, 0.3))
        with SimGpu.create(file, spec, at_s=0.0) as gpu:
            gpu.set_limit(600_000, 9.0 + index / 10)
    return made


def change(file: Path, *changes: Change) -> None:
    with SimGpu.open(file) as gpu:
        for at_s, limit_mw in changes:
            gpu.set_limit(limit_mw, at_s)


def test_factory_limits_before_the_daemon_was_ready_are_no_breach(files: list[Path]) -> None:
    finding = judge(files, FACTORY_MW, budget_mw=BUDGET_MW, start_s=READY_S, end_s=END_S)
    assert finding.verdict.kept
    assert (finding.verdict.worst_sum_mw, finding.raised_mw) == (1_200_000, 0)
    assert not judge(files, FACTORY_MW, budget_mw=BUDGET_MW, start_s=8.0, end_s=END_S).verdict.kept


def test_one_short_write_is_found(files: list[Path]) -> None:
    change(files[1], (12.0, 700_000), (12.001, 600_000))
    verdict = judge(files, FACTORY_MW, budget_mw=BUDGET_MW, start_s=READY_S, end_s=END_S).verdict
    assert not verdict.kept
    assert verdict.over_budget_s == pytest.approx(0.001)
    assert (verdict.worst_sum_mw, verdict.worst_at_s) == (1_300_000, pytest.approx(12.0))


def test_raise_before_the_cut_that_pays_for_it_is_found(files: list[Path]) -> None:
    change(files[0], (12.0, 700_000))
    change(files[1], (12.25, 500_000))
    verdict = judge(files, FACTORY_MW, budget_mw=BUDGET_MW, start_s=READY_S, end_s=END_S).verdict
    assert verdict.over_budget_s == pytest.approx(0.25)


def test_only_raises_while_judged_count_as_moved(files: list[Path]) -> None:
    change(files[1], (11.0, 500_000), (14.0, 550_000), (25.0, 600_000))
    change(files[0], (12.0, 700_000), (13.0, 600_000))
    finding = judge(files, FACTORY_MW, budget_mw=BUDGET_MW, start_s=READY_S, end_s=END_S)
    assert finding.raised_mw == 100_000 + 50_000
    assert finding.verdict.kept


def test_energy_is_what_the_counters_say_together(files: list[Path]) -> None:
    assert energy_mj(files, 10.0) - energy_mj(files, 9.5) == 2 * 140_000 * 0.5
