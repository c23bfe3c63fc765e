"""Intervals against printed tables and numbers worked by hand; the search against curves whose answer is known."""

from collections.abc import Callable
from math import exp
from random import Random
from typing import Any

import pytest

from rapid.sim.study import (
    LEVELS,
    MAX_POINTS,
    PRECISION,
    Interval,
    RateSearch,
    Sustained,
    falling,
    interval,
    paired,
    student_t,
    sustained,
)


def near(value: float, **tolerance: Any) -> Any:
    return pytest.approx(value, **tolerance)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (120, 1.980)],
)
def test_student_t_is_that_of_the_printed_tables(freedom: int, t: float) -> None:
    assert student_t(freedom) == near(t, abs=5e-4)


def test_student_t_at_another_confidence() -> None:
    assert student_t(4, 0.99) == near(4.604, abs=5e-4)


def test_an_interval_is_what_a_hand_makes_of_it() -> None:
    # mean 0.6; squares .04 + 0 + .04 = .08; variance .04; 4.303 sqrt(.04 / 3) = .4968
    assert interval([0.4, 0.6, 0.8]) == Interval(near(0.6), near(0.4968, abs=1e-4))
    assert interval([0.7, 0.7, 0.7]) == Interval(near(0.7), near(0.0, abs=1e-12))


def test_one_value_has_no_interval_and_proves_nothing() -> None:
    assert interval([0.5]) == Interval(0.5, None)
    assert not interval([0.5]).excludes_zero


def test_pairs_show_a_difference_that_the_seeds_would_hide() -> None:
    mine, other = [0.52, 0.72, 0.92], [0.50, 0.70, 0.89]
    difference = paired(mine, other)
    assert difference.mean == near(0.07 / 3)
    assert difference.excludes_zero
    assert abs(interval(mine).mean - interval(other).mean) < (interval(mine).half or 0.0)
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_a_curve_that_chance_bends_up_is_pooled() -> None:
    assert falling({1.0: 1.0, 3.0: 0.9, 2.0: 0.8, 4.0: 0.2}) == (
        (1.0, 1.0),
        (2.0, near(0.85)),
        (3.0, near(0.85)),
        (4.0, 0.2),
    )
    assert falling({1.0: 0.1, 2.0: 0.2, 3.0: 0.6}) == tuple((rate, near(0.3)) for rate in (1.0, 2.0, 3.0))


def test_the_sustained_rate_lies_on_the_line_between_two_rates() -> None:
    points = {10.0: 1.0, 12.0: 0.9, 14.0: 0.7, 20.0: 0.1}
    assert sustained(points, 0.8) == Sustained(0.8, near(13.0), 12.0, 14.0)
    assert sustained(points, 0.9) == Sustained(0.9, near(12.0), 12.0, 14.0)
    assert sustained(points, 0.99) == Sustained(0.99, near(10.2), 10.0, 12.0)


def test_what_no_rate_or_every_rate_attains_is_said_so() -> None:
    points = {10.0: 0.85, 12.0: 0.82}
    assert sustained(points, 0.9) == Sustained(0.9, None, None, 10.0)
    assert sustained(points, 0.8) == Sustained(0.8, 12.0, 12.0, None)
    assert sustained({}, 0.8) == Sustained(0.8, None, None, None)


def searched(attainment: Callable[[float], float], first_rps: float = 8.0) -> RateSearch:
    search = RateSearch(first_rps)
    while rates := search.next_rates():
        for rate_rps in rates:
            assert rate_rps not in search.points, f"{rate_rps} is tried twice"
            search.tell(rate_rps, attainment(rate_rps))
    return search


def logistic(rate_rps: float) -> float:
    """0.5 at 20/s."""
    return 1 / (1 + exp((rate_rps - 20) / 1.5))


@pytest.mark.parametrize("first_rps", [0.9, 8.0, 18.0, 200.0])
@pytest.mark.parametrize(("level", "rate_rps"), [(0.80, 17.921), (0.90, 16.704), (0.99, 13.107)])
def test_the_search_finds_every_level_from_any_start(first_rps: float, level: float, rate_rps: float) -> None:
    search = searched(logistic, first_rps)
    found = sustained(search.points, level)
    assert found.rate_rps == near(rate_rps, rel=PRECISION)
    assert found.low_rps is not None
    assert found.high_rps is not None
    assert found.low_rps <= rate_rps <= found.high_rps <= found.low_rps * (1 + PRECISION)
    assert len(search.points) <= MAX_POINTS


@pytest.mark.parametrize("seed", range(20))
def test_the_search_ends_and_stays_near_when_runs_are_noisy(seed: int) -> None:
    dice = Random(f"noise {seed}")
    search = searched(lambda rate_rps: min(1.0, max(0.0, logistic(rate_rps) + dice.gauss(0, 0.01))))
    assert len(search.points) <= MAX_POINTS
    rate_rps = sustained(search.points, 0.8).rate_rps
    assert rate_rps == near(17.9, rel=0.05), f"seed {seed}"


@pytest.mark.parametrize("always", [0.0, 0.5, 0.95, 1.0])
def test_the_search_gives_up_on_a_level_that_no_rate_or_every_rate_attains(always: float) -> None:
    search = searched(lambda rate_rps: always)
    assert len(search.points) <= 17  # 8 steps either way
    for level in LEVELS:
        found = sustained(search.points, level)
        assert (found.rate_rps is not None) == (always >= level)
        assert found.high_rps is None or found.low_rps is None


def test_the_search_asks_for_the_same_whatever_the_order_of_the_answers() -> None:
    one, other = RateSearch(8.0), RateSearch(8.0)
    while rates := one.next_rates():
        assert other.next_rates() == rates
        for rate_rps in rates:
            one.tell(rate_rps, logistic(rate_rps))
        for rate_rps in reversed(rates):
            other.tell(rate_rps, logistic(rate_rps))
    assert one.points == other.points
