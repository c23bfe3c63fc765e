"""Draw by energy counters, and the attainment of the last minute."""

from dataclasses import replace

import pytest

from rapid.core.cluster import NodeReport
from rapid.core.facility.meter import STALE_S, Meter, Recent
from tests.controller.fakes import report


def said(at_s: float, energy_mj: int | None, *, incarnation: str = "1-a") -> NodeReport:
    """A report of one GPU, sampled at at_s of the node's own time."""
    made = report(incarnation=incarnation)
    gpu = replace(made.gpus[0], energy_mj=energy_mj, draw_at_s=at_s)
    return replace(made, gpus=(gpu,), node_time_s=at_s)


def heard(*reports: NodeReport) -> int | None:
    """What is known after them; the controller's clock is ahead of the node's by 100 s."""
    meter = Meter()
    for each in reports:
        meter.hear(each, each.node_time_s + 100.0)
    return meter.mean_mw("n1-g0", reports[-1].node_time_s + 100.0)


def test_the_mean_is_known_when_a_window_is_whole() -> None:
    assert heard(said(0.0, 0), said(1.9, 950_000)) is None
    assert heard(said(0.0, 0), said(1.0, 300_000), said(2.0, 1_000_000)) == 500_000


def test_the_next_window_goes_on_from_the_last_reading() -> None:
    assert heard(said(0.0, 0), said(2.0, 1_000_000), said(3.0, 1_100_000), said(4.0, 1_200_000)) == 100_000


def test_a_counter_that_begins_anew_is_unknown_until_a_window_is_whole() -> None:
    before = (said(0.0, 500_000), said(2.0, 1_500_000))
    assert heard(*before, said(2.5, 10_000)) is None
    assert heard(*before, said(2.5, 10_000), said(4.5, 610_000)) == 300_000
    assert heard(*before, said(5.0, 9_000_000, incarnation="2-b")) is None, "a new life has a clock of its own"


def test_an_old_sample_that_comes_again_measures_nothing() -> None:
    assert heard(said(0.0, 0), *(said(1.0, 300_000) for _ in range(9))) is None


def test_a_mean_grows_old() -> None:
    meter = Meter()
    for at_s, energy_mj in ((0.0, 0), (2.0, 1_000_000)):
        meter.hear(said(at_s, energy_mj), at_s)
    assert meter.mean_mw("n1-g0", 2.0 + STALE_S) == 500_000
    assert meter.mean_mw("n1-g0", 2.1 + STALE_S) is None


def test_a_gpu_without_a_counter_is_unknown() -> None:
    assert heard(said(0.0, None), said(2.0, None)) is None


def test_attainment_is_of_the_last_minute() -> None:
    recent = Recent()
    none = ((0.0, 0.0), (0.0, 0.0))
    assert recent.attainment(none) is None
    for second in range(120):
        # For a minute everything is missed, then nine of ten and eight of ten are met.
        good = max(0, second - 50)
        recent.see(((second * 10.0, good * 9.0), (second * 10.0, good * 8.0)), float(second))
    assert recent.attainment(((1_200.0, 630.0), (1_200.0, 560.0))) == pytest.approx(0.72, abs=0.02)
    assert recent.attainment(recent._marks[0][1]) is None
