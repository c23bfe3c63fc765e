"""Promise 4 under everything that may go wrong between a controller and its engines; and that the check can fail.

No role is emptied by a change, an engine obeys one order at a time, and in the end both sides agree.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rapid.core.cluster import EngineHello, Mark, Phase, Role, RoleProgress
from rapid.core.commands import CancelRole, Command, OrderRole
from rapid.core.role_change import Duty, RoleChange, Switch, Tell
from rapid.core.roles import Roles
from tests.core.role_world import BOTH, RoleWorld, Violation, walk

SEEDS = range(60)
STEPS = 300


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_promises_hold_whatever_happens(seed: int, crashes: bool) -> None:
    walk(RoleWorld(), seed, STEPS, crashes=crashes)


def test_the_world_is_not_idle() -> None:
    """A walk in which nothing changes role would prove nothing."""
    assert sum(walk(RoleWorld(), seed, STEPS, crashes=False).switches for seed in range(20)) > 60


# ---- the same on paths that hypothesis picks, and makes short ----

names = st.sampled_from(["e0", "e1", "e2", "e3"])
places = st.integers(0, 5)


class Storm(RuleBasedStateMachine):
    """Every act of the world is a rule. At the end comes the calm."""

    crashes = False

    def __init__(self) -> None:
        super().__init__()
        self.world = RoleWorld()

    @rule(name=names, role=st.sampled_from([*BOTH, None]))
    def order(self, name: str, role: Role | None) -> None:
        self.world.order(name, role)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 5.0]))
    def time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(name=names, at=places, again=st.booleans(), others=st.sampled_from([None, 0, 1]))
    def down(self, name: str, at: int, again: bool, others: int | None) -> None:
        self.world.deliver_down(name, at, again=again, others=others)

    @rule(name=names, at=places, again=st.booleans())
    def up(self, name: str, at: int, again: bool) -> None:
        self.world.deliver_up(name, at, again=again)

    @rule(name=names, at=places)
    def lose(self, name: str, at: int) -> None:
        self.world.lose(name, at)

    @rule(name=names, requests=st.integers(0, 3))
    def finish(self, name: str, requests: int) -> None:
        self.world.finish(name, requests)

    @rule(name=names, how=st.sampled_from(["work", "refuse", "fail", "dumb", "doubt", "lie"]))
    def end(self, name: str, how: str) -> None:
        self.world.end(name, how)

    @rule(name=names)
    def break_(self, name: str) -> None:
        self.world.disconnect(name)

    @rule(name=names)
    def connect(self, name: str) -> None:
        self.world.connect(name)

    @rule(name=names)
    def introduce(self, name: str) -> None:
        self.world.introduce(name)

    @rule()
    def notice(self) -> None:
        self.world.notice()

    @rule(name=names)
    def good_news(self, name: str) -> None:
        self.world.good_news(name)

    @rule()
    def kill_controller(self) -> None:
        self.world.start_controller()

    @precondition(lambda self: self.crashes)
    @rule(name=names)
    def kill_engine(self, name: str) -> None:
        self.world.crash(name)

    @invariant()
    def every_role_is_served(self) -> None:
        self.world.check_open()

    def teardown(self) -> None:
        self.world.calm()


class CrashingStorm(Storm):
    """The same, and engines are killed."""

    crashes = True


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestCrashingStorm = CrashingStorm.TestCase
TestCrashingStorm.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


# ---- planted bugs: each is caught ----


class MovesTheLast(Roles):
    """Bug: the last of a role is moved."""

    def serving(self, role: Role) -> int:
        return 2


class CountsWhoDrains(Roles):
    """Bug: an instance that leaves a role still counts as serving it."""

    def serving(self, role: Role) -> int:
        return sum(1 for one in self.instances.values() if one.role is role)


class BelievesOldNews(Roles):
    """Bug: news of an earlier order are taken for those of the present one."""

    def progress(self, news: RoleProgress) -> list[Any]:
        one = self.instances.get(news.instance)
        if one is not None:
            one.mark = Mark()
        return super().progress(news)


class SaysItOnce(Roles):
    """Bug: an order or a cancel that was lost is not sent again."""

    def tick(self, at_s: float) -> list[Command]:
        kept = super().tick(at_s)
        return [each for each in kept if not isinstance(each, OrderRole | CancelRole)]


class ForgetsWhereItStands(Roles):
    """Bug: an engine that attaches in the middle of a change is taken for one at rest."""

    def attach(self, hello: EngineHello, at_s: float, nodes_of: Mapping[str, str]) -> None:
        super().attach(hello, at_s, nodes_of)
        self.instances[hello.instance].phase = Phase.SERVING


class TakesWhatItRefused(RoleChange):
    """Bug: an order that was refused is taken when it comes again."""

    def order(self, order: OrderRole, **given: Any) -> list[Duty]:
        before = self.mark
        duties = super().order(order, **given)
        if all(isinstance(duty, Tell) for duty in duties):
            self.mark = before
        return duties


class TakesWhatWasCancelled(RoleChange):
    """Bug: an order that its cancel has overtaken is taken."""

    def cancel(self, *, incarnation: str, mark: Mark) -> list[Duty]:
        before = self.mark
        duties = super().cancel(incarnation=incarnation, mark=mark)
        self.mark = before
        return duties


class SwitchesAgain(RoleChange):
    """Bug: a switch of unknown outcome is asked for again."""

    def found(self, live: Role | None, at_s: float) -> list[Duty]:
        assert self.to_role is not None
        return [Switch(self.to_role)] if live is None else super().found(live, at_s)


class BelievesItself(RoleChange):
    """Bug: it says that it has switched, so it has."""

    def switched(self, live: Role | None, at_s: float) -> list[Duty]:
        return super().switched(self.to_role, at_s)


class SwitchesUndrained(RoleChange):
    """Bug: the drain is over when it takes too long."""

    def tick(self, at_s: float) -> list[Duty]:
        return super().left(0, at_s) or super().tick(at_s)


BUGS: list[dict[str, Any]] = [
    *({"roles": bug} for bug in (MovesTheLast, CountsWhoDrains, BelievesOldNews, SaysItOnce, ForgetsWhereItStands)),
    *({"change": bug} for bug in (TakesWhatItRefused, TakesWhatWasCancelled, SwitchesAgain, BelievesItself)),
    {"change": SwitchesUndrained},
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: next(iter(bug.values())).__name__)
def test_a_planted_bug_is_caught(bug: dict[str, Any]) -> None:
    assert _found(lambda: RoleWorld(**bug)), f"{bug} went unnoticed"


def _found(make: Callable[[], RoleWorld]) -> bool:
    for seed in range(600):
        try:
            walk(make(), seed, STEPS, crashes=False)
        except Violation:
            return True
    return False
