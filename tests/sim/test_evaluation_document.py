"""What the evaluation says follows from its results, and it says nothing when a budget was broken."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.evaluation import tables
from bench.evaluation.__main__ import main
from bench.evaluation.document import TEMPLATE, write
from bench.evaluation.grid import FULL
from bench.evaluation.results import Entry, OverBudget, Results, check_budget, load, save
from bench.evaluation.tell import attained, curves, lead, margin, of, record, role_watts, rows, where
from rapid.core.cluster import Role
from rapid.sim.study import student_t
from rapid.sim.world.scenario import ORACLE
from tests.sim.evaluation import CELLS, planted


def broken(results: Results, over_budget_s: float = 0.002) -> Results:
    """One run of one policy was over its budget."""
    worst = results.entries[4]._replace(over_budget_s=over_budget_s)
    return replace(results, entries=(*results.entries[:4], worst, *results.entries[5:]))


# ---- what is told ----


def test_a_mean_is_taken_seed_by_seed() -> None:
    found = attained(of(rows(planted()), "rapid"))

    seeds = [(0.32 + 0.40 + 0.80 + 0.89) / 4, (0.42 + 0.44 + 0.90 + 0.90) / 4]
    assert found.mean == pytest.approx(sum(seeds) / 2)
    assert found.half == pytest.approx(student_t(1) * (seeds[1] - seeds[0]) / 2)


def test_a_lead_is_paired_by_seed() -> None:
    table = rows(planted())

    found = lead(table, "rapid", "uniform", where(trace="azure", share=0.57))

    assert found.mean == pytest.approx(0.02)
    assert found.half == pytest.approx(0.0, abs=1e-9)  # the seeds differ much, their differences do not
    assert found.excludes_zero


def test_worst_best_and_harm_are_counted_by_cells() -> None:
    mine = record(rows(planted()), "rapid")

    assert mine.worst.cell == CELLS["azure", 0.57]
    assert mine.best_split == 0.5  # azure at 57 %, sonnet at 57 %; at 80 % static is ahead by 0.005 on sonnet
    assert mine.best == 0.25  # colocated is ahead on azure at 57 %
    assert mine.harm == 0.25  # azure at 80 %; on sonnet it loses too little to count
    assert mine.greatest_harm.cell == CELLS["azure", 0.8]
    assert mine.greatest_harm_by == pytest.approx(0.71 - 0.42)


def test_a_margin_is_to_the_better_of_the_plain() -> None:
    table = rows(planted())

    assert margin(table[CELLS["azure", 0.57]], "rapid") == pytest.approx(0.37 - 0.35)
    assert margin(table[CELLS["azure", 0.8]], "rapid") == pytest.approx(0.42 - 0.71)


def test_watts_of_a_role_are_those_of_all_its_gpus() -> None:
    table = rows(planted())

    assert role_watts(of(table, "rapid"), Role.PREFILL) == pytest.approx((4 * 700, 4 * 400))
    assert role_watts(of(table, "rapid"), Role.MIXED) == (0, 0)
    assert role_watts(of(table, "colocated"), Role.MIXED) == pytest.approx((8 * 600, 8 * 550))


def test_a_curve_has_the_rates_of_the_sweep() -> None:
    found = {curve.policy: curve for curve in curves(planted(), "sonnet")}

    assert found["rapid"].means == {6.0: 0.85}
    assert found["rapid"].sustained(0.8).low_rps == 6.0
    assert found["rapid"].sustained(0.9).rate_rps is None


# ---- what is written ----


def test_the_document_says_what_the_results_say(tmp_path: Path) -> None:
    write(planted(), tmp_path / "evaluation.md")

    text = (tmp_path / "evaluation.md").read_text()
    flat = " ".join(text.split())
    assert "{" not in text
    assert "4 cells (2 traces x 1 engines x 1 corners of the speed model x 2 budgets from 57 to 80 %" in flat
    assert "`rapid` lets 63.4 ± 39.7 % of the requests meet both targets" in flat
    assert "in 25 % of the cells; at worst by 29.0 points (azure on mi300x-8b (shallow,gentle) at 80 %)" in flat
    assert "0 s over budget in all 67 runs" in flat
    assert "Of `azure`, 0.8 % of the requests were cut off" in flat
    assert "| `sonnet` at 80 % | over 6.0 |" in text
    assert "| `sonnet` at 90 % | - |" in text
    assert "| `sonnet` | 12.0 (61 %) * |" in text
    assert "| `azure` | 12.0 (61 %) |" in text
    assert "Made by hand: `sonnet`." in flat
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "!"))) <= 140


@pytest.mark.parametrize("policy", [*FULL.policies, ORACLE])
def test_the_document_says_what_every_policy_does(policy: str) -> None:
    assert f"\n| `{policy}` | " in TEMPLATE.read_text()


def test_a_table_has_one_row_per_part_and_marks_the_greatest(tmp_path: Path) -> None:
    lines = tables.by_trace(planted(), rows(planted())).splitlines()

    assert len(lines) == 2 + 2
    assert lines[3].startswith("| `sonnet` |")
    assert lines[3].count("**") == 2
    assert "| **87.2 ± 34.9** |" in lines[3]  # rapid: .845 and .9


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    save(planted(), path)

    assert load(path) == planted()
    assert json.loads(path.read_text())["columns"] == list(Entry._fields)
    assert sum(1 for line in path.read_text().splitlines() if "rapid" in line) == 1 + 4 + 1  # an entry to a line


# ---- over budget ----


def test_a_run_over_budget_is_an_error_that_names_it() -> None:
    check_budget(planted())

    with pytest.raises(OverBudget) as raised:
        check_budget(broken(planted()))

    assert str(raised.value) == (
        "policy rapid, azure on mi300x-8b (shallow,gentle) at 57 %: over the budget for 0.002 s, allowed is 0 s; "
        "1 of 37 entries are over: nothing is written"
    )


def test_an_oversight_in_the_sweep_counts_too() -> None:
    results = planted()
    swept = results.sweep[0]._replace(over_budget_s=1.0)

    with pytest.raises(OverBudget, match="sonnet"):
        check_budget(replace(results, sweep=(swept, *results.sweep[1:])))


def test_no_document_is_written_over_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OverBudget):
        write(broken(planted()), tmp_path / "evaluation.md")
    save(broken(planted()), tmp_path / "evaluation" / "results.json")

    assert main(["--render", "--out", str(tmp_path)]) == 1

    assert "over the budget for 0.002 s" in capsys.readouterr().err
    assert not (tmp_path / "evaluation.md").exists()


def test_text_and_plots_can_be_made_anew_from_the_results(tmp_path: Path) -> None:
    save(planted(), tmp_path / "evaluation" / "results.json")

    assert main(["--render", "--out", str(tmp_path)]) == 0

    assert (tmp_path / "evaluation.md").read_text().startswith("# How good are the policies?")
    assert len(list((tmp_path / "evaluation").glob("*.png"))) == 5
