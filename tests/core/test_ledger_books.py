"""What the books say to those who ask: rooms, floors, fallbacks, reach; and reports that are equal in time or start."""

from dataclasses import replace

from rapid.core.cluster import Domain, Mark, NodeSpec
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W
from tests.core.telling import Story, limits_of

DOMAINS = [Domain("room", 3_000 * W, reserved_mw=100 * W), Domain("rack", 1_500 * W, reserved_mw=50 * W, parent="room")]
SPECS = [NodeSpec("n1", "rack", 2, FLOOR, CEILING, FALLBACK), NodeSpec("n2", "room", 2, FLOOR, CEILING, FALLBACK)]


def tree() -> Story:
    return Story(domains=DOMAINS, specs=SPECS)


def test_a_room_is_the_budget_less_all_that_cannot_be_moved() -> None:
    story = tree()
    story.landed()
    story.hear("n2", h0="300 void")

    assert story.movable() == ["g0", "g1", "h0"]
    rooms = story.ledger.rooms_mw(["g0", "g1", "h0"])
    assert rooms == {"rack": 1_450 * W, "room": (3_000 - 150 - 700) * W}, "h1 was never seen and may take 700 W"
    assert story.ledger.rooms_mw(["g0"])["rack"] == (1_450 - 400) * W


def test_over_is_what_is_booked_and_reserved_above_the_budget() -> None:
    story = tree()

    assert story.ledger.over_mw("room") == 0
    story.ledger.set_budget("room", 2_900 * W)
    assert story.ledger.over_mw("room") == 50 * W, "2,800 W of ceilings and 150 W reserved"
    assert story.ledger.over_mw("rack") == 0


def test_floors_and_fallbacks_count_what_was_seen_what_was_not_and_what_is_reserved() -> None:
    story = tree()
    story.hear("n2", h0="300 void fallback=350")

    assert story.ledger.floors_mw("room") == (4 * 100 + 150) * W
    assert story.ledger.fallbacks_mw("room") == (400 + 400 + 350 + 400 + 150) * W
    assert story.ledger.fallbacks_mw("rack") == (400 + 400 + 50) * W
    story.ledger.release("n1", story.now, 2.0)
    assert story.ledger.floors_mw("room") == (2 * 100 + 150) * W
    assert story.ledger.fallbacks_mw("room") == (350 + 400 + 150) * W


# ---- cuts always go ----


def test_a_cut_below_a_grant_on_its_way_goes_even_while_the_domain_is_over_its_budget() -> None:
    """400 W are in force, but 600 W may arrive any moment: 500 W is a cut."""
    story = Story()
    story.landed()
    story.ask(g0=600)
    story.ledger.set_budget("room", 500 * W)

    assert limits_of(story.ask(g0=500)) == {"g0": 500.0}


def test_the_limit_in_force_is_granted_even_while_the_domain_is_over_its_budget() -> None:
    """Without a grant it has no lease."""
    story = Story()
    story.landed()
    story.ledger.set_budget("room", 500 * W)

    assert limits_of(story.ask(g0=400)) == {"g0": 400.0}


def test_a_raise_that_was_in_force_between_two_reports_counts_until_its_draw_has_come_down() -> None:
    """Granted, taken, and given up again: the next report shows only that it was covered."""
    story = Story()
    story.landed()
    raised = story.ask(g0=700)

    story.hear(covers=raised, g0="400 void draw=690 since=0.1", g1="400 void")
    assert story.held()["g0"] == 700.0
    story.hear(g0="400 void since=0.3", g1="400 void")
    assert story.held()["g0"] == 400.0


# ---- equal in time, equal in start ----


def test_a_report_from_the_same_moment_and_a_sample_from_the_moment_of_the_read_back_count() -> None:
    story = Story()
    story.landed()
    cut = story.ask(g0=200)
    teller = story.tellers["n1"]
    teller.now -= 0.01

    assert story.hear(covers=cut, g0="200 since=0.125 sampled=0.125", g1="400 void") == []
    assert story.held()["g0"] == 200.0


def test_a_life_with_the_number_of_the_one_heard_is_not_a_later_one() -> None:
    """A daemon counts its starts on disk before it is heard; the same number twice is not to be trusted."""
    story = Story()
    story.landed()
    twin = replace(story.tellers["n1"].report({"g0": "100 void", "g1": "100 void"}), incarnation="1-twin", report_seq=9)

    (finding,) = story.take(twin)

    assert finding.startswith("warning n1: a report of start 1 came after start 1 was heard, and is ignored")
    assert story.held() == {"g0": 400.0, "g1": 400.0}


def test_an_incarnation_without_a_number_is_the_first_of_all() -> None:
    story = Story()
    story.tellers["n1"].incarnation = "odd"
    story.landed()
    assert story.held() == {"g0": 400.0, "g1": 400.0}

    story.tellers["n1"].incarnation, story.tellers["n1"].mark = "1-life", Mark(1, 0)
    assert story.hear(g0="300 void", g1="300 void") == ["warning n1: rapidd restarted (now 1-life)"]
