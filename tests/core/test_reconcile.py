"""What a look at router and engine leads to. A pair of state and event that is missing fails."""

from itertools import pairwise

import pytest

from rapid.core.cluster import Role
from rapid.core.reconcile import (
    CONFIRM_LOOKS,
    FENCE_REPAIRS,
    FENCE_WINDOW_S,
    FENCED_PAUSE_S,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    LOOK_S,
    SOON_S,
    Adopt,
    PutBack,
    Reconciler,
    Remedy,
    Seen,
    Should,
    difference,
    words,
)
from tests.core.transitions import cases

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED
BOTH = (PREFILL, DECODE)

SHOULD = {
    "serving prefill": Should(PREFILL, BOTH),
    "parked": Should(PREFILL, BOTH, taking=False),
    "on its way": Should(PREFILL, BOTH, taking=None),
    "failed": Should(PREFILL, BOTH, taking=None, failed=True),
}
SEEN = {
    "as it should": Seen((PREFILL,), live=PREFILL),
    "listed nowhere": Seen((), live=PREFILL),
    "listed twice": Seen((PREFILL, PREFILL), live=PREFILL),
    "listed in both": Seen((PREFILL, DECODE), live=PREFILL),
    "listed in the other": Seen((DECODE,), live=PREFILL),
    "moved with router": Seen((DECODE,), live=DECODE),
    "moved without router": Seen((PREFILL,), live=DECODE),
    "moved and listed nowhere": Seen((), live=DECODE),
    "unhealthy": Seen((PREFILL,), healthy=False, live=PREFILL),
    "no router": Seen(None, live=PREFILL),
    "role unknown": Seen((PREFILL,), live=None),
    "unknown and listed nowhere": Seen((), live=None),
    "a role it cannot take": Seen((PREFILL,), live=MIXED),
    "gone": Seen((PREFILL,), up=False, problem="connection refused"),
    "gone without router": Seen(None, up=False),
    "nothing": Seen(problem="no answer"),
}
TABLE = {
    "serving prefill": """
        nothing <- as it should, unhealthy, no router, role unknown, nothing
        PutBack prefill <- listed nowhere, unknown and listed nowhere
        Renew prefill <- listed twice, listed in both, listed in the other
        Adopt decode <- moved with router, moved without router, moved and listed nowhere
        Lost <- a role it cannot take, gone, gone without router
    """,
    "parked": """
        nothing <- listed nowhere, no router, unknown and listed nowhere, nothing
        TakeOut <- as it should, listed twice, listed in both, listed in the other, unhealthy, role unknown
        Adopt decode <- moved with router, moved without router, moved and listed nowhere
        Lost <- a role it cannot take, gone, gone without router
    """,
    "on its way": """
        nothing <- as it should, listed nowhere, listed twice, listed in both, listed in the other, unhealthy,
            no router, role unknown, unknown and listed nowhere, nothing
        Adopt decode <- moved with router, moved without router, moved and listed nowhere
        Lost <- a role it cannot take, gone, gone without router
    """,
    "failed": """
        nothing <- as it should, listed nowhere, listed twice, listed in both, listed in the other,
            moved with router, moved without router, moved and listed nowhere, unhealthy, no router, role unknown,
            unknown and listed nowhere, a role it cannot take, gone, gone without router, nothing
    """,
}


def outcome(state: str, event: str) -> str:
    remedy = difference(SHOULD[state], SEEN[event])
    if remedy is None:
        return "nothing"
    role = getattr(remedy, "role", None)
    return f"{type(remedy).__name__} {role.value}" if role else type(remedy).__name__


@pytest.mark.parametrize(("state", "event", "expected"), cases(TABLE, SHOULD, SEEN))
def test_what_one_look_asks_for(state: str, event: str, expected: str) -> None:
    assert outcome(state, event) == expected


# ---- over time ----

WELL, GONE = SEEN["as it should"], SEEN["gone"]
EMPTY, TWICE, MOVED = SEEN["listed nowhere"], SEEN["listed twice"], SEEN["moved with router"]
SERVING, FAILED = SHOULD["serving prefill"], SHOULD["failed"]


class Clock:
    """Looks at a reconciler's own pace, from 100 s on."""

    def __init__(self) -> None:
        self.reconciler, self.now = Reconciler(), 100.0

    def look(self, seen: Seen, should: Should = SERVING) -> Remedy | None:
        self.now += self.reconciler.pause_s
        return self.reconciler.look(should, seen, self.now)

    def until(self, seen: Seen, should: Should = SERVING) -> Remedy:
        for _ in range(2000):
            if (remedy := self.look(seen, should)) is not None:
                return remedy
        raise AssertionError(f"nothing was done about {seen}")

    def done(self, remedy: Remedy, error: str = "") -> None:
        self.reconciler.done(remedy, self.now, error)

    def repair(self, seen: Seen) -> float:
        """When it was put right."""
        self.done(self.until(seen))
        self.look(WELL)
        return self.now


def test_one_look_is_not_believed() -> None:
    clock = Clock()
    for _ in range(10):
        for seen in (EMPTY, TWICE, MOVED, GONE):
            assert [clock.look(seen), clock.look(WELL)] == [None, None]


def test_a_difference_that_changes_its_kind_is_looked_at_anew() -> None:
    clock = Clock()
    for seen in (EMPTY, TWICE, MOVED, GONE) * 3:
        assert clock.look(seen) is None


def test_it_looks_again_soon_when_something_differs_and_slowly_when_all_is_well() -> None:
    clock = Clock()
    assert clock.reconciler.pause_s == LOOK_S
    clock.look(EMPTY)
    assert clock.reconciler.pause_s == SOON_S
    assert clock.look(EMPTY) == PutBack(PREFILL)
    clock.done(PutBack(PREFILL))
    clock.look(WELL)
    assert clock.reconciler.pause_s == LOOK_S


def test_pauses_between_repairs_grow_to_a_bound() -> None:
    clock = Clock()
    waited = []
    for _ in range(10):
        remedy = clock.until(EMPTY)
        before_s = clock.now
        clock.done(remedy, "connection refused")
        clock.until(EMPTY)
        waited.append(clock.now - before_s)
    assert waited[0] >= FIRST_PAUSE_S
    assert all(later >= earlier - SOON_S for earlier, later in pairwise(waited))
    assert LONGEST_PAUSE_S <= waited[-1] <= LONGEST_PAUSE_S + SOON_S


def test_a_repair_that_did_not_work_is_said_and_tried_for_ever() -> None:
    clock = Clock()
    for _ in range(3 * FENCE_REPAIRS):
        clock.done(clock.until(EMPTY), "router http://r:1: connection refused")
        assert clock.reconciler.trouble.endswith("and cannot be put right: router http://r:1: connection refused")
    clock.look(WELL)
    assert clock.reconciler.trouble == ""


def test_after_five_repairs_that_were_undone_it_leaves_the_instance_alone_and_says_so() -> None:
    clock = Clock()
    for _ in range(FENCE_REPAIRS):
        clock.repair(EMPTY)
    fenced_s = clock.now
    while clock.now < fenced_s + FENCE_WINDOW_S:
        assert clock.look(EMPTY) is None
    assert "put right 5 times within 60 s" in clock.reconciler.trouble
    assert "find who else drives the router" in clock.reconciler.trouble


def test_behind_the_fence_it_is_tried_again_ever_more_rarely_in_case_the_other_hand_has_gone() -> None:
    clock = Clock()
    for _ in range(FENCE_REPAIRS):
        clock.repair(EMPTY)
    tried_s = [clock.now]
    for _ in range(6):
        clock.done(clock.until(EMPTY))
        tried_s.append(clock.now)
        assert clock.look(WELL) is None
        assert [clock.look(EMPTY), clock.look(EMPTY)] == [None, None]
        assert "left alone" in clock.reconciler.trouble
    waited = [later - earlier for earlier, later in pairwise(tried_s)]
    assert waited[0] >= FENCE_WINDOW_S
    assert waited[-1] >= FENCED_PAUSE_S > waited[-1] - 2 * SOON_S - LOOK_S


def test_the_fence_goes_when_all_has_been_well_for_a_window() -> None:
    clock = Clock()
    for _ in range(FENCE_REPAIRS):
        clock.repair(EMPTY)
    while not clock.reconciler.trouble:
        clock.look(EMPTY)
    well_s = clock.now
    while clock.now < well_s + FENCE_WINDOW_S:
        clock.look(WELL)
        assert clock.reconciler.trouble == ""
    clock.look(WELL)
    assert clock.until(EMPTY) == PutBack(PREFILL)


def test_the_fence_goes_when_a_role_change_has_set_the_instance_anew() -> None:
    clock = Clock()
    for _ in range(FENCE_REPAIRS):
        clock.repair(EMPTY)
    while not clock.reconciler.trouble:
        clock.look(EMPTY)
    clock.reconciler.changed()
    assert clock.reconciler.trouble == ""
    assert clock.until(EMPTY) == PutBack(PREFILL)


def test_repairs_that_are_far_apart_never_fence() -> None:
    clock = Clock()
    for _ in range(5 * FENCE_REPAIRS):
        clock.repair(EMPTY)
        clock.now += FENCE_WINDOW_S / (FENCE_REPAIRS - 1)
    assert clock.reconciler.trouble == ""


def test_a_role_that_another_hand_changes_again_and_again_is_adopted_and_no_order_is_taken() -> None:
    clock, should = Clock(), SERVING
    for turn in range(FENCE_REPAIRS):
        assert clock.reconciler.refusal(clock.now) == "", turn
        live = DECODE if should.role is PREFILL else PREFILL
        remedy = clock.until(Seen((live,), live=live), should)
        assert remedy == Adopt(live)
        clock.done(remedy)
        should = Should(live, BOTH)
    assert clock.reconciler.refusal(clock.now).startswith("another hand has changed its role 5 times within 60 s")
    assert clock.reconciler.refusal(clock.now + FENCE_WINDOW_S) == ""


@pytest.mark.parametrize(
    ("seen", "trouble"),
    [
        (SEEN["nothing"], "no answer"),
        (SEEN["unhealthy"], "the router finds it unhealthy"),
        (SEEN["as it should"], ""),
        (SEEN["role unknown"], ""),
    ],
)
def test_what_is_wrong_and_cannot_be_put_right_is_said_for_as_long_as_it_is(seen: Seen, trouble: str) -> None:
    clock = Clock()
    clock.look(seen)
    assert clock.reconciler.trouble.startswith(trouble)
    assert bool(clock.reconciler.trouble) is bool(trouble)
    clock.look(WELL)
    assert clock.reconciler.trouble == ""


def test_an_engine_that_was_lost_is_back_when_it_says_a_role_again() -> None:
    clock = Clock()
    clock.look(WELL)
    lost = clock.until(GONE)
    assert words(lost) == "it is lost: connection refused"
    clock.done(lost)
    assert [clock.look(seen, FAILED) for seen in (GONE, GONE, SEEN["role unknown"], SEEN["nothing"])] == [None] * 4
    back = clock.until(Seen((), live=DECODE), FAILED)
    assert words(back) == "it is there again, as decode"


def test_an_engine_that_failed_is_back_only_in_another_life() -> None:
    clock = Clock()
    clock.look(Seen((PREFILL,), live=PREFILL, life="one"))
    for _ in range(10):
        assert clock.look(Seen((), live=PREFILL, life="one"), FAILED) is None, "what failed may still answer"
    assert words(clock.until(Seen((), live=PREFILL, life="two"), FAILED)) == "it is there again, as prefill"


def test_one_that_failed_before_it_was_ever_looked_at_is_back_in_another_life() -> None:
    clock = Clock()
    assert clock.look(Seen((), live=PREFILL, life="one"), FAILED) is None
    assert words(clock.until(Seen((), live=PREFILL, life="two"), FAILED)) == "it is there again, as prefill"


def test_an_engine_that_came_back_in_a_role_it_cannot_take_stays_out() -> None:
    clock = Clock()
    clock.done(clock.until(GONE))
    for _ in range(10):
        assert clock.look(Seen((), live=MIXED, life="two"), FAILED) is None


def test_so_many_looks_are_needed() -> None:
    clock = Clock()
    assert [clock.look(EMPTY) for _ in range(CONFIRM_LOOKS)] == [None] * (CONFIRM_LOOKS - 1) + [PutBack(PREFILL)]
