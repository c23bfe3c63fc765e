"""Schedules: when their windows are, and that they give orders by the path of all others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.commands import Announce
from rapid.core.facility.nouns import Schedule, Why
from rapid.core.facility.windows import DAY_S, window
from rapid.core.settings import FacilitySettings
from rapid.wire.operator import decode_decisions, encode_decisions
from tests.facility.town import FACILITY, WALL_S, settled

MONDAY_S = 1_750_032_000.0  # 16 June 2025, 0:00 UTC
MON, TUE, SAT, SUN = 0, 1, 5, 6


def weekly(*days: int, start_s: float = 8 * 3600.0, lasts_s: float = 3600.0) -> Schedule:
    return Schedule("s", "room", 1_500_000, days, start_s, lasts_s)


def once(town_wall_s: float, begins_s: float, lasts_s: float, *, name: str = "s", budget_w: int = 1_500) -> Schedule:
    return Schedule(name, "room", budget_w * 1000, (), town_wall_s + begins_s, lasts_s)


def test_windows_of_a_week() -> None:
    def seen(at_s: float, *days: int) -> tuple[float, float]:
        found = window(weekly(*days), MONDAY_S + at_s)
        assert found is not None
        return (found[0] - MONDAY_S) / 3600, (found[1] - MONDAY_S) / 3600

    assert seen(0, MON) == (8, 9)
    assert seen(8.5 * 3600, MON) == (8, 9)
    assert seen(9 * 3600, MON) == (8 + 7 * 24, 9 + 7 * 24)
    assert seen(9 * 3600, MON, TUE) == (32, 33)
    assert seen(9 * 3600, SAT, SUN) == (5 * 24 + 8, 5 * 24 + 9)


def test_a_window_over_midnight_is_still_under_way_on_the_day_after() -> None:
    found = window(weekly(SUN, start_s=22 * 3600, lasts_s=8 * 3600), MONDAY_S + 5 * 3600)
    assert found == (MONDAY_S - 2 * 3600, MONDAY_S + 6 * 3600)


def test_one_window_comes_once() -> None:
    schedule = once(MONDAY_S, 60.0, 60.0)
    assert window(schedule, MONDAY_S) == (MONDAY_S + 60, MONDAY_S + 120)
    assert window(schedule, MONDAY_S + 119) == (MONDAY_S + 60, MONDAY_S + 120)
    assert window(schedule, MONDAY_S + 120) is None


@given(
    days=st.sets(st.integers(0, 6), min_size=1),
    start_s=st.integers(0, int(DAY_S) - 1),
    lasts_s=st.integers(1, int(7 * DAY_S)),
    at_s=st.floats(0, 4e9),
)
def test_there_always_is_a_window_and_none_is_left_out(days: set[int], start_s: int, lasts_s: int, at_s: float) -> None:
    schedule = weekly(*sorted(days), start_s=float(start_s), lasts_s=float(lasts_s))
    found = window(schedule, at_s)
    assert found is not None
    begin_s, end_s = found
    assert end_s > at_s
    assert begin_s % DAY_S == pytest.approx(start_s)
    assert int(begin_s // DAY_S + 3) % 7 in days
    # No other window of it lies between now and its begin.
    day = int(at_s // DAY_S)
    for other in range(day - 8, int(begin_s // DAY_S)):
        if (other + 3) % 7 in days:
            assert other * DAY_S + start_s + lasts_s <= at_s


def test_a_schedule_cuts_in_its_window_and_is_told_of() -> None:
    town = settled()
    assert town.add_schedule(once(town.wall_s, 10.0, 20.0)).endswith("schedule s: domain room at 1500 W")
    town.run(9.0)
    assert town.budget_w == 2_200
    town.run(4.0)
    assert town.budget_w == 1_500
    name = f"s@{int(WALL_S + 15)}"
    assert town.told(name) == ["in_force"]
    town.run(20.0)
    assert town.budget_w == 2_200
    assert town.told(name) == ["in_force", "ended"]


def test_the_least_of_schedules_and_orders_wins() -> None:
    town = settled()
    town.add_schedule(once(town.wall_s, 0.0, 100.0, name="a", budget_w=1_800))
    town.add_schedule(once(town.wall_s, 0.0, 50.0, name="b", budget_w=1_500))
    town.ask("c1", 1_600, lasts_s=200.0)
    assert town.budget_w == 1_500
    town.run(51.0)
    assert town.budget_w == 1_600
    town.run(160.0)
    assert town.budget_w == 2_200


def test_a_schedule_raises_only_where_the_configuration_says_so() -> None:
    town = settled()
    assert "schedules may not raise it" in town.add_schedule(once(town.wall_s, 0.0, 60.0, budget_w=2_500))
    assert town.budget_w == 2_200
    bold = FacilitySettings(ceilings_mw=FACILITY.ceilings_mw, schedules_raise=True)
    town = settled(facility=bold)
    town.add_schedule(once(town.wall_s, 0.0, 60.0, budget_w=2_500))
    assert town.budget_w == 2_500
    assert "above 2600 W, the ceiling" in town.add_schedule(once(town.wall_s, 0.0, 60.0, name="t", budget_w=2_700))


def test_a_schedule_survives_a_restart_and_a_clock_that_skips_its_window() -> None:
    town = settled()
    town.add_schedule(once(town.wall_s, 30.0, 20.0))
    town.run(1.0)
    town.restart(away_s=5.0)
    town.skew_s = 3600.0
    town.run(26.0)
    assert town.budget_w == 1_500, "the steady clock has come to it"
    town.run(20.0)
    assert town.budget_w == 2_200


def test_a_weekly_schedule_comes_again() -> None:
    town = settled()
    at_s = (town.wall_s + 10.0) % DAY_S
    town.add_schedule(weekly(*range(7), start_s=at_s, lasts_s=20.0))
    for _ in range(2):
        town.run(15.0)
        assert town.budget_w == 1_500
        town.run(20.0)
        assert town.budget_w == 2_200
        town.now += DAY_S - 35.0  # nobody needs to live through the day
        for host in town.hosts.values():
            host.now = max(host.now, town.now)
    town.run(15.0)
    assert town.budget_w == 1_500


def test_what_is_decided_about_schedules_can_be_shown() -> None:
    """Nothing in a decision is left empty: the wire would not take it."""
    town = settled()
    town.add_schedule(once(town.wall_s, 5.0, 10.0, name="a"))
    town.add_schedule(once(town.wall_s, 0.0, 1_000.0))
    town.run(20.0)
    town.remove_schedule("s")
    made = [it.decision for commands in town.commands for it in commands if isinstance(it, Announce)]
    assert decode_decisions(encode_decisions(tuple(made))) == tuple(made)


def test_removing_a_schedule_ends_its_window() -> None:
    town = settled()
    town.add_schedule(once(town.wall_s, 0.0, 1_000.0))
    assert town.budget_w == 1_500
    assert town.remove_schedule("s") == "answer r: schedule s is removed"
    assert town.budget_w == 2_200
    assert [it.why for it in town.control.facility.undelivered.values() if it.outcome.value == "ended"] == [Why.REMOVED]
    assert "no schedule named 's'" in town.remove_schedule("s")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Schedule("s", "attic", 1, (), 2e9, 60.0), "no domain named 'attic'"),
        (Schedule("s", "room", 1, (), 1e9, 60.0), "its window is over"),
        (Schedule("s", "room", 1, (7,), 0.0, 60.0), "0 (Monday) to 6"),
        (Schedule("s", "room", 1, (1, 1), 0.0, 60.0), "different ones"),
        (Schedule("s", "room", 1, (1,), 86_400.0, 60.0), "a day has 86400 s"),
        (Schedule("s", "room", 1, (1,), 0.0, 0.5), "1 s to a week"),
        (Schedule("s", "room", 1, (1,), 0.0, 60.0, ramp_down_s=-1.0), "a ramp down of -1 s"),
        (Schedule("s", "room", -1, (1,), 0.0, 60.0), "outside 0 W"),
        (Schedule("s", "room", 1, (), 4e9, 60.0), "more than a year ahead"),
        (Schedule("s", "room", 2_700_000, (1,), 0.0, 60.0), "the ceiling configured"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: Schedule, words: str) -> None:
    town = settled()
    assert words in town.add_schedule(wrong)
    assert town.control.facility.schedules == {}


def test_the_same_schedule_again_is_fine_and_another_of_its_name_is_not() -> None:
    town = settled()
    first = once(town.wall_s, 0.0, 60.0)
    town.add_schedule(first)
    assert town.add_schedule(first).endswith("is there already")
    assert "remove it first" in town.add_schedule(once(town.wall_s, 0.0, 61.0))
