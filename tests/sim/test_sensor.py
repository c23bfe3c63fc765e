"""The power meter of a board against draws whose readings are plain."""

from collections.abc import Callable
from math import sin
from random import Random
from statistics import fmean, stdev

import pytest

from rapid.sim.model.sensor import BOX_S, GAIN_SIGMA, NOISE_SIGMA, PERIOD_S, Sensor, noise

Energy = Callable[[float], float]  # the energy in mJ drawn until a time
SEEDS = range(20)


def constant(time_s: float) -> float:
    return 600_000 * time_s


def readings(sensor: Sensor, energy_mj: Energy, until_s: float) -> list[tuple[int, float]]:
    seen: list[tuple[int, float]] = []
    while sensor.next_s <= until_s:
        sensor.look(sensor.next_s, energy_mj(sensor.next_s))
        reading = sensor.reading()
        if reading is not None and reading not in seen[-1:]:
            seen.append(reading)
    return seen


def gain_of(seed: int) -> float:
    """As the meter of a board with these dice shows a constant draw."""
    return readings(Sensor(Random(seed)), constant, 1.0)[-1][0] / 600_000


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reading_is_the_gain_times_the_mean_over_the_box(seed: int) -> None:
    def energy_mj(time_s: float) -> float:
        return 500_000 * time_s + 2_000 * sin(40 * time_s)

    gain, seen = gain_of(seed), readings(Sensor(Random(seed)), energy_mj, 3.0)
    assert len(seen) >= 29
    for draw_mw, at_s in seen:
        mean_mw = (energy_mj(at_s) - energy_mj(at_s - BOX_S)) / BOX_S
        assert draw_mw == pytest.approx(gain * mean_mw, rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_there_is_one_reading_per_period_and_its_time_does_not_drift(seed: int) -> None:
    times_s = [at_s for _, at_s in readings(Sensor(Random(seed)), constant, 1000.0)]
    assert len(times_s) in (9999, 10_000)
    assert times_s[-1] - times_s[0] == pytest.approx((len(times_s) - 1) * PERIOD_S, rel=1e-12)


def test_what_happens_between_the_boxes_is_not_seen() -> None:
    """A checker of the box itself: a meter that averaged over the whole period would see the burst."""
    (_, first_s), *_ = readings(Sensor(Random(3)), constant, 1.0)

    def with_burst(time_s: float) -> float:
        return constant(time_s) + 300_000 * min(max(0.0, time_s - first_s), PERIOD_S - BOX_S)

    gain = gain_of(3)
    assert {draw_mw for draw_mw, _ in readings(Sensor(Random(3)), with_burst, 1.0)} == {round(gain * 600_000)}
    period_mean_mw = (with_burst(first_s + PERIOD_S) - with_burst(first_s)) / PERIOD_S
    assert period_mean_mw == pytest.approx(825_000)


def test_boards_differ_in_gain_and_phase() -> None:
    dice = Random(7)
    boards = [readings(Sensor(dice), constant, 0.25)[0] for _ in range(4000)]
    gains = [draw_mw / 600_000 for draw_mw, _ in boards]
    assert fmean(gains) == pytest.approx(1.0, abs=4 * GAIN_SIGMA / 4000**0.5)
    assert stdev(gains) == pytest.approx(GAIN_SIGMA, rel=0.05)
    phases_s = sorted(at_s - BOX_S for _, at_s in boards)
    assert phases_s[2000] == pytest.approx(PERIOD_S / 2, abs=0.005)
    assert 0.0 <= phases_s[0] < 0.001 < 0.099 < phases_s[-1] < PERIOD_S


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start_s", [0.0, 12.345])
def test_it_shows_nothing_until_its_first_box_has_ended(seed: int, start_s: float) -> None:
    sensor = Sensor(Random(seed), start_s)
    assert sensor.reading() is None
    opens_s = sensor.next_s
    assert start_s <= opens_s < start_s + PERIOD_S
    sensor.look(opens_s, 0.0)
    assert sensor.reading() is None
    assert sensor.next_s == pytest.approx(opens_s + BOX_S, rel=1e-12)
    sensor.look(sensor.next_s, 15_000.0)
    assert sensor.reading() is not None


def test_a_look_at_another_time_than_it_wants_is_refused() -> None:
    sensor = Sensor(Random(1))
    with pytest.raises(AssertionError, match="wanted at"):
        sensor.look(sensor.next_s + 1e-6, 0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_that_are_passed_over_leave_the_others_as_they_were(seed: int) -> None:
    every = {at_s: draw_mw for draw_mw, at_s in readings(Sensor(Random(seed)), constant, 10.0)}
    sensor, dice = Sensor(Random(seed)), Random(seed + 1000)
    seen: list[tuple[int, float]] = []
    while (aim_s := sensor.next_s + dice.choice((0.0, 0.05, 0.3, 2.0)) * dice.random()) < 8.0:
        sensor.aim(aim_s)
        assert aim_s - 1e-9 <= sensor.next_s < aim_s + PERIOD_S + 1e-9
        sensor.look(sensor.next_s, constant(sensor.next_s))
        assert sensor.is_open
        sensor.look(sensor.next_s, constant(sensor.next_s))
        assert not sensor.is_open
        reading = sensor.reading()
        assert reading is not None
        seen.append(reading)
    assert len(seen) > 5
    assert len(set(seen)) == len(seen)
    for draw_mw, at_s in seen:
        assert every[at_s] == pytest.approx(draw_mw, abs=1)


def test_no_box_is_looked_at_twice_however_far_back_the_aim_is() -> None:
    sensor = Sensor(Random(1))
    for _ in range(3):
        before_s = sensor.next_s
        sensor.look(sensor.next_s, 0.0)
        sensor.look(sensor.next_s, 0.0)
        sensor.aim(0.0)
        assert sensor.next_s == pytest.approx(before_s + PERIOD_S, rel=1e-12)


def test_the_energy_counter_is_exact_and_never_falls() -> None:
    sensor = Sensor(Random(1))
    told = [sensor.counter_mj(energy_mj) for energy_mj in (0.0, 999.999, 1000.0, 999.9999999, 1e15 + 0.5)]
    assert told == [0, 999, 1000, 1000, 10**15]


def test_noise_is_one_percent_around_one() -> None:
    dice = Random(11)
    factors = [noise(dice) for _ in range(10_000)]
    assert fmean(factors) == pytest.approx(1.0, abs=4 * NOISE_SIGMA / 100)
    assert stdev(factors) == pytest.approx(NOISE_SIGMA, rel=0.05)
