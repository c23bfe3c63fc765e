"""The running score against one that keeps every request."""

from random import Random

import pytest

from rapid.core.cluster import SloTargets
from rapid.sim.model.requests import Finished, Request
from rapid.sim.summary import quantiles, summarize
from rapid.sim.world.score import Score, Spread

SLO = SloTargets(ttft_s=1.0, tpot_s=0.040)


def _finished(number: int, ttft_s: float, tpot_s: float | None, output_tokens: int = 10) -> Finished:
    return Finished(Request(number, 0.0, 100, output_tokens), 1.0, ttft_s, tpot_s)


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_a_summary_of_all_requests_says(seed: int) -> None:
    dice = Random(seed)
    score = Score(SLO)
    done: list[Finished] = []
    for number in range(2000):
        score.offer(Request(number, 0.0, 100, 10))
        if dice.random() < 0.9:
            tpot_s = None if dice.random() < 0.1 else dice.lognormvariate(-3.2, 0.5)
            done.append(_finished(number, dice.lognormvariate(-0.5, 1.0), tpot_s, dice.randint(1, 50)))
            score.finish(done[-1])
    told = summarize(done, 2000, slo=SLO, window_s=1.0, energy_mj=1.0)
    assert score.share(score.attained) == told.attainment
    assert score.share(score.attained + score.missed_tpot) == told.ttft_attainment
    assert score.share(score.attained + score.missed_ttft) == told.tpot_attainment
    assert score.unfinished == told.unfinished
    assert score.output_tokens == sum(item.request.output_tokens for item in done)
    for spread, exact in ((score.ttft, told.ttft), (score.tpot, told.tpot)):
        spot = spread.spot()
        for mine, theirs in ((spot.p50, exact.p50_s), (spot.p90, exact.p90_s), (spot.p99, exact.p99_s)):
            assert mine == pytest.approx(theirs, rel=0.0026), f"seed {seed}"


def test_the_ways_to_miss_are_told_apart() -> None:
    score = Score(SLO)
    for number, (ttft_s, tpot_s) in enumerate([(1.0, 0.04), (1.001, 0.04), (1.0, 0.041), (2.0, 0.5), (1.0, None)]):
        score.offer(Request(number, 0.0, 100, 10))
        score.finish(_finished(number, ttft_s, tpot_s))
    score.offer(Request(9, 0.0, 100, 10))
    found = (score.attained, score.missed_ttft, score.missed_tpot, score.missed_both, score.unfinished)
    assert found == (2, 1, 1, 1, 1)


def test_nothing_measured_is_no_quantile() -> None:
    assert Spread().quantile(0.5) is None
    assert Score(SLO).share(0) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_quantile_is_at_most_a_quarter_percent_off(seed: int) -> None:
    dice = Random(seed)
    values = [10 ** dice.uniform(-5.5, 3) for _ in range(1 + seed * 500)]
    spread = Spread()
    for value in values:
        spread.add(value)
    exact = quantiles(values)
    assert spread.quantile(0.9) == pytest.approx(exact.p90_s, rel=0.0026), f"seed {seed}"


def test_it_keeps_counts_and_not_requests() -> None:
    spread = Spread()
    dice = Random(1)
    for _ in range(50_000):
        spread.add(dice.uniform(0.01, 10.0))
    assert spread.remembered <= 1400, "log(1000) / log(1.005) buckets"
