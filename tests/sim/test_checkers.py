"""The budget checker against histories whose verdict is plain, and against planted bugs."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.sim.world.checkers import LimitHistory, RunningBudget, check_budget

# Two GPUs under 1,200 W; the first cuts before the second raises.
CUT_THEN_RAISE = [
    LimitHistory("gpu0", 600_000, ((10.0, 450_000),)),
    LimitHistory("gpu1", 600_000, ((10.5, 750_000),)),
]
BUDGET = [(0.0, 1_200_000)]


def test_a_cut_that_comes_before_its_raise_keeps_the_budget() -> None:
    verdict = check_budget(CUT_THEN_RAISE, BUDGET, start_s=0.0, end_s=20.0)
    assert verdict.kept
    assert (verdict.over_budget_s, verdict.moments, verdict.worst_over_mw) == (0.0, 0, 0)
    assert (verdict.worst_sum_mw, verdict.worst_at_s) == (1_200_000, 0.0)


def test_a_raise_before_its_cut_is_caught() -> None:
    raise_first = [LimitHistory("gpu0", 600_000, ((10.5, 450_000),)), LimitHistory("gpu1", 600_000, ((10.0, 750_000),))]
    verdict = check_budget(raise_first, BUDGET, start_s=0.0, end_s=20.0)
    assert not verdict.kept
    assert verdict.over_budget_s == pytest.approx(0.5)
    assert (verdict.moments, verdict.worst_over_mw, verdict.worst_sum_mw, verdict.worst_at_s) == (
        1,
        150_000,
        1_350_000,
        10.0,
    )


def test_a_nanosecond_and_a_milliwatt_are_caught() -> None:
    histories = [LimitHistory("gpu0", 600_000, ((10.0, 600_001), (10.000000001, 600_000)))]
    verdict = check_budget(histories, [(0.0, 600_000)], start_s=0.0, end_s=20.0)
    assert not verdict.kept
    assert 0 < verdict.over_budget_s < 1e-8


def test_a_cut_that_never_came_lasts_to_the_end() -> None:
    histories = [CUT_THEN_RAISE[1], LimitHistory("gpu0", 600_000, ())]
    verdict = check_budget(histories, BUDGET, start_s=0.0, end_s=20.0)
    assert verdict.over_budget_s == pytest.approx(9.5)


def test_before_the_host_is_ready_factory_limits_do_not_count() -> None:
    boots = [LimitHistory(f"gpu{index}", 750_000, ((4.0 + index, 600_000),)) for index in range(2)]
    assert check_budget(boots, BUDGET, start_s=5.0, end_s=20.0).kept
    early = check_budget(boots, BUDGET, start_s=4.5, end_s=20.0)
    assert (early.over_budget_s, early.worst_at_s) == (pytest.approx(0.5), 4.5)


def test_a_gpu_that_never_changed_counts_at_its_factory_limit() -> None:
    silent = [LimitHistory("gpu0", 750_000, ()), LimitHistory("gpu1", 600_000, ())]
    assert check_budget(silent, BUDGET, start_s=1.0, end_s=2.0).worst_over_mw == 150_000


def test_the_budget_may_change() -> None:
    budgets = [(0.0, 1_200_000), (12.0, 1_000_000), (15.0, 1_200_000)]
    late = check_budget(CUT_THEN_RAISE, budgets, start_s=0.0, end_s=20.0)
    assert late.over_budget_s == pytest.approx(3.0)
    assert late.worst_at_s == 12.0
    cut = [*CUT_THEN_RAISE[:1], LimitHistory("gpu1", 600_000, ((12.0, 550_000),))]
    assert check_budget(cut, budgets, start_s=0.0, end_s=20.0).kept  # the cut comes with the budget's


def test_moments_are_counted_one_by_one() -> None:
    flapping = tuple((float(at_s), 600_000 + 100_000 * (at_s % 2)) for at_s in range(1, 9))
    verdict = check_budget([LimitHistory("gpu0", 600_000, flapping)], [(0.0, 650_000)], start_s=0.0, end_s=20.0)
    assert (verdict.moments, verdict.over_budget_s) == (4, pytest.approx(4.0))


@given(st.integers(0, 2**32))
def test_it_agrees_with_looking_at_every_instant(seed: int) -> None:
    dice = Random(seed)
    histories = []
    for gpu in range(3):
        times = sorted(dice.sample(range(1, 100), dice.randrange(6)))
        histories.append(LimitHistory(f"gpu{gpu}", 600, tuple((float(at), dice.randint(400, 750)) for at in times)))
    budgets = [(0.0, 1900)] + [(float(at), dice.randint(1500, 2000)) for at in sorted(dice.sample(range(1, 100), 2))]
    start_s = dice.randrange(50)
    over_s, worst = 0, -(10**9)
    for second in range(start_s, 100):
        total = 0
        for history in histories:
            total += [600, *(limit for at_s, limit in history.changes if at_s <= second)][-1]
        over = total - [budget for at_s, budget in budgets if at_s <= second][-1]
        over_s += over > 0
        worst = max(worst, over)

    verdict = check_budget(histories, budgets, start_s=float(start_s), end_s=100.0)
    assert (verdict.over_budget_s, verdict.worst_over_mw) == (over_s, worst)


# ---- the checker that goes along ----


def test_as_it_goes_it_says_what_it_says_of_histories() -> None:
    running = RunningBudget({"gpu0": 600_000, "gpu1": 600_000}, 1_200_000)
    running.begin(0.0)
    running.limited("gpu1", 750_000, 10.0)
    running.limited("gpu0", 450_000, 10.5)
    raise_first = [LimitHistory("gpu0", 600_000, ((10.5, 450_000),)), LimitHistory("gpu1", 600_000, ((10.0, 750_000),))]
    assert running.verdict(20.0) == check_budget(raise_first, BUDGET, start_s=0.0, end_s=20.0)
    assert running.verdict(20.0).over_budget_s == pytest.approx(0.5)


def test_it_begins_once_and_counts_nothing_before() -> None:
    running = RunningBudget({"gpu0": 700_000}, 600_000)
    running.limited("gpu0", 900_000, 1.0)
    running.limited("gpu0", 650_000, 2.0)
    running.begin(3.0)
    running.begin(1e9)
    running.limited("gpu0", 600_000, 4.5)
    verdict = running.verdict(10.0)
    assert (verdict.over_budget_s, verdict.moments, verdict.worst_sum_mw) == (pytest.approx(1.5), 1, 650_000)


def test_a_verdict_on_the_way_does_not_disturb() -> None:
    running = RunningBudget({"gpu0": 700_000}, 600_000)
    running.begin(0.0)
    assert running.verdict(1.0).over_budget_s == pytest.approx(1.0)
    assert running.verdict(3.0).over_budget_s == pytest.approx(3.0)
    assert running.verdict(3.0).moments == 1
    running.budgeted(700_000, 3.0)
    assert running.verdict(9.0).over_budget_s == pytest.approx(3.0)
