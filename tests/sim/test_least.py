"""The lazy heap: always the least, never many entries."""

from random import Random

import pytest

from rapid.sim.least import LeastLoaded


@pytest.mark.parametrize("seed", range(5))
def test_the_least_is_the_least_of_all_whatever_changes(seed: int) -> None:
    dice, members, loads = Random(seed), LeastLoaded(), dict[int, tuple[int, int, int]]()
    for _ in range(3000):
        number = dice.randrange(20)
        if dice.random() < 0.8:
            loads[number] = (dice.randrange(6), dice.randrange(3), number)
            members.put(number, *loads[number][:2])
        else:
            loads.pop(number, None)
            members.drop(number)
        least = min(loads.values())[2] if loads else None
        assert members.least() == least, f"seed {seed}: {loads}"


def test_a_copy_goes_its_own_way() -> None:
    members = LeastLoaded()
    members.put(1, 5)
    members.put(2, 7)
    other = members.copy()
    other.put(1, 9)
    assert (members.least(), other.least()) == (1, 2)


def test_entries_left_behind_are_bounded_by_the_members() -> None:
    members, most = LeastLoaded(), 0
    for number in range(10):
        members.put(number, number)
    for turn in range(10_000):
        members.put(9, 10**6 - turn)  # never at the top, so nothing is thrown away there
        most = max(most, members.size)
    assert most == 4 * 10 + 16
    for number in range(10):
        members.drop(number)
    assert (members.least(), members.size) == (None, 0)
