"""The role change as a transaction: every step an engine may or may not take, and no role is ever emptied by a change.

Promise 4: drain, switch, commit, or roll back; no request is lost.
"""

import itertools

import pytest

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.errors import NotFound, RoleRefused
from rapid.core.roles import NEXT_PHASES
from tests.core.engines import DRAIN_S, hello, news, pair_of_each, roles_of, stands, told

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


# ---- every step of the table ----

TABLE = {
    Phase.SERVING: {Phase.SERVING, Phase.FAILED},
    Phase.DRAINING: {
        Phase.DRAINING,
        Phase.SWITCHING,
        Phase.WARMING,
        Phase.ROLLING_BACK,
        Phase.FAILED,
        Phase.SERVING,
    },
    Phase.SWITCHING: {Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING},
    Phase.WARMING: {Phase.WARMING, Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING},
    Phase.ROLLING_BACK: {Phase.ROLLING_BACK, Phase.FAILED, Phase.SERVING},
    Phase.FAILED: {Phase.FAILED, Phase.SERVING},
    Phase.GONE: set(),
}


@pytest.mark.parametrize(("phase", "heard"), list(itertools.product(Phase, Phase)))
def test_a_step_is_taken_if_it_is_in_the_table_and_ignored_if_not(phase: Phase, heard: Phase) -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 5.0).mark
    roles.instances["e0"].phase = phase

    roles.progress(news("e0", mark, heard, PREFILL))

    assert NEXT_PHASES[phase] == TABLE[phase], "the table of roles.py"
    assert roles.instances["e0"].phase is (heard if heard in TABLE[phase] else phase)


def test_no_news_makes_a_phase_go_backwards() -> None:
    order = [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK]
    for late, now in itertools.combinations(order, 2):
        assert late not in NEXT_PHASES[now], f"{late} after {now}"


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


def test_a_drain_that_takes_too_long_is_cancelled_then_failed_and_heals() -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark

    assert roles.tick(111.0) == []
    assert roles.tick(111.1) == [CancelRole("e0", "first", mark)]
    assert roles.tick(120.0) == [], "once"
    assert roles.tick(130.0) == []
    assert told(roles.tick(130.1)) == ["error e0: still draining after 30 s; its role is uncertain"]
    assert stands(roles) == "failed prefill"
    assert roles.tick(140.0) == []

    assert roles.progress(news("e0", mark, Phase.DRAINING, PREFILL)) == [], "late news do not take it back"
    said = roles.progress(news("e0", mark, Phase.SERVING, PREFILL, error="cancelled"))
    assert told(said) == ["warning e0: serves prefill again: cancelled"]
    assert roles.order("e0", DECODE, 150.0).mark > mark


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.WARMING, Phase.ROLLING_BACK])
def test_whatever_takes_too_long_has_failed_and_only_a_drain_is_cancelled(phase: Phase) -> None:
    roles = pair_of_each()
    mark = roles.order("e0", DECODE, 100.0).mark
    roles.progress(news("e0", mark, phase, PREFILL))

    assert roles.tick(129.9) == []
    assert told(roles.tick(130.1)) == [f"error e0: still {phase.value} after 30 s; its role is uncertain"]


def test_a_change_found_under_way_is_given_its_time_from_then() -> None:
    roles = roles_of(hello("e0", phase=Phase.DRAINING, mark=Mark(1, 4)), hello("e1"), at_s=500.0)

    assert roles.tick(511.0) == []
    assert roles.tick(511.1) == [CancelRole("e0", "first", Mark(1, 4))]


def test_only_the_overdue_one_is_given_up() -> None:
    roles = pair_of_each()
    roles.order("e0", DECODE, 100.0)
    roles.order("e2", PREFILL, 105.0)

    (cancelled,) = roles.tick(111.5)

    assert isinstance(cancelled, CancelRole)
    assert cancelled.instance == "e0"
