"""The engine's side of a role order, step by step. What comes of every event in every state is in the table beside."""

from itertools import pairwise

import pytest

from rapid.core.cluster import Mark, Phase, Role, RoleProgress
from rapid.core.commands import OrderRole
from rapid.core.role_change import LONGEST_PAUSE_S, Close, Duty, Open, ReadRole, RoleChange, Switch, Tell

BOTH = (Role.PREFILL, Role.DECODE)


def fresh(*, reads_role: bool = False) -> RoleChange:
    return RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=BOTH, reads_role=reads_role)


def order(
    change: RoleChange,
    role: Role = Role.DECODE,
    *,
    mark: Mark | None = None,
    incarnation: str = "i1",
    left: int = 3,
    at_s: float = 10.0,
    not_after_s: float = 12.0,
    drain_s: float = 5.0,
    quiet_s: float = 0.0,
    park: bool = False,
    others: int | None = None,
    held: str = "",
) -> list[Duty]:
    given = OrderRole("p0", incarnation, mark or Mark(1, 1), role, drain_s, not_after_s, quiet_s, park)
    return change.order(given, requests_left=left, at_s=at_s, others=others, held=held)


def told(duties: list[Duty]) -> list[RoleProgress]:
    return [duty.progress for duty in duties if isinstance(duty, Tell)]


def only(duties: list[Duty]) -> RoleProgress:
    (progress,) = told(duties)
    assert len(duties) == 1, duties
    return progress


def test_whole_change_goes_by_every_phase_and_commits_with_its_mark() -> None:
    change = fresh()
    close, draining = order(change)
    assert close == Close()
    assert isinstance(draining, Tell)
    assert (draining.progress.phase, draining.progress.requests_left) == (Phase.DRAINING, 3)
    assert change.left(1, 11.0) == []
    switching, switch = change.left(0, 11.5)
    assert isinstance(switching, Tell)
    assert (switching.progress.phase, switching.progress.role) == (Phase.SWITCHING, Role.DECODE)
    assert switch == Switch(Role.DECODE)
    warming, opening = change.switched(None, 12.0)
    assert isinstance(warming, Tell)
    assert warming.progress.phase is Phase.WARMING
    assert opening == Open(Role.DECODE)
    assert only(change.opened()) == RoleProgress("p0", "i1", Mark(1, 1), Phase.SERVING, Role.DECODE)


def test_engine_with_nothing_to_do_switches_as_soon_as_it_says_so() -> None:
    change = fresh()
    assert [type(duty) for duty in order(change, left=0)] == [Close, Tell]
    assert [type(duty) for duty in change.left(0, 10.0)] == [Tell, Switch]


def test_same_mark_again_is_answered_with_present_progress_and_starts_nothing() -> None:
    change = fresh()
    order(change)
    change.left(2, 10.5)
    again = only(order(change, at_s=50.0))  # even late: it was taken in time
    assert (again.phase, again.requests_left, again.mark) == (Phase.DRAINING, 2, Mark(1, 1))
    change.left(0, 11.0)
    change.switched(None, 11.5)
    change.opened()
    done = only(order(change))
    assert (done.phase, done.role, done.error) == (Phase.SERVING, Role.DECODE, "")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"incarnation": "i0"}, "incarnation i0, this is i1"),
        ({"mark": Mark(0, 9)}, "0.9 is older than 1.1"),
        ({"mark": Mark(1, 2), "not_after_s": 9.5}, "0.50 s too late"),
        ({"mark": Mark(1, 2), "not_after_s": float("nan")}, "too late"),
        ({"mark": Mark(1, 2), "role": Role.MIXED}, "mixed is none of prefill, decode"),
        ({"mark": Mark(1, 2), "drain_s": 0.0}, "drain_s must be above 0 s, is 0 s"),
        ({"mark": Mark(1, 2), "quiet_s": 5.0}, "quiet_s must be below drain_s = 5 s, is 5 s"),
        ({"mark": Mark(1, 2), "others": 0}, "the last that serves prefill, as its own side sees it"),
        ({"mark": Mark(1, 2), "others": 0, "park": True}, "the last that serves prefill"),
    ],
)
def test_order_that_may_not_be_taken_is_refused_and_changes_nothing(asked: dict[str, object], words: str) -> None:
    change = fresh()
    order(change, Role.PREFILL, mark=Mark(1, 1))
    answer = only(order(change, **asked))  # type: ignore[arg-type]
    assert words in answer.error
    assert (answer.phase, answer.role) == (Phase.SERVING, Role.PREFILL)


def test_order_that_was_refused_is_not_taken_when_it_comes_again() -> None:
    """Whoever heard the refusal counts on the engine to serve on: a copy that comes later must not change that."""
    change = fresh()
    order(change, mark=Mark(1, 1))
    change.left(0, 11.0)
    assert only(order(change, Role.PREFILL, mark=Mark(1, 2))).error == "switching to decode for order 1.1"
    change.switched(None, 11.5)
    change.opened()
    again = only(order(change, Role.PREFILL, mark=Mark(1, 2)))
    assert (again.phase, again.role, again.mark) == (Phase.SERVING, Role.DECODE, Mark(1, 2))


def test_order_that_its_cancel_has_overtaken_is_refused() -> None:
    change = fresh()
    assert only(change.cancel(incarnation="i1", mark=Mark(1, 1))).error == "cancelled before it came"
    assert only(order(change, mark=Mark(1, 1))).phase is Phase.SERVING
    assert len(order(change, mark=Mark(1, 2))) == 2, "the next one is as good as any"


def test_order_of_a_controller_that_another_one_has_followed_is_refused() -> None:
    change = fresh()
    change.welcome(2)
    answer = only(order(change, mark=Mark(1, 9)))
    assert (answer.phase, answer.mark) == (Phase.SERVING, Mark(2, 0))
    assert answer.error == "order 1.9 is older than 2.0, which came before"
    change.welcome(1)
    assert change.mark == Mark(2, 0)


def test_controller_that_follows_another_can_still_cancel_what_that_one_ordered() -> None:
    change = fresh()
    order(change, mark=Mark(1, 4))
    change.welcome(2)
    assert Open(Role.PREFILL) in change.cancel(incarnation="i1", mark=Mark(1, 4))


def test_last_of_a_role_may_become_mixed_or_stay() -> None:
    change = RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=tuple(Role))
    assert only(order(change, Role.PREFILL, mark=Mark(1, 1), others=0)).error == ""
    assert Close() in order(change, Role.MIXED, mark=Mark(1, 2), others=0)


def test_drain_that_takes_too_long_rolls_back_and_says_so() -> None:
    change = fresh()
    order(change, at_s=10.0, drain_s=5.0)
    assert change.next_deadline_s == 15.0
    assert change.tick(14.9) == []
    back, opened = change.tick(15.0)
    assert isinstance(back, Tell)
    assert back.progress.phase is Phase.ROLLING_BACK
    assert opened == Open(Role.PREFILL)
    served = only(change.opened())
    assert (served.phase, served.role) == (Phase.SERVING, Role.PREFILL)
    assert served.error == "drain took longer than 5 s, 3 requests left"
    assert change.next_deadline_s is None
    assert only(order(change)).error == served.error  # the same order again hears the same end


def test_drain_that_ends_after_its_time_does_not_switch() -> None:
    change = fresh()
    order(change, at_s=10.0, drain_s=5.0)
    assert change.left(0, 15.0) == []
    assert change.tick(15.0)[1] == Open(Role.PREFILL)


def test_cancel_undoes_a_drain_but_not_a_switch() -> None:
    change = fresh()
    order(change)
    assert only(change.cancel(incarnation="i1", mark=Mark(1, 0))).phase is Phase.DRAINING
    assert change.cancel(incarnation="i0", mark=Mark(1, 1)) == []
    assert Open(Role.PREFILL) in change.cancel(incarnation="i1", mark=Mark(1, 1))
    change.opened()
    assert change.progress().error == "cancelled by the controller"
    order(change, mark=Mark(1, 2))
    change.left(0, 11.0)
    assert only(change.cancel(incarnation="i1", mark=Mark(1, 2))).phase is Phase.SWITCHING


def test_later_order_takes_over_a_drain() -> None:
    change = fresh()
    order(change, mark=Mark(1, 1), at_s=10.0)
    duties = order(change, mark=Mark(2, 1), at_s=11.0)
    assert Close() not in duties  # it is closed already
    assert only(duties).mark == Mark(2, 1)
    assert change.next_deadline_s == 16.0
    assert Open(Role.PREFILL) in order(change, Role.PREFILL, mark=Mark(2, 2), at_s=12.0)
    assert only(change.opened()) == RoleProgress("p0", "i1", Mark(2, 2), Phase.SERVING, Role.PREFILL)


def test_order_for_the_role_served_is_committed_at_once() -> None:
    change = fresh()
    answer = only(order(change, Role.PREFILL))
    assert (answer.phase, answer.role, answer.mark, answer.error) == (Phase.SERVING, Role.PREFILL, Mark(1, 1), "")


def test_failed_switch_serves_neither_role() -> None:
    change = fresh()
    order(change)
    change.left(0, 11.0)
    answer = only(change.failed("out of memory"))
    assert (answer.phase, answer.error) == (Phase.FAILED, "out of memory")
    assert only(order(change, mark=Mark(1, 2))).error == "has failed; restart it"
    assert change.progress().error == "out of memory"


# ---- quiet ----


def test_drain_is_over_when_nothing_has_been_left_for_a_while() -> None:
    change = fresh()
    order(change, quiet_s=0.5)
    assert change.left(0, 11.0) == []
    assert change.next_deadline_s == 11.5
    assert change.left(1, 11.2) == []  # it was on its way
    assert change.next_deadline_s == 15.0
    change.left(0, 11.3)
    assert change.tick(11.7) == []
    assert [type(duty) for duty in change.tick(11.8)] == [Tell, Switch]


def test_quiet_that_began_in_time_may_not_end_after_the_drain_has() -> None:
    change = fresh()
    order(change, quiet_s=0.5, at_s=10.0)
    change.left(0, 14.9)
    assert change.next_deadline_s == 15.0
    assert Open(Role.PREFILL) in change.tick(15.0)


# ---- a switch of which nobody knows what came of it ----


def test_switch_counts_when_the_role_has_been_read_back() -> None:
    change = fresh(reads_role=True)
    order(change)
    change.left(0, 11.0)
    back, opened = change.switched(Role.PREFILL, 11.1)
    assert isinstance(back, Tell)
    assert back.progress.phase is Phase.ROLLING_BACK
    assert back.progress.error == "it says that it has switched, but it still has role prefill"
    assert opened == Open(Role.PREFILL)


def test_uncertain_role_is_read_again_and_again_with_growing_pauses_and_nothing_is_switched_twice() -> None:
    change = fresh(reads_role=True)
    order(change)
    change.left(0, 11.0)
    assert only(change.unsure("no answer", 12.0)).error == "no answer"
    read_s: list[float] = []
    for _ in range(8):
        assert change.next_deadline_s is not None
        read_s.append(change.next_deadline_s)
        assert change.tick(read_s[-1]) == [ReadRole()]
        assert change.next_deadline_s is None, "one at a time"
        assert change.found(None, read_s[-1]) == []
    pauses_s = [after_s - before_s for before_s, after_s in pairwise(read_s)]
    assert read_s[0] == 12.0
    assert pauses_s == [0.25, 0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert change.found(Role.DECODE, 99.0)[1] == Open(Role.DECODE)
    assert only(change.opened()) == RoleProgress("p0", "i1", Mark(1, 1), Phase.SERVING, Role.DECODE)


def test_uncertain_role_that_turns_out_to_be_the_old_one_is_rolled_back() -> None:
    change = fresh(reads_role=True)
    order(change)
    change.left(0, 11.0)
    change.unsure("no answer", 12.0)
    change.tick(12.0)
    assert change.found(Role.PREFILL, 12.1)[1] == Open(Role.PREFILL)
    assert only(change.opened()).error == "no answer, but it still has role prefill"


def test_engine_that_is_in_a_third_role_stays_closed() -> None:
    change = fresh(reads_role=True)
    order(change)
    change.left(0, 11.0)
    said = only(change.switched(Role.MIXED, 11.1))
    assert (said.phase, said.error) == (
        Phase.UNCERTAIN,
        "it says that it has switched, but its role is mixed",
    )
    assert change.next_deadline_s == 11.35


def test_engine_that_cannot_read_its_role_is_believed_when_it_says_switched_and_else_stays_uncertain() -> None:
    change = fresh()
    order(change)
    change.left(0, 11.0)
    only(change.unsure("no answer", 12.0))
    assert change.next_deadline_s is None
    assert change.tick(1e9) == []


# ---- opening ----


def test_opening_is_tried_again_until_it_works() -> None:
    change = fresh()
    order(change)
    change.left(0, 11.0)
    change.switched(None, 11.1)
    said = only(change.not_opened("router is away", 11.2))
    assert (said.phase, said.error) == (Phase.WARMING, "cannot open, tries again: router is away")
    assert change.next_deadline_s == 11.45
    assert change.tick(11.4) == []
    assert change.tick(11.5) == [Open(Role.DECODE)]
    assert only(change.opened()).error == ""


def test_what_could_not_be_closed_is_opened_again() -> None:
    change = fresh()
    order(change)
    back, opened = change.not_closed("router is away")
    assert isinstance(back, Tell)
    assert (back.progress.phase, back.progress.error) == (Phase.ROLLING_BACK, "could not close: router is away")
    assert opened == Open(Role.PREFILL)


# ---- parked ----


def parked() -> RoleChange:
    change = fresh()
    order(change, Role.PREFILL, park=True)
    assert only(change.left(0, 11.0)).phase is Phase.PARKED
    return change


def test_parked_engine_serves_again_without_a_switch() -> None:
    change = parked()
    warming, opening = order(change, Role.PREFILL, mark=Mark(1, 2))
    assert isinstance(warming, Tell)
    assert (warming.progress.phase, opening) == (Phase.WARMING, Open(Role.PREFILL))
    assert only(change.opened()) == RoleProgress("p0", "i1", Mark(1, 2), Phase.SERVING, Role.PREFILL)


def test_parked_engine_needs_no_drain_to_change_role_and_no_other_to_leave_it_to() -> None:
    change = parked()
    assert [type(duty) for duty in order(change, Role.DECODE, mark=Mark(1, 2), others=0)] == [Tell, Switch]
    assert (change.from_role, change.to_role) == (Role.PREFILL, Role.DECODE)


def test_parked_engine_that_cannot_switch_is_parked_again() -> None:
    change = parked()
    order(change, Role.DECODE, mark=Mark(1, 2))
    said = only(change.not_switched("no memory"))
    assert (said.phase, said.role, said.error) == (Phase.PARKED, Role.PREFILL, "no memory")


def test_an_order_is_refused_for_as_long_as_something_holds_it() -> None:
    change = RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=(Role.PREFILL, Role.DECODE))
    refused = only(order(change, Role.DECODE, mark=Mark(1, 1), held="another hand is at work"))
    assert (refused.phase, refused.role, refused.error) == (Phase.SERVING, Role.PREFILL, "another hand is at work")
    assert [type(duty) for duty in order(change, Role.DECODE, mark=Mark(1, 2))] == [Close, Tell]


def test_a_drain_that_takes_too_long_says_what_is_in_the_way() -> None:
    change = RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=(Role.PREFILL, Role.DECODE))
    order(change, Role.DECODE)
    change.left(2, 11.0, "another router sends to it")
    (said, _) = change.tick(15.0)
    assert isinstance(said, Tell)
    assert said.progress.error == "drain took longer than 5 s, 2 requests left: another router sends to it"


def test_one_that_is_lost_while_it_is_parked_comes_back_parked() -> None:
    change = RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=(Role.PREFILL, Role.DECODE))
    order(change, Role.PREFILL, park=True)
    change.left(0, 10.0)
    change.lost("gone")
    assert only(change.back(Role.DECODE, "there again")).noticed == "there again"
    assert (change.phase, change.role) == (Phase.PARKED, Role.DECODE)
