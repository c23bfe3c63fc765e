"""The engine's side of a role order, step by step."""

import pytest

from rapid.core.cluster import Mark, Phase, Role, RoleProgress
from rapid.core.role_change import Close, Duty, Open, RoleChange, Switch, Tell

BOTH = (Role.PREFILL, Role.DECODE)


def fresh() -> RoleChange:
    return RoleChange(instance="p0", incarnation="i1", role=Role.PREFILL, roles=BOTH)


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
) -> list[Duty]:
    return change.order(
        incarnation=incarnation,
        mark=mark or Mark(1, 1),
        role=role,
        drain_s=drain_s,
        not_after_s=not_after_s,
        requests_left=left,
        at_s=at_s,
    )


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
    assert only(change.switched()).phase is Phase.WARMING
    opened, commit = change.warmed()
    assert opened == Open(Role.DECODE)
    assert isinstance(commit, Tell)
    assert commit.progress == RoleProgress("p0", "i1", Mark(1, 1), Phase.SERVING, Role.DECODE)


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
    change.switched()
    change.warmed()
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
    ],
)
def test_order_that_may_not_be_taken_is_refused_and_changes_nothing(asked: dict[str, object], words: str) -> None:
    change = fresh()
    order(change, Role.PREFILL, mark=Mark(1, 1))
    answer = only(order(change, **asked))  # type: ignore[arg-type]
    assert words in answer.error
    assert answer.mark == asked.get("mark", Mark(1, 1))
    assert (answer.phase, answer.role, change.mark) == (Phase.SERVING, Role.PREFILL, Mark(1, 1))


def test_drain_that_takes_too_long_rolls_back_and_says_so() -> None:
    change = fresh()
    order(change, at_s=10.0, drain_s=5.0)
    assert change.next_deadline_s == 15.0
    assert change.tick(14.9) == []
    back, opened, served = change.tick(15.0)
    assert isinstance(back, Tell)
    assert isinstance(served, Tell)
    assert back.progress.phase is Phase.ROLLING_BACK
    assert opened == Open(Role.PREFILL)
    assert (served.progress.phase, served.progress.role) == (Phase.SERVING, Role.PREFILL)
    assert served.progress.error == "drain took longer than 5 s, 3 requests left"
    assert change.next_deadline_s is None
    assert only(order(change)).error == served.progress.error  # the same order again hears the same end


def test_drain_that_ends_after_its_time_does_not_switch() -> None:
    change = fresh()
    order(change, at_s=10.0, drain_s=5.0)
    assert change.left(0, 15.0) == []
    assert change.tick(15.0)[1] == Open(Role.PREFILL)


def test_cancel_undoes_a_drain_but_not_a_switch() -> None:
    change = fresh()
    order(change)
    assert change.cancel(incarnation="i1", mark=Mark(1, 2)) == []
    assert change.cancel(incarnation="i0", mark=Mark(1, 1)) == []
    assert change.progress().phase is Phase.DRAINING
    assert Open(Role.PREFILL) in change.cancel(incarnation="i1", mark=Mark(1, 1))
    assert change.progress().phase is Phase.SERVING
    order(change, mark=Mark(1, 2))
    change.left(0, 11.0)
    assert change.cancel(incarnation="i1", mark=Mark(1, 2)) == []
    assert change.progress().phase is Phase.SWITCHING


def test_later_order_takes_over_a_drain() -> None:
    change = fresh()
    order(change, mark=Mark(1, 1), at_s=10.0)
    duties = order(change, mark=Mark(2, 1), at_s=11.0)
    assert Close() not in duties  # it is closed already
    assert only(duties).mark == Mark(2, 1)
    assert change.next_deadline_s == 16.0
    duties = order(change, Role.PREFILL, mark=Mark(2, 2), at_s=12.0)
    assert Open(Role.PREFILL) in duties
    assert told(duties)[-1] == RoleProgress("p0", "i1", Mark(2, 2), Phase.SERVING, Role.PREFILL)


def test_order_in_the_middle_of_a_switch_is_refused() -> None:
    change = fresh()
    order(change)
    change.left(0, 11.0)
    answer = only(order(change, Role.PREFILL, mark=Mark(1, 2)))
    assert answer.error == "switching to decode for order 1.1"
    assert change.mark == Mark(1, 1)


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
    assert only(order(change, mark=Mark(1, 2))).error == "failed to decode for order 1.1"
