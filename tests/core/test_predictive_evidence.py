"""What counts as evidence for the models of the policy, what does not, and what becomes of it."""

from dataclasses import replace
from math import exp
from random import Random
from typing import Any

import pytest

from rapid.core.cluster import Phase, PhaseLoad, Role
from rapid.core.policy.predictive.decode_model import DecodeModel
from rapid.core.policy.predictive.lengths import Contexts, Lengths
from rapid.core.policy.predictive.models import SETTLE_S, Models, Start
from rapid.core.policy.predictive.prefill_model import PrefillModel
from rapid.core.policy.predictive.seen import LONGEST_S, Seen
from tests.core.taped import CEILING_MW, GPU, TICK_S, Deck, Tape, decode, prefill, run


def knows_nothing(models: Models, role: Role) -> bool:
    return models.confidence(role) == Models().confidence(role)


def test_nothing_is_learned_until_a_new_limit_has_settled() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    models.observe(deck.turn())
    assert SETTLE_S >= 2 * TICK_S
    for turn in range(80):  # a limit that changes at every other look
        tape.limit_mw = CEILING_MW - 50_000 * (turn // 2 % 2)
        models.observe(deck.turn())
    assert knows_nothing(models, Role.PREFILL)
    run(models, deck, 5.0)
    assert not knows_nothing(models, Role.PREFILL)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SERVING])
@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_an_instance_that_does_not_serve_teaches_nothing(role: Role, phase: Phase) -> None:
    models = Models()
    run(models, Deck(Tape("x", role, phase=phase)), 10.0)
    assert knows_nothing(models, role)


def test_a_new_role_is_no_evidence_until_it_has_settled() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    run(models, deck, 20.0)
    tape.role = Role.DECODE
    run(models, deck, SETTLE_S)
    assert knows_nothing(models, Role.DECODE)
    run(models, deck, 5.0)
    assert not knows_nothing(models, Role.DECODE)


def test_missing_loads_teach_nothing_and_do_no_harm() -> None:
    tape, models = prefill(), Models()
    deck = Deck(tape)
    for turn in range(200):
        tape.heard = turn % 5 > 1
        models.observe(deck.turn())
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.03)
    silent = Models()
    tape.heard = False
    run(silent, deck, 10.0)
    assert knows_nothing(silent, Role.PREFILL)


@pytest.mark.parametrize("histograms", [True, False])
def test_counters_of_a_new_life_start_anew(histograms: bool) -> None:
    tape, models = prefill(), Models()
    tape.histograms = histograms
    deck = Deck(tape)
    for turn in range(200):
        if turn % 7 == 6:
            tape.restart()
        models.observe(deck.turn())
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.03)


def test_the_same_load_twice_counts_once() -> None:
    deck = Deck(prefill(), decode())
    once, twice = Models(), Models()
    for _ in range(40):
        seen = deck.turn()
        once.observe(seen)
        twice.observe(seen)
        twice.observe(seen)
    assert once.prefill_token_s(1000.0) == pytest.approx(twice.prefill_token_s(1000.0), rel=1e-3)
    assert once.confidence(Role.DECODE) == pytest.approx(twice.confidence(Role.DECODE), rel=1e-3)


def test_a_load_from_before_a_new_limit_says_nothing_of_it() -> None:
    """However often it is seen again: the next one is of both limits."""
    tape, models = prefill(), Models()
    tape.report_s = 3.0
    deck = Deck(tape)
    for turn in range(480):
        if turn % 12 == 8:  # the last load is a second old
            tape.limit_mw = CEILING_MW if tape.limit_mw < CEILING_MW else CEILING_MW // 2
        models.observe(deck.turn())
    assert models.prefill_token_s(1000.0) == pytest.approx(tape.token_s, rel=0.03)
    assert models.prefill_speed(CEILING_MW // 2, GPU) == pytest.approx(0.5**tape.exponent, rel=0.03)


@pytest.mark.parametrize(
    ("change", "follows"),
    [
        ({}, True),
        ({"role": Role.DECODE}, False),
        ({"at_s": 10.0}, False),
        ({"at_s": 9.0}, False),
        ({"at_s": 10.0 + LONGEST_S}, True),
        ({"at_s": 10.1 + LONGEST_S}, False),
        ({"prompt_tokens": 999}, False),
        ({"output_tokens": 99}, False),
    ],
)
def test_which_load_continues_another(change: dict[str, Any], follows: bool) -> None:
    seen = Seen()
    load = PhaseLoad("x", Role.PREFILL, 10.0, prompt_tokens=1000, output_tokens=100)
    assert not seen.follows(load, 10, 5)
    seen.take(load, 10, 5, 100.0)
    assert seen.follows(replace(load, **{"at_s": 10.5, **change}), 10, 5) == follows
    assert not seen.follows(replace(load, at_s=10.5), 9, 5)
    assert not seen.follows(replace(load, at_s=10.5), 10, 4)


def test_a_full_ring_makes_less_sure() -> None:
    """The engine may have stood still between two looks."""
    sure = []
    for full in (0.5, 0.95):
        tape, models = prefill(), Models()
        tape.full = full
        run(models, Deck(tape), 10.0)
        sure.append(models.confidence(Role.PREFILL))
    assert sure[0] > 1.5 * sure[1]


def test_evidence_fades_to_nothing_without_an_error() -> None:
    model = DecodeModel(Start())
    fresh = model.confidence
    model.add(0.9, 30.0, 1000.0, 0.02, 0.05)
    model.natural.add(30.0, 1.0, 0.5)
    model.forget(1e-290)
    for _ in range(1000):
        model.forget(0.9)
        model.refit()
    assert model.confidence == fresh
    assert not any(any(terms) for terms in model.state()[0]), "nothing is nothing, not a little"
    assert model.natural.at(30.0) == DecodeModel(Start()).natural.at(30.0)


@pytest.mark.parametrize("step_s", [0.02, 0.06, 0.16])
def test_evidence_weighs_the_same_however_slow_a_limit_makes_an_engine(step_s: float) -> None:
    """A hundred steps that are known to 5 % each."""

    def odds() -> float:
        return model.confidence / (1 - model.confidence)

    model = DecodeModel(Start())
    for _ in range(20):
        model.add(1.0, 30.0, 1000.0, 0.02, 0.05)
        model.refit()
    before = odds()
    for _ in range(100):
        model.add(0.6, 30.0, 1000.0, step_s, 0.05)
        model.refit()
    assert odds() - before == pytest.approx(100 / 0.05**2 / 3000, rel=0.4)


def test_a_prompt_that_takes_ages_makes_prefill_look_slow_and_no_more() -> None:
    tape, models = prefill(), Models()
    tape.token_s = 100.0
    before_s = models.prefill_token_s(1000.0)
    run(models, Deck(tape), 10.0)
    assert models.prefill_token_s(1000.0) > 2 * before_s


def test_a_quiet_night_forgets_no_lengths_and_breaks_nothing() -> None:
    deck, models = Deck(prefill(), decode()), Models()
    deck.tapes[0].prompt_tokens = 3000
    run(models, deck, 60.0)
    before = models.context_tokens
    for tape in deck.tapes:
        tape.running = False
    for _ in range(3500):
        models.observe(deck.turn(5.0))
    assert models.context_tokens == pytest.approx(before, rel=0.05)
    assert knows_nothing(models, Role.DECODE)
    for tape in deck.tapes:
        tape.running = True
    run(models, deck, 60.0)
    assert models.prefill_token_s(3000.0) == pytest.approx(deck.tapes[0].token_s, rel=0.03)


# ---- lengths ----


@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.9])
def test_how_much_prompts_differ_is_known(sigma: float) -> None:
    dice, lengths = Random(f"lengths {sigma}"), Lengths()
    for _ in range(2000):
        prompts = [int(1500 * exp(dice.gauss(0.0, sigma))) for _ in range(dice.randint(1, 8))]
        lengths.add_prompts(sum(prompts), len(prompts))
        lengths.forget(0.1)
    assert lengths.spread == pytest.approx(exp(sigma**2), rel=0.25)


@pytest.mark.parametrize(("before", "after"), [(8192, 512), (512, 8192)])
def test_a_new_mix_of_prompts_is_not_taken_for_a_spread(before: int, after: int) -> None:
    lengths = Lengths()
    for _ in range(100):
        lengths.add_prompts(3 * before, 3)
    for _ in range(20):
        lengths.add_prompts(3 * after, 3)
        lengths.forget(0.1)
    assert lengths.spread < 1.5


def test_contexts_are_told_apart_by_how_full_the_cache_is() -> None:
    """The mix has changed: by the lengths all are short, and one instance still runs the long ones."""
    contexts = Contexts()
    for _ in range(400):
        contexts.add(20.0, 20 * 8000 / 1e6, 8000.0)
        contexts.forget(0.1)
    assert contexts.add(20.0, 20 * 8000 / 1e6, 1000.0) == pytest.approx(4000), "but no more than four times the mean"
    assert contexts.add(20.0, 20 * 3000 / 1e6, 1000.0) == pytest.approx(3000, rel=0.02)
    assert contexts.add(10.0, 10 * 1000 / 1e6, 1000.0) == pytest.approx(1000, rel=0.02)
    assert contexts.add(10.0, 0.0, 1000.0) == 1000.0, "not told"
    assert 1000 < contexts.now(77.0) < 8000
    for _ in range(100):
        contexts.forget(1.0)
    assert contexts.now(77.0) == 77.0


def test_answers_that_nobody_has_finished_do_not_look_endless() -> None:
    """Twenty begin every half second, and in three seconds none has come to its end: each is half made, at most."""
    lengths = Lengths()
    for looks in range(1, 7):
        lengths.add_answers(20 * 50 * looks, 0, 20)

    assert lengths.context_tokens - lengths.prompt_tokens < 300.0


def test_lengths_outlast_any_silence() -> None:
    lengths = Lengths()
    lengths.add_prompts(30_000, 10)
    lengths.add_answers(5_000, 10, 0)
    before = lengths.prompt_tokens, lengths.context_tokens
    for _ in range(10_000):
        lengths.forget(5.0)
    assert (lengths.prompt_tokens, lengths.context_tokens) == pytest.approx(before)


def test_context_is_the_prompt_and_half_of_the_answer() -> None:
    deck, models = Deck(prefill(), decode()), Models()
    deck.tapes[0].prompt_tokens, deck.tapes[1].answer_tokens = 3000, 600
    run(models, deck, 120.0)
    assert models.context_tokens == pytest.approx(3300, rel=0.03)


def test_long_prompts_cost_more_where_they_differ_more() -> None:
    def ratio(spread: float) -> float:
        model = PrefillModel(Start())
        return model.token_s(20_000.0, spread) / model.token_s(2_000.0, spread)

    assert 1.1 < ratio(1.0) < ratio(3.0)
