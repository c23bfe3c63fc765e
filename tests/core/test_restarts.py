"""When an engine that has died is started again, and when it is given up."""

import pytest

from rapid.core.restarts import LONGEST_PAUSE_S, SETTLED_S, Restarts


def test_the_pauses_double_up_to_the_longest() -> None:
    restarts = Restarts(most=9)
    assert [restarts.died(served_s=0.0) for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert LONGEST_PAUSE_S == 30.0


@pytest.mark.parametrize("most", [0, 1, 5])
def test_it_is_given_up_after_so_many_deaths_in_a_row_and_one_more(most: int) -> None:
    restarts = Restarts(most)
    assert all(restarts.died(served_s=1.0) is not None for _ in range(most))
    assert restarts.died(served_s=1.0) is None
    assert restarts.deaths == most + 1


def test_a_long_life_is_forgiven_everything_before_it() -> None:
    restarts = Restarts(most=2)
    restarts.died(served_s=0.0)
    restarts.died(served_s=0.0)
    assert restarts.died(served_s=SETTLED_S) == 0.5
    assert restarts.deaths == 1


def test_a_life_just_too_short_is_not() -> None:
    restarts = Restarts(most=1)
    restarts.died(served_s=0.0)
    assert restarts.died(served_s=SETTLED_S - 0.001) is None
