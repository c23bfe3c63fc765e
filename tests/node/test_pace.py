"""When GPUs are sampled: all at once, on the grid of the interval, and each with its clock once a second."""

import pytest

from rapidd.pace import Every


def samples(pace: Every, begun_s: float, seconds: float, step_s: float = 0.001) -> list[tuple[float, bool]]:
    """When it samples, as its thread looks every step_s, and whether with the clock."""
    found = []
    for step in range(round(seconds / step_s)):
        at_s = begun_s + step * step_s
        if pace.left_s(at_s) <= 0:
            found.append((at_s, pace.begin(at_s)))
    return found


def test_the_first_is_due_at_once() -> None:
    assert Every(0.1, 0).left_s(1234.56) <= 0


@pytest.mark.parametrize("interval_s", [0.01, 0.1, 0.3, 1.0])
def test_they_come_on_the_grid_and_none_is_missed_or_doubled(interval_s: float) -> None:
    first, *others = [at_s for at_s, _ in samples(Every(interval_s, 3), 1_000.0503, 12.0)]
    assert first == 1_000.0503
    assert len(others) == pytest.approx(12.0 / interval_s, abs=1.1)
    for at_s in others:
        assert at_s % interval_s == pytest.approx(0, abs=0.0011) or at_s % interval_s == pytest.approx(interval_s)


def test_those_that_were_missed_are_not_made_up_for() -> None:
    pace = Every(0.1, 0)
    pace.begin(100.0)
    assert pace.left_s(160.02) <= 0
    pace.begin(160.02)
    assert pace.left_s(160.02) == pytest.approx(0.08)


def test_each_gpu_has_its_clock_read_once_a_second_and_not_all_at_once() -> None:
    paces = [Every(0.1, number) for number in range(8)]
    taken = [[clock for _, clock in samples(pace, 1_000.0, 30.0)] for pace in paces]
    assert {sum(clocks) for clocks in taken} <= {29, 30, 31}
    assert max(sum(clocks) for clocks in zip(*taken, strict=True)) == 1


def test_samples_a_second_apart_all_have_the_clock() -> None:
    assert all(clock for _, clock in samples(Every(1.0, 1), 1_000.0, 10.0))
