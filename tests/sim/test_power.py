"""The limit in effect after a change, and the closed form of the energy under it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.sim.model.power import LANDED_AFTER_TAUS, Lag, LimitCurve, PowerMeter, pace_of

LAG = Lag(delay_s=0.1, tau_down_s=0.1, tau_up_s=0.05)
limits_mw = st.integers(200_000, 750_000)
changes = st.lists(st.tuples(st.floats(0.0, 0.6), limits_mw), max_size=6)


def curves(start_mw: int, gaps: list[tuple[float, int]]) -> list[tuple[float, LimitCurve]]:
    """The curve after each of a chain of changes, with the time from which it is good."""
    at_s, curve = 0.0, LimitCurve.constant(start_mw, LAG)
    chain = [(at_s, curve)]
    for gap_s, limit_mw in gaps:
        at_s += gap_s
        curve = curve.changed(limit_mw, at_s)
        chain.append((at_s, curve))
    return chain


def test_nothing_happens_during_the_delay() -> None:
    curve = LimitCurve.constant(600_000, LAG).changed(450_000, 10.0)
    assert [curve.at(time_s) for time_s in (10.0, 10.05, 10.1)] == [600_000] * 3


@pytest.mark.parametrize(("start_mw", "target_mw", "tau_s"), [(600_000, 450_000, 0.1), (450_000, 600_000, 0.05)])
def test_a_step_decays_with_the_time_constant_of_its_direction(start_mw: int, target_mw: int, tau_s: float) -> None:
    curve = LimitCurve.constant(start_mw, LAG).changed(target_mw, 10.0)
    for taus in (0.5, 1.0, 3.0):
        left = (curve.at(10.1 + taus * tau_s) - target_mw) / (start_mw - target_mw)
        assert left == pytest.approx(np.exp(-taus), rel=1e-9)


def test_it_lands_after_five_time_constants() -> None:
    curve = LimitCurve.constant(600_000, LAG).changed(450_000, 10.0)
    landed_s = 10.1 + LANDED_AFTER_TAUS * 0.1
    assert curve.settled_s == pytest.approx(landed_s, rel=1e-12)
    assert curve.at(curve.settled_s) == 450_000
    assert curve.at(curve.settled_s - 1e-6) == pytest.approx(450_000 + 150_000 * np.exp(-5.0), rel=1e-4)


def test_a_change_on_the_way_starts_where_the_limit_is() -> None:
    curve = LimitCurve.constant(600_000, LAG).changed(450_000, 10.0)
    turned = curve.changed(700_000, 10.15)
    assert turned.at(10.2) == pytest.approx(curve.at(10.2), rel=1e-12)
    assert turned.at(10.25) == pytest.approx(curve.at(10.25), rel=1e-12)
    assert turned.at(10.25) < turned.at(10.3) < 700_000


def test_the_poll_of_the_device_picks_up_the_last_of_several_changes() -> None:
    curve = LimitCurve.constant(600_000, LAG)
    for step in range(50):  # every 20 ms, for ever before the delay of the one before has passed
        curve = curve.changed(590_000 - step * 1000, 10.0 + step * 0.02)
    assert curve.at(11.0) < 560_000  # it follows nevertheless


@given(limits_mw, changes, st.floats(0, 3))
def test_it_stays_between_the_limits_there_were(start_mw: int, gaps: list[tuple[float, int]], later_s: float) -> None:
    at_s, curve = curves(start_mw, gaps)[-1]
    seen_mw = [start_mw, *(limit_mw for _, limit_mw in gaps)]
    assert min(seen_mw) - 1e-6 <= curve.at(at_s + later_s) <= max(seen_mw) + 1e-6
    assert curve.least_mw(at_s) - 1e-6 <= curve.at(at_s + later_s) <= curve.greatest_mw(at_s) + 1e-6


@given(limits_mw, changes, st.floats(0, 3))
def test_it_is_constant_once_settled(start_mw: int, gaps: list[tuple[float, int]], later_s: float) -> None:
    at_s, curve = curves(start_mw, gaps)[-1]
    assert curve.at(max(at_s, curve.settled_s) + later_s) == curve.settled_mw


def test_a_change_may_have_a_delay_of_its_own() -> None:
    curve = LimitCurve.constant(600_000, LAG).changed(450_000, 10.0, delay_s=0.06)
    assert (curve.at(10.059), curve.at(10.06 + LAG.tau_down_s) < 510_000) == (600_000, True)
    assert curve.changed(700_000, 10.03, delay_s=0.15).at(10.2) > 600_000  # the same poll picks it up at 10.06
    assert LimitCurve.constant(600_000, LAG).changed(450_000, 10.0, delay_s=0.0).at(10.01) < 600_000


@given(st.lists(st.tuples(limits_mw, changes), min_size=2, max_size=4), st.floats(0, 2))
def test_the_least_of_several_curves_is_below_them_all(
    given_curves: list[tuple[int, list[tuple[float, int]]]], later_s: float
) -> None:
    chains = [curves(start_mw, gaps)[-1] for start_mw, gaps in given_curves]
    at_s, each = max(at_s for at_s, _ in chains), tuple(curve for _, curve in chains)
    pace = pace_of(each)
    assert pace.at(at_s + later_s) == min(curve.at(at_s + later_s) for curve in each)
    assert pace.least_mw(at_s) - 1e-6 <= pace.at(at_s + later_s) <= pace.greatest_mw(at_s) + 1e-6
    settled_s = max(at_s, pace.settled_s)
    assert pace.at(settled_s) == pace.at(settled_s + later_s)


def test_equal_curves_are_one_pace() -> None:
    curve = LimitCurve.constant(600_000, LAG)
    assert pace_of((curve, LimitCurve.constant(600_000, LAG))) is curve


@given(limits_mw, changes, st.integers(100_000, 800_000), st.floats(0, 2), st.floats(0.001, 2))
def test_energy_is_the_integral_of_the_draw(
    start_mw: int, gaps: list[tuple[float, int]], natural_mw: int, skip_s: float, length_s: float
) -> None:
    good_from_s, curve = curves(start_mw, gaps)[-1]
    from_s = good_from_s + skip_s
    width_s = length_s / 10_000
    middles_s = from_s + (np.arange(10_000) + 0.5) * width_s
    numeric_mj = sum(min(curve.at(float(time_s)), natural_mw) for time_s in middles_s) * width_s
    # The midpoint rule is off by a cell where the curve jumps on landing (1 % of a step).
    assert curve.energy_mj(natural_mw, from_s, from_s + length_s) == pytest.approx(numeric_mj, rel=2e-6, abs=1.0)


@given(limits_mw, changes, st.integers(100_000, 800_000), st.lists(st.floats(0, 3), min_size=1, max_size=5))
def test_energy_adds_up_however_the_time_is_cut(
    start_mw: int, gaps: list[tuple[float, int]], natural_mw: int, cuts: list[float]
) -> None:
    from_s, curve = curves(start_mw, gaps)[-1]
    meter = PowerMeter(curve, from_s)
    for cut_s in sorted(cuts):
        meter.spend(natural_mw, from_s + cut_s)
    assert meter.energy_mj(natural_mw, from_s) == pytest.approx(
        curve.energy_mj(natural_mw, from_s, from_s + max(cuts)), rel=1e-9, abs=1e-6
    )


def test_before_its_start_the_limit_counts_as_constant() -> None:
    curve = LimitCurve.constant(600_000, LAG).changed(450_000, 10.0).changed(700_000, 10.5)
    assert (curve.start_s, curve.at(10.0)) == (10.1, 600_000)
    assert curve.energy_mj(650_000, 8.1, 10.1) == pytest.approx(2 * 600_000, rel=1e-12)
    both_mj = curve.energy_mj(650_000, 8.1, 10.1) + curve.energy_mj(650_000, 10.1, 11.0)
    assert curve.energy_mj(650_000, 8.1, 11.0) == pytest.approx(both_mj, rel=1e-12)


def test_the_meter_counts_no_interval_twice() -> None:
    meter = PowerMeter(LimitCurve.constant(600_000, LAG), 5.0)
    meter.spend(140_000, 7.0)
    meter.spend(735_000, 6.0)
    meter.spend(735_000, 7.0)
    assert meter.energy_mj(735_000, 7.0) == 2 * 140_000
