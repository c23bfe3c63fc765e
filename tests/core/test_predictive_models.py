"""What the policy believes of the engines, and when it believes it."""

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.policy.predictive.models import SETTLE_S, Models, Start
from tests.core.taped import CEILING_MW, TICK_S, Deck, Tape, gpu_of


def run(models: Models, deck: Deck, lived_s: float) -> None:
    for _ in range(round(lived_s / TICK_S)):
        models.observe(deck.turn())


def prefill() -> Tape:
    return Tape("p", Role.PREFILL)


def decode() -> Tape:
    return Tape("d", Role.DECODE)


def test_cost_of_prefill_is_learned_within_a_minute() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    assert models.prefill_token_s(1000.0) != pytest.approx(tape.token_s, rel=0.2), "it must not know by chance"
    run(models, deck, 30.0)
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.02)


def test_step_time_is_learned_within_a_minute() -> None:
    tape, models = decode(), Models()
    deck = Deck(tape)
    run(models, deck, 30.0)
    step_s = models.step_s(tape.batch, models.context_tokens, tape.limit_mw, gpu_of(deck.view()))
    assert step_s == pytest.approx(tape.step_s, rel=0.03)


@pytest.mark.parametrize("exponent", [0.4, 0.6, 0.9])
def test_speed_between_visited_limits_is_learned(exponent: float) -> None:
    tape, models = prefill(), Models()
    tape.exponent = exponent
    deck = Deck(tape)
    for share in (1.0, 0.7, 0.85, 0.7, 1.0, 0.85):
        tape.limit_mw = round(share * CEILING_MW)
        run(models, deck, 10.0)
    gpu = gpu_of(deck.view())
    for share in (0.7, 0.85):
        assert models.prefill_speed(share * CEILING_MW, gpu) == pytest.approx(share**exponent, rel=0.04)


def test_nothing_is_learned_until_a_new_limit_has_settled() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    models.observe(deck.turn())
    for _ in range(40):  # a limit that changes at every other tick
        tape.limit_mw = CEILING_MW - 50_000 if tape.limit_mw == CEILING_MW else CEILING_MW
        models.observe(deck.turn())
        models.observe(deck.turn())
    assert TICK_S * 2 <= SETTLE_S
    assert models.confidence(Role.PREFILL) == Models().confidence(Role.PREFILL)
    run(models, deck, 5.0)
    assert models.confidence(Role.PREFILL) > Models().confidence(Role.PREFILL)


def test_state_makes_the_same_models_again() -> None:
    tapes = Deck(prefill(), decode())
    models = Models(Start(decode_ms=9.0))
    run(models, tapes, 20.0)
    again = Models.from_state(models.state(), Start(decode_ms=9.0))
    gpu = gpu_of(tapes.view())
    for _ in range(10):
        assert again.state() == models.state()
        assert again.prefill_token_s(3000.0) == models.prefill_token_s(3000.0)
        for limit_mw in range(100_000, 700_001, 50_000):
            assert again.prefill_speed(limit_mw, gpu) == models.prefill_speed(limit_mw, gpu)
            assert again.step_s(20, 900.0, limit_mw, gpu) == models.step_s(20, 900.0, limit_mw, gpu)
        seen = tapes.turn()
        models.observe(seen)
        again.observe(seen)


def test_instances_that_change_role_teach_nothing() -> None:
    tape, models = prefill(), Models()
    tape.phase = Phase.DRAINING
    run(models, Deck(tape), 10.0)
    assert models.confidence(Role.PREFILL) == Models().confidence(Role.PREFILL)
