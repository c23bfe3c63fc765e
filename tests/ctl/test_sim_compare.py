"""`rapidctl sim compare`: who is best and why, by numbers worked by hand; workers; and one short comparison."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from rapid.core.errors import NotFound, TraceInvalid
from rapid.sim.world.outcome import Missed, Outcome, PerRole
from rapidctl.commands._verb import Verb
from rapidctl.commands.sim import STOPPED
from rapidctl.commands.sim import command as group
from rapidctl.sim.compare import document
from rapidctl.sim.crew import Crew
from rapidctl.sim.load import measure
from rapidctl.sim.options import SiteChoice, TraceChoice, policy_choice
from rapidctl.sim.question import Question, scenario
from rapidctl.sim.reasons import reasons
from rapidctl.sim.report import compare_blocks, compare_table
from rapidctl.sim.standing import standings
from rapidctl.sim.workers import RunFailed, Tell, Workers
from tests.ctl.sim_outcomes import WHY, runs, sim, text_of
from tests.ctl.terminal import Terminal
from tests.wait import wait_for

RAPID_WHY = replace(
    WHY,
    limit_w=PerRole(655.0, 545.0, None),
    instances=PerRole(4.6, 3.3, None),
    busy=PerRole(0.9, 0.7, None),
    missed=Missed(0.0, 0.08, 0.0, 0.0),
)
UNIFORM = runs("uniform", 0.66, 0.68, 0.70)
RAPID = runs("rapid", 0.90, 0.92, 0.94, role_moves=2, watts_moved=1500.0, why=RAPID_WHY)
ORACLE = runs("oracle", 0.93, 0.95, 0.97)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """40 s of a request each 50 ms, every other one with a long prompt."""
    rows = [f"{at / 20},{4000 if at % 2 else 400},{20 + at % 7}" for at in range(800)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    return file


# ---- standing ----


def test_means_intervals_and_regrets_are_what_a_hand_makes_of_them() -> None:
    uniform, rapid, oracle = standings([UNIFORM, RAPID, ORACLE])
    # Three values .02 apart have a standard deviation of .02; 4.303 x .02 / sqrt 3 = .0497.
    assert uniform.attainment.mean == pytest.approx(0.68)
    assert uniform.attainment.half == pytest.approx(0.0497, abs=1e-4)
    assert uniform.regret is not None
    assert uniform.regret.mean == pytest.approx(0.27)
    assert uniform.regret.half == pytest.approx(0.0, abs=1e-9)  # each seed lacks the same
    assert rapid.regret is not None
    assert rapid.regret.mean == pytest.approx(0.03)
    assert oracle.foresees
    assert all(each.regret is None for each in standings([UNIFORM, RAPID]))


def test_json_has_the_runs_and_a_summary_per_policy() -> None:
    found = document(standings([UNIFORM, RAPID, ORACLE]))
    assert list(found) == ["runs", "summary"]
    assert [(run["policy"], run["seed"]) for run in found["runs"]] == [
        (policy, seed) for policy in ("uniform", "rapid", "oracle") for seed in range(3)
    ]
    summary = found["summary"][1]
    assert (summary["policy"], summary["attainment_mean"]) == ("rapid", pytest.approx(0.92))
    assert summary["attainment_ci95"] == pytest.approx(0.0497, abs=1e-4)
    assert (summary["role_moves_mean"], summary["watts_moved_mean"], summary["over_budget_s"]) == (2, 1500.0, 0)
    assert summary["regret_mean"] == pytest.approx(0.03)
    alone = document(standings([runs("rapid", 0.9)]))["summary"][0]
    assert (alone["attainment_ci95"], alone["regret_mean"], alone["regret_ci95"]) == (None, None, None)
    json.dumps(found, allow_nan=False)


# ---- why ----


def test_the_best_is_named_with_its_lead_and_both_with_what_they_did() -> None:
    verdict, uniform, rapid = reasons(standings([UNIFORM, RAPID]))
    assert verdict == (
        "rapid serves this trace best: 92.0 % of the requests meet both targets, 24.0 points (± 0.0) ahead of uniform."
    )
    assert uniform == (
        "uniform: 30.0 % miss TTFT and 2.0 % miss TPOT; 4 prefill instances busy 99 % at 600 W, "
        "4 decode instances busy 60 % at 600 W."
    )
    assert rapid == (
        "rapid: 8.0 % miss TPOT; 4.6 prefill instances busy 90 % at 655 W, "
        "3.3 decode instances busy 70 % at 545 W; 2 role moves and 1,500 W moved in a run."
    )


def test_what_was_moved_is_said_and_nothing_else() -> None:
    tails = [
        reasons(standings([UNIFORM, runs("rapid", 0.9, 0.9, 0.9, role_moves=moves, watts_moved=moved_w)]))[-1]
        for moves, moved_w in ((0, 0.0), (1, 0.0), (0, 90.0), (3, 90.0))
    ]
    ends = ("; it moves nothing.", "; 1 role move in a run.", "; 90 W moved in a run.")
    for tail, end in zip(tails, (*ends, "; 3 role moves and 90 W moved in a run."), strict=True):
        assert tail.endswith(f"600 W{end}")


def test_oracle_is_never_the_best_but_says_what_is_left() -> None:
    said = reasons(standings([ORACLE, UNIFORM, RAPID]))
    assert said[0].startswith("rapid serves this trace best")
    assert (
        said[-1] == "oracle, which sees the future, attains 95.0 %: 3.0 points are left for a better policy than rapid."
    )
    assert "nothing to win" in reasons(standings([UNIFORM, RAPID, runs("oracle", 0.90, 0.92, 0.94)]))[-1]


def test_policies_that_chance_cannot_tell_apart_share_the_first_place() -> None:
    power = runs("power", 0.93, 0.90, 0.92)  # a mean of .917, sometimes better and sometimes worse
    said = reasons(standings([UNIFORM, power, RAPID]))
    assert said[0] == (
        "rapid and power serve this trace best: 92.0 and 91.7 % of the requests meet both targets; "
        "the seeds differ by more."
    )


def test_one_seed_is_taken_at_its_word_unless_it_is_a_hairs_breadth() -> None:
    clear = reasons(standings([runs("uniform", 0.7), runs("rapid", 0.8)]))
    assert clear[0].endswith("10.0 points ahead of uniform.")
    close = reasons(standings([runs("uniform", 0.700), runs("rapid", 0.701)]))
    assert close[0].startswith("rapid and uniform serve this trace best")
    assert close[0].endswith("one seed cannot say more.")


def test_a_load_that_tells_nothing_is_called_so() -> None:
    (light,) = reasons(standings([runs("uniform", 1.0, 1.0), runs("rapid", 0.999, 1.0)]))
    assert light == (
        "Every policy serves this load: 100.0 % of the requests meet both targets. "
        "'rapidctl sim sweep' finds where they part."
    )
    heavy = reasons(standings([runs("uniform", 0.01, 0.01), runs("rapid", 0.02, 0.02)]))
    assert heavy[0].startswith("No policy serves this load: even under rapid only 2.0 %")


# ---- the table ----


def test_the_table_with_regret_fits_80_columns() -> None:
    colocated = runs("colocated", 1.0, 1.0, 0.4)
    rows = text_of([compare_table(standings([UNIFORM, RAPID, colocated, ORACLE]))]).splitlines()
    assert max(map(len, rows)) <= 80
    titles = ("policy", "attained %", "TTFT %", "TPOT %", "TTFT p99", "TPOT p99", "J/tok", "moves", "regret")
    assert re.split("  +", rows[0]) == list(titles)
    uniform = ("uniform", "68.0 ± 5.0", "70.0", "98.0", "3.25 s", "44.5 ms", "1.50", "0.0", "27.0")
    assert re.split("  +", rows[1]) == list(uniform)
    assert rows[3].split()[:4] == ["colocated", "80.0", "±", "86.1"]
    assert rows[4].split()[-1] == "0.0"  # the oracle has no regret: the last cell is its moves


def test_time_over_budget_gets_a_column_of_its_own_and_is_judged() -> None:
    broken = runs("rapid", 0.9, 0.9, 0.9, over_budget_s=0.5)
    rows = text_of([compare_table(standings([UNIFORM, broken]))]).splitlines()
    assert rows[0].endswith("over budget")
    assert [row.split()[-2] for row in rows[1:]] == ["0.000", "1.500"]


def test_the_report_says_what_was_asked(path: Path) -> None:
    load = measure(TraceChoice(str(path), rate_rps=10.0), 100_000, 20.0)
    scenarios = {name: scenario(SiteChoice(), policy_choice(name), 0) for name in ("uniform", "static")}
    found = standings([UNIFORM, runs("static", 0.8, 0.8, 0.8)])
    text = text_of(compare_blocks(found, load, scenarios, cut=True), None)
    assert "0.497 times as fast: 200 requests in 20 s, 10.00/s, 2,200 tokens in and 23 out" in text
    assert "8 GPUs of mi300x-8b (shallow, gentle), 4,800 W (80 % of the ceilings), 4 prefill and 4 decode" in text
    assert "only its first 20 s were taken; --seconds for more" in text
    assert "static: 750 W for prefill, 450 W for decode" in text
    assert "seeds: 0 to 2" in text
    assert "judge: at no instant of any of 6 runs did the limits sum to more than 4,800 W" in text
    assert "only its first" not in text_of(compare_blocks(found, load, scenarios, cut=False))


# ---- workers ----


def work(task: int, tell: Tell) -> int:
    """What each number makes of a worker."""
    if task == 7:
        raise ValueError("planted")
    if task == 8:
        raise NotFound("trace", "x", ("y",))
    if task == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 10:
        os._exit(3)
    tell(0.5)
    return task * task


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_tasks(count: int) -> None:
    done: list[int] = []
    with Workers(work, count) as pool:
        tasks = [3, 1, 2, 5]
        heard = pool.map(tasks, str, lambda index, share: done.append(index) if share == 1 else None)
        assert heard == [9, 1, 4, 25]
        assert len(children()) == min(count, 4)
        assert pool.map([6], str) == [36]  # the same workers serve again
    assert sorted(done) == [0, 1, 2, 3]
    assert children() == set()


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [
        (7, RunFailed, r"run 7 failed; this is a mistake in the simulator:\n(.*\n)+.*ValueError: planted"),
        (8, NotFound, r"run 8: no trace named 'x' \(known: y\)"),
        (9, RunFailed, r"run 9: its process died \(killed by SIGKILL; out of memory\?\)"),
        (10, RunFailed, r"run 10: its process died \(exit code 3\)"),
    ],
)
def test_a_run_that_fails_is_named_and_ends_the_others(task: int, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as raised, Workers(work, 2) as pool:
        pool.map([1, 2, task, 3], lambda number: f"run {number}")
    assert re.fullmatch(said, str(raised.value))
    assert type(raised.value) is kind
    assert children() == set()


def questions(path: Path) -> list[Question]:
    load = measure(TraceChoice(str(path)), 100_000, 15.0)
    return [
        Question(name, scenario(SiteChoice(), policy_choice(name), seed), load)
        for name in ("rapid", "colocated")
        for seed in range(2)
    ]


def without_clock(outcomes: list[Outcome]) -> list[Outcome]:
    return [replace(each, wall_s=0.0) for each in outcomes]


def test_the_answer_does_not_depend_on_the_number_of_workers(path: Path) -> None:
    asked = questions(path)
    with Crew("one", 1) as one, Crew("three", 3) as three:
        found = without_clock(one.answers(asked))
        assert found == without_clock(three.answers(asked))
    assert [(each.policy, each.seed) for each in found] == [
        ("rapid", 0),
        ("rapid", 1),
        ("colocated", 0),
        ("colocated", 1),
    ]
    assert found[0] != found[1], "two seeds are two sites"


def test_a_trace_that_changes_under_a_worker_is_an_error_that_names_the_run(path: Path) -> None:
    asked = questions(path)
    path.write_text(path.read_text().replace("\n2.0,", "\nx,"))
    with (
        pytest.raises(TraceInvalid, match=r"policy rapid, seed 0, 20.1 requests/s: trace .*, line \d+: "),
        Crew("", 1) as crew,
    ):
        crew.answers(asked)


# ---- a comparison ----


def keys(value: Any) -> Iterator[str]:
    for child in value if isinstance(value, list) else ():
        yield from keys(child)
    for key, child in value.items() if isinstance(value, dict) else ():
        yield key
        yield from keys(child)


def test_a_comparison_in_json(path: Path) -> None:
    words = ("compare", "--trace", path, "--seconds", 10, "--policy", "uniform", "--policy", "rapid:slack=0.9")
    result = sim(*words, "--seeds", 2, "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = result.stdout.splitlines()
    found = json.loads(row)
    assert [(each["policy"], each["seed"]) for each in found["runs"]] == [
        ("uniform", 0),
        ("uniform", 1),
        ("rapid:slack=0.9", 0),
        ("rapid:slack=0.9", 1),
    ]
    assert [each["policy"] for each in found["summary"]] == ["uniform", "rapid:slack=0.9"]
    for each in found["summary"]:
        mine = [run["attainment"] for run in found["runs"] if run["policy"] == each["policy"]]
        assert each["attainment_mean"] == pytest.approx(sum(mine) / 2)
    documented = set()
    for verb in ("run", "compare"):
        command = group.get_command(click.Context(group), verb)
        assert isinstance(command, Verb)
        documented |= set(re.findall(r"\w+", command.shape))
    assert set(keys(found)) <= documented


def test_the_seven_policies_are_compared_and_drawn(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra plot")
    picture = tmp_path / "best.png"
    result = sim("compare", "--trace", path, "--rate", 30, "--limit", 300, "--seeds", 1, "--plot", picture)
    assert result.exit_code == 0, result.stderr
    for name in ("uniform", "static", "power", "roles", "rapid", "predictive", "colocated"):
        assert re.search(rf"^{name} +\d+\.\d ", result.stdout, re.MULTILINE)
    assert "judge: at no instant of any of 7 runs" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_same_policy_twice_is_refused() -> None:
    result = sim("compare", "--trace", "azure", "--policy", "rapid", "--policy", "rapid")
    assert result.exit_code == 2
    assert "--policy rapid is given twice" in result.stderr


def alive(process: psutil.Process) -> bool:
    """Not even a zombie counts, which nobody may be there to bury."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_ctrl_c_and_death_leave_no_process_behind(path: Path, end: str) -> None:
    words = ("sim", "compare", "--trace", "servegen-mlarge", "--seconds", "20000", "--seeds", "4")
    with Terminal(*words, address="127.0.0.1:1") as terminal:
        terminal.wait_text("0 of 28 runs done")
        family = psutil.Process(terminal.process.pid).children(recursive=True)
        assert len(family) >= 2
        if end == "interrupt":
            os.killpg(terminal.process.pid, signal.SIGINT)  # as a terminal does: to all of them
            assert terminal.end() == STOPPED
            assert "stopped; nothing is left running" in terminal.text
        else:
            terminal.process.kill()
            terminal.process.wait()
        wait_for(lambda: not any(alive(each) for each in family), 20.0, "the end of every worker")
        assert "Traceback" not in terminal.text
