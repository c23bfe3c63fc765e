"""A raise that found no room is looked at again only when it might find some. Nobody can tell: what is sent is the same
as by a ledger that tries every raise every time.
"""

import random
from collections.abc import Mapping

import pytest

from rapid.core.books import Finding
from rapid.core.cluster import GrantBatch, NodeReport
from rapid.core.ledger import Ledger
from tests.core.telling import Story, limits_of
from tests.core.world import World

SEEDS = range(20)
STEPS = 400


class TriesEveryTime(Ledger):
    def grant(self, targets_mw: Mapping[str, int], at_s: float, lease_s: float) -> list[GrantBatch]:
        for gpu in targets_mw:
            self.gpus[gpu].no_room = None
        return super().grant(targets_mw, at_s, lease_s)


def difference(ledger: type[Ledger], seed: int) -> tuple[str, int]:
    """The first difference in what is sent on one path with either ledger (empty: none), and the raises that waited."""
    one, other, waited = World(ledger=ledger), World(ledger=TriesEveryTime), 0
    dice, same_dice = random.Random(seed), random.Random(seed)
    for step in range(STEPS):
        name, act = dice.choice(one.actions(dice))
        _, same_act = same_dice.choice(other.actions(same_dice))
        act()
        same_act()
        if one.down != other.down:
            return f"seed {seed}, step {step}, {name}: {one.down[-1:]}, not {other.down[-1:]}", waited
        waited += sum(booking.no_room is not None for each in one.controllers for booking in each.ledger.gpus.values())
    return "", waited


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_sent_is_the_same_as_if_every_raise_was_tried_every_time(seed: int) -> None:
    assert difference(Ledger, seed)[0] == ""


def test_raises_wait_on_these_paths() -> None:
    assert sum(difference(Ledger, seed)[1] for seed in SEEDS) > 500


class NeverTriesAgain(Ledger):
    def grant(self, targets_mw: Mapping[str, int], at_s: float, lease_s: float) -> list[GrantBatch]:
        tried = {gpu: target_mw for gpu, target_mw in targets_mw.items() if self.gpus[gpu].no_room is None}
        return super().grant(tried, at_s, lease_s)


class DoesNotNoticeItsOwnReport(Ledger):
    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        before = {name: booking.no_room for name, booking in self.gpus.items()}
        findings = super().hear(report, at_s)
        for name, no_room in before.items():
            self.gpus[name].no_room = no_room
        return findings


def test_a_raise_that_is_forgotten_is_noticed() -> None:
    assert any(difference(NeverTriesAgain, seed)[0] for seed in SEEDS)


def sent_after_another_hand(ledger: type[Ledger]) -> list[GrantBatch]:
    """What is sent when a raise has found no room, and then another hand on the device puts it into force."""
    story = Story(budget_w=1_000, ledger=ledger)
    story.landed()
    first = story.ask(g0=600)
    assert story.asked(g1=500) == []
    story.hear(covers=first, g0="600", g1="500/400")
    return story.asked(g1=500)


def test_a_report_of_its_own_can_make_a_raise_free() -> None:
    (batch,) = sent_after_another_hand(Ledger)
    assert limits_of(batch) == {"g1": 500.0}
    assert sent_after_another_hand(DoesNotNoticeItsOwnReport) == []
