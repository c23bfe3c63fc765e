"""Domains form a tree, and each of them reserves power. Whatever is asked, heard, lost, released and handed over, no
grant lifts what is booked in any domain above its budget, and the sums that the ledger keeps are those of its books.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.books import NodeBook
from rapid.core.cluster import Domain, GrantBatch, Mark, NodeSpec
from rapid.core.errors import Refused
from rapid.core.ledger import Ledger
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W
from tests.core.telling import SILENT_S, Story

SEEDS = range(60)
STEPS = 150


def forest(dice: random.Random, ledger: type[Ledger]) -> Story:
    """A site of two rows, a rack in the first; nodes at every depth; budgets around what fallbacks need."""
    domains = [
        Domain("site", dice.randrange(2_200, 3_600) * W, reserved_mw=dice.randrange(0, 200) * W),
        Domain("row 1", dice.randrange(1_700, 2_600) * W, reserved_mw=dice.randrange(0, 100) * W, parent="site"),
        Domain("rack", dice.randrange(900, 1_400) * W, reserved_mw=dice.randrange(0, 100) * W, parent="row 1"),
        Domain("row 2", dice.randrange(500, 1_400) * W, parent="site"),
    ]
    places = {"n1": "rack", "n2": "row 1", "n3": "row 2"}
    specs = [
        NodeSpec(name, domain, 2 if name != "n3" else 1, FLOOR, CEILING, FALLBACK) for name, domain in places.items()
    ]
    return Story(domains=domains, specs=specs, ledger=ledger)


class Walk:
    """A story that writes itself by the dice. Nodes here obey; what they are sent may be lost."""

    def __init__(self, seed: int, ledger: type[Ledger] = Ledger) -> None:
        self.dice = random.Random(seed)
        self.story = forest(self.dice, ledger)
        self.gpus = {spec.name: [f"{spec.name}.{index}" for index in range(spec.gpus)] for spec in self.story.specs}
        self.limits_w = {gpu: 400.0 for gpus in self.gpus.values() for gpu in gpus}
        self.void = dict.fromkeys(self.limits_w, True)
        self.post: list[GrantBatch] = []
        self.path: list[str] = []

    def run(self, steps: int) -> None:
        acts = [self.ask] * 4 + [self.report] * 4 + [self.deliver] * 3
        acts += [self.land, self.wait, self.restart, self.release, self.cut_budget, self.new_life]
        for _ in range(steps):
            act = self.dice.choice(acts)
            self.path.append(act.__name__)
            act()
            self.check_sums()

    def ask(self) -> None:
        story, ledger = self.story, self.story.ledger
        targets_mw = {gpu: self.dice.randrange(50, 800) * W for gpu in story.movable() if self.dice.random() < 0.7}
        before = {name: ledger.domain_held_mw(name) for name in ledger.domains}
        self.post += ledger.grant(targets_mw, story.now, 5.0)
        for name, domain in ledger.domains.items():
            room_mw = domain.budget_mw - ledger.reserved_mw(name)
            after_mw = ledger.domain_held_mw(name)
            assert after_mw <= max(room_mw, before[name]), f"{self.path[-8:]}: a grant lifts {name} to {after_mw}"

    def deliver(self) -> None:
        if self.post:
            batch = self.post.pop(self.dice.randrange(len(self.post)))
            teller = self.story.tellers[batch.node]
            if batch.incarnation == teller.incarnation and batch.mark > teller.mark:
                teller.mark = batch.mark
                for gpu, limit_mw in batch.limits_mw:
                    self.limits_w[gpu], self.void[gpu] = limit_mw / W, False

    def report(self) -> None:
        node = self.dice.choice(list(self.gpus))
        teller = self.story.tellers[node]
        mark = max(teller.mark, Mark(self.story.ledger.epoch, 0)) if self.dice.random() < 0.8 else None
        shown = {}
        for gpu in self.gpus[node]:
            ill = " ill=denied" if self.dice.random() < 0.1 else ""
            shown[gpu] = f"{self.limits_w[gpu]}{' void' if self.void[gpu] else ''}{ill}"
        self.story.take(teller.report(shown, mark=mark))

    def land(self) -> None:
        for gpu in self.gpus[self.dice.choice(list(self.gpus))]:
            self.limits_w[gpu], self.void[gpu] = min(self.limits_w[gpu], 400.0), True

    def wait(self) -> None:
        self.story.wait(self.dice.choice((0.1, 1.1, 2.5)))

    def restart(self) -> None:
        node = self.dice.choice(list(self.gpus))
        self.story.tellers[node].restart()
        for gpu in self.gpus[node]:
            self.limits_w[gpu], self.void[gpu] = min(self.limits_w[gpu], 400.0), True

    def release(self) -> None:
        node = self.dice.choice(list(self.gpus))
        try:
            self.story.ledger.release(node, self.story.now, SILENT_S)
        except Refused:
            return

    def cut_budget(self) -> None:
        domain = self.dice.choice(list(self.story.ledger.domains))
        self.story.ledger.set_budget(domain, self.dice.randrange(500, 3_600) * W, force=True)

    def new_life(self) -> None:
        ledger = self.story.ledger
        snapshot = ledger.snapshot() if self.dice.random() < 0.8 else None
        epoch = ledger.epoch if snapshot is not None and self.dice.random() < 0.5 else ledger.epoch + 1
        self.story.begin(epoch=epoch, snapshot=snapshot)

    def check_sums(self) -> None:
        """The sums of the domains, added up anew."""
        ledger = self.story.ledger
        for name in ledger.domains:
            inside = [node for node in ledger.nodes.values() if name in node.chain]
            sum_mw = sum(node.unseen_mw + sum(ledger.held_mw(gpu) for gpu in node.gpus) for node in inside)
            assert ledger.domain_held_mw(name) == sum_mw, f"{self.path[-8:]}: the sum of {name} has drifted"
            below_mw = sum(one.reserved_mw for one in ledger.domains.values() if name in ledger.chains[one.name])
            assert ledger.reserved_mw(name) == below_mw


@pytest.mark.parametrize("seed", SEEDS)
def test_no_grant_lifts_a_domain_above_its_budget(seed: int) -> None:
    Walk(seed).run(STEPS)


@given(seed=st.integers(0, 2**32))
def test_no_grant_lifts_a_domain_above_its_budget_on_other_paths(seed: int) -> None:
    Walk(seed).run(60)


def test_the_walk_is_not_idle() -> None:
    """Walks in which nothing is raised, or nothing is ever over its budget, would prove little."""
    raised = over = managed_again = 0
    for seed in SEEDS:
        walk = Walk(seed)
        for _ in range(STEPS):
            before = walk.story.ledger.domain_held_mw("site")
            sent = len(walk.post)
            walk.ask()
            raised += walk.story.ledger.domain_held_mw("site") > before
            over += walk.story.ledger.over_mw("rack") > 0 and len(walk.post) > sent
            walk.run(1)
        managed_again += any(booking.amends for booking in walk.story.ledger.gpus.values())
    assert raised > 200
    assert over > 200
    assert managed_again > 10


# ---- planted bugs ----


class LooksAtItsOwnDomainOnly(Ledger):
    """Bug: a raise that fits its rack passes the budget of the row."""

    def _fits(self, node: NodeBook, rise_mw: int) -> bool:
        name = node.chain[0]
        return self._held_mw[name] + self._reserved_mw[name] + rise_mw <= self.domains[name].budget_mw


class ForgetsWhatIsReserved(Ledger):
    """Bug: the power of hosts and fans is not counted."""

    def _fits(self, node: NodeBook, rise_mw: int) -> bool:
        return all(self._held_mw[name] + rise_mw <= self.domains[name].budget_mw for name in node.chain)


class ForgetsTheRoot(Ledger):
    """Bug: what a node adds is booked in its own domain and not above it."""

    def _add(self, node: NodeBook, change_mw: int) -> None:
        self._held_mw[node.chain[0]] += change_mw


class ReleasesTwice(Ledger):
    """Bug: what is released is freed twice."""

    def release(self, node: str, at_s: float, silent_after_s: float) -> None:
        held_mw = self._node_held_mw(self.nodes[node]) if node in self.nodes else 0
        super().release(node, at_s, silent_after_s)
        self._add(self.nodes[node], -held_mw)


@pytest.mark.parametrize("bug", [LooksAtItsOwnDomainOnly, ForgetsWhatIsReserved, ForgetsTheRoot, ReleasesTwice])
def test_a_planted_bug_is_caught(bug: type[Ledger]) -> None:
    assert any(_falls(seed, bug) for seed in SEEDS), f"{bug.__name__} went unnoticed"


def _falls(seed: int, bug: type[Ledger]) -> bool:
    try:
        Walk(seed, bug).run(STEPS)
    except AssertionError:
        return True
    return False
