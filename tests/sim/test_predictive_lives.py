"""Policy predictive through the lives of a controller, on what it sees of simulated engines under load."""

from dataclasses import replace

import pytest

from rapid.core.books import LedgerSnapshot
from rapid.core.cluster import Mark, PolicyState, Targets, View
from rapid.core.events import ControlSnapshot, Started
from rapid.core.policy import StatefulPolicy, make
from rapid.sim.world.site import Site
from rapidctl.controller import codec
from tests.core.views import goes_on
from tests.sim.sites import HEAVY, poisson, scenario


def predictive() -> StatefulPolicy:
    policy = make("predictive", {})
    assert isinstance(policy, StatefulPolicy)
    return policy


class Journaled:
    """Policy predictive, whose state is written to a journal and read again before it is restored."""

    name = "predictive"

    def __init__(self) -> None:
        self._policy = predictive()
        self.seen: list[View] = []

    def decide(self, view: View) -> Targets:
        self.seen.append(view)
        return self._policy.decide(view)

    def state(self) -> PolicyState:
        return self._policy.state()

    def restore(self, state: PolicyState) -> None:
        books = LedgerSnapshot(Mark(), (), ())
        kept = ControlSnapshot(books, (), (), (), False, 0, policy=self.name, policy_state=state)
        written = codec.encode(Started(0.0, 0.0, 1, "c", kept))
        read = codec.decode_event("Started", written)
        assert isinstance(read, Started)
        assert read.snapshot is not None
        assert read.snapshot.policy_state == state
        self._policy.restore(read.snapshot.policy_state)


class Forgetful(Journaled):
    """Bug: it begins anew."""

    def restore(self, state: PolicyState) -> None:
        pass


@pytest.fixture(scope="module")
def seen() -> list[View]:
    """All that it saw of 30 s of heavy load."""
    policy = Journaled()
    Site(scenario("oracle"), poisson(HEAVY, 30.0), policy=lambda _: policy).run()
    return policy.seen


@pytest.mark.parametrize("break_at", [1, 9, 40, 70])
def test_it_goes_on_from_the_journal_as_if_there_had_been_no_break(seen: list[View], break_at: int) -> None:
    assert goes_on(Journaled, seen, break_at)


def test_beginning_anew_in_the_middle_of_a_load_would_be_noticed(seen: list[View]) -> None:
    assert not goes_on(Forgetful, seen, 40)


def test_its_state_stays_small(seen: list[View]) -> None:
    """It is written at the beginning of each life of the journal."""
    policy = predictive()
    sizes = []
    for number, view in enumerate(seen * 20):  # to it, the engines begin anew twenty times
        policy.decide(replace(view, at_s=number / 2))
        sizes.append(len(str(policy.state().values)))
    assert max(sizes[len(seen) * 10 :]) < 1.2 * max(sizes[: len(seen) * 10]), "it does not grow on and on"
    assert max(sizes) < 200_000
