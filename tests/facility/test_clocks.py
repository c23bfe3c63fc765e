"""Orders outlive restarts and clocks that are set: nothing accepted is lost, and nothing rises by a wrong clock."""

import pytest

from rapid.core.control import Control
from rapid.core.facility.clocks import Clocks
from rapid.core.facility.nouns import FacilitySnapshot, Schedule, Why
from rapid.core.settings import Settings
from rapidctl.controller import codec
from tests.facility.town import FACILITY, Town, settled

HOUR_S = 3600.0


@pytest.mark.parametrize("skew_s", [2 * HOUR_S, -2 * HOUR_S, 1e9, -1e9])
def test_a_clock_that_is_set_ends_no_cut_early(skew_s: float) -> None:
    """Promise 2: failing is downward. The steady clock still says that the hour is not over."""
    town = settled()
    town.ask("c1", 1_500, lasts_s=HOUR_S)
    town.run(2.0)

    town.skew_s = skew_s
    town.run(2.0)

    assert town.budget_w == 1_500
    assert "ended" not in town.told("c1")
    town.skew_s = 0.0
    town.run(2.0)
    assert town.budget_w == 1_500


def test_a_cut_whose_time_a_clock_skips_is_made_all_the_same() -> None:
    town = settled()
    town.ask("c1", 1_500, begins_s=10.0, lasts_s=20.0)
    town.skew_s = HOUR_S
    town.run(9.0)
    assert town.budget_w == 2_200
    town.run(5.0)
    assert town.budget_w == 1_500
    town.run(20.0)
    assert town.budget_w == 2_200, "both clocks say that it is over"


def test_a_cut_begins_by_whichever_clock_is_first_and_ends_by_the_last() -> None:
    town = settled()
    town.ask("c1", 1_500, begins_s=100.0, lasts_s=20.0)
    town.skew_s = 100.0
    town.run(1.0)
    assert town.budget_w == 1_500
    town.run(60.0)
    assert town.budget_w == 2_200, "no clock is in its time"
    town.run(50.0)
    assert town.budget_w == 1_500
    town.run(20.0)
    assert town.budget_w == 2_200
    assert town.last("c1").why is Why.EXPIRED


@pytest.mark.parametrize("skew_s", [150.0, -50.0, 1e9])
def test_a_raise_needs_both_clocks(skew_s: float) -> None:
    """Nothing rises that was not signed for this time."""
    town = settled()
    town.ask("g1", 2_600, source="grid", begins_s=100.0, lasts_s=100.0)
    town.skew_s = skew_s
    for _ in range(260):
        town.run(1.0)
        within = 1_105.0 <= town.now < 1_205.0 and 100.0 <= town.wall_s - 1.75e9 - 5.0 < 200.0
        assert within or town.budget_w == 2_200, f"at {town.now:g} s"


def test_a_relaxing_order_replaces_a_cut_only_by_both_clocks() -> None:
    town = settled()
    town.ask("c1", 1_500)
    town.ask("c2", 2_000, begins_s=100.0)
    town.skew_s = 200.0
    town.run(5.0)
    assert town.budget_w == 1_500
    town.skew_s = 0.0
    town.run(100.0)
    assert town.budget_w == 2_000


@pytest.mark.parametrize("away_s", [0.5, 40.0])
def test_a_restart_loses_nothing_that_was_accepted(away_s: float) -> None:
    town = settled()
    town.ask("c1", 1_500, lasts_s=100.0, ramp_down_s=10.0)
    town.ask("c2", 1_200, begins_s=60.0, lasts_s=10.0)
    town.run(5.0)
    before_w = town.budget_w

    town.restart(away_s=away_s)

    assert town.budget_w <= before_w
    assert town.told()[:2] == ["c1 accepted", "c2 accepted"], "not delivered yet, so said again"
    town.run(56.0 - away_s)
    assert town.budget_w == 1_200
    town.run(10.0)
    assert town.budget_w == 1_500
    town.run(40.0)
    assert (town.budget_w, town.limits_w()) == (2_200, [500.0] * 4)


def test_an_order_that_ended_while_nobody_was_there_is_ended_at_the_start() -> None:
    town = settled()
    town.ask("c1", 1_500, lasts_s=30.0)
    town.run(3.0)
    town.restart(away_s=60.0)
    assert (town.budget_w, town.last("c1").why) == (2_200, Why.EXPIRED)


@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_is_set_while_nobody_was_there_ends_no_cut(skew_s: float) -> None:
    town = settled()
    town.ask("c1", 1_500, lasts_s=600.0)
    town.run(3.0)
    town.skew_s = skew_s
    town.restart(away_s=10.0)
    assert town.budget_w == 1_500
    town.run(5.0)
    assert town.budget_w == 1_500


def test_after_a_boot_the_steady_clock_goes_on_by_utc_and_never_back() -> None:
    """The host's monotonic clock begins at zero then."""
    kept = FacilitySnapshot(at_s=5_000.0, wall_s=1e9, steady_s=300.0)
    for wall_s, steady_s in ((1e9 + 60.0, 360.0), (1e9 - 60.0, 300.0)):
        clocks = Clocks(20.0, wall_s)
        clocks.go_on_from(kept)
        assert clocks.steady_s == pytest.approx(steady_s)


def test_answers_are_kept_until_they_are_delivered_over_restarts_too() -> None:
    from rapid.core.events import Delivered

    town = settled()
    town.ask("c1", 1_500, lasts_s=10.0)
    town.run(3.0)
    kept = town.control.facility.undelivered
    assert [it.outcome.value for it in kept.values()] == ["accepted", "in_force"]
    first = min(kept)

    town.step(Delivered(town.now, (first, 99)))
    town.restart()
    assert town.told() == ["c1 in_force"]
    town.run(10.0)
    town.restart()
    assert town.told() == ["c1 in_force", "c1 ended"]
    town.step(Delivered(town.now, tuple(town.control.facility.undelivered)))
    town.restart()
    assert town.told() == []


def test_a_replay_is_refused_over_a_restart_too() -> None:
    town = settled()
    cut = town.order("c1", 1_500, lasts_s=5.0)
    town.send(cut)
    town.run(1.0)
    town.send(town.order("c2", None))
    town.restart(away_s=2.0)
    assert [it.why for it in town.send(cut)] == [Why.REPLAYED]


def test_a_life_with_orders_replays_byte_for_byte() -> None:
    """Promise 5."""
    town = settled()
    story(town)
    replayed = Control(town.settings)
    for event, commands in zip(town.events, town.commands, strict=True):
        written = codec.encode_commands(commands)
        read = codec.decode_event(codec.kind_of(event), codec.encode(event))
        assert read == event
        assert codec.encode_commands(replayed.step(read)) == written
    assert replayed.snapshot() == town.control.snapshot()


def test_a_snapshot_survives_the_journal() -> None:
    from rapid.core.events import Started

    town = settled()
    story(town)
    started = Started(town.now, town.wall_s, 2, "c", town.control.snapshot())
    assert codec.decode_event("Started", codec.encode(started)) == started
    assert codec.decode_settings(codec.encode(town.settings)) == town.settings


def test_settings_and_snapshots_of_versions_that_knew_no_orders_are_read() -> None:
    plain = codec.encode(Settings(domains=(), nodes=()))
    at = plain.index(b',"facility"')
    assert codec.decode_settings(plain[:at] + b"}") == Settings(domains=(), nodes=())
    assert FACILITY.publishes


def story(town: Town) -> None:
    """Something of everything."""
    window = Schedule("night", "room", 1_900_000, (), town.wall_s + 20.0, 10.0, 1.0, 1.0)
    town.add_schedule(window)
    town.ask("c1", 1_500, lasts_s=100.0, ramp_down_s=10.0, ramp_up_s=3.0)
    town.ask("g1", 2_500, source="grid", begins_s=5.0, lasts_s=60.0)
    town.ask("c0", 9_999)
    town.run(8.0)
    town.skew_s = 30.0
    town.run(8.0)
    town.set_budget(2_000)
    town.restart(away_s=1.0)
    town.run(20.0)
    town.ask("c2", None)
    town.run(3.0)
