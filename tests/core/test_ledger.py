"""The rule of the grant protocol, as stories: a raise counts when it is sent, a cut when it is confirmed.

Promise 1: the sum of the limits that may be in force, and what is reserved, never passes a budget.
"""

from dataclasses import replace

from rapid.core.cluster import Domain, Mark, NodeSpec
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W
from tests.core.telling import LEASE_S, SETTINGS, Story, limits_of

# ---- what is booked before anything is known ----


def test_a_gpu_that_was_never_seen_is_booked_at_its_ceiling() -> None:
    story = Story()

    assert story.room_w() == 1_400.0
    assert story.ledger.over_mw("room") == 200 * W
    assert story.movable() == []


def test_a_first_report_books_what_may_be_in_force() -> None:
    story = Story()

    story.hear(g0="400 void", g1="650 void")

    assert story.held() == {"g0": 400.0, "g1": 650.0}
    assert story.movable() == ["g0", "g1"]


def test_a_first_report_frees_nothing_while_the_draw_is_above_the_limit() -> None:
    story = Story()

    story.hear(g0="400 void draw=690", g1="400 void since=0.1 sampled=0.2")

    assert story.held() == {"g0": 700.0, "g1": 700.0}, "g1 was not sampled since its limit was read back"


def test_a_gpu_of_the_node_that_its_report_leaves_out_stays_booked_at_its_ceiling() -> None:
    story = Story()

    story.hear(g0="400 void")

    assert story.room_w() == 1_100.0


# ---- raises and cuts ----


def test_a_raise_counts_when_it_is_sent() -> None:
    story = Story()
    story.landed()

    batch = story.ask(g0=600, g1=600)

    assert limits_of(batch) == {"g0": 600.0, "g1": 600.0}
    assert story.held() == {"g0": 600.0, "g1": 600.0}


def test_a_raise_that_does_not_fit_is_not_sent_and_fits_later() -> None:
    story = Story(budget_w=1_100)
    story.landed()

    assert limits_of(story.ask(g0=600, g1=600)) == {"g0": 600.0}
    assert story.asked(g0=600, g1=600) == [], "asked for again, and no room yet"

    story.ledger.set_budget("room", 1_200 * W)
    assert limits_of(story.ask(g0=600, g1=600)) == {"g1": 600.0}


def test_a_raise_waits_for_the_cut_that_pays_for_it() -> None:
    story = Story()
    story.landed()
    first = story.ask(g0=600, g1=600)
    story.hear(covers=first, g0="600", g1="600")

    cut = story.ask(g0=700, g1=500)
    assert limits_of(cut) == {"g1": 500.0}, "the cut goes at once, the raise waits"
    assert story.held() == {"g0": 600.0, "g1": 600.0}

    story.hear(g0="600", g1="500/600 since=0.1")
    assert story.held()["g1"] == 600.0, "it enforces less, but not because of the cut"
    story.hear(covers=cut, g0="600", g1="600/500")
    assert story.held()["g1"] == 600.0, "covered, but not in force"
    story.hear(g0="600", g1="500 draw=580 since=0.1")
    assert story.held()["g1"] == 600.0, "in force, but not obeyed yet"
    assert story.asked(g0=700, g1=500) == []
    story.hear(g0="600", g1="500 draw=500 since=0.2")
    assert story.held()["g1"] == 500.0

    assert limits_of(story.ask(g0=700, g1=500)) == {"g0": 700.0}
    assert story.room_w() == 1_200.0


def test_a_draw_sample_from_before_the_read_back_confirms_nothing() -> None:
    story = Story()
    story.landed()

    cut = story.ask(g0=200)
    story.hear(covers=cut, g0="200 draw=150 since=0.1 sampled=0.15", g1="400 void")
    assert story.held()["g0"] == 400.0, "it drew little, but the limit was not in force yet"

    story.hear(g0="200 draw=150 since=0.2 sampled=0.1", g1="400 void")
    assert story.held()["g0"] == 200.0


def test_the_error_of_the_sensor_is_forgiven_only_after_the_settle_time() -> None:
    story = Story()
    story.landed()
    cut = story.ask(g0=200)

    story.hear(covers=cut, g0="200 draw=205 since=0.4", g1="400 void")
    assert story.held()["g0"] == 400.0, "it may still be coming down"
    story.hear(g0="200 draw=211 since=0.6", g1="400 void")
    assert story.held()["g0"] == 400.0, "5 % of 200 W are 10 W"
    story.hear(g0="200 draw=210 since=0.7", g1="400 void")
    assert story.held()["g0"] == 200.0


def test_without_a_sensor_the_time_of_the_slowest_board_decides() -> None:
    """Promise 6: what is not measured counts as the worst it could be. An MI300X takes 1.6 s to come down."""
    story = Story()
    story.landed()
    cut = story.ask(g0=200)

    story.hear(covers=cut, g0="200 draw=none since=0.4", g1="400 void")
    assert story.held()["g0"] == 400.0
    story.hear(g0="200 draw=none since=1.9", g1="400 void")
    assert story.held()["g0"] == 400.0
    story.hear(g0="200 draw=none since=2.0", g1="400 void")
    assert story.held()["g0"] == 200.0


def test_a_raise_into_watts_that_are_still_booked_is_free() -> None:
    """600 W are booked until the cut to 400 W is confirmed; 500 W may be granted out of them."""
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")
    story.ask(g0=400)

    assert limits_of(story.ask(g0=500)) == {"g0": 500.0}
    assert story.room_w() == 1_200.0


def test_nothing_is_raised_into_what_is_booked_while_the_domain_is_over_its_budget() -> None:
    """The books say 1,500 W, the budget 1,200 W: what is booked in excess is nobody's to give."""
    story = Story()
    story.hear(g0="400 void draw=690", g1="400 void draw=690")

    assert story.ledger.over_mw("room") == 200 * W
    assert story.asked(g0=500) == []
    assert limits_of(story.ask(g0=300)) == {"g0": 300.0}, "a cut always goes"


# ---- never less than the grant, unless it was given up ----


def test_a_node_that_enforces_less_than_its_grant_frees_nothing() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")

    story.hear(g0="300/600", g1="600")

    assert story.held()["g0"] == 600.0, "it may come back up by itself"


def test_a_node_that_has_landed_frees_what_it_gave_up() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")

    story.hear(g0="400 void since=0.1", g1="600")

    assert story.held()["g0"] == 400.0


def test_a_grant_on_its_way_outlives_a_landing() -> None:
    """It may still arrive, and then it is in force."""
    story = Story()
    story.landed()
    story.ask(g0=700)

    story.hear(g0="400 void", g1="400 void")

    assert story.held()["g0"] == 700.0


def test_a_grant_that_was_refused_is_covered_and_books_nothing_more() -> None:
    story = Story()
    story.landed()
    batch = story.ask(g0=700)

    story.hear(covers=batch, g0="400 void", g1="400 void")

    assert story.held()["g0"] == 400.0


def test_more_than_the_grant_in_force_is_booked_as_it_is() -> None:
    story = Story()
    story.landed()

    story.hear(g0="650/400", g1="400 void")

    assert story.held()["g0"] == 650.0, "somebody raised it"


# ---- old, late and doubled reports ----


def test_an_older_report_is_ignored() -> None:
    story = Story()
    story.landed()
    teller = story.tellers["n1"]
    late = teller.report({"g0": "100 void", "g1": "100 void"})
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")

    assert story.take(late) == []
    assert story.take(replace(late, report_seq=teller.seq)) == [], "a doubled one, too"
    assert story.held() == {"g0": 600.0, "g1": 600.0}


def test_a_report_of_an_earlier_life_is_ignored_and_said_once() -> None:
    story = Story()
    teller = story.tellers["n1"]
    late = [teller.report({"g0": "100 void", "g1": "100 void"}, mark=Mark(1, 0)) for _ in range(2)]
    teller.restart()
    story.landed()

    text = (
        "warning n1: a report of start 1 came after start 2 was heard, and is ignored; if rapidd lost its state_dir, "
        "stop it, release the node, and start it again"
    )
    assert story.take(late[0]) == [text]
    assert story.take(late[1]) == []
    assert story.held() == {"g0": 400.0, "g1": 400.0}


def test_a_restart_takes_back_what_was_on_its_way() -> None:
    """The new life refuses it; but what it may have brought about before counts until a report shows otherwise."""
    story = Story()
    story.landed()
    story.ask(g0=700)
    story.tellers["n1"].restart()

    assert story.hear(g0="400 void draw=650 since=0.1", g1="400 void") == ["warning n1: rapidd restarted (now 2-life)"]
    assert story.held()["g0"] == 700.0
    story.hear(g0="400 void", g1="400 void")
    assert story.held()["g0"] == 400.0


def test_a_clock_that_goes_back_makes_reports_worthless_and_is_said_once() -> None:
    story = Story()
    story.landed()
    teller = story.tellers["n1"]
    teller.now -= 100.0

    assert story.hear(g0="100 void", g1="100 void") == [
        "error n1: its clock went back below 5000.010 s in one life; its reports are ignored until rapidd restarts"
    ]
    assert story.hear(g0="100 void", g1="100 void") == [], "the second says nothing new"
    assert story.held() == {"g0": 400.0, "g1": 400.0}

    teller.restart()
    story.hear(g0="300 void", g1="300 void")
    assert story.held() == {"g0": 300.0, "g1": 300.0}
    assert story.problem() == ""


def test_an_order_number_that_goes_back_makes_reports_worthless_and_is_said_once() -> None:
    story = Story()
    story.landed()
    story.hear(covers=Mark(1, 9), g0="400", g1="400")

    text = "error n1: its order number went back below 1.9 in one life; its reports are ignored until rapidd restarts"
    assert story.hear(covers=Mark(1, 3), g0="100", g1="100") == [text]
    assert story.hear(covers=Mark(1, 4), g0="100", g1="100") == []
    assert story.held() == {"g0": 400.0, "g1": 400.0}


# ---- resends and bounds ----


def test_a_grant_that_no_report_covers_is_sent_anew_after_a_second() -> None:
    story = Story()
    story.landed()
    first = story.ask(g0=600)

    story.wait(0.9)
    assert story.asked(g0=600) == []
    story.wait(0.1)
    again = story.ask(g0=600)

    assert again.mark > first.mark
    assert story.held()["g0"] == 600.0
    story.hear(covers=again, g0="600", g1="400 void")
    assert story.asked(g0=600) == [], "it is granted"


def test_what_was_given_up_is_granted_anew() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=600), g0="600", g1="400 void")
    story.wait(3.0)

    story.hear(g0="400 void since=0.1", g1="400 void")

    assert limits_of(story.ask(g0=600)) == {"g0": 600.0}


def test_only_so_many_grants_are_on_their_way_to_one_gpu() -> None:
    story = Story()
    story.landed()
    sent = [story.asked(g0=300 + step) for step in range(40)]

    assert sum(1 for batches in sent if batches) == 16, "at the bound nothing more is sent until the node reports"
    assert len(story.ledger.gpus["g0"].sent) == 16
    last = [batches for batches in sent if batches][-1][0]
    story.hear(covers=last, g0="315", g1="400 void")
    assert limits_of(story.ask(g0=200)) == {"g0": 200.0}


def test_a_limit_outside_the_device_range_is_asked_for_at_its_edge() -> None:
    story = Story()
    story.landed()

    assert limits_of(story.ask(g0=1, g1=9_999)) == {"g0": 100.0, "g1": 700.0}


def test_a_batch_says_for_which_life_and_until_when_by_the_nodes_own_clock() -> None:
    story = Story()
    story.landed()

    batch = story.ask(g0=600)

    assert (batch.incarnation, batch.controller_id, batch.mark) == ("1-life", "c", Mark(1, 1))
    assert batch.not_after_s == story.tellers["n1"].now + LEASE_S


def test_only_a_node_that_reports_is_renewed() -> None:
    story = Story()
    assert story.ledger.renew(story.now, 2.0, LEASE_S) == []
    story.landed()
    (renewal,) = story.ledger.renew(story.now, 2.0, LEASE_S)
    assert renewal.not_after_s == story.tellers["n1"].now + LEASE_S
    assert (renewal.incarnation, renewal.controller_id, renewal.epoch) == ("1-life", "c", 1)

    story.wait(2.1)

    assert story.ledger.renew(story.now, 2.0, LEASE_S) == []
    assert story.movable() == []


# ---- domains ----


def test_a_raise_must_fit_every_domain_above_it() -> None:
    domains = [
        Domain("room", 1_300 * W, reserved_mw=100 * W),
        Domain("rack", 1_100 * W, reserved_mw=50 * W, parent="room"),
    ]
    specs = [NodeSpec("n1", "rack", 2, FLOOR, CEILING, FALLBACK), NodeSpec("n2", "room", 1, FLOOR, CEILING, FALLBACK)]
    story = Story(domains=domains, specs=specs)
    story.landed()
    story.hear("n2", h0="200 void")

    assert story.ledger.reserved_mw("room") == 150 * W
    assert [limits_of(batch) for batch in story.asked(g0=550, g1=550, h0=400)] == [{"g0": 550.0}], "1,150 in the room"
    assert story.room_w("rack") == 950.0

    story.ledger.set_budget("room", 2_000 * W)
    granted = [limits_of(batch) for batch in story.asked(g0=550, g1=550, h0=400)]
    assert granted == [{"h0": 400.0}], "the rack has 1,050 W for its GPUs: the second raise waits for ever"


def test_a_settled_ledger_has_nothing_on_its_way_and_books_just_the_targets() -> None:
    story = Story()
    story.landed()
    targets = {"g0": 600 * W, "g1": 400 * W}
    assert not story.ledger.settled(targets)
    batch = story.ask(g0=600, g1=400)
    assert not story.ledger.settled(targets)

    story.hear(covers=batch, g0="600", g1="400")

    assert story.ledger.settled(targets)
    assert SETTINGS.settle_s == 0.5
