"""The evaluation runs what its grid says, at loads by its rule, and never takes an old result for a new one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.evaluation.__main__ import made
from bench.evaluation.evaluate import evaluate
from bench.evaluation.grid import FULL, QUICK, Cell, Grid, Setting, budget_mw, scenario
from bench.evaluation.results import Results, load
from bench.evaluation.rule import AIM, NEAR, Load, choose
from bench.evaluation.store import MAKERS, ROOT, Store, digest_of
from bench.evaluation.tasks import LoadTask, Run, RunTask, work
from bench.evaluation.windows import CHANGES, NEAREST, Window, apart, arrivals_of
from rapid.core.errors import UsageError
from rapid.sim.world.scenario import ORACLE
from tests.sim.evaluation import TINY

SETTING = Setting("azure", "mi300x-8b", "shallow,gentle")
TASK = RunTask(Cell(SETTING, 0.8), "rapid", seed=0, seeds=2, seconds=1.0, rate_rps=4.0)
PRINT_KEYS = """
from tests.sim.evaluation import TINY
from bench.evaluation.tasks import LoadTask, RunTask
for setting in TINY.settings:
    print(LoadTask(setting, 2, 2.0).key)
for cell, policy in TINY.entries():
    print(RunTask(cell, policy, 1, 2, 2.0, 14.0).key)
"""


def tree(root: Path) -> Path:
    """Sources that can be changed."""
    for name in ("rapid/core/a.py", "rapid/sim/b.py", "rapid/sim/data/c.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "bench/evaluation").mkdir(parents=True)
    for name in MAKERS:
        (root / "bench/evaluation" / f"{name}.py").write_text(name)
    return root


def nothing(share: float) -> None:
    """Nobody listens."""


# ---- the grid ----


def test_every_cell_runs_every_policy_and_its_shown_cells_the_oracle() -> None:
    entries = list(FULL.entries())

    assert len(set(entries)) == len(entries)
    assert len(FULL.cells) == len(FULL.traces) * len(FULL.profiles) * len(FULL.corners) * len(FULL.shares) == 192
    assert {cell for cell, policy in entries if policy == ORACLE} == set(FULL.oracle_cells) <= set(FULL.cells)
    for policy in FULL.policies:
        assert [cell for cell, each in entries if each == policy] == list(FULL.cells)


@pytest.mark.parametrize("grid", [FULL, QUICK, TINY], ids=["full", "quick", "tiny"])
def test_every_scenario_of_the_grid_can_be_run(grid: Grid) -> None:
    for cell, policy in grid.entries():
        scenario(cell, policy, 0).check()


def test_a_budget_below_the_floors_is_raised_to_them() -> None:
    floors_mw = 8 * SETTING.engine.floor_mw

    assert budget_mw(Cell(SETTING, 0.80)) == 4_800_000 > floors_mw
    assert budget_mw(Cell(SETTING, 0.30)) == floors_mw


def test_static_gives_prefill_its_ceiling_and_decode_the_rest() -> None:
    assert scenario(Cell(SETTING, 0.80), "static", 0).policy_settings == {"prefill_mw": 750e3, "decode_mw": 450e3}


# ---- keys ----


def test_keys_are_the_same_in_every_process() -> None:
    printed = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_KEYS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        printed.append(done.stdout.split())

    assert printed[0] == printed[1]
    assert len(set(printed[0])) == len(printed[0]) == 1 + len(TINY.policies) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"cell": Cell(SETTING, 0.7)},
        {"cell": Cell(replace(SETTING, trace="sonnet"), 0.8)},
        {"cell": Cell(replace(SETTING, profile="h200-8b"), 0.8)},
        {"cell": Cell(replace(SETTING, corner="steep,sharp"), 0.8)},
        {"policy": "power"},
        {"seed": 1},
        {"seeds": 3},
        {"seconds": 2.0},
        {"rate_rps": 4.1},
        {"speed": 2.0},
    ],
    ids=str,
)
def test_whatever_changes_a_run_changes_its_key(change: dict[str, object]) -> None:
    assert replace(TASK, **change).key != TASK.key  # type: ignore[arg-type]


def test_a_changed_source_changes_the_digest(tmp_path: Path) -> None:
    root = tree(tmp_path)
    seen = {digest_of(root)}
    names = ("rapid/core/a.py", "rapid/sim/b.py", "rapid/sim/data/c.gz", "bench/evaluation/rule.py")
    for name in names:
        (root / name).write_text("changed")
        seen.add(digest_of(root))
    (root / "rapid/sim/new.py").write_text("")
    seen.add(digest_of(root))

    assert len(seen) == 2 + len(names)
    assert digest_of(root) in seen  # and it does not change by itself


def test_the_digest_covers_what_runs() -> None:
    """A module of the evaluation that a worker imports, and that is not in the digest, could change results unseen."""
    code = "import sys, bench.evaluation.tasks; print(*[name for name in sys.modules if name.startswith('bench.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )

    assert {name.rpartition(".")[2] for name in done.stdout.split()} == {"evaluation", *MAKERS}


# ---- the store ----


def test_the_store_remembers_and_forgets_with_the_sources(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "root"), tmp_path / "cache"
    task, found = LoadTask(SETTING, 2, 2.0), Load(3.5, 0.6, 4)
    store = Store(cache, root)
    assert store.get(task) is None

    store.put([(task, found)])

    assert store.get(task) == Store(cache, root).get(task) == found
    assert Store(cache, root).get(replace(task, seeds=3)) is None
    (root / "rapid/core/a.py").write_text("changed")
    assert Store(cache, root).get(task) is None


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "root"), tmp_path / "cache"
    tasks = [LoadTask(SETTING, seeds, 2.0) for seeds in (1, 2, 3)]
    store = Store(cache, root)
    store.put([(tasks[0], Load(1.0, 0.6, 4)), (tasks[1], Load(2.0, 0.6, 4))])
    file = next(cache.iterdir())
    file.write_bytes(file.read_bytes()[:-9])

    again = Store(cache, root)
    again.put([(tasks[2], Load(3.0, 0.6, 4))])

    reopened = Store(cache, root)
    assert [reopened.get(task) for task in tasks] == [Load(1.0, 0.6, 4), None, Load(3.0, 0.6, 4)]


def test_results_of_sources_that_changed_meanwhile_are_not_kept(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "root"), tmp_path / "cache"
    task, store = LoadTask(SETTING, 2, 2.0), Store(cache, root)
    (root / "rapid/sim/b.py").write_text("changed")

    with pytest.raises(UsageError, match="the sources changed while they ran"):
        store.put([(task, Load(1.0, 0.6, 4))])

    assert store.get(task) is None
    assert list(cache.iterdir()) == []


# ---- windows and loads ----


@pytest.mark.parametrize("trace", FULL.traces)
@pytest.mark.parametrize("seed", range(3))
def test_a_window_comes_at_the_rate_for_as_long_as_asked(trace: str, seed: int) -> None:
    window = Window(trace, 1_000_000, rate_rps=20.0, seconds=10.0, seed=seed, seeds=3)

    requests = window.requests()

    times_s = [request.arrival_s for request in requests]
    assert len(requests) == len(window.place) == 200
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0
    assert times_s[-1] == pytest.approx(10.0)
    faster = replace(window, speed=2.0).requests()
    assert [request.arrival_s for request in faster] == pytest.approx([at_s / 2 for at_s in times_s])
    assert [request.input_tokens for request in faster] == [request.input_tokens for request in requests]


def test_windows_are_spread_over_the_trace_and_it_is_known_when_they_overlap() -> None:
    def windows(rate_rps: float) -> list[Window]:
        return [Window("longbench", 1_000_000, rate_rps, 40.0, seed, 4) for seed in range(4)]

    places = [window.place for window in windows(20.0)]
    total = len(arrivals_of("longbench", 1_000_000))
    assert places[0].start == 0
    assert places[-1].stop == total
    assert apart(windows(20.0))
    assert not apart(windows(30.0))
    assert windows(1000.0)[3].place == range(total)  # too short for the rate: all of it


@pytest.mark.parametrize("seed", range(5))
def test_the_change_of_a_trace_lies_well_within_every_window(seed: int) -> None:
    place = Window("sonnet", 1_000_000, 10.0, 60.0, seed, 5).place
    change = round(CHANGES["sonnet"] * len(arrivals_of("sonnet", 1_000_000)))

    before = (change - place.start) / len(place)
    assert NEAREST - 0.01 <= before <= 1 - NEAREST + 0.01
    assert before == pytest.approx(0.7 - 0.1 * seed, abs=0.01)


def test_the_load_is_where_the_rule_says() -> None:
    setting = replace(SETTING, trace="burst")

    chosen = choose(setting, 2, 10.0)

    assert abs(chosen.attainment - AIM) <= NEAR
    assert chosen.by_rule
    runs = [work(RunTask(Cell(setting, 0.8), "uniform", seed, 2, 10.0, chosen.rate_rps), nothing) for seed in range(2)]
    attained = [run.attainment for run in runs if isinstance(run, Run)]
    assert sum(attained) / 2 == pytest.approx(chosen.attainment, abs=0.05), attained  # with a controller, too


@pytest.mark.parametrize(("attainment", "by_rule"), [(0.49, False), (0.5, True), (0.7, True), (0.71, False)])
def test_a_load_says_whether_it_fulfils_the_rule(attainment: float, by_rule: bool) -> None:
    assert Load(1.0, attainment, 3).by_rule is by_rule


# ---- a run ----


def test_the_meter_agrees_with_the_limits_and_the_energy() -> None:
    task = replace(TASK, policy="static", rate_rps=40.0, seconds=20.0)

    run = work(task, nothing)

    assert isinstance(run, Run)
    assert run.instances.prefill == run.instances.decode == 4
    assert run.limit_w.prefill == pytest.approx(750)
    assert run.draw_w.mixed is None
    assert run.draw_w.prefill is not None
    assert run.draw_w.decode is not None
    idle_w, floor_w = SETTING.engine.idle_mw / 1e3, SETTING.engine.floor_mw / 1e3
    assert idle_w < run.draw_w.prefill < 750
    assert floor_w < run.draw_w.decode <= 450 * 1.001
    assert run.joules_per_output_token is not None
    tokens = sum(request.output_tokens for request in task.window.requests())
    while_asked_j = 20.0 * 4 * (run.draw_w.prefill + run.draw_w.decode)
    assert while_asked_j < run.joules_per_output_token * tokens < 1.4 * while_asked_j  # the rest is the drain


# ---- all of it ----


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The tiny grid, from the sources to the document."""
    folder = tmp_path_factory.mktemp("evaluation")
    made(TINY, folder / "docs", 2, cache=folder / "cache")
    return folder, load(folder / "docs/evaluation/results.json")


def test_all_of_it_is_made(first: tuple[Path, Results]) -> None:
    folder, results = first

    assert [(each.cell, each.policy) for each in results.entries] == list(TINY.entries())
    assert {len(each.attainment) for each in results.entries} == {TINY.seeds}
    assert all(0 <= value <= 1 for each in results.everything for value in each.attainment)
    assert sum(len(each.attainment) for each in results.everything) == TINY.runs
    assert all(each.over_budget_s == 0 for each in results.everything)
    text = (folder / "docs/evaluation.md").read_text()
    pictures = sorted(path.name for path in (folder / "docs/evaluation").glob("*.png"))
    assert pictures == [
        "attainment.png",
        "harm.png",
        "over-time-sonnet.png",
        "rates.png",
        "regret.png",
        "watts.png",
    ]
    assert all(text.count(f"(evaluation/{name})") == 1 for name in pictures)


def test_a_second_call_runs_only_what_is_missing(first: tuple[Path, Results]) -> None:
    """With what Ctrl-C, or a crash, has left."""
    folder, results = first
    cache = folder / "cache"
    file = next(cache.iterdir())
    lines = file.read_bytes().splitlines(keepends=True)
    left = [line for number, line in enumerate(lines) if number not in (4, 7)]
    file.write_bytes(b"".join(left))

    again = evaluate(TINY, Store(cache), 1)

    assert len(file.read_bytes().splitlines()) == len(lines)
    assert file.read_bytes().startswith(b"".join(left))
    for one, other in zip(again.everything, results.everything, strict=True):
        assert one.attainment == pytest.approx(other.attainment, abs=1e-4)  # the file rounds
    size = file.stat().st_size
    assert evaluate(TINY, Store(cache), 1) == again
    assert file.stat().st_size == size
