"""Nodes and GPUs that are not as they should be: unknown, silent, released, exchanged, disobedient; budgets that are
cut below what is held; and a life of the controller that hands over to the next.

Promise 6: nothing unmeasured is called fine.
"""

import pytest

from rapid.core.cluster import Domain, Mark, NodeSpec
from rapid.core.errors import BudgetRefused, NotFound, Refused
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W
from tests.core.telling import Story, limits_of

TWO_NODES = [NodeSpec("n1", "room", 2, FLOOR, CEILING, FALLBACK), NodeSpec("n2", "room", 1, FLOOR, CEILING, FALLBACK)]


def two_nodes(budget_w: int = 2_000) -> Story:
    return Story(domains=[Domain("room", budget_w * W)], specs=TWO_NODES)


# ---- nodes and GPUs that are not those of the configuration ----


def test_a_node_that_nobody_configured_is_ignored() -> None:
    story = Story()
    story.tellers["stranger"] = story.tellers.pop("n1")
    story.tellers["stranger"].name = "stranger"

    assert story.hear("stranger", g0="100 void", g1="100 void") == [
        "error stranger: a node reports that is not in the configuration; it is ignored"
    ]
    assert story.room_w() == 1_400.0


def test_a_gpu_more_than_configured_is_booked_at_its_ceiling_and_never_moved() -> None:
    story = Story()

    assert story.hear(g0="400 void", g1="400 void", g2="400 void") == [
        "error n1: reports 3 GPUs in all, the configuration says 2"
    ]

    assert story.held() == {"g0": 400.0, "g1": 400.0, "g2": 700.0}
    assert story.movable() == ["g0", "g1"]
    for _ in range(20):
        story.hear(g0="400 void", g1="400 void", g2="400 void")
    assert story.movable() == ["g0", "g1"], "behaving well does not make it a configured GPU"


def test_a_gpu_more_than_configured_stays_so_in_the_next_life() -> None:
    story = Story()
    story.hear(g0="400 void", g1="400 void", g2="400 void")
    story.begin(epoch=1, snapshot=story.ledger.snapshot())

    for _ in range(20):
        story.hear(g0="400 void", g1="400 void", g2="400 void")

    assert story.movable() == ["g0", "g1"]
    assert story.ledger.gpus["g2"].problem == "not in the configuration, which says 2 GPUs"


def test_a_gpu_that_the_configuration_has_come_to_name_is_managed_in_the_next_life() -> None:
    story = Story()
    story.hear(g0="400 void", g1="400 void", g2="400 void")
    story.specs = (NodeSpec("n1", "room", 3, FLOOR, CEILING, FALLBACK),)
    story.begin(epoch=2, snapshot=story.ledger.snapshot())

    for _ in range(4):
        story.hear(covers=Mark(2, 0), g0="400 void", g1="400 void", g2="400 void")

    assert story.movable() == ["g0", "g1", "g2"]


def test_a_gpu_that_was_exchanged_leaves_its_watts_booked_until_the_node_is_released() -> None:
    story = Story()
    story.landed()

    text = (
        "error n1: gpu g1 no longer reported; its watts stay booked until you release the node; "
        "reports 3 GPUs in all, the configuration says 2"
    )
    assert story.hear(g0="400 void", new="400 void") == [text]
    assert story.held() == {"g0": 400.0, "g1": 400.0, "new": 700.0}
    assert story.movable() == ["g0"]
    assert story.hear(g0="400 void", new="400 void") == [], "said once"

    story.wait(3.0)
    story.ledger.release("n1", story.now, 2.0)
    story.tellers["n1"].restart()
    story.hear(g0="400 void", new="400 void")
    assert story.held() == {"g0": 400.0, "new": 400.0}
    assert story.movable() == ["g0", "new"]


def test_a_gpu_that_is_back_is_moved_again() -> None:
    story = Story()
    story.landed()
    story.hear(g0="400 void")
    assert story.movable() == ["g0"]

    story.landed()

    assert story.movable() == ["g0", "g1"]
    assert story.problem() == ""


def test_a_gpu_that_a_second_node_reports_stays_with_the_first() -> None:
    story = two_nodes()
    story.landed()

    assert story.hear("n2", g1="100 void") == ["error n2: gpu g1 is also reported by node n1"]

    assert story.held() == {"g0": 400.0, "g1": 400.0}
    assert story.room_w() == 1_500.0, "and the GPU that n2 should have is still booked at its ceiling"


def test_a_fallback_that_is_higher_than_configured_is_shown() -> None:
    """The check at load counted on the configured one."""
    story = Story()

    text = "error n1: gpu 1 falls back to 500 W, the controller's configuration says 400 W"
    assert story.hear(g0="400 void", g1="400 void fallback=500") == [text]
    assert story.hear(g0="400 void", g1="400 void fallback=500") == []
    assert story.problem() == text.removeprefix("error n1: ")


# ---- silence and release ----


def test_a_silent_node_frees_nothing() -> None:
    story = two_nodes()
    story.landed()
    story.hear("n2", h0="200 void")
    story.hear(covers=story.ask(g0=700, g1=700), g0="700", g1="700")

    story.wait(3600.0)
    story.hear("n2", h0="200 void")

    assert story.movable() == ["h0"]
    assert story.room_w() == 1_600.0
    assert story.asked(h0=700) == []


def test_a_node_that_reports_is_not_released() -> None:
    story = Story()
    story.landed()
    story.wait(1.5)

    with pytest.raises(Refused, match=r"^node n1 reported 1.5 s ago; stop it before you release it$"):
        story.ledger.release("n1", story.now, 2.0)
    with pytest.raises(NotFound, match=r"^no node named 'n7' \(known: n1\)$"):
        story.ledger.release("n7", story.now, 2.0)
    assert story.room_w() == 800.0


def test_a_released_node_is_booked_again_as_soon_as_it_reports() -> None:
    story = two_nodes()
    story.hear("n2", h0="200 void")
    assert story.room_w() == 1_600.0, "n1 was never heard"

    story.ledger.release("n1", story.now, 2.0)
    assert story.room_w() == 200.0
    assert story.ledger.floors_mw("room") == 100 * W

    story.hear(g0="700 void", g1="700 void")
    assert story.room_w() == 1_600.0
    assert story.movable() == ["g0", "g1", "h0"]


def test_a_released_node_that_reports_one_gpu_is_booked_for_all_of_them() -> None:
    story = Story()
    story.landed()
    story.wait(5.0)
    story.ledger.release("n1", story.now, 2.0)

    story.hear(g0="400 void")

    assert story.room_w() == 1_100.0


# ---- GPUs that do not obey ----


def test_a_gpu_that_fails_again_and_again_is_unmanaged_at_its_ceiling_until_it_makes_amends() -> None:
    story = Story()
    story.landed()
    assert story.hear(g0="400 void ill=denied", g1="400 void") == []
    assert story.hear(g0="400 void ill=denied", g1="400 void") == []

    assert story.hear(g0="400 void ill=denied", g1="400 void") == [
        "error g0: unmanaged, booked at its ceiling 700 W: gpu g0: denied"
    ]
    assert story.held() == {"g0": 700.0, "g1": 400.0}
    assert story.movable() == ["g1"]

    for _ in range(3):
        assert story.hear(g0="400 void", g1="400 void") == []
    assert story.hear(g0="400 void ill=denied", g1="400 void") == [], "amends start again"
    for _ in range(3):
        assert story.hear(g0="400 void", g1="400 void") == []
    assert story.hear(g0="400 void", g1="400 void") == ["info g0: obeys again and is managed again"]
    assert story.held() == {"g0": 400.0, "g1": 400.0}


def test_strikes_count_in_a_row() -> None:
    story = Story()
    for _ in range(10):
        story.hear(g0="400 void ill=lost", g1="400 void")
        story.hear(g0="400 void ill=lost", g1="400 void")
        story.hear(g0="400 void", g1="400 void")

    assert story.movable() == ["g0", "g1"]


def test_a_gpu_that_draws_above_its_limit_strikes_once_it_should_have_settled() -> None:
    story = Story()
    story.landed()
    for _ in range(5):
        story.hear(g0="400 void draw=421 since=0.4", g1="400 void")
    assert story.movable() == ["g0", "g1"], "still coming down"
    for _ in range(5):
        story.hear(g0="400 void draw=420", g1="400 void")
    assert story.movable() == ["g0", "g1"], "within the error of the sensor"

    for _ in range(3):
        findings = story.hear(g0="400 void draw=421", g1="400 void")

    assert findings == ["error g0: unmanaged, booked at its ceiling 700 W: draws 421 W, above its limit of 400 W"]


def test_an_unmanaged_gpu_is_unmanaged_in_the_next_life() -> None:
    story = Story()
    for _ in range(3):
        story.hear(g0="400 void ill=denied", g1="400 void")

    story.begin(epoch=2, snapshot=story.ledger.snapshot())
    story.hear(covers=Mark(2, 0), g0="400 void", g1="400 void")

    assert story.held() == {"g0": 700.0, "g1": 400.0}
    assert story.movable() == ["g1"]


# ---- budgets ----


def test_a_budget_below_the_floors_is_told_the_least_that_would_do() -> None:
    story = Story(domains=[Domain("room", 1_200 * W, reserved_mw=50 * W)])

    with pytest.raises(BudgetRefused) as caught:
        story.ledger.set_budget("room", 249 * W)

    assert str(caught.value) == (
        "domain room: budget 249 W refused, the floors of its GPUs and reserved power need 250 W; ask for 250 W or "
        "more, or force it (all go to their floors, and it stays over budget by 1 W)"
    )
    story.ledger.set_budget("room", 250 * W)
    story.ledger.set_budget("room", 249 * W, force=True)
    assert story.ledger.domains["room"].budget_mw == 249 * W
    with pytest.raises(NotFound, match=r"^no domain named 'hall' \(known: room\)$"):
        story.ledger.set_budget("hall", 1_000 * W)


def test_a_budget_cut_below_what_is_held_lets_cuts_through_and_no_raise() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=600, g1=600), g0="600", g1="600")
    story.ledger.set_budget("room", 500 * W)
    assert story.ledger.over_mw("room") == 700 * W

    assert limits_of(story.ask(g0=100, g1=650)) == {"g0": 100.0}
    story.hear(covers=Mark(1, 2), g0="100", g1="600")
    assert story.ledger.over_mw("room") == 200 * W
    assert limits_of(story.ask(g0=200, g1=300)) == {"g1": 300.0}, "no raise while it is over"


# ---- epochs and lives ----


def test_a_new_epoch_without_a_journal_books_ceilings_until_heard_in_it() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=500, g1=500), g0="500", g1="500")
    story.begin(epoch=2, controller_id="d")

    story.hear(g0="500", g1="500")
    assert story.room_w() == 1_400.0, "the node still listens to the old controller, which may raise it"
    assert story.movable() == []

    story.hear(covers=Mark(2, 0), g0="500", g1="500")
    assert story.room_w() == 1_000.0
    assert limits_of(story.ask(g0=600)) == {"g0": 600.0}


def test_until_the_sum_fits_a_new_life_may_cut_but_not_raise() -> None:
    story = two_nodes(budget_w=1_600)
    story.begin(epoch=2, controller_id="d")
    story.hear(covers=Mark(2, 0), g0="500", g1="500")

    assert story.room_w() == 1_700.0, "n2 was not heard yet"
    assert [limits_of(batch) for batch in story.asked(g0=550, g1=450)] == [{"g1": 450.0}]


def test_a_life_goes_on_from_the_snapshot_of_the_one_before() -> None:
    """What was sent and not covered is in it: it may still arrive."""
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=500, g1=500), g0="500", g1="500")
    story.ask(g0=650)

    story.begin(epoch=2, snapshot=story.ledger.snapshot())

    assert story.held() == {"g0": 650.0, "g1": 500.0}
    assert story.movable() == [], "not before it is heard in the new epoch"
    story.hear(covers=Mark(2, 0), g0="500", g1="500")
    assert story.held() == {"g0": 500.0, "g1": 500.0}, "greeted in the new epoch, it refuses the old order"
    assert story.ask(g0=600).mark == Mark(2, 1)


def test_a_report_of_the_old_epoch_may_raise_what_is_booked_and_never_lower_it() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=500, g1=500), g0="500", g1="500")
    story.begin(epoch=2, snapshot=story.ledger.snapshot())

    story.hear(g0="300 void", g1="550/400")

    assert story.held() == {"g0": 500.0, "g1": 550.0}


def test_in_the_same_epoch_a_new_life_counts_its_orders_on() -> None:
    story = Story()
    story.landed()
    story.hear(covers=story.ask(g0=500), g0="500", g1="400 void")
    story.ask(g1=500)

    story.begin(epoch=1, snapshot=story.ledger.snapshot())

    story.hear(covers=Mark(1, 2), g0="500", g1="500")
    assert story.ask(g0=600).mark == Mark(1, 3), "a number below would be refused as old"


def test_a_snapshot_of_a_snapshot_is_the_same() -> None:
    story = two_nodes()
    story.hear(g0="400 void", g1="400 void", g2="400 void")
    story.hear("n2", h0="200 void ill=denied")
    story.ask(g0=500)
    first = story.ledger.snapshot()

    story.begin(epoch=1, snapshot=first)

    assert story.ledger.snapshot() == first
    assert story.room_w() == 1_800.0


def test_a_released_node_stays_released_in_the_next_life() -> None:
    story = two_nodes()
    story.hear("n2", h0="200 void")
    story.ledger.release("n1", story.now, 2.0)

    story.begin(epoch=2, snapshot=story.ledger.snapshot())

    assert story.room_w() == 200.0


def test_a_report_of_a_higher_epoch_deposes_and_changes_nothing() -> None:
    story = Story()
    story.landed()

    assert story.hear(covers=Mark(7, 0), g0="100 void", g1="100 void") == [
        "error n1: node n1 has seen epoch 7, ours is 1: another one leads [deposed]"
    ]
    assert story.held() == {"g0": 400.0, "g1": 400.0}


def test_a_ceiling_that_is_higher_than_configured_is_shown() -> None:
    """Before it had reported, such a GPU was booked too low."""
    story = Story()

    text = "error n1: gpu 1 can be set to 900 W, the controller's configuration says 700 W"
    assert story.hear(g0="400 void", g1="400 void ceiling=900") == [text]
    assert story.problem() == text.removeprefix("error n1: ")
