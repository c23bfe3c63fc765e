"""The role change as a transaction: what is said and done on the way, and no role is ever emptied by a change. What
comes of every event in every phase is in the table beside.

Promise 4: drain, switch, commit, or roll back; no request is lost.
"""

import pytest

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.commands import CancelRole, Notice, OrderRole
from rapid.core.errors import NotFound, RoleRefused
from tests.core.engines import DRAIN_S, NODES_OF, hello, news, pair_of_each, roles_of, stands, told

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED

# ---- a change from end to end ----


def test_a_change_that_commits() -> None:
    roles = pair_of_each()

    order = roles.order("e0", DECODE, 5.0)
    assert order == OrderRole("e0", "first", Mark(1, 1), DECODE, DRAIN_S, 15.0)
    assert stands(roles) == "draining prefill"
    assert roles.serving(PREFILL) == 1
    for phase in (Phase.DRAINING, Phase.SWITCHING, Phase.WARMING):
        assert roles.progress(news("e0", order.mark, phase, PREFILL)) == []
        assert stands(roles) == f"{phase.value} prefill"

    assert told(roles.progress(news("e0", order.mark, Phase.SERVING, DECODE))) == ["info e0: serves decode now"]
    assert (stands(roles), roles.moves, roles.serving(DECODE)) == ("serving decode", 1, 3)


def test_a_change_that_rolls_back() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    roles.progress(news("e0", mark, Phase.SWITCHING, PREFILL))
    roles.progress(news("e0", mark, Phase.ROLLING_BACK, PREFILL, error="no memory"))

    said = roles.progress(news("e0", mark, Phase.SERVING, PREFILL, error="no memory for decode"))

    assert told(said) == ["warning e0: serves prefill again: no memory for decode"]
    assert (stands(roles), roles.moves) == ("serving prefill", 0)
    assert roles.instances["e0"].target_role is PREFILL


def test_a_change_that_fails_leaves_neither_role_and_heals_when_it_serves_again() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    roles.progress(news("e0", mark, Phase.WARMING, PREFILL))

    assert told(roles.progress(news("e0", mark, Phase.FAILED, PREFILL, error="out of memory"))) == [
        "error e0: role change failed: out of memory"
    ]
    assert roles.serving(PREFILL) == 1
    assert roles.instances["e0"].problem == "out of memory"
    roles.progress(news("e0", mark, Phase.SERVING, DECODE))
    assert (stands(roles), roles.moves, roles.instances["e0"].problem) == ("serving decode", 1, "")


def test_an_engine_refuses_an_order_by_serving_on() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark

    said = roles.progress(news("e0", mark, Phase.SERVING, PREFILL, error="busy with an upgrade"))

    assert told(said) == ["warning e0: serves prefill again: busy with an upgrade"]
    assert roles.order("e0", DECODE, 6.0).mark == Mark(1, 2)


# ---- late, doubled and foreign news ----


def test_news_of_an_earlier_order_are_ignored() -> None:
    roles = pair_of_each()
    first = roles.order("e0", DECODE, 5.0).mark
    roles.progress(news("e0", first, Phase.SERVING, PREFILL, error="busy"))
    second = roles.order("e0", DECODE, 6.0).mark

    assert roles.progress(news("e0", first, Phase.SERVING, DECODE)) == []
    assert roles.progress(news("e0", first, Phase.FAILED, PREFILL)) == []

    assert stands(roles) == "draining prefill"
    roles.progress(news("e0", second, Phase.SERVING, DECODE))
    assert stands(roles) == "serving decode"


def test_doubled_news_commit_once() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    for _ in range(3):
        roles.progress(news("e0", mark, Phase.SERVING, DECODE))

    assert roles.moves == 1


def test_news_of_another_process_or_of_nobody_are_ignored() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark

    assert roles.progress(news("e0", mark, Phase.SERVING, DECODE, incarnation="second")) == []
    assert roles.progress(news("e9", mark, Phase.SERVING, DECODE)) == []
    assert stands(roles) == "draining prefill"


# ---- which orders may start ----


def test_the_last_instance_of_a_role_is_not_moved() -> None:
    roles = roles_of(hello("e0", PREFILL), hello("e1", DECODE), hello("e2", DECODE))

    with pytest.raises(RoleRefused, match=r"^instance e0: is the last that serves prefill; move another one in first$"):
        roles.order("e0", DECODE, 0.0)
    roles.order("e1", PREFILL, 0.0)
    with pytest.raises(RoleRefused, match="is the last that serves decode"):
        roles.order("e2", PREFILL, 0.0)
    assert stands(roles, "e2") == "serving decode"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SERVING])
def test_an_instance_that_does_not_serve_keeps_no_role_alive(phase: Phase) -> None:
    roles = pair_of_each()
    roles.instances["e1"].phase = phase

    with pytest.raises(RoleRefused, match="e0: is the last that serves prefill"):
        roles.order("e0", DECODE, 0.0)


def test_a_mixed_instance_serves_both() -> None:
    roles = roles_of(hello("e0", PREFILL), hello("e1", MIXED, roles=(*Role,)), hello("e2", DECODE))
    assert (roles.serving(PREFILL), roles.serving(DECODE)) == (2, 2)

    roles.order("e0", DECODE, 0.0)

    with pytest.raises(RoleRefused, match="e1: is the last that serves prefill"):
        roles.order("e1", DECODE, 0.0)


def test_a_mixed_instance_may_leave_one_role_to_another() -> None:
    roles = roles_of(hello("e0", PREFILL), hello("e1", MIXED, roles=(*Role,)))

    assert roles.order("e1", DECODE, 0.0).role is DECODE


def test_the_last_of_a_role_may_become_mixed() -> None:
    roles = roles_of(hello("e0", PREFILL, roles=(*Role,)))

    assert roles.order("e0", MIXED, 0.0).role is MIXED


def test_an_order_says_what_stands_against_it() -> None:
    roles = roles_of(hello("e0", PREFILL, roles=(PREFILL,)), *(hello(f"e{index}", PREFILL) for index in (1, 2)))

    with pytest.raises(RoleRefused, match=r"^instance e0: cannot take role decode \(it can take: prefill\)$"):
        roles.order("e0", DECODE, 0.0)
    with pytest.raises(RoleRefused, match=r"^instance e1: serves prefill already$"):
        roles.order("e1", PREFILL, 0.0)
    roles.order("e1", DECODE, 0.0)
    with pytest.raises(RoleRefused, match=r"^instance e1: is draining, not serving; wait until it serves$"):
        roles.order("e1", DECODE, 0.0)
    roles.detach("e2", "first")
    with pytest.raises(RoleRefused, match=r"^instance e2: is gone, not serving; wait until it serves$"):
        roles.order("e2", DECODE, 0.0)
    with pytest.raises(NotFound, match=r"^no instance named 'e9' \(known: e0, e1, e2\)$"):
        roles.order("e9", DECODE, 0.0)


def test_an_order_is_good_until_a_time_of_the_engines_own_clock() -> None:
    roles = roles_of(hello("e0", engine_time_s=500.0), hello("e1"), at_s=40.0)

    assert roles.order("e0", DECODE, 43.0).not_after_s == 513.0


# ---- changes that take too long ----


def test_a_drain_that_takes_too_long_is_cancelled_until_it_is_uncertain_and_heals() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, Phase.DRAINING, PREFILL))
    cancel = CancelRole("e0", "first", mark)

    assert roles.tick(111.0) == []
    assert roles.tick(111.1) == [cancel]
    assert roles.tick(113.0) == []
    assert roles.tick(113.2) == [cancel], "the first may have been lost"
    assert told(roles.tick(130.1)) == ["error e0: still draining after 30 s; its role is uncertain"]
    assert stands(roles) == "uncertain prefill"
    assert roles.tick(135.0) == []
    assert roles.tick(135.2) == [cancel], "which asks it where it stands"

    assert roles.progress(news("e0", mark, Phase.DRAINING, PREFILL)) == [], "late news do not take it back"
    said = roles.progress(news("e0", mark, Phase.SERVING, PREFILL, error="cancelled"))
    assert told(said) == ["warning e0: serves prefill again: cancelled"]
    assert roles.order("e0", DECODE, 150.0).mark > mark


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK])
def test_whatever_takes_too_long_is_uncertain_and_only_a_drain_is_cancelled(phase: Phase) -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, phase, PREFILL))

    assert roles.tick(129.9) == []
    assert told(roles.tick(130.1)) == [f"error e0: still {phase.value} after 30 s; its role is uncertain"]


def test_an_order_that_is_not_answered_is_sent_again_while_it_may_still_be_taken() -> None:
    roles = pair_of_each()
    order = roles.order("e0", DECODE, 100.0)

    sent = {at_s: command for at_s in range(101, 112) for command in roles.tick(float(at_s))}

    assert sent == {102: order, 104: order, 106: order, 108: order}, "it is refused as late from 110 on"
    roles.progress(news("e0", order.mark, Phase.SERVING, PREFILL, error="too late"))
    assert stands(roles) == "serving prefill"


def test_an_answered_order_is_not_sent_again() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, Phase.DRAINING, PREFILL))

    assert [roles.tick(float(at_s)) for at_s in range(101, 111)] == [[]] * 10


def test_a_drain_is_cancelled_when_nobody_else_serves_the_role_any_more() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, Phase.DRAINING, PREFILL))
    roles.detach("e1", "first")

    assert roles.tick(100.5) == []
    roles.attach(hello("e1"), 101.0, NODES_OF)
    assert roles.tick(103.6) == [], "it was back in time"
    roles.detach("e1", "first")
    assert roles.tick(104.0) == []
    notice, cancel = roles.tick(107.0)

    text = "its change to decode is cancelled: nobody else serves prefill any more"
    assert notice == Notice("warning", "e0", text)
    assert cancel == CancelRole("e0", "first", mark)


# ---- an engine that does not know its role ----


@pytest.mark.parametrize(
    ("reads_role", "help_"), [(True, "it is being read"), (False, "the engine cannot read it, so restart the engine")]
)
def test_an_engine_that_does_not_know_its_role_is_asked_and_never_told_to_switch_again(
    reads_role: bool, help_: str
) -> None:
    roles = pair_of_each(reads_role=reads_role)
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, Phase.SWITCHING, DECODE))

    said = roles.progress(news("e0", mark, Phase.UNCERTAIN, DECODE, error="no answer"))

    assert told(said) == [f"error e0: its role is uncertain, {help_}: no answer"]
    assert roles.progress(news("e0", mark, Phase.UNCERTAIN, DECODE, error="no answer")) == []
    commands = [command for at_s in range(105, 400) for command in roles.tick(float(at_s))]
    assert set(commands) == {CancelRole("e0", "first", mark)}
    assert roles.serving(PREFILL) == 1
    roles.progress(news("e0", mark, Phase.SERVING, DECODE))
    assert (stands(roles), roles.moves) == ("serving decode", 1)


def test_an_engine_whose_role_was_changed_by_another_hand_is_believed() -> None:
    roles = pair_of_each()

    said = roles.progress(news("e0", Mark(1, 0), Phase.SERVING, DECODE))

    assert told(said) == ["warning e0: serves decode now, though nobody has ordered it"]
    assert (stands(roles), roles.moves, roles.serving(PREFILL)) == ("serving decode", 0, 1)


def test_trouble_on_the_way_is_said_once() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    trouble = news("e0", mark, Phase.WARMING, DECODE, error="cannot open, tries again: router is away")

    assert told(roles.progress(trouble)) == ["warning e0: warming for decode: cannot open, tries again: router is away"]
    assert roles.progress(trouble) == []
    assert roles.instances["e0"].problem == "cannot open, tries again: router is away"


# ---- parked ----


def test_an_instance_is_parked_and_serves_again() -> None:
    roles = pair_of_each(parks=True)

    order = roles.park("e0", 5.0)
    assert (order.role, order.park) == (PREFILL, True)
    assert told(roles.progress(news("e0", order.mark, Phase.PARKED, PREFILL))) == [
        "info e0: is parked and serves nobody"
    ]
    assert (stands(roles), roles.serving(PREFILL)) == ("parked prefill", 1)

    order = roles.order("e0", PREFILL, 9.0)
    assert not order.park
    assert told(roles.progress(news("e0", order.mark, Phase.SERVING, PREFILL))) == ["info e0: serves prefill now"]
    assert roles.moves == 0


def test_a_parked_instance_that_cannot_do_what_it_is_told_is_parked_still() -> None:
    roles = pair_of_each(parks=True)
    roles.progress(news("e0", roles.park("e0", 5.0).mark, Phase.PARKED, PREFILL))
    mark = roles.order("e0", DECODE, 9.0).mark

    said = roles.progress(news("e0", mark, Phase.PARKED, PREFILL, error="no memory"))

    assert told(said) == ["warning e0: is parked still: no memory"]


def test_who_may_be_parked() -> None:
    roles = roles_of(hello("e0", PREFILL, parks=True), hello("e1", DECODE, parks=True), hello("e2", DECODE))

    with pytest.raises(RoleRefused, match=r"^instance e0: is the last that serves prefill; move another one in first$"):
        roles.park("e0", 0.0)
    with pytest.raises(RoleRefused, match=r"^instance e2: cannot be parked; its engine does not say that it can$"):
        roles.park("e2", 0.0)
    roles.progress(news("e1", roles.park("e1", 0.0).mark, Phase.PARKED, DECODE))
    with pytest.raises(RoleRefused, match=r"^instance e1: is parked already$"):
        roles.park("e1", 1.0)


def test_a_change_found_under_way_is_given_its_time_from_then() -> None:
    roles = roles_of(hello("e0", phase=Phase.DRAINING, mark=Mark(1, 4)), hello("e1"), at_s=500.0)

    assert roles.tick(511.0) == []
    assert roles.tick(511.1) == [CancelRole("e0", "first", Mark(1, 4))]


def test_only_the_overdue_one_is_given_up() -> None:
    roles = pair_of_each()
    roles.order("e0", DECODE, 100.0)
    roles.progress(news("e2", roles.order("e2", PREFILL, 105.0).mark, Phase.DRAINING, DECODE))

    (cancelled,) = roles.tick(111.5)

    assert isinstance(cancelled, CancelRole)
    assert cancelled.instance == "e0"
