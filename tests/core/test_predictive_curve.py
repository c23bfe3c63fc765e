"""The curve's small sums, against the same in full by numpy."""

from itertools import pairwise
from math import log
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.policy.predictive.curve import FIRST, KNOTS, STEP, XS, Curve, bend_of, concave, nearest, rising, smooth

VALUES = st.lists(st.floats(0.05, 2.0), min_size=KNOTS, max_size=KNOTS)
WEIGHTS = st.lists(st.floats(0.1, 100.0), min_size=KNOTS, max_size=KNOTS)


def dense(seen: list[float], weights: list[float], stiffness: float, pull: float) -> np.ndarray:
    """The matrix that smooth() never writes down."""
    matrix = np.diag(weights)
    for knot in range(len(seen) - 1):
        matrix[knot : knot + 2, knot : knot + 2] += stiffness * np.array([[1, -1], [-1, 1]])
    matrix[-1, -1] += pull
    return matrix


@pytest.mark.parametrize("seed", range(5))
def test_smooth_is_the_least_squares_it_claims(seed: int) -> None:
    dice = Random(f"smooth {seed}")
    seen = [dice.gauss(0, 1) for _ in range(KNOTS)]
    weights = [dice.choice((0.0, dice.uniform(0, 100))) for _ in range(KNOTS)]
    wanted = np.linalg.solve(dense(seen, weights, 30.0, 2.0), np.array(weights) * np.array(seen))
    assert smooth(seen, weights, 30.0, 2.0) == pytest.approx(list(wanted), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_multiple_of_the_shape_is_found_with_the_rest(seed: int) -> None:
    dice = Random(f"bend {seed}")
    seen = [dice.gauss(0, 1) for _ in range(KNOTS)]
    weights = [dice.choice((0.0, dice.uniform(0, 100))) for _ in range(KNOTS)]
    shape = [0.7 * log(x) for x in XS]
    whole = np.zeros((KNOTS + 1, KNOTS + 1))
    whole[:KNOTS, :KNOTS] = dense(seen, weights, 30.0, 2.0)
    whole[:KNOTS, KNOTS] = whole[KNOTS, :KNOTS] = np.array(weights) * shape
    whole[KNOTS, KNOTS] = np.sum(np.array(weights) * np.array(shape) ** 2) + 1 / 0.4**2
    weighed = np.array(weights) * np.array(seen)
    solved = np.linalg.solve(whole, np.append(weighed, np.dot(weighed, shape)))
    wanted = solved[:KNOTS] + solved[KNOTS] * np.array(shape)
    assert bend_of(seen, weights, shape, stiffness=30.0, pull=2.0, give=0.4) == pytest.approx(list(wanted), abs=1e-9)


def test_where_nothing_was_seen_the_bend_goes_on_as_it_was() -> None:
    weights = [0.0] * KNOTS
    weights[7], weights[10] = 50.0, 80.0
    seen = [0.0] * KNOTS
    seen[7], seen[10] = -0.3, 0.1
    bend = smooth(seen, weights, 400.0, 1e-9)
    assert bend[:7] == pytest.approx([bend[7]] * 7)
    assert bend[10:] == pytest.approx([bend[10]] * (KNOTS - 10))
    assert bend[7] < bend[8] < bend[9] < bend[10]


@given(VALUES, WEIGHTS)
def test_concave_is_concave_increasing_and_not_too_high(values: list[float], weights: list[float]) -> None:
    curve = concave(values, weights)
    rises = [curve[0] / FIRST, *((after - before) / STEP for before, after in pairwise(curve))]
    assert min(rises) >= 0
    assert all(after <= before + 1e-9 for before, after in pairwise(rises))
    assert np.dot(curve, weights) == pytest.approx(np.dot(values, weights))


def test_what_is_concave_stays_as_it_is() -> None:
    values = [x**0.6 for x in XS]
    assert concave(values, [1.0] * KNOTS) == pytest.approx(values)
    assert rising(values, [1.0] * KNOTS) == values


@given(VALUES, WEIGHTS)
def test_rising_is_the_nearest_that_never_falls(values: list[float], weights: list[float]) -> None:
    curve = rising(values, weights)
    assert curve == sorted(curve)
    error = np.dot(weights, (np.array(curve) - values) ** 2)
    dice = Random("rising")
    for _ in range(20):  # none of these is nearer
        other = np.sort(np.array(curve) + [dice.gauss(0, 0.05) for _ in range(KNOTS)])
        assert np.dot(weights, (other - values) ** 2) >= error - 1e-9


def test_a_curve_goes_through_its_knots_and_in_proportion_below_them() -> None:
    values = [x**0.6 for x in XS]
    curve = Curve(values)
    assert [curve.at(x) for x in XS] == pytest.approx(values)
    assert curve.at(FIRST / 2) == pytest.approx(values[0] / 2)
    assert curve.at(2.0) == values[-1]
    assert curve.slope(2.0) == 0.0
    assert curve.slope(FIRST / 2) == pytest.approx(values[0] / FIRST)
    assert [nearest(x) for x in XS] == list(range(KNOTS))
    assert (nearest(0.01), nearest(3.0)) == (0, KNOTS - 1)
