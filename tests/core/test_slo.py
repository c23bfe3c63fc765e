"""TTFT and TPOT as the control loop judges them. Engines report cumulative histograms; reports may be lost or doubled,
engines restart, and not all have the same buckets."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import Histogram, PhaseLoad, Role, SloTargets
from rapid.core.slo import Durations, Slo

BOUNDS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
TARGETS = SloTargets(ttft_s=1.0, tpot_s=0.04)


class Engine:
    """An engine's counters: what has been measured is in its histogram for good, until it restarts."""

    def __init__(self, name: str = "e", bounds_s: Sequence[float] = BOUNDS_S) -> None:
        self.name, self.bounds_s = name, tuple(bounds_s)
        self.restart()

    def restart(self) -> None:
        self.ttfts_s: list[float] = []

    def serve(self, *ttfts_s: float) -> PhaseLoad:
        """These requests are served; what the engine reports now."""
        self.ttfts_s += ttfts_s
        counts = [0] * (len(self.bounds_s) + 1)
        for ttft_s in self.ttfts_s:
            counts[sum(ttft_s > bound_s for bound_s in self.bounds_s)] += 1
        served = len(self.ttfts_s)
        return PhaseLoad(
            self.name,
            Role.PREFILL,
            0.0,
            arrived=served,
            finished=served,
            ttft=Histogram(self.bounds_s, tuple(counts)),
            tpot=Histogram((0.04,), (served, 0)),
        )


def watched(engine: Engine, at_s: float = 0.0, window_s: float = 5.0) -> Slo:
    """An Slo that knows the engine and counts from here."""
    slo = Slo(TARGETS, window_s)
    slo.take(engine.serve(), at_s)
    return slo


# ---- attainment ----


def test_attainment_is_exact_where_the_target_is_a_bound() -> None:
    engine = Engine()
    slo = watched(engine)

    slo.take(engine.serve(0.9, 1.0, 1.0001, 3.0, 9.0), 1.0)

    assert slo.ttft.attainment() == 2 / 5, "at the target is attained, above it is not"
    assert slo.tpot.attainment() == 1.0
    assert slo.finished == 5


def test_between_bounds_a_bucket_is_taken_as_evenly_spread() -> None:
    durations = Durations(target_s=1.5, window_s=5.0)

    durations.add(Histogram(BOUNDS_S, (0,) * 6), Histogram(BOUNDS_S, (0, 0, 0, 8, 0, 0)), 0.0)

    assert durations.attainment() == 0.5


def test_what_lies_above_all_bounds_has_missed_its_target() -> None:
    engine = Engine(bounds_s=(0.5,))
    slo = watched(engine)

    slo.take(engine.serve(0.4, 0.6), 1.0)

    assert slo.ttft.attainment() == 0.5, "0.6 s would be in time, but nobody measured that"


def test_without_a_request_there_is_no_attainment() -> None:
    slo = watched(Engine())

    assert slo.ttft.attainment() is None
    assert slo.ttft.quantile(0.9, 0.0) is None


# ---- what is counted, and what not twice ----


def test_the_first_report_of_an_engine_is_where_counting_starts() -> None:
    """A controller that starts beside engines that run must not judge by requests of an hour ago."""
    engine = Engine()
    engine.serve(*[9.0] * 1000)
    slo = watched(engine)

    slo.take(engine.serve(0.1), 1.0)

    assert slo.ttft.attainment() == 1.0
    assert slo.finished == 1


def test_lost_and_doubled_reports_change_nothing() -> None:
    dice = random.Random(3)
    engine = Engine()
    every, some = watched(engine), watched(engine)
    for second in range(60):
        load = engine.serve(*(dice.expovariate(1.0) for _ in range(dice.randrange(5))))
        every.take(load, float(second))
        for _ in range(dice.randrange(3) if second < 59 else 1):
            some.take(load, float(second))

    assert some.finished == every.finished == len(engine.ttfts_s)
    assert some.ttft.attainment() == every.ttft.attainment()


def test_a_restarted_engine_begins_to_count_from_nothing() -> None:
    engine = Engine()
    slo = watched(engine)
    slo.take(engine.serve(*[0.1] * 10), 1.0)
    engine.restart()

    slo.take(engine.serve(9.0, 9.0), 3.0)
    slo.take(engine.serve(9.0), 3.5)

    assert slo.finished == 13
    assert slo.ttft.attainment() == 10 / 13


@pytest.mark.parametrize(("arrived", "finished", "counted"), [(9, 10, 10), (10, 9, 9)])
def test_one_count_that_has_fallen_is_enough_for_a_restart(arrived: int, finished: int, counted: int) -> None:
    slo = Slo(TARGETS, 5.0)
    slo.take(PhaseLoad("e", Role.PREFILL, 0.0, arrived=10, finished=10), 0.0)

    slo.take(PhaseLoad("e", Role.PREFILL, 0.0, arrived=arrived, finished=finished), 2.0)

    assert slo.finished == counted


def test_an_engine_that_restarts_at_once_loses_no_request() -> None:
    """Until it is sure that the reports are not old ones, they wait; then all of them count."""
    engine = Engine()
    slo = watched(engine)
    slo.take(engine.serve(*[0.1] * 10), 1.0)
    engine.restart()
    slo.take(engine.serve(9.0), 1.2)
    slo.take(engine.serve(9.0), 1.9)

    slo.take(engine.serve(), 2.1)

    assert slo.finished == 12
    assert slo.ttft.attainment() == 10 / 12


def test_an_older_report_that_came_the_slower_way_counts_nothing() -> None:
    """A load goes up through rapidd and over the engine's own stream; if the older of two is heard last, the engine
    has not restarted, and its requests must not be counted all over again."""
    engine = Engine()
    slo = watched(engine)
    slo.take(engine.serve(*[0.1] * 1000), 1.0)
    older = engine.serve(0.1)
    newer = engine.serve(0.1)

    slo.take(newer, 1.500)
    slo.take(older, 1.501)
    slo.take(engine.serve(9.0), 2.0)

    assert slo.finished == 1003
    assert slo.ttft.attainment() == 1002 / 1003


def test_an_older_report_is_known_by_its_histograms_too() -> None:
    """A first token comes long before a request is finished, so the counters alone do not show which is older."""
    engine = Engine()
    slo = watched(engine)
    older, newer = engine.serve(*[0.1] * 500), engine.serve(0.1)

    slo.take(PhaseLoad("e", Role.PREFILL, 0.0, arrived=501, ttft=newer.ttft), 1.500)
    slo.take(PhaseLoad("e", Role.PREFILL, 0.0, arrived=501, ttft=older.ttft), 1.501)

    assert slo.ttft.total == 501


def test_an_engine_that_comes_back_with_other_buckets_is_counted_anew() -> None:
    old, new = Engine(bounds_s=(1.0,)), Engine(bounds_s=(0.5, 1.0))
    slo = watched(old)
    slo.take(old.serve(0.1, 0.1), 1.0)

    slo.take(new.serve(0.1, 0.1, 9.0), 5.0)

    assert slo.ttft.total == 5
    assert slo.finished == 3


def test_an_engine_that_was_forgotten_is_met_for_the_first_time() -> None:
    engine = Engine()
    slo = watched(engine)
    engine.serve(*[9.0] * 100)
    slo.forget("e")

    slo.take(engine.serve(), 1.0)
    slo.take(engine.serve(0.1), 2.0)

    assert slo.finished == 1


# ---- the window ----


def test_the_window_slides() -> None:
    engine = Engine()
    slo = watched(engine, window_s=5.0)
    slo.take(engine.serve(*[3.0] * 100), 10.2)
    slo.take(engine.serve(*[0.1] * 10), 12.0)

    assert _p90(slo, 12.0) > 2.0
    assert _p90(slo, 14.9) > 2.0, "younger than the window"
    assert _p90(slo, 15.2) <= 0.25, "the late ones have left, the quick ones have not"
    assert slo.ttft.quantile(0.9, 17.0) is None
    assert slo.ttft.attainment() == 10 / 110, "attainment is since start"


def test_the_window_keeps_ten_slots_however_many_reports_come() -> None:
    engine = Engine()
    slo = watched(engine)
    for report in range(2000):
        slo.take(engine.serve(0.1), report * 0.01)

    assert len(slo.ttft._slots) <= 11


def _p90(slo: Slo, at_s: float) -> float:
    p90_s = slo.ttft.quantile(0.9, at_s)
    assert p90_s is not None
    return p90_s


# ---- quantiles ----


def plain_quantile(histograms: Sequence[Histogram], share: float) -> float | None:
    """By bisection: where the share of all requests lies below, if each bucket is evenly spread. Above all bounds of
    its engine a request may have taken any time, so it lies above every bound there is."""
    buckets = [
        (lower, upper, count)
        for one in histograms
        for lower, upper, count in zip((0.0, *one.bounds_s), (*one.bounds_s, float("inf")), one.counts, strict=True)
        if count
    ]
    if not buckets:
        return None

    def below(time_s: float) -> float:
        return sum(count * min(1.0, max(0.0, (time_s - lower) / (upper - lower))) for lower, upper, count in buckets)

    low, high = 0.0, max(edge for lower, upper, _ in buckets for edge in (lower, upper) if edge != float("inf"))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < share * sum(count for *_, count in buckets) else (low, middle)
    return high


def histograms_of(*bounds: Sequence[float]) -> st.SearchStrategy[list[Histogram]]:
    return st.tuples(
        *(
            st.builds(Histogram, st.just(tuple(each)), st.tuples(*[st.integers(0, 30)] * (len(each) + 1)))
            for each in bounds
        )
    ).map(list)


@pytest.mark.parametrize("bounds", [[BOUNDS_S], [BOUNDS_S, (0.1, 0.7, 3.0)], [(1.0,), (0.5,), (0.3, 6.0)]])
@given(data=st.data(), share=st.floats(0.01, 0.99))
def test_quantiles_are_those_of_a_plain_reference(
    bounds: Sequence[Sequence[float]], data: st.DataObject, share: float
) -> None:
    histograms = data.draw(histograms_of(*bounds))
    durations = Durations(target_s=1.0, window_s=5.0)
    for one in histograms:
        durations.add(Histogram(one.bounds_s, (0,) * len(one.counts)), one, 0.0)

    quantile_s = durations.quantile(share, 0.0)

    expected_s = plain_quantile(histograms, share)
    assert quantile_s == (None if expected_s is None else pytest.approx(expected_s, abs=1e-6))


def test_a_coarse_engine_beside_a_fine_one_does_not_hide_what_is_slow() -> None:
    """Half of the requests took up to 0.5 s and half up to 1 s, so 55 % cannot lie below 0.1 s."""
    durations = Durations(target_s=1.0, window_s=5.0)
    durations.add(Histogram((0.5,), (0, 0)), Histogram((0.5,), (50, 0)), 0.0)
    durations.add(Histogram((1.0,), (0, 0)), Histogram((1.0,), (50, 0)), 0.0)

    assert durations.quantile(0.55, 0.0) == pytest.approx(0.55 / 1.5)


def test_above_all_bounds_a_quantile_is_the_greatest_bound() -> None:
    durations = Durations(target_s=1.0, window_s=5.0)
    durations.add(Histogram((1.0,), (0, 0)), Histogram((1.0,), (1, 9)), 0.0)
    assert durations.quantile(0.9, 0.0) == 1.0

    durations.add(Histogram((4.0,), (0, 0)), Histogram((4.0,), (10, 0)), 0.0)
    assert durations.quantile(0.9, 0.0) == 4.0, "nine may have taken any time above 1 s"
