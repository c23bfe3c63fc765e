"""What the policy believes of the engines, and when it believes it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import Role, View
from rapid.core.policy.predictive.models import MISFIT_AFTER_S, Models, Start
from tests.core.taped import CEILING_MW, GPU, Deck, Tape, decode, prefill, run

LIMITS_MW = range(50_000, CEILING_MW + 1, 25_000)


def step_s(models: Models, tape: Tape) -> float:
    return models.step_s(tape.batch, models.context_tokens, tape.limit_mw, GPU)


# ---- learning ----


def test_cost_of_prefill_is_learned_within_a_minute() -> None:
    tape, models = prefill(), Models()
    assert models.prefill_token_s(1000.0) != pytest.approx(tape.token_s, rel=0.2), "it must not know by chance"
    run(models, Deck(tape), 30.0)
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.02)


def test_an_idle_half_of_the_time_does_not_make_prefill_look_slow() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    for turn in range(240):
        tape.running = turn % 4 < 2
        models.observe(deck.turn())
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.05)


def test_step_time_is_learned_within_a_minute() -> None:
    tape, models = decode(), Models()
    assert step_s(models, tape) != pytest.approx(tape.step_s, rel=0.2), "it must not know by chance"
    run(models, Deck(tape), 30.0)
    assert step_s(models, tape) == pytest.approx(tape.step_s, rel=0.03)


def test_what_a_sequence_more_costs_is_learned() -> None:
    tape, models = decode(), Models()
    deck = Deck(tape)
    for batch in (10, 80, 30, 60, 20, 40):
        tape.batch, tape.step_s = batch, 0.008 + 0.0001 * batch
        run(models, deck, 10.0)
    for batch in (15, 50, 75):
        tape.batch, tape.step_s = batch, 0.008 + 0.0001 * batch
        assert step_s(models, tape) == pytest.approx(tape.step_s, rel=0.03)


@pytest.mark.parametrize("start", [None, Start(prefill_exponent=0.6, sure=0.2), Start(prefill_exponent=1.0, sure=0.2)])
@pytest.mark.parametrize("exponent", [0.4, 0.6, 0.9])
def test_speed_at_visited_limits_is_learned(exponent: float, start: Start | None) -> None:
    tape, models = prefill(), Models(start)
    tape.exponent = exponent
    deck = Deck(tape)
    for share in (1.0, 0.7, 0.85, 0.7, 1.0, 0.85):
        tape.limit_mw = round(share * CEILING_MW)
        run(models, deck, 10.0)
    for share in (0.7, 0.85):
        assert models.prefill_speed(share * CEILING_MW, GPU) == pytest.approx(share**exponent, rel=0.04)


def test_a_limit_nobody_visited_follows_the_others() -> None:
    """A steep curve where it was seen is believed to be steep where it was not."""
    speeds = {}
    for exponent in (0.4, 0.9):
        tape, models = prefill(), Models()
        tape.exponent = exponent
        deck = Deck(tape)
        for share in (1.0, 0.7, 1.0, 0.7):
            tape.limit_mw = round(share * CEILING_MW)
            run(models, deck, 15.0)
        speeds[exponent] = models.prefill_speed(0.5 * CEILING_MW, GPU)
        assert speeds[exponent] == pytest.approx(0.5**exponent, rel=0.15)
    assert speeds[0.4] > 1.2 * speeds[0.9]


def test_what_draws_less_than_its_limit_is_not_held_back_by_it() -> None:
    tape, models = decode(), Models()
    tape.draw_mw = 450_000
    run(models, Deck(tape), 10.0)
    assert models.natural_mw(GPU, tape.batch) == pytest.approx(450_000, rel=0.03)
    assert models.decode_speed(455_000, GPU, tape.batch) > 0.99
    tape.draw_mw, tape.limit_mw = 300_000, 300_000
    run(models, Deck(tape), 10.0)
    assert models.natural_mw(GPU, tape.batch) == pytest.approx(450_000, rel=0.03), "this one is held back"


def test_a_cliff_is_feared_until_it_was_looked_for_and_then_known() -> None:
    """Limits by natural draw: full speed down to 0.62, and 0.6 of it at 0.5."""
    tape, models = decode(), Models()
    tape.draw_mw = 500_000
    deck = Deck(tape)
    run(models, deck, 20.0)
    full_s = tape.step_s
    assert models.decode_speed(0.5 * 500_000, GPU, tape.batch) < 0.65
    tape.draw_mw = tape.limit_mw = round(0.65 * 500_000)
    run(models, deck, 10.0)
    assert models.decode_speed(tape.limit_mw, GPU, tape.batch) > 0.97
    assert models.decode_speed(0.5 * 500_000, GPU, tape.batch) < 0.70, "nobody has been there"
    tape.draw_mw = tape.limit_mw = round(0.5 * 500_000)
    tape.step_s = full_s / 0.45
    run(models, deck, 4.0)
    assert models.decode_speed(tape.limit_mw, GPU, tape.batch) == pytest.approx(0.45, rel=0.08)


def test_what_has_changed_is_followed() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    run(models, deck, 120.0)
    tape.token_s *= 1.5
    run(models, deck, 600.0)
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.05)


def test_confidence_grows_with_evidence_and_fades_without() -> None:
    models, deck = Models(), Deck(prefill(), decode())
    seen = [{role: models.confidence(role) for role in (Role.PREFILL, Role.DECODE)}]
    for _ in range(3):
        run(models, deck, 10.0)
        seen.append({role: models.confidence(role) for role in (Role.PREFILL, Role.DECODE)})
    for tape in deck.tapes:
        tape.running = False
    run(models, deck, 1200.0)
    for role in (Role.PREFILL, Role.DECODE):
        rise = [each[role] for each in seen]
        assert rise == sorted(rise)
        assert 0.0 <= rise[0] < 0.05
        assert rise[-1] > 0.6
        assert models.confidence(role) < 0.3


# ---- single GPUs ----


@pytest.mark.parametrize("make", [prefill, decode])
def test_a_gpu_far_from_the_others_is_known(make: Callable[[str], Tape]) -> None:
    tapes = [make(f"x{number}") for number in range(6)]
    slow, role, models = tapes[0], tapes[0].role, Models()
    slow.token_s, slow.step_s = slow.token_s * 1.5, slow.step_s * 1.5
    run(models, Deck(*tapes), 120.0)
    mean = 0.5 * (models.factor(tapes[1].gpu, role) + models.factor(tapes[5].gpu, role))
    assert 1.3 < models.factor(slow.gpu, role) / mean < 1.6
    assert models.factor("nobody's", role) == 1.0


def test_a_wrong_start_is_held_against_no_gpu() -> None:
    tapes, models = (prefill(), decode()), Models(Start(prefill_token_ms=0.15, decode_ms=40.0))
    deck = Deck(*tapes)
    for _ in range(60):
        models.observe(deck.turn())
        for tape in tapes:
            assert models.factor(tape.gpu, tape.role) == pytest.approx(1.0, abs=0.02)


def test_a_gpu_near_the_others_is_taken_for_one_of_them() -> None:
    tapes, models = [prefill(f"p{number}") for number in range(4)], Models()
    tapes[0].token_s *= 1.03
    run(models, Deck(*tapes), 60.0)
    for tape in tapes:
        assert models.factor(tape.gpu, Role.PREFILL) == pytest.approx(1.0, abs=0.01)


def test_a_gpu_that_is_no_such_gpu_is_a_misfit_after_a_while() -> None:
    tapes, models = [decode(f"d{number}") for number in range(6)], Models()
    deck = Deck(*tapes)
    run(models, deck, 30.0)
    assert not models.misfit
    tapes[3].step_s *= 2.5
    run(models, deck, MISFIT_AFTER_S)
    assert not models.misfit, "it may be a passing trouble"
    run(models, deck, 2 * MISFIT_AFTER_S)
    assert "d3 takes" in models.misfit
    assert "decode" in models.misfit
    tapes[3].step_s /= 2.5
    run(models, deck, 4 * MISFIT_AFTER_S)
    assert not models.misfit


def test_instances_that_come_and_go_are_not_kept_for_ever() -> None:
    models, sizes = Models(), []
    for number in range(300):
        deck = Deck(prefill(f"p{number}"), decode("d"))
        deck.at_s += number
        models.observe(deck.turn())
        sizes.append(len(models.state()[5]))
    assert max(sizes) <= 2 * 2 + 64 + 1


# ---- shapes ----


@st.composite
def evidence(draw: st.DrawFn) -> list[tuple[float, float, float, float]]:
    """Limit by ceiling, tokens per second by what they should be, length of the visit, draw by limit."""
    share, factor = st.floats(0.2, 1.0), st.floats(0.2, 5.0)
    return draw(st.lists(st.tuples(share, factor, st.floats(1.0, 20.0), st.floats(0.5, 1.0)), min_size=1, max_size=6))


@given(evidence())
def test_whatever_is_seen_speeds_keep_their_shape(visits: list[tuple[float, float, float, float]]) -> None:
    tapes, models = (prefill(), decode()), Models()
    deck = Deck(*tapes)
    for share, factor, visit_s, draw in visits:
        for tape in tapes:
            tape.limit_mw = round(share * CEILING_MW)
            tape.draw_mw = round(draw * tape.limit_mw)
            tape.token_s, tape.step_s = 0.00004 * factor, 0.012 * factor
        run(models, deck, visit_s)
    speeds = [models.prefill_speed(limit_mw, GPU) for limit_mw in LIMITS_MW]
    rises = [after - before for before, after in pairwise(speeds)]
    assert speeds[-1] == pytest.approx(1.0)
    assert min(speeds) > 0
    assert min(rises) >= -1e-9
    assert all(after <= before + 1e-9 for before, after in pairwise(rises)), "concave"
    for batch in (1.0, 30.0, 300.0):
        speeds = [models.decode_speed(limit_mw, GPU, batch) for limit_mw in LIMITS_MW]
        assert speeds == sorted(speeds)
        assert speeds[0] > 0
        assert speeds[-1] <= 1.0
        assert models.step_s(batch, 1000.0, 500_000, GPU) > 0


def test_slopes_are_those_of_the_speeds() -> None:
    models, deck = Models(), Deck(prefill(), decode())
    run(models, deck, 10.0)

    def decode_speed(limit_mw: float) -> float:
        return models.decode_speed(limit_mw, GPU, 20.0)

    def prefill_speed(limit_mw: float) -> float:
        return models.prefill_speed(limit_mw, GPU)

    for limit_mw in range(110_000, 690_001, 20_000):
        for speed, slope in (
            (prefill_speed, models.prefill_slope(limit_mw, GPU)),
            (decode_speed, models.decode_slope(limit_mw, GPU, 20.0)),
        ):
            around = [speed(limit_mw + off) for off in (-200, 0, 200)]
            per_watt = [(after - before) / 0.2 for before, after in pairwise(around)]
            assert min(per_watt) - 1e-9 <= slope <= max(per_watt) + 1e-9


# ---- memory ----


def plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(plain(each) for each in value)
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return finite and isinstance(value, bool | int | float | str | None)


def test_state_is_plain_and_makes_the_same_models_again() -> None:
    start = Start(decode_ms=9.0)
    deck, models = Deck(prefill(), decode()), Models(start)
    assert plain(models.state())
    run(models, deck, 20.0)
    again = Models.from_state(models.state(), start)
    for _ in range(10):
        assert plain(models.state())
        assert again.state() == models.state()
        assert answers(again) == answers(models)
        seen = deck.turn()
        models.observe(seen)
        again.observe(seen)


def test_the_same_views_make_the_same_models() -> None:
    def live(mark: Callable[[View], View]) -> Models:
        deck, models = Deck(prefill(), decode()), Models()
        for _ in range(60):
            models.observe(mark(deck.turn()))
        return models

    assert answers(live(lambda view: view)) == answers(live(lambda view: replace(view, since_power_s=3.0)))


def answers(models: Models) -> list[float]:
    return [
        models.prefill_token_s(3000.0),
        models.context_tokens,
        models.factor("p-gpu", Role.PREFILL),
        models.factor("d-gpu", Role.DECODE),
        models.confidence(Role.PREFILL),
        models.confidence(Role.DECODE),
        *(models.prefill_speed(limit_mw, GPU) for limit_mw in LIMITS_MW),
        *(models.step_s(20.0, 900.0, limit_mw, GPU) for limit_mw in LIMITS_MW),
    ]
