"""When a node cuts by itself, by how much, and when it lets go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.excursion import AIM, Bound, Cut, Excursion, ExcursionSettings, LetGo

W = 1_000
BUDGET = 1_000 * W
SETTINGS = ExcursionSettings(draw_tolerance=0.05)


def looks(excursion: Excursion, draws_w: list[int], bound: Bound, *, every_s: float = 0.1, from_s: float = 0.0) -> str:
    """What becomes of one sample after the other: `.` nothing, `C` a cut, `L` let go."""
    words = {type(None): ".", Cut: "C", LetGo: "L"}
    found = [excursion.look(draw_w * W, bound, from_s + at * every_s) for at, draw_w in enumerate(draws_w)]
    return "".join(words[type(verdict)] for verdict in found)


def test_two_samples_in_a_row_above_the_hard_budget_cut() -> None:
    assert looks(Excursion(SETTINGS), [900, 1_001, 1_001], Bound(2 * BUDGET, BUDGET)) == "..C"


def test_one_spike_does_not_cut() -> None:
    assert looks(Excursion(SETTINGS), [1_200, 900, 1_200, 900], Bound(2 * BUDGET, BUDGET)) == "...."


def test_at_the_hard_budget_nothing_is_cut() -> None:
    assert looks(Excursion(SETTINGS), [1_000] * 5, Bound(2 * BUDGET, BUDGET)) == "....."


def test_against_the_grants_the_error_of_the_sensors_is_allowed_for() -> None:
    assert looks(Excursion(SETTINGS), [1_050] * 4, Bound(BUDGET)) == "...."
    assert looks(Excursion(SETTINGS), [1_051] * 4, Bound(BUDGET)) == ".C.."


def test_a_cut_aims_at_96_percent_of_the_lesser_bound() -> None:
    excursion = Excursion(SETTINGS)
    excursion.look(1_250 * W, Bound(1_100 * W, BUDGET), 0.0)
    verdict = excursion.look(1_250 * W, Bound(1_100 * W, BUDGET), 0.1)
    assert isinstance(verdict, Cut)
    assert verdict.factor == pytest.approx(AIM * 1_000 / 1_250)


def test_the_next_cut_waits_until_the_draw_can_have_followed() -> None:
    assert looks(Excursion(SETTINGS), [1_200] * 13, Bound(BUDGET)) == ".C....C....C."


def test_it_lets_go_below_92_percent_and_not_at_once() -> None:
    excursion = Excursion(SETTINGS)
    assert looks(excursion, [1_200, 1_200], Bound(BUDGET)) == ".C"
    assert looks(excursion, [919] * 4, Bound(BUDGET), from_s=1.0) == "....", "a cut lasts a while"
    assert looks(excursion, [920, 960, 999], Bound(BUDGET), from_s=6.0) == "...", "inside the band it stays cut"
    assert looks(excursion, [919, 919], Bound(BUDGET), from_s=7.0) == "L."
    assert not excursion.active


def test_an_excursion_is_counted_once_however_often_it_cuts() -> None:
    excursion = Excursion(SETTINGS)
    looks(excursion, [1_200] * 20, Bound(BUDGET))
    assert (excursion.active, excursion.count) == (True, 1)
    looks(excursion, [800], Bound(BUDGET), from_s=60.0)
    looks(excursion, [1_200] * 20, Bound(BUDGET), from_s=70.0)
    assert excursion.count == 2


def test_after_a_start_the_draw_has_time_to_follow() -> None:
    excursion = Excursion(SETTINGS)
    excursion.wait(0.0)
    assert looks(excursion, [1_500] * 6, Bound(BUDGET)) == ".....C"


@given(st.lists(st.integers(0, 3_000), max_size=80), st.integers(1, 2_000), st.none() | st.integers(1, 2_000))
def test_whatever_is_drawn_a_cut_brings_down_and_only_what_is_cut_is_let_go(
    draws_w: list[int], leave_w: int, hard_w: int | None
) -> None:
    excursion, bound = Excursion(SETTINGS), Bound(leave_w * W, None if hard_w is None else hard_w * W)
    cut = False
    for at, draw_w in enumerate(draws_w):
        verdict = excursion.look(draw_w * W, bound, at * 0.5)
        match verdict:
            case Cut(factor):
                assert factor * draw_w * W == pytest.approx(AIM * bound.budget_mw)
                assert draw_w * W > bound.budget_mw
                cut = True
            case LetGo():
                assert cut
                assert draw_w * W < bound.budget_mw
                cut = False
        assert excursion.active == cut


@given(st.lists(st.floats(0.5, 1.5), min_size=2, max_size=60))
def test_two_samples_in_a_row_over_are_never_left_uncut_for_longer_than_the_draw_takes(shares: list[float]) -> None:
    """The promise: whoever is over in two samples, and was not cut within settle_s, is cut with the second."""
    excursion, bound, last_cut_s, over = Excursion(SETTINGS), Bound(2 * BUDGET, BUDGET), float("-inf"), 0
    for at, share in enumerate(shares):
        now_s, draw_mw = at * 0.1, round(share * BUDGET)
        verdict = excursion.look(draw_mw, bound, now_s)
        over = over + 1 if draw_mw > BUDGET else 0
        if over >= 2 and now_s - last_cut_s >= SETTINGS.settle_s:
            assert isinstance(verdict, Cut)
            over = 0
        if isinstance(verdict, Cut):
            last_cut_s = now_s
