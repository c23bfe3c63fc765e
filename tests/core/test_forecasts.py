"""What decisions predicted is held against what was measured in the time that they predicted."""

from dataclasses import replace
from typing import Any

import pytest

from rapid.core.cluster import Candidate, PhaseLoad, Role, SloTargets, Targets
from rapid.core.commands import Scored
from rapid.core.forecasts import PENDING_MAX, RECENT_MAX, Forecasts, check
from rapid.core.slo import Slo
from tests.core.engines import load


class Life:
    """An engine whose requests are counted, and the predictions about them."""

    def __init__(self) -> None:
        self.slo = Slo(SloTargets(ttft_s=1.0, tpot_s=0.04), 5.0)
        self.forecasts = Forecasts(self.slo)
        self.ttfts: dict[float, int] = {}
        self.tpots: dict[float, int] = {}
        self.serve(0.0)

    def serve(self, at_s: float, *, in_time: int = 0, late: int = 0, smooth: int = 0, slow: int = 0) -> None:
        """So many first tokens, in time and late, and so many requests finished, at 20 ms and at 60 ms a token."""
        for counts, took_s, more in (
            (self.ttfts, 0.5, in_time),
            (self.ttfts, 2.0, late),
            (self.tpots, 0.02, smooth),
            (self.tpots, 0.08, slow),
        ):
            counts[took_s] = counts.get(took_s, 0) + more
        self.slo.take(self.load(), at_s)

    def load(self) -> PhaseLoad:
        return load("e1", Role.MIXED, ttfts=self.ttfts, tpots=self.tpots)


def test_the_measure_is_the_product_of_both_shares_in_the_time_of_the_prediction() -> None:
    life = Life()
    life.serve(1.0, late=100, slow=100)  # before: none of its business
    life.forecasts.predict("D1", 0.9, 8.0, 2.0)
    life.serve(5.0, in_time=8, late=2, smooth=3, slow=1)

    assert life.forecasts.score(9.9) == []
    assert life.forecasts.score(10.0) == [Scored("D1", 0.9, 0.8 * 0.75)]
    assert life.forecasts.score(20.0) == [], "once"


@pytest.mark.parametrize(("counts", "measured"), [({"in_time": 3, "late": 1}, 0.75), ({"smooth": 1, "slow": 3}, 0.25)])
def test_what_was_measured_alone_counts_alone(counts: dict[str, int], measured: float) -> None:
    life = Life()
    life.forecasts.predict("D1", 0.5, 8.0, 0.0)
    life.serve(5.0, **counts)

    assert life.forecasts.score(8.0) == [Scored("D1", 0.5, measured)]


def test_a_prediction_is_given_up_when_no_request_was_measured_in_its_time() -> None:
    life = Life()
    life.serve(0.5, in_time=5, smooth=5)
    life.forecasts.predict("D1", 0.5, 8.0, 1.0)

    assert life.forecasts.score(9.0) == []
    assert (life.forecasts.scored, life.forecasts.error) == (0, None)


def test_each_of_several_is_held_against_its_own_time() -> None:
    life = Life()
    life.forecasts.predict("D1", 1.0, 8.0, 0.0)
    life.serve(1.0, late=4)
    life.forecasts.predict("D2", 1.0, 2.0, 2.0)
    life.forecasts.predict("D3", 0.5, 8.0, 2.0)
    life.serve(3.0, in_time=4)

    assert life.forecasts.score(4.0) == [Scored("D2", 1.0, 1.0)], "the last may be due first"
    assert life.forecasts.score(12.0) == [Scored("D1", 1.0, 0.5), Scored("D3", 0.5, 1.0)]
    assert life.forecasts.error == pytest.approx((0.0 + 0.5 + 0.5) / 3)
    assert life.forecasts.recent == ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0))


def test_the_oldest_gives_way_and_only_the_last_scores_are_shown() -> None:
    life = Life()
    for number in range(PENDING_MAX + 1):
        life.forecasts.predict(f"D{number}", number / 100, 8.0, 0.0)
    life.serve(1.0, in_time=1)

    scores = life.forecasts.score(8.0)

    assert [each.decision for each in scores] == [f"D{number}" for number in range(1, PENDING_MAX + 1)]
    assert life.forecasts.recent == tuple((each.predicted, 1.0) for each in scores[-RECENT_MAX:])
    assert life.forecasts.scored == PENDING_MAX


def test_the_next_life_in_a_process_goes_on_with_what_is_under_way() -> None:
    life = Life()
    life.forecasts.predict("D1", 0.25, 4.0, 0.0)
    life.serve(1.0, in_time=1)
    life.forecasts.score(4.0)
    life.forecasts.predict("D2", 1.0, 8.0, 4.0)
    life.serve(5.0, late=1)

    later = Life()
    later.slo.go_on_from(*life.slo.totals())
    later.forecasts.go_on_from(life.forecasts.snapshot(6.0), 106.0, same_process=True)
    later.serve(107.0, in_time=3)

    assert later.forecasts.score(111.9) == []
    assert later.forecasts.score(112.0) == [Scored("D2", 1.0, 0.75)]
    assert later.forecasts.error == pytest.approx((0.75 + 0.25) / 2)


def test_a_new_process_gives_up_what_was_under_way_and_keeps_the_scores() -> None:
    life = Life()
    life.forecasts.predict("D1", 0.25, 4.0, 0.0)
    life.serve(1.0, in_time=1)
    life.forecasts.score(4.0)
    life.forecasts.predict("D2", 1.0, 8.0, 4.0)

    later = Life()
    later.forecasts.go_on_from(life.forecasts.snapshot(6.0), 106.0, same_process=False)
    later.serve(107.0, in_time=3)

    assert later.forecasts.score(200.0) == []
    assert (later.forecasts.scored, later.forecasts.error, later.forecasts.recent) == (1, 0.75, ((0.25, 1.0),))


CANDIDATE = Candidate("5P3D", 1.0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"predicted": 1.001}, "attainment of 1.001 is predicted, outside 0..1"),
        ({"predicted": float("nan")}, "attainment of nan"),
        ({"held": -0.1}, "attainment of -0.1"),
        ({"candidates": (CANDIDATE, replace(CANDIDATE, predicted=2.0))}, "attainment of 2.0"),
        ({"horizon_s": 0.0}, "a prediction for 0 s"),
        ({"candidates": (CANDIDATE,) * 9}, "9 candidates, at most 8"),
    ],
)
def test_what_is_no_prediction_is_a_mistake_of_the_policy(change: dict[str, Any], problem: str) -> None:
    good = Targets({}, {}, "why", (), 1.0, 0.0, 8.0, (CANDIDATE,) * 8)
    check(good)
    with pytest.raises(AssertionError, match=problem):
        check(replace(good, **change))
