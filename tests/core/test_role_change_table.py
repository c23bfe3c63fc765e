"""The engine's side of a role change: what comes of every event in every state. A pair that is missing fails."""

from collections.abc import Callable

import pytest

from rapid.core.cluster import Mark, Phase, Role
from rapid.core.commands import OrderRole
from rapid.core.role_change import Duty, RoleChange
from tests.core.transitions import cases, parse

PREFILL, DECODE = Role.PREFILL, Role.DECODE
DRAIN_S = 5.0
NOW_S = 11.0  # every event comes at this time; every order before it came at 10 s


def order(change: RoleChange, seq: int, role: Role, *, park: bool = False, late: bool = False) -> list[Duty]:
    at_s = NOW_S if seq > 2 else 10.0
    not_after_s = at_s - 1.0 if late else at_s + 1.0
    given = OrderRole("p0", "i1", Mark(1, seq), role, DRAIN_S, not_after_s, 0.0, park)
    return change.order(given, requests_left=3, at_s=at_s)


def welcome(change: RoleChange) -> list[Duty]:
    change.welcome(2)
    return []


# ---- the states, all of them on the way from prefill to decode by order 1.2 ----


def serving() -> RoleChange:
    change = RoleChange(instance="p0", incarnation="i1", role=PREFILL, roles=(PREFILL, DECODE), reads_role=True)
    order(change, 2, PREFILL)
    return change


def on_its_way(*steps: Callable[[RoleChange], object]) -> RoleChange:
    change = RoleChange(instance="p0", incarnation="i1", role=PREFILL, roles=(PREFILL, DECODE), reads_role=True)
    order(change, 2, DECODE)
    for step in steps:
        step(change)
    return change


def parking(role: Role = PREFILL) -> RoleChange:
    change = RoleChange(instance="p0", incarnation="i1", role=role, roles=(PREFILL, DECODE), reads_role=True)
    order(change, 1, role, park=True)
    return change


def parked(role: Role = PREFILL) -> RoleChange:
    change = parking(role)
    change.left(0, 10.0)
    return change


def from_parking(role: Role) -> RoleChange:
    change = parked()
    order(change, 2, role)
    return change


def drained(change: RoleChange) -> None:
    change.left(0, 10.5)


def unsure(change: RoleChange) -> None:
    change.unsure("no answer", 10.6)
    change.tick(10.6)
    change.found(None, 10.6)


STATES: dict[str, Callable[[], RoleChange]] = {
    "serving": serving,
    "draining": on_its_way,
    "draining to park": parking,
    "switching": lambda: on_its_way(drained),
    "switching from parked": lambda: from_parking(DECODE),
    "uncertain": lambda: on_its_way(drained, unsure),
    "warming": lambda: on_its_way(drained, lambda change: change.switched(DECODE, 10.6)),
    "warming from parked": lambda: from_parking(PREFILL),
    "rolling back": lambda: on_its_way(lambda change: change.cancel(incarnation="i1", mark=Mark(1, 2))),
    "parked": parked,
    "failed": lambda: on_its_way(drained, lambda change: change.failed("out of memory")),
    "warming and waiting": lambda: on_its_way(
        drained, lambda change: change.switched(DECODE, 10.6), lambda change: change.not_opened("router is away", 10.9)
    ),
    "failed when parked": lambda: failed_when_parked(),
}


def failed_when_parked() -> RoleChange:
    change = parked()
    change.lost("it does not answer")
    return change


EVENTS: dict[str, Callable[[RoleChange], list[Duty]]] = {
    "order to decode": lambda change: order(change, 3, DECODE),
    "order to prefill": lambda change: order(change, 3, PREFILL),
    "order to park": lambda change: order(change, 3, change.role, park=True),
    "same order": lambda change: order(change, change.mark.seq, DECODE),
    "older order": lambda change: order(change, 0, DECODE),
    "late order": lambda change: order(change, 3, DECODE, late=True),
    "cancel": lambda change: change.cancel(incarnation="i1", mark=change.mark),
    "cancel of an older order": lambda change: change.cancel(incarnation="i1", mark=Mark(1, 0)),
    "cancel before its order": lambda change: change.cancel(incarnation="i1", mark=Mark(1, 3)),
    "cancel for another life": lambda change: change.cancel(incarnation="i0", mark=change.mark),
    "welcome": welcome,
    "some left": lambda change: change.left(2, NOW_S),
    "none left": lambda change: change.left(0, NOW_S),
    "none left too late": lambda change: change.left(0, 10.0 + DRAIN_S),
    "not closed": lambda change: change.not_closed("router is away"),
    "switched": lambda change: change.switched(DECODE, NOW_S),
    "switched in words": lambda change: change.switched(PREFILL, NOW_S),
    "switched unseen": lambda change: change.switched(None, NOW_S),
    "not switched": lambda change: change.not_switched("not idle"),
    "unsure": lambda change: change.unsure("no answer", NOW_S),
    "found decode": lambda change: change.found(DECODE, NOW_S),
    "found prefill": lambda change: change.found(PREFILL, NOW_S),
    "found nothing": lambda change: change.found(None, NOW_S),
    "opened": lambda change: change.opened(),
    "not opened": lambda change: change.not_opened("router is away", NOW_S),
    "failed": lambda change: change.failed("out of memory"),
    "adopt decode": lambda change: change.adopt(DECODE, "another hand has made it decode"),
    "lost": lambda change: change.lost("it does not answer"),
    "back as prefill": lambda change: change.back(PREFILL, "it is there again"),
    "noticed": lambda change: change.noticed("it was put back", ""),
    "in trouble": lambda change: change.noticed("", "the router is away"),
    "nothing noticed": lambda change: change.noticed("", ""),
    "early tick": lambda change: change.tick(10.7),
    "late tick": lambda change: change.tick(10.0 + DRAIN_S),
}

TABLE = {
    "serving": """
        draining prefill: Close Tell <- order to decode, order to park
        serving prefill: Tell <- order to prefill, same order, older order, late order, cancel, cancel of an
            older order, cancel before its order
        serving prefill: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- back as prefill, switched, switched in words, switched unseen, not switched, unsure, found
            decode, found
            prefill, found nothing, opened, not opened, failed
        serving prefill: Tell <- noticed, in trouble
        serving prefill: nothing <- nothing noticed
        failed prefill: Tell <- lost
        warming decode: Tell Open <- adopt decode
    """,
    "draining": """
        draining prefill: Tell <- order to decode, order to park, same order, older order, late order, cancel of
            an older order
        rolling back prefill: Tell Open <- order to prefill, cancel, cancel before its order, not closed, late
            tick
        draining prefill: nothing <- cancel for another life, welcome, some left, none left too late, early tick
        switching decode: Tell Switch <- none left
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing, opened, not opened, failed
    """,
    "draining to park": """
        draining prefill: Tell <- order to decode, order to park, same order, older order, late order, cancel of
            an older order
        rolling back prefill: Tell Open <- order to prefill, cancel, cancel before its order, not closed, late
            tick
        draining prefill: nothing <- cancel for another life, welcome, some left, none left too late, early tick
        parked prefill: Tell <- none left
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing, opened, not opened, failed
    """,
    "switching": """
        switching decode: Tell <- order to decode, order to prefill, order to park, same order, older order,
            late order, cancel, cancel of an older order, cancel before its order
        switching decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        warming decode: Tell Open <- switched
        rolling back prefill: Tell Open <- switched in words, not switched
        uncertain decode: Tell <- switched unseen, unsure
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, found decode,
            found prefill, found nothing, opened, not opened
        failed decode: Tell <- failed
    """,
    "switching from parked": """
        switching decode: Tell <- order to decode, order to prefill, order to park, same order, older order,
            late order, cancel, cancel of an older order, cancel before its order
        switching decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        warming decode: Tell Open <- switched
        parked prefill: Tell <- switched in words, not switched
        uncertain decode: Tell <- switched unseen, unsure
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, found decode,
            found prefill, found nothing, opened, not opened
        failed decode: Tell <- failed
    """,
    "uncertain": """
        uncertain decode: Tell <- order to decode, order to prefill, order to park, same order, older order,
            late order, cancel, cancel of an older order, cancel before its order
        uncertain decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, found nothing, early tick
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, opened, not opened
        warming decode: Tell Open <- found decode
        rolling back prefill: Tell Open <- found prefill
        failed decode: Tell <- failed
        uncertain decode: ReadRole <- late tick
    """,
    "warming": """
        warming decode: Tell <- order to decode, order to prefill, order to park, same order, older order, late
            order, cancel, cancel of an older order, cancel before its order, not opened
        warming decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing
        serving decode: Tell <- opened
        failed decode: Tell <- failed
    """,
    "warming from parked": """
        warming prefill: Tell <- order to decode, order to prefill, order to park, same order, older order, late
            order, cancel, cancel of an older order, cancel before its order, not opened
        warming prefill: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing
        serving prefill: Tell <- opened
        failed prefill: Tell <- failed
    """,
    "rolling back": """
        rolling back prefill: Tell <- order to decode, order to prefill, order to park, same order, older order,
            late order, cancel, cancel of an older order, cancel before its order, not opened
        rolling back prefill: nothing <- cancel for another life, welcome, some left, none left, none left too
            late, not closed, early tick, late tick
        mistake <- adopt decode, lost, back as prefill, noticed, in trouble, nothing noticed, switched,
            switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing
        serving prefill: Tell <- opened
        failed prefill: Tell <- failed
    """,
    "parked": """
        switching decode: Tell Switch <- order to decode
        warming prefill: Tell Open <- order to prefill
        parked prefill: Tell <- order to park, same order, older order, late order, cancel, cancel of an older
            order, cancel before its order
        parked prefill: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- back as prefill, switched, switched in words, switched unseen, not switched, unsure, found
            decode, found
            prefill, found nothing, opened, not opened, failed
        parked prefill: Tell <- noticed, in trouble
        parked prefill: nothing <- nothing noticed
        failed prefill: Tell <- lost
        parked decode: Tell <- adopt decode
    """,
    "failed": """
        failed decode: Tell <- order to decode, order to prefill, order to park, same order, older order, late
            order, cancel, cancel of an older order, cancel before its order
        failed decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- adopt decode, lost, noticed, in trouble, nothing noticed, switched, switched in words,
            switched unseen, not switched, unsure, found decode, found
            prefill, found nothing, opened, not opened, failed
        warming prefill: Tell Open <- back as prefill
    """,
    "warming and waiting": """
        warming decode: Tell <- order to decode, order to prefill, order to park, same order, older order, late
            order, cancel, cancel of an older order, cancel before its order, not opened, noticed, in trouble
        warming decode: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, nothing noticed, early tick
        mistake <- switched, switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing, back as prefill
        serving decode: Tell <- opened
        failed decode: Tell <- failed, lost
        warming decode: Tell Open <- adopt decode
        warming decode: Open <- late tick
    """,
    "failed when parked": """
        failed prefill: Tell <- order to decode, order to prefill, order to park, same order, older order, late
            order, cancel, cancel of an older order, cancel before its order
        failed prefill: nothing <- cancel for another life, welcome, some left, none left, none left too late,
            not closed, early tick, late tick
        mistake <- switched, switched in words, switched unseen, not switched, unsure, found decode, found
            prefill, found nothing, opened, not opened, failed, adopt decode, lost, noticed, in trouble, nothing
            noticed
        parked prefill: Tell <- back as prefill
    """,
}


def outcome(state: str, event: str) -> str:
    """The phase, role and duties afterwards, or a mistake of the caller's."""
    change = STATES[state]()
    try:
        duties = EVENTS[event](change)
    except AssertionError:
        return "mistake"
    words = " ".join(type(duty).__name__ for duty in duties) or "nothing"
    return f"{change.phase.value} {change.role.value}: {words}"


@pytest.mark.parametrize(("state", "event", "expected"), cases(TABLE, STATES, EVENTS))
def test_what_comes_of_an_event(state: str, event: str, expected: str) -> None:
    assert outcome(state, event) == expected


def test_every_phase_of_an_engine_is_a_state_here() -> None:
    assert {make().phase for make in STATES.values()} == set(Phase) - {Phase.GONE}


@pytest.mark.parametrize("state", STATES)
def test_in_every_state_the_engine_says_where_it_stands_and_where_it_goes(state: str) -> None:
    change = STATES[state]()
    said = change.progress()
    assert (said.phase, said.role, said.mark) == (change.phase, change.role, change.mark)
    at_rest = change.phase in (Phase.SERVING, Phase.PARKED, Phase.FAILED)
    assert (change.from_role is None, change.to_role is None) == (at_rest, at_rest)
    if not at_rest:
        assert change.from_role is PREFILL
        assert change.to_role is (DECODE if "parked" not in state and state not in NOWHERE else change.role)


NOWHERE = ("draining to park", "rolling back")


def test_a_pair_that_is_missing_is_noticed() -> None:
    holes = {**TABLE, "parked": TABLE["parked"].replace("order to park, ", "")}
    with pytest.raises(AssertionError, match=r"parked: \['order to park'\]"):
        cases(holes, STATES, EVENTS)
    with pytest.raises(AssertionError, match="warming"):
        cases({state: block for state, block in TABLE.items() if state != "warming"}, STATES, EVENTS)
    with pytest.raises(AssertionError, match="'welcome' twice"):
        parse("nothing <- welcome\n tell <- cancel,\n welcome")
