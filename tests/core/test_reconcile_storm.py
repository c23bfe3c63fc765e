"""Reconciliation under everything that others may do to router and engine: it acts only on what is so, never flaps, and
when the others leave, all is as it should be. And the check can fail.
"""

from dataclasses import replace

import pytest

from rapid.core.reconcile import Adopt, Back, Reconciler, Remedy, Seen, Should
from tests.core.router_world import DECODE, Violation, World, walk

SEEDS = range(150)
STEPS = 250


@pytest.mark.parametrize("seed", SEEDS)
def test_it_never_flaps_and_settles_whatever_others_do(seed: int) -> None:
    walk(World(), seed, STEPS)


def test_the_storm_is_one() -> None:
    """In which nothing was repaired, adopted or fenced, it would prove nothing."""
    worlds = [walk(World(), seed, STEPS) for seed in range(20)]
    assert sum(world.adoptions for world in worlds) > 20
    assert sum(world.life for world in worlds) > 60


def test_another_controller_that_wants_it_elsewhere_is_left_alone_after_a_while() -> None:
    world = World(rival=DECODE)
    world.pass_time(10.0)
    assert world.reconciler.trouble == "", "it is put right, again and again"
    world.pass_time(300.0)
    assert "left alone" in world.change.progress().error
    assert world.listed == [DECODE]
    world.pass_time(3600.0)
    assert len(world.repairs) <= 1, "in the last minute"
    world.rival = None
    world.order(DECODE)
    world.pass_time(30.0)
    world.check_settled()


class Hasty(Reconciler):
    """Bug: it believes one look."""

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        return super().look(should, seen, at_s) or super().look(should, seen, at_s)


class Tireless(Reconciler):
    """Bug: it never gives up."""

    def done(self, remedy: Remedy, at_s: float, error: str = "") -> None:
        super().done(remedy, at_s, error)
        self._repairs.clear()
        self._not_before_s = 0.0


class SeesOneEntry(Reconciler):
    """Bug: it does not notice doubles."""

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        return super().look(should, replace(seen, listed=seen.listed and seen.listed[:1]), at_s)


class SeesNoRole(Reconciler):
    """Bug: it does not look at the engine's own role."""

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        remedy = super().look(should, seen, at_s)
        return None if isinstance(remedy, Adopt) else remedy


class GivesUp(Reconciler):
    """Bug: what was lost stays lost."""

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        remedy = super().look(should, seen, at_s)
        return None if isinstance(remedy, Back) else remedy


class NeverAgain(Reconciler):
    """Bug: behind the fence it does not try whether the other hand has gone."""

    def look(self, should: Should, seen: Seen, at_s: float) -> Remedy | None:
        remedy = super().look(should, seen, at_s)
        return None if self._fenced else remedy


@pytest.mark.parametrize("bug", [Hasty, Tireless, SeesOneEntry, SeesNoRole, GivesUp, NeverAgain])
def test_every_planted_bug_is_caught(bug: type[Reconciler]) -> None:
    caught = 0
    for seed in range(60):
        try:
            walk(World(reconciler=bug()), seed, STEPS)
        except Violation:
            caught += 1
    assert caught
