"""Predictions: whatever is asked and planned they are shares, and what helps a phase that starves never looks worse."""

from dataclasses import replace
from itertools import pairwise
from math import isfinite
from random import Random

import pytest

from rapid.core.cluster import SloTargets
from rapid.core.policy.predictive.demand import Demand
from rapid.core.policy.predictive.models import Models
from rapid.core.policy.predictive.outlook import TRANSIT_S, Fleet, Forecast, Outlook, Plan
from tests.core.hosts import W
from tests.core.views import CEILING_W, FLOOR_W, gpu

GPU = gpu("any", 600)
EVEN = Fleet(4, 4)
HORIZON_S = 8.0
NEARLY = 1e-9
COARSE = 0.03  # the steps of the horizon are: a queue that ends within one is in time as a whole or not at all
# Several times what four instances can do, by the start profile.
PROMPTS_STARVE = Demand(60.0, 4_000.0, 10.0, 100_000.0, 10.0, 240_000.0, 600.0)
ANSWERS_STARVE = Demand(60.0, 200.0, 1_000.0, 0.0, 3_000.0, 12_000.0, 60_000.0)
EASY = Demand(1.0, 1_000.0, 50.0, 0.0, 2.0, 1_000.0, 50.0)


def outlook(demand: Demand, fleet: Fleet = EVEN, *, horizon_s: float = HORIZON_S, switch_s: float = 2.0) -> Outlook:
    return Outlook(
        demand,
        fleet,
        Models(),
        GPU,
        SloTargets(),
        horizon_s=horizon_s,
        steps=12,
        sequences=240.0,
        reserve=0.04,
        switch_s={True: switch_s, False: switch_s},
        engine_switch_s=switch_s,
        oldest_s=0.0,
        drain_s=switch_s,
    )


def forecast(
    demand: Demand,
    fleet: Fleet = EVEN,
    *,
    moves: int = 0,
    prefill_w: int = 600,
    decode_w: int = 600,
    horizon_s: float = HORIZON_S,
    switch_s: float = 2.0,
) -> Forecast:
    asked = outlook(demand, fleet, horizon_s=horizon_s, switch_s=switch_s)
    return asked.forecast(Plan(moves, prefill_w * W, decode_w * W))


def random_demand(dice: Random) -> Demand:
    rps, prompt, answer = 10 ** dice.uniform(-1, 2), 10 ** dice.uniform(0, 4.5), 10 ** dice.uniform(0.4, 3.5)
    many = dice.uniform(1, 5)
    queued = dice.choice((0.0, 10 ** dice.uniform(2, 6)))
    return Demand(
        dice.choice((0.0, rps, rps)),
        prompt,
        answer,
        queued,
        dice.choice((0.0, 10 ** dice.uniform(0, 3.5))),
        many * rps * prompt,
        many * rps * answer,
    )


def random_fleet(dice: Random) -> Fleet:
    return Fleet(dice.randint(1, 8), dice.randint(1, 8), dice.randint(0, 2), dice.randint(0, 2))


def random_plan(dice: Random, fleet: Fleet) -> Plan:
    moves = dice.choice([each for each in (-1, 0, 0, 1) if fleet.prefill + each >= 1 and fleet.decode - each >= 1])
    return Plan(moves, dice.randint(FLOOR_W, CEILING_W) * W, dice.randint(FLOOR_W, CEILING_W) * W)


# ---- whatever it is asked ----


@pytest.mark.parametrize("seed", range(4))
def test_attainment_is_a_share_and_a_value_is_a_number(seed: int) -> None:
    dice = Random(f"outlook {seed}")
    for number in range(100):
        fleet = random_fleet(dice)
        asked, plan = outlook(random_demand(dice), fleet, switch_s=dice.uniform(0, 9)), random_plan(dice, fleet)
        found = asked.forecast(plan)
        assert 0.0 <= found.attainment <= 1.0, (seed, number, found)
        assert isfinite(found.value), (seed, number, found)
        assert found.headroom > 0, (seed, number, found)


@pytest.mark.parametrize("seed", range(4))
def test_headroom_never_falls_with_watts_or_instances(seed: int) -> None:
    dice = Random(f"headroom {seed}")
    for number in range(50):
        demand, fleet = random_demand(dice), random_fleet(dice)
        plan = Plan(0, dice.randint(FLOOR_W, 700) * W, dice.randint(FLOOR_W, 700) * W)
        richer = Plan(0, plan.prefill_mw + 50 * W, plan.decode_mw + 50 * W)
        larger = replace(fleet, prefill=fleet.prefill + 1, decode=fleet.decode + 1)
        base = outlook(demand, fleet).forecast(plan).headroom
        assert outlook(demand, fleet).forecast(richer).headroom >= base * (1 - NEARLY), (seed, number)
        assert outlook(demand, larger).forecast(plan).headroom >= base * (1 - NEARLY), (seed, number)


@pytest.mark.parametrize("seed", range(4))
def test_more_watts_or_instances_for_prefill_alone_never_predict_less(seed: int) -> None:
    """Answers are so short that decode has time to spare, whatever comes."""
    dice = Random(f"prefill {seed}")
    for number in range(50):
        rps, prompt = 10 ** dice.uniform(-1, 2), 10 ** dice.uniform(2, 4)
        demand = Demand(rps, prompt, 2.0, dice.choice((0.0, 1e4, 1e5)), 1.0, rps * prompt, 2 * rps)
        fleet, watts_each = random_fleet(dice), sorted(dice.randint(FLOOR_W, CEILING_W) for _ in range(2))
        by_watts = [forecast(demand, fleet, prefill_w=each) for each in watts_each]
        by_count = [forecast(demand, replace(fleet, prefill=fleet.prefill + more)) for more in (0, 1)]
        for less, more in (by_watts, by_count):
            assert more.value >= less.value - NEARLY, (seed, number, less, more)
            assert more.attainment >= less.attainment - COARSE, (seed, number, less, more)


@pytest.mark.parametrize("seed", range(4))
def test_more_watts_or_instances_for_decode_alone_never_predict_less(seed: int) -> None:
    dice = Random(f"decode {seed}")
    for number in range(50):
        rps, answer = 10 ** dice.uniform(-1, 1.5), 10 ** dice.uniform(1, 3.5)
        demand = Demand(rps, 50.0, answer, 0.0, 10 ** dice.uniform(0, 3), 50 * rps, rps * answer)
        fleet, watts_each = random_fleet(dice), sorted(dice.randint(FLOOR_W, CEILING_W) for _ in range(2))
        by_watts = [forecast(demand, fleet, decode_w=each) for each in watts_each]
        by_count = [forecast(demand, replace(fleet, decode=fleet.decode + more)) for more in (0, 1)]
        for less, more in (by_watts, by_count):
            assert more.value >= less.value - NEARLY, (seed, number, less, more)
            assert more.attainment >= less.attainment - COARSE, (seed, number, less, more)


# ---- what it says ----


def test_an_easy_load_attains_and_a_hopeless_one_does_not() -> None:
    assert forecast(EASY).attainment > 0.95
    assert forecast(PROMPTS_STARVE).attainment < 0.1
    assert forecast(ANSWERS_STARVE).attainment < 0.1


def test_the_more_is_asked_for_the_less_is_attained() -> None:
    found = [
        forecast(Demand(rps, 3_000.0, 50.0, 0.0, rps, 3_000.0 * rps, 50.0 * rps)) for rps in (1.0, 8.0, 20.0, 50.0)
    ]

    assert all(low.value < high.value for high, low in pairwise(found))
    assert all(low.attainment <= high.attainment for high, low in pairwise(found))
    assert found[0].attainment > 0.9 > 0.3 > found[-1].attainment


def test_what_waits_comes_first() -> None:
    base = Demand(5.0, 2_000.0, 50.0, 0.0, 5.0, 10_000.0, 250.0)

    assert forecast(replace(base, queued_tokens=300_000.0)).attainment < forecast(base).attainment - 0.2


def test_a_burst_of_the_past_counts_for_headroom_and_not_for_attainment() -> None:
    calm = Demand(2.0, 1_000.0, 50.0, 0.0, 2.0, 2_000.0, 100.0)
    feared = replace(calm, reserve_tps=60_000.0)

    assert forecast(feared).attainment == forecast(calm).attainment
    assert forecast(feared).headroom < forecast(calm).headroom
    by_watts = [forecast(feared, prefill_w=each).value for each in (450, 550, 650)]
    assert all(low < high for low, high in pairwise(by_watts)), "prefill is where the burst would hurt"


# ---- hopeless phases ----


def test_of_a_burst_decode_bears_less_the_slower_it_fills_up() -> None:
    """Prefill gives an instance away in no time, and 16,000 tokens per second do not come at once to decode."""
    short, long = (Demand(1_000.0 / tokens, 200.0, tokens, 0.0, 20.0, 0.0, 16_000.0) for tokens in (100.0, 1_000.0))

    assert forecast(long).headroom > 1.5 * forecast(short).headroom


def test_a_hopeless_prefill_keeps_a_slope() -> None:
    by_watts = [forecast(PROMPTS_STARVE, prefill_w=each).value for each in range(FLOOR_W, CEILING_W, 50)]
    by_count = [forecast(PROMPTS_STARVE, Fleet(count, 4)).value for count in range(1, 7)]

    assert all(low < high for low, high in pairwise(by_watts)), by_watts
    assert all(low < high for low, high in pairwise(by_count)), by_count


def test_a_hopeless_decode_keeps_a_slope() -> None:
    by_count = [forecast(ANSWERS_STARVE, Fleet(4, count)).value for count in range(1, 7)]

    assert all(low < high for low, high in pairwise(by_count)), by_count


# ---- instances on their way ----


@pytest.mark.parametrize("demand", [PROMPTS_STARVE, ANSWERS_STARVE, EASY])
def test_instances_in_transit_serve_nobody_until_they_are_there(demand: Demand) -> None:
    without = forecast(demand, Fleet(3, 3), horizon_s=TRANSIT_S)

    assert forecast(demand, Fleet(3, 3, 2, 0), horizon_s=TRANSIT_S).attainment == without.attainment
    assert forecast(demand, Fleet(3, 3, 0, 2), horizon_s=TRANSIT_S).attainment == without.attainment


def test_instances_in_transit_are_worth_less_than_there_and_more_than_not_at_all() -> None:
    starving = Demand(20.0, 4_000.0, 10.0, 20_000.0, 5.0, 80_000.0, 200.0)
    nobody, coming, there = (forecast(starving, fleet) for fleet in (Fleet(3, 4), Fleet(3, 4, 2, 0), Fleet(5, 4)))

    assert nobody.value < coming.value < there.value


def test_an_instance_that_would_move_leaves_at_once_and_comes_late() -> None:
    """Where there is no time for it to arrive, all it does is harm."""
    short_s = 2.0
    stays = forecast(ANSWERS_STARVE, Fleet(4, 3), horizon_s=short_s)
    goes = forecast(ANSWERS_STARVE, Fleet(4, 3), moves=-1, horizon_s=short_s, switch_s=5.0)

    assert goes.attainment == pytest.approx(stays.attainment, abs=0.02)
    assert forecast(PROMPTS_STARVE, moves=-1, horizon_s=short_s, switch_s=5.0).attainment <= (
        forecast(PROMPTS_STARVE, horizon_s=short_s).attainment
    )


def test_a_slow_switch_is_worth_less() -> None:
    starving = Demand(14.0, 4_000.0, 10.0, 0.0, 5.0, 56_000.0, 140.0)
    quick, slow = (forecast(starving, Fleet(3, 5), moves=1, switch_s=each) for each in (0.5, 7.0))

    assert quick.value > slow.value


# ---- planted bugs ----


def test_the_checks_would_see_a_model_with_watts_upside_down() -> None:
    class Upside(Models):
        """Bug: the less watts, the faster."""

        def prefill_speed(self, limit_mw: float, gpu: object) -> float:
            return super().prefill_speed((FLOOR_W + CEILING_W) * W - limit_mw, GPU)

    asked = outlook(PROMPTS_STARVE)
    wrong = Outlook(
        PROMPTS_STARVE,
        EVEN,
        Upside(),
        GPU,
        SloTargets(),
        horizon_s=HORIZON_S,
        steps=12,
        sequences=240.0,
        reserve=0.04,
        switch_s={True: 2.0, False: 2.0},
        engine_switch_s=2.0,
        oldest_s=0.0,
        drain_s=2.0,
    )
    rich, poor = Plan(0, 700 * W, 600 * W), Plan(0, 500 * W, 600 * W)

    assert asked.forecast(rich).value > asked.forecast(poor).value
    assert wrong.forecast(rich).value < wrong.forecast(poor).value
