"""The shapes of speed under a limit: full speed at full power, no steps, never faster with less."""

from itertools import pairwise
from math import exp

import pytest

from rapid.sim.model.curves import PowerLaw, QuadraticKnee, Saturating, SpeedCurve

POWER = PowerLaw(0.63, knee=0.8, exponent_below=0.95)
TRAINING = Saturating(onset=135 / 700, scale=183 / 700, measured_from=200 / 700)
SHARP = QuadraticKnee(knee=0.62, gain=30.0, measured_from=0.50)
CURVES = {"power": POWER, "one exponent": PowerLaw(0.4), "saturating": TRAINING, "knee": SHARP}
EACH = pytest.mark.parametrize("curve", CURVES.values(), ids=list(CURVES))


def faults(curve: SpeedCurve) -> list[str]:
    """What no curve may do, looked for on a fine grid from 1 % to 120 %."""
    speeds = [curve.speed(step / 10_000) for step in range(100, 12_001)]
    steps = [high - low for low, high in pairwise(speeds)]
    wrong = {
        "full power is not full speed": any(speed != 1.0 for speed in speeds[9_900:]),
        "out of 0..1": not all(0.0 < speed <= 1.0 for speed in speeds),
        "slower with more": min(steps) < 0.0,
        "a step": max(steps) > 0.01,
    }
    return [fault for fault, there in wrong.items() if there]


class Stair:
    """Half speed up to half power."""

    def __init__(self, top: float) -> None:
        self._top = top

    def speed(self, fraction: float) -> float:
        return self._top if fraction > 0.5 else 0.5


@EACH
def test_a_curve_rises_without_steps_to_full_speed(curve: SpeedCurve) -> None:
    assert faults(curve) == []


def test_curves_with_faults_are_caught() -> None:
    assert faults(QuadraticKnee(knee=0.80, gain=60.0, measured_from=0.50)) == ["out of 0..1", "slower with more"]
    assert faults(Saturating(onset=0.5, scale=0.2, measured_from=0.4)) == ["out of 0..1", "slower with more"]
    assert faults(PowerLaw(-0.1)) == ["out of 0..1", "slower with more"]
    assert faults(Stair(1.0)) == ["a step"]
    assert faults(Stair(0.5)) == ["full power is not full speed"]


def test_a_power_law_changes_its_exponent_at_the_knee() -> None:
    assert POWER.speed(0.9) == pytest.approx(0.9**0.63, rel=1e-12)
    assert POWER.speed(0.4) == pytest.approx(0.8**0.63 * 0.5**0.95, rel=1e-12)


def test_a_saturating_curve_is_normalised_to_full_power() -> None:
    assert TRAINING.speed(500 / 700) == pytest.approx((1 - exp(-365 / 183)) / (1 - exp(-565 / 183)), rel=1e-12)


def test_a_knee_falls_by_the_square_of_the_distance() -> None:
    assert SHARP.speed(0.52) == pytest.approx(1 - 30 * 0.10**2, rel=1e-12)


@pytest.mark.parametrize("curve", [TRAINING, SHARP])
def test_below_what_was_measured_speed_is_proportional(curve: Saturating | QuadraticKnee) -> None:
    at = curve.measured_from
    assert curve.speed(at / 3) == pytest.approx(curve.speed(at) / 3, rel=1e-12)
