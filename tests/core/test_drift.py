"""Who moved a limit, and when a fight for it is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.drift import ASK_EVERY_S, SUSPECTS_MAX, Drift, FenceSettings, Seen, who_moved
from rapid.core.watched import Mover

W = 1_000

limits_mw = st.sampled_from([300 * W, 400 * W, 500 * W, 700 * W])
readings = st.builds(Seen, limits_mw, st.none() | limits_mw)


@pytest.mark.parametrize(
    ("before", "now", "mover"),
    [
        (Seen(400, 400), Seen(400, 400), None),
        (Seen(400, 400), Seen(700, 700), Mover.PROCESS),
        (Seen(400, 400), Seen(400, 700), Mover.PROCESS),  # a BMC holds the device: somebody asked for more all the same
        (Seen(400, 400), Seen(350, 400), Mover.OUTSIDE),
        (Seen(350, 400), Seen(400, 400), Mover.OUTSIDE),  # the BMC lets go
        (Seen(400, 400), Seen(700, 400), Mover.UNKNOWN),  # more in force than anybody asked for
        (Seen(400), Seen(700), Mover.UNKNOWN),
        (Seen(400), Seen(400), None),
        (Seen(400, 400), Seen(400, None), None),
        (Seen(400, 400), Seen(500, None), Mover.UNKNOWN),
    ],
)
def test_what_the_device_tells_says_who_it_was(before: Seen, now: Seen, mover: Mover | None) -> None:
    assert who_moved(before, now) is mover


@given(readings, readings)
def test_a_limit_in_force_never_changes_without_somebody(before: Seen, now: Seen) -> None:
    if before.enforced_mw != now.enforced_mw:
        assert who_moved(before, now) is not None


@given(readings)
def test_nobody_is_blamed_for_what_did_not_move(seen: Seen) -> None:
    drift = Drift()
    drift.stands(seen)
    assert drift.look(seen.enforced_mw, seen.requested_mw, 400 * W) == (None, seen)
    assert drift.moves == {}


def test_our_own_write_is_no_move() -> None:
    drift = Drift()
    drift.look(400 * W, 400 * W, 400 * W)
    drift.stands(Seen(600 * W, 600 * W))
    assert drift.look(600 * W, 600 * W, 600 * W)[0] is None


def test_a_write_that_was_not_read_back_is_nobody_elses_move() -> None:
    drift = Drift()
    drift.stands(Seen(400 * W, 400 * W))
    drift.stands(None)
    assert drift.look(600 * W, 600 * W, 600 * W)[0] is None


def test_moves_are_counted_by_who_and_told_in_one_line() -> None:
    drift = Drift()
    drift.stands(Seen(400 * W, 400 * W))
    drift.look(700 * W, 700 * W, 400 * W)
    assert drift.last == "another process: 400 W to 700 W; 400 W is ours"
    drift.look(350 * W, 700 * W, 400 * W)
    assert drift.last == "out of band: 700 W to 350 W (700 W asked for); 400 W is ours"
    assert drift.moves == {Mover.PROCESS: 1, Mover.OUTSIDE: 1}


def test_the_candidates_are_part_of_the_story_until_the_next_move() -> None:
    drift = Drift()
    drift.stands(Seen(400 * W, 400 * W))
    drift.look(700 * W, 700 * W, 400 * W)
    drift.suspect(["nv-hostengine (pid 7, root)"])
    assert drift.story.endswith("is ours (who holds the device: nv-hostengine (pid 7, root))")
    drift.look(600 * W, 600 * W, 400 * W)
    assert "hostengine" not in drift.story


def test_candidates_are_bounded() -> None:
    drift = Drift()
    drift.suspect([f"p{number}" for number in range(100)])
    assert len(drift.suspects) == SUSPECTS_MAX


def test_a_counter_that_goes_back_is_a_driver_that_was_loaded_anew() -> None:
    drift = Drift()
    assert [drift.is_reset(energy_mj) for energy_mj in (500, 500, 600, None, 700, 3, 4)] == [False] * 5 + [True, False]


def test_who_holds_the_device_is_not_asked_for_every_move() -> None:
    drift = Drift()
    assert [drift.asks(at_s) for at_s in (0.0, 0.1, ASK_EVERY_S - 0.1, ASK_EVERY_S, ASK_EVERY_S + 0.1)] == [
        *(True, False, False),
        *(True, False),
    ]


# ---- the fence ----


def allowed(drift: Drift, mover: Mover, times_s: list[float]) -> list[bool]:
    return [drift.repair(mover, at_s) for at_s in times_s]


def test_a_move_after_the_last_repair_in_the_window_is_one_too_many() -> None:
    drift = Drift(FenceSettings(repairs=3, window_s=10.0))
    assert allowed(drift, Mover.PROCESS, [0.0, 1.0, 2.0, 3.0]) == [True, True, True, False]
    assert drift.repairs == 3


def test_at_the_edge_of_the_window_it_still_counts_and_beyond_it_does_not() -> None:
    drift = Drift(FenceSettings(repairs=2, window_s=10.0))
    assert allowed(drift, Mover.PROCESS, [0.0, 1.0, 10.0]) == [True, True, False]
    drift = Drift(FenceSettings(repairs=2, window_s=10.0))
    assert allowed(drift, Mover.PROCESS, [0.0, 1.0, 10.1]) == [True, True, True]


@pytest.mark.parametrize("mover", [Mover.OUTSIDE, Mover.RELOAD])
def test_a_bmc_and_a_driver_do_not_fight(mover: Mover) -> None:
    drift = Drift(FenceSettings(repairs=2, window_s=10.0))
    assert all(allowed(drift, mover, [number / 10 for number in range(50)]))


def test_after_it_was_forgiven_the_count_begins_anew() -> None:
    drift = Drift(FenceSettings(repairs=2, window_s=10.0))
    allowed(drift, Mover.PROCESS, [0.0, 1.0])
    drift.forgive()
    assert allowed(drift, Mover.PROCESS, [2.0, 3.0, 4.0]) == [True, True, False]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 20),
)
def test_no_window_ever_holds_more_repairs_than_allowed(pauses_s: list[int], repairs: int, window_s: int) -> None:
    drift, now_s, done_s = Drift(FenceSettings(repairs, window_s)), 0, list[int]()
    for pause_s in pauses_s:
        now_s += pause_s
        if drift.repair(Mover.PROCESS, now_s):
            done_s.append(now_s)
    for at_s in done_s:
        assert sum(at_s <= other_s <= at_s + window_s for other_s in done_s) <= repairs
