"""The oracle is a bar: it must beat what it is held against, by what it sees, and by nothing that the others lack."""

from collections.abc import Iterator

import pytest

from rapid.sim.model.requests import Request
from rapid.sim.oracle import LOOKS, Oracle
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import ORACLE
from rapid.sim.world.site import Site, simulate
from tests.sim.sites import Recorder, poisson, scenario


def shift(rate_rps: float = 26.0, half_s: float = 10.0) -> Iterator[Request]:
    """Long prompts with short answers, then the other way round: no fixed split is right for both."""
    yield from poisson(rate_rps, half_s, input_tokens=6000, output_tokens=100)
    for request in poisson(4 * rate_rps, half_s, seed=2, input_tokens=300, output_tokens=400):
        yield Request(100_000 + request.request_id, half_s + request.arrival_s, 300, 400)


def foresee(requests: Iterator[Request], blind: bool = False, seed: int = 0) -> Outcome:
    def policy(site: Site) -> Oracle:
        return Oracle(Blind(site) if blind else site, site.scenario.slo)

    return simulate(scenario(ORACLE, seed=seed), requests, policy=policy)


class Blind:
    """A world whose future cannot be seen."""

    def __init__(self, site: Site) -> None:
        self.fork = site.fork

    def future(self, until_s: float) -> list[Request]:
        return []


@pytest.fixture(scope="module")
def seen() -> Outcome:
    """The oracle on the load that shifts."""
    return foresee(shift())


@pytest.mark.parametrize("policy", ["uniform", "static", "power", "roles", "rapid"])
def test_it_beats_every_policy_on_a_load_that_shifts(seen: Outcome, policy: str) -> None:
    other = simulate(scenario(policy), shift())
    assert seen.attainment > other.attainment + 0.1, (seen, other)
    assert seen.over_budget_s == 0


def test_what_it_sees_is_what_makes_it_good(seen: Outcome) -> None:
    assert seen.attainment > foresee(shift(), blind=True).attainment + 0.1


def test_it_does_nothing_when_nothing_can_be_won() -> None:
    outcome = foresee(poisson(1.0, 20.0))
    assert (outcome.attainment, outcome.role_moves, outcome.watts_moved) == (1.0, 0, 0)


def test_far_and_near_are_looks_of_their_own() -> None:
    """Answers that last longer than a look are not seen to be late by it."""
    near, far = LOOKS
    assert near.horizon_s < 400 * scenario(ORACLE).slo.tpot_s < far.horizon_s


def test_the_same_seed_gives_the_same_run() -> None:
    assert foresee(shift(half_s=3.0), seed=7) == foresee(shift(half_s=3.0), seed=7)


def test_trying_things_out_changes_nothing_in_the_world() -> None:
    """A policy that forks and looks ahead, and then does nothing, is policy `uniform` by another name."""

    def policy(site: Site) -> Oracle:
        return Oracle(site, site.scenario.slo, least_gain=float("inf"))

    dreamt, plain = Recorder(), Recorder()
    simulate(scenario(ORACLE), shift(half_s=3.0), policy=policy, watch=dreamt)
    simulate(scenario("uniform"), shift(half_s=3.0), watch=plain)
    assert dreamt.finishes == plain.finishes
