"""Which orders are taken, what they do to a budget, and what is answered. Site.check holds promise 1 after every event,
message and write of every story here: no domain takes more than its budget, or than it took before a cut."""

import pytest

from rapid.core.facility.nouns import Outcome, Why
from rapid.core.facility.rules import CUTS_MAX, ORDERS_MAX, TAKEN_MAX
from tests.core.hosts import W
from tests.facility.town import settled


def test_a_cut_is_accepted_in_force_when_read_back_and_ends_in_its_time() -> None:
    town = settled()

    answer = town.ask("c1", 1_800, lasts_s=60.0)

    assert (answer.outcome, answer.budget_mw, answer.in_force_mw) == (Outcome.ACCEPTED, 1_800 * W, 1_800 * W)
    assert answer.in_force_wall_s == pytest.approx(town.wall_s + 1.5), "two ticks and the settle time"
    assert town.told() == ["c1 accepted"], "sent is not read back"
    town.run(1.0)
    assert town.limits_w() == [400.0] * 4
    assert town.told() == ["c1 accepted", "c1 in_force"]
    assert town.last("c1").shortfall_mw == 0
    town.run(60.0)
    assert town.told() == ["c1 accepted", "c1 in_force", "c1 ended"]
    assert (town.last("c1").why, town.last("c1").in_force_mw) == (Why.EXPIRED, 2_200 * W)
    assert (town.budget_w, town.limits_w()) == (2_200, [500.0] * 4)


def test_it_is_not_in_force_while_one_limit_of_the_domain_is_not_read_back() -> None:
    """Promise 3: a limit counts when it has been read back, not when it was sent."""
    town = settled()
    town.cut_off.add("n2")

    town.ask("c1", 1_800)
    town.run(1.5)  # n2 is not silent yet, so it counts as one that can be moved

    assert town.told() == ["c1 accepted"]
    town.connect("n2")
    town.run(2.0)
    assert town.told() == ["c1 accepted", "c1 in_force"]


def test_a_future_order_waits_for_its_time() -> None:
    town = settled()

    town.ask("c1", 1_800, begins_s=10.0, lasts_s=10.0)

    town.run(9.0)
    assert town.budget_w == 2_200
    town.run(2.0)
    assert town.budget_w == 1_800
    town.run(10.0)
    assert town.budget_w == 2_200


def test_a_cut_below_the_floors_is_taken_and_the_shortfall_named_twice() -> None:
    """A cut is never refused because it is inconvenient: what can go down goes, and what is too much is said."""
    town = settled()

    answer = town.ask("c1", 0)

    assert (answer.outcome, answer.shortfall_mw) == (Outcome.ACCEPTED, 600 * W)
    assert answer.text.startswith("600 W too much will stay with every GPU at its floor: its floors need 600 W")
    town.run(3.0)
    assert town.limits_w() == [100.0] * 4
    assert (town.last("c1").outcome, town.last("c1").shortfall_mw) == (Outcome.IN_FORCE, 600 * W)


def test_a_silent_node_is_part_of_the_shortfall() -> None:
    """Promise 6: nothing unmeasured is called fine."""
    town = settled()
    town.cut_off.add("n2")
    town.run(4.0)

    answer = town.ask("c1", 1_000)

    assert answer.shortfall_mw == 400 * W, "its 1,000 W, the floors of the other, and the reserved power"
    assert "not heard: n2" in answer.text


def test_a_ramp_goes_in_a_straight_line_and_back() -> None:
    town = settled()
    town.ask("c1", 1_200, lasts_s=20.0, ramp_down_s=10.0, ramp_up_s=5.0)
    seen = []
    for _ in range(14):
        seen.append(town.budget_w)
        town.run(2.0)

    assert seen[:6] == pytest.approx([2_200, 2_000, 1_800, 1_600, 1_400, 1_200], abs=51), "a tick of it is 50 W"
    assert seen[6:10] == [1_200] * 4
    assert seen[10] in (1_200, pytest.approx(1_300, abs=101))
    assert seen[11:] == pytest.approx([1_600, 2_000, 2_200], abs=101)
    assert town.told("c1") == ["accepted", "in_force", "ended"]


def test_it_is_in_force_only_at_the_end_of_its_ramp() -> None:
    town = settled()
    town.ask("c1", 1_800, ramp_down_s=10.0)
    town.run(9.0)
    assert town.told("c1") == ["accepted"]
    town.run(3.0)
    assert town.told("c1") == ["accepted", "in_force"]


def test_an_order_that_ends_in_its_ramp_goes_back_from_where_it_stood() -> None:
    town = settled()
    town.ask("c1", 200, lasts_s=5.0, ramp_down_s=10.0, ramp_up_s=10.0)
    town.run(5.6)
    assert town.budget_w == pytest.approx(1_200, abs=201), "not at the 200 W to which it never came"
    town.run(5.0)
    assert town.budget_w == pytest.approx(1_750, abs=151)


# ---- who wins ----


def test_the_least_watts_win_between_sources_and_the_operator() -> None:
    town = settled()
    town.ask("c1", 1_800)
    town.ask("g1", 1_500, source="grid")
    assert town.budget_w == 1_500

    answer = town.ask("c2", 1_900)

    assert (town.budget_w, answer.held_by) == (1_500, "grid: g1")
    town.set_budget(1_300)
    assert town.budget_w == 1_300
    assert town.ask("c3", 1_400).held_by == "operator"
    town.set_budget(2_200)
    assert town.budget_w == 1_400


def test_of_one_source_the_newest_order_speaks_and_then_the_one_before_it() -> None:
    town = settled()
    town.ask("c1", 1_500, lasts_s=60.0)
    town.ask("c2", 1_900, lasts_s=20.0)

    assert town.budget_w == 1_900
    town.run(21.0)
    assert town.budget_w == 1_500
    town.run(40.0)
    assert town.budget_w == 2_200
    assert town.told("c1") == ["accepted", "in_force", "ended"]


def test_an_order_that_covers_an_older_one_to_its_end_ends_it() -> None:
    town = settled()
    town.ask("c1", 1_500, lasts_s=60.0)
    town.ask("c2", 1_900, lasts_s=61.0)
    assert town.last("c1").why is Why.SUPERSEDED
    assert len(town.control.facility.of("room")) == 1


def test_a_null_order_goes_up_in_a_straight_line_too() -> None:
    town = settled()
    town.ask("c1", 1_200)
    town.run(2.0)
    answer = town.ask("c2", None, ramp_up_s=10.0)
    assert answer.in_force_wall_s == pytest.approx(town.wall_s + 11.5)
    town.run(5.0)
    assert town.budget_w == pytest.approx(1_700, abs=101)
    assert town.control.facility.ramping("room") == 1
    assert town.told("c2") == ["accepted"]
    town.run(7.0)
    assert town.told("c2") == ["accepted", "in_force"]
    assert town.budget_w == 2_200


def test_a_relaxing_order_goes_up_in_its_time() -> None:
    town = settled()
    assert town.ask("c1", 1_200, ramp_up_s=300.0).in_force_wall_s == pytest.approx(town.wall_s + 1.5)
    town.ask("c2", 2_000, ramp_down_s=300.0, ramp_up_s=10.0)
    town.run(5.0)
    assert town.budget_w == pytest.approx(1_600, abs=101)


def test_a_null_order_takes_back_what_its_source_asked() -> None:
    town = settled()
    town.ask("c1", 1_500, ramp_up_s=100.0)
    town.ask("g1", 1_700, source="grid")

    answer = town.ask("c2", None)

    assert (answer.budget_mw, town.budget_w) == (None, 1_700), "it is the source's own word to stop at once"
    assert town.last("c1").why is Why.SUPERSEDED
    town.run(3.0)
    assert town.told("c2") == ["accepted", "in_force"]


def test_nobody_stands_above_the_operator_but_who_may_raise() -> None:
    town = settled()
    assert town.ask("c1", 2_400).held_by == "operator"
    assert town.budget_w == 2_200

    town.ask("g1", 2_600, source="grid", lasts_s=60.0)

    assert town.budget_w == 2_400, "bms asks for no more than that"
    town.ask("c2", None)
    assert town.budget_w == 2_600
    town.run(61.0)
    assert town.budget_w == 2_200


def test_the_operators_word_ends_every_raise_above_it() -> None:
    town = settled()
    town.ask("g1", 2_500, source="grid")
    town.ask("g2", 2_600, source="grid", begins_s=60.0)
    said = town.set_budget(2_000)

    assert town.budget_w == 2_000
    assert said[-1].endswith("no longer above it: g1, g2")
    town.run(70.0)
    assert town.budget_w == 2_000
    town.ask("g3", 2_100, source="grid")
    assert town.budget_w == 2_100, "it may raise anew"


@pytest.mark.parametrize("source", ["bms", "grid"])
def test_nobody_goes_above_the_ceiling(source: str) -> None:
    town = settled()
    answer = town.ask("c1", 2_600.5, source=source)
    assert answer.why is Why.ABOVE_CEILING
    assert answer.text == "2600.5 W is above 2600 W, the ceiling configured for domain room"
    assert town.refused("c2", 2_600, source=source) is None


# ---- what is refused ----


def test_what_is_forged_late_or_malformed_is_refused_by_name() -> None:
    town = settled()
    assert town.refused("1", 1_000, domain="attic") is Why.UNKNOWN_DOMAIN
    assert town.refused("2", 1_000, source="eve") is Why.NOT_ALLOWED
    assert town.refused("3", 1_000, source="far") is Why.NOT_ALLOWED
    assert town.refused("4", 1_000, lasts_s=0.0) is Why.INVALID
    assert town.refused("5", 1_000, ramp_down_s=86_401.0) is Why.INVALID
    assert town.refused("6", 1_000, ramp_up_s=-1.0) is Why.INVALID
    assert town.refused("7", -1) is Why.INVALID
    assert town.refused("8", 1_000, begins_s=367 * 86_400.0) is Why.INVALID
    assert town.refused("9", 1_000, begins_s=-60.0, lasts_s=60.0) is Why.EXPIRED
    assert town.refused("10", 1_000, made_s=-301.0) is Why.STALE
    assert town.refused("11", 1_000, made_s=301.0) is Why.FUTURE
    assert town.budget_w == 2_200
    assert town.control.facility.of("room") == []
    assert not town.control.facility.undelivered, "a refusal is said, and not kept"


def test_the_same_order_again_changes_nothing_and_is_answered_with_where_it_stands() -> None:
    town = settled()
    order = town.order("c1", 1_800)
    town.send(order)
    (again,) = town.send(order)
    assert (again.outcome, again.repeated, again.number) == (Outcome.ACCEPTED, True, 0)
    town.run(3.0)
    (again,) = town.send(order)
    assert (again.outcome, again.repeated) == (Outcome.IN_FORCE, True)
    assert len(town.control.facility.of("room")) == 1


def test_a_replay_of_what_has_ended_is_refused() -> None:
    town = settled()
    cut = town.order("c1", 1_800)
    town.send(cut)
    town.run(1.0)
    back = town.order("c2", None)
    town.send(back)
    town.run(1.0)

    assert [it.why for it in town.send(cut)] == [Why.REPLAYED]
    town.send(town.order("c3", 1_500))
    town.run(1.0)
    assert [it.repeated for it in town.send(back)] == [False], "it is over"
    assert town.last("c2").why is Why.REPLAYED, "an old release lifts no new cut"
    assert town.budget_w == 1_500
    ended = town.order("c4", 1_400, lasts_s=1.0)
    town.send(ended)
    town.run(2.0)
    assert [it.why for it in town.send(ended)] == [Why.EXPIRED]


def test_what_was_held_up_may_lower_and_never_raise() -> None:
    """Somebody between a source and us may hold its messages up, and hand them over in another order."""
    town = settled()
    town.ask("c1", 1_500, lasts_s=60.0)
    assert town.ask("c2", 2_000, made_s=-10.0).held_by == "bms: c1"
    assert town.ask("c3", None, made_s=-9.0).held_by == ""
    assert town.budget_w == 1_500
    town.ask("c4", 1_400, made_s=-10.0, lasts_s=20.0)
    assert town.budget_w == 1_400, "nor does a clock that was set back keep a cut out"
    town.run(21.0)
    assert town.budget_w == 1_500
    town.run(45.0)
    assert town.budget_w == 2_200


def test_what_is_forgotten_is_not_taken_again() -> None:
    town = settled()
    first = town.order("c0", 1_800, made_s=-100.0)
    town.send(first)
    for index in range(TAKEN_MAX):
        town.ask(f"d{index}", 1_900 + index, made_s=-99.0 + index / 10)
    assert [it.why for it in town.send(first)] == [Why.OUT_OF_ORDER]
    assert town.refused("d0", 1_000, made_s=-98.0) is Why.REPLAYED
    assert town.refused("new", 1_000, made_s=-100.0) is Why.OUT_OF_ORDER
    assert town.refused("newer", 1_000, made_s=-99.9) is None


def test_an_id_is_not_used_for_another_order_made_at_the_same_time() -> None:
    town = settled()
    first, other = town.order("c1", 1_800), town.order("c1", 2_100)
    answers = town.send(first, other)
    assert [it.why for it in answers if it.outcome is Outcome.REFUSED] == [Why.REPLAYED]
    assert town.budget_w == 1_800


def test_live_orders_are_bounded_and_a_cut_finds_room_beyond_the_bound() -> None:
    town = settled()
    for index in range(ORDERS_MAX):
        assert town.refused(f"c{index}", 1_800, made_s=index / 1e3, begins_s=1_000.0 + index, lasts_s=10.0) is None
    assert town.refused("one more", 1_800, made_s=0.9, begins_s=5_000.0, lasts_s=10.0) is Why.TOO_MANY
    for index in range(CUTS_MAX - ORDERS_MAX):
        assert town.refused(f"now{index}", 1_700 - index, made_s=1 + index / 1e3, lasts_s=900.0 - index) is None
    assert town.refused("one more", 1_600, made_s=1.9, lasts_s=1.0) is Why.TOO_MANY
    assert town.refused("other", 1_600, source="grid", lasts_s=1.0) is None


def test_orders_that_come_together_are_each_judged_by_itself() -> None:
    town = settled()
    answers = town.send(town.order("a", 1_800), town.order("b", 9_000), town.order("c", 1_700))
    assert {it.id: it.outcome for it in answers if it.outcome is not Outcome.ENDED} == {
        "a": Outcome.ACCEPTED,
        "b": Outcome.REFUSED,
        "c": Outcome.ACCEPTED,
    }
    assert town.budget_w == 1_700


# ---- what is true ----


def test_a_domain_is_compliant_since_its_draw_was_measured_within_the_budget() -> None:
    town = settled()
    truth = town.control.status(town.now).domains[0].truth
    assert truth.compliant_since_wall_s is not None
    assert (truth.measured_mw, truth.unknown_gpus) == (pytest.approx(2_000 * W, rel=0.01), 0)
    assert truth.kept.unmeasured_s > 0, "nothing was measured before the first window was over"

    town.ask("c1", 1_400)
    town.run(0.6)
    truth = town.control.status(town.now).domains[0].truth
    assert truth.compliant_since_wall_s is None, "the counters still show what was drawn before"
    town.run(6.0)
    truth = town.control.status(town.now).domains[0].truth
    assert truth.compliant_since_wall_s is not None
    assert 0.5 <= truth.kept.over_s <= 5.0
    assert truth.measured_mw == pytest.approx(1_200 * W, rel=0.01)


def test_what_is_not_measured_is_not_compliant() -> None:
    """Promise 6."""
    town = settled()
    for device in town.hosts["n2"].devices.values():
        device.energy_mj = None
    town.run(6.0)
    truth = town.control.status(town.now).domains[0].truth
    assert truth.compliant_since_wall_s is None
    assert truth.unknown_gpus == 2
    assert truth.at_most_mw == truth.measured_mw + 1_000 * W, "as much as is booked for them"
