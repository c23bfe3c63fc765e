"""What a policy remembers, and what it has predicted, through the lives of a controller.

Promise 5 holds for policies that remember, too: same events in, same commands out, byte for byte.
"""

from dataclasses import replace
from typing import Any

import pytest

from rapid.core.cluster import Candidate, PolicyState, Targets, View
from rapid.core.commands import Announce, Command, Scored
from rapid.core.control import Control
from rapid.core.events import BudgetAsked, ControlSnapshot, PauseAsked, Ticked
from rapid.core.policy import NO_CHANGE, StatefulPolicy
from tests.core import rerun
from tests.core.hosts import W
from tests.core.site import Site, paper_site, with_engines
from tests.core.views import goes_on, paper

CANDIDATES = (Candidate("g0 + 1 W", 0.9, chosen=True), Candidate("as it is", 0.6))


class Learner:
    """It remembers how often it has seen a view, since when, and the draw of each GPU. Each fifth time it moves 1 W."""

    name = "learner"
    version = 1

    def __init__(self) -> None:
        self.views = 0
        self.first_s = float("inf")
        self.draws: dict[str, float] = {}

    def decide(self, view: View) -> Targets:
        self.views += 1
        self.first_s = min(self.first_s, view.at_s)
        for gpu in view.gpus:
            if gpu.draw_mw is not None:
                self.draws[gpu.gpu] = 0.9 * self.draws.get(gpu.gpu, 0.0) + 0.1 * gpu.draw_mw
        if self.views % 5:
            return NO_CHANGE
        gpu = view.gpus[0]
        step_mw = -W if gpu.limit_mw > 600 * W else W
        reason = f"view {self.views} in {view.at_s - self.first_s:.3f} s, draws {sum(self.draws.values())!r}"
        limits_mw = {gpu.gpu: gpu.limit_mw - 2 * W + step_mw}
        inputs = (("scores", float(len(view.scores))),)
        return Targets(limits_mw, {}, reason, inputs, 0.9, 0.6, 2.0, CANDIDATES)

    def state(self) -> PolicyState:
        return PolicyState(self.version, (self.views, self.first_s, tuple(self.draws.items())))

    def restore(self, state: PolicyState) -> None:
        values: tuple[Any, ...] = state.values
        self.views, self.first_s, draws = values
        self.draws = dict(draws)


class Forgetful(Learner):
    """Bug: one thing that it remembers is not in its state."""

    def restore(self, state: PolicyState) -> None:
        super().restore(state)
        self.draws = {}


class Newer(Learner):
    version = 2


class Other(Learner):
    name = "other"


class Learning(Control):
    kind: type[Learner] = Learner

    def make_policy(self) -> Learner:
        return self.kind()


class LearningAnew(Learning):
    kind = Newer


class LearningOtherwise(Learning):
    kind = Other


def learning_site(control: type[Control] = Learning) -> Site:
    return with_engines(paper_site(control=control))


def learner(site: Site) -> Learner:
    assert isinstance(site.control.policy, Learner)
    return site.control.policy


def announced(site: Site) -> list[Announce]:
    return [each for commands in site.commands for each in commands if isinstance(each, Announce)]


def scored(commands: list[list[Command]]) -> list[Scored]:
    return [each for step in commands for each in step if isinstance(each, Scored)]


# ---- what a policy remembers ----


def test_a_policy_that_remembers_is_one() -> None:
    assert isinstance(Learner(), StatefulPolicy)
    assert not isinstance(paper_site().control.policy, StatefulPolicy)


def test_replay_gives_the_same_commands_through_a_restart_in_the_middle() -> None:
    site = learning_site()
    for epoch, seconds in ((2, 8.3), (3, 6.1)):
        assert rerun.lines(Learning(site.settings), site.events) == [repr(step) for step in site.commands]
        site.begin(epoch=epoch, snapshot=site.control.snapshot())
        site.run(seconds)
    assert len(announced(site)) > 1
    assert rerun.lines(Learning(site.settings), site.events) == [repr(step) for step in site.commands]


def test_a_memory_that_depends_on_more_than_the_events_would_be_caught() -> None:
    site = learning_site()
    stale = Learning(site.settings)
    learner_of_stale = stale.policy
    assert isinstance(learner_of_stale, Learner)
    learner_of_stale.views = 1

    assert rerun.lines(stale, site.events) != [repr(step) for step in site.commands]


def views_of(count: int) -> list[View]:
    """Of eight GPUs that draw ever more, half a second apart."""
    first = paper()
    return [
        replace(
            first,
            at_s=100.0 + n / 2,
            gpus=tuple(replace(gpu, draw_mw=400 * W + 1_000 * n * index) for index, gpu in enumerate(first.gpus)),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("break_at", [1, 4, 5, 17])
def test_a_policy_goes_on_from_its_state_as_if_there_had_been_no_break(break_at: int) -> None:
    assert goes_on(Learner, views_of(25), break_at)


def test_the_comparison_catches_a_policy_whose_state_lacks_something() -> None:
    assert not goes_on(Forgetful, views_of(25), 17)


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_next_life_goes_on_with_what_the_policy_knows_also_under_another_clock(epoch: int) -> None:
    site = learning_site()
    knew, for_s = learner(site), site.now - learner(site).first_s
    snapshot = site.control.snapshot()
    site.now += 1e5  # the clock of another boot has nothing to do with the one before

    said = site.begin(epoch=epoch, snapshot=snapshot)

    assert said == [f"info controller: epoch {epoch}: goes on from its journal"]
    assert learner(site) is not knew, "every Control has a policy of its own"
    assert learner(site).state() == knew.state()
    began_s = site.now
    site.run(3.0)
    last = announced(site)[-1].decision
    assert f" in {for_s + last.at_s - began_s:.3f} s, " in last.reason, "the time in its views goes on"


def test_a_state_of_another_version_is_left_and_said() -> None:
    site = learning_site()
    snapshot = site.control.snapshot()
    site.mind = LearningAnew

    said = site.begin(epoch=2, snapshot=snapshot)

    assert said[0] == "info controller: policy learner learns anew: what it knew is of version 1, and it reads 2"
    assert learner(site).views == 0


def test_the_state_of_another_policy_is_left() -> None:
    site = learning_site()
    snapshot = site.control.snapshot()
    site.mind = LearningOtherwise
    site.begin(epoch=2, snapshot=snapshot)

    assert learner(site).views == 0


# ---- what a policy would do ----


@pytest.mark.parametrize("control", [Learning, Control])
def test_a_plan_is_what_the_next_tick_would_decide_and_changes_nothing(control: type[Control]) -> None:
    planned, plain = learning_site(control), learning_site(control)
    for site in (planned, plain):
        for index in range(4):
            site.loads[f"e{index}"] = {"waiting": 6, "oldest_wait_s": 1.5, "ttfts": {1.5: 10}}
    met = 0
    for _ in range(60):
        for site in (planned, plain):
            site.run(0.1)
            site.report("n1")
        expected = planned.control.plan()
        assert planned.control.plan() == expected
        for site in (planned, plain):
            site.step(Ticked(site.now))
        assert planned.commands == plain.commands, "looking changes nothing"
        decisions = [each.decision for each in planned.commands[-1] if isinstance(each, Announce)]
        assert decisions == [replace(expected, id=each.id) for each in decisions]
        assert bool(decisions) == bool(expected.changes)
        met += len(decisions)
    assert met > 0


def test_a_plan_says_why_it_can_plan_nothing() -> None:
    site = paper_site(control=Learning)
    assert site.control.plan().reason == "no GPU can be moved: none is managed on a node that reports"
    site.run(1.0)
    assert site.control.plan().reason == "nothing is due"


# ---- what a policy predicts ----


def test_a_decision_says_what_was_expected_and_what_was_weighed() -> None:
    decision = announced(learning_site())[-1].decision

    assert decision.by == "learner"
    assert (decision.predicted, decision.held, decision.horizon_s) == (0.9, 0.6, 2.0)
    assert (decision.candidates, decision.measured) == (CANDIDATES, None)


def test_only_the_policys_own_decisions_predict() -> None:
    site = learning_site()
    site.step(PauseAsked(site.now, "1", True, "ann"))
    site.step(BudgetAsked(site.now, "2", "host", 4_000 * W, False, "ann"))

    by = [(each.decision.by, each.decision.predicted) for each in announced(site)[-3:]]

    assert by == [("ann", None), ("ann", None), ("budget", None)]


def served(site: Site, requests: int) -> None:
    """From now on the engines have served so many first tokens, three of four in time."""
    site.loads["e0"] = {"ttfts": {0.5: 3 * requests, 1.5: requests}}


def until_decided(site: Site) -> Announce:
    """The next decision of the policy."""
    for _ in range(40):
        count = len(announced(site))
        site.run(0.1)
        if len(announced(site)) > count:
            return announced(site)[-1]
    raise AssertionError("it decides each fifth view")


@pytest.mark.parametrize("paused", [False, True])
def test_a_decision_is_scored_when_its_time_is_up_also_while_the_policy_is_paused(paused: bool) -> None:
    site = learning_site()
    site.run(3.0)
    site.step(PauseAsked(site.now, "1", True, "ann"))
    site.run(3.0)  # whatever was predicted so far is over
    site.step(PauseAsked(site.now, "2", False, "ann"))
    decision = until_decided(site).decision
    if paused:
        site.step(PauseAsked(site.now, "3", True, "ann"))
    served(site, 10)
    before = len(site.commands)
    site.run(2.6)

    assert scored(site.commands[before:])[:1] == [Scored(decision.id, 0.9, 0.75)]
    status = site.control.status(site.now)
    assert status.scored == len(scored(site.commands))
    assert status.prediction_error == pytest.approx(0.15)


def test_the_last_decision_carries_its_score() -> None:
    site = learning_site()
    until_decided(site)
    served(site, 10)
    while not scored(site.commands):
        site.run(0.1)
    last = site.control.last_decision
    assert last is not None
    assert last == replace(announced(site)[-1].decision, measured=0.75)


def test_a_policy_sees_its_scores() -> None:
    site = learning_site()
    until_decided(site)
    served(site, 10)
    until_decided(site)

    assert dict(until_decided(site).decision.inputs) == {"scores": 1.0}


@pytest.mark.parametrize(
    ("epoch", "control", "left"),
    [(1, Learning, [0.75]), (2, Learning, []), (1, LearningOtherwise, [])],
    ids=["new life", "new process", "other policy"],
)
def test_a_prediction_under_way_is_for_the_same_policy_in_the_same_process(
    epoch: int, control: type[Control], left: list[float]
) -> None:
    site = learning_site()
    until_decided(site)
    site.run(0.5)
    snapshot: ControlSnapshot = site.control.snapshot()
    assert len(snapshot.forecasts.pending) == 1
    site.mind = control
    site.begin(epoch=epoch, snapshot=snapshot)
    site.connect("n1")
    site.report("n1")  # the base that this life counts from
    served(site, 10)
    site.report("n1")
    site.now += 2.0
    site.step(Ticked(site.now))

    assert [each.measured for each in scored(site.commands)] == left
