"""Promise 1, under everything that may go wrong between a controller and its nodes; and that the check can fail."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid.core.books import Finding, NodeBook
from rapid.core.cluster import GrantBatch, Mark, NodeReport, PhaseLoad
from rapid.core.guard import Duty, Guard
from rapid.core.ledger import Ledger
from tests.core.world import Violation, World, walk

SEEDS = range(40)
STEPS = 400


@pytest.mark.parametrize("seed", SEEDS)
def test_the_budget_holds_whatever_happens_to_messages_and_processes(seed: int) -> None:
    walk(World(), seed, STEPS)


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 300))
@settings(max_examples=100)
def test_the_budget_holds_on_paths_that_hypothesis_picks(seed: int, steps: int) -> None:
    walk(World(), seed, steps)


def test_the_world_is_not_idle() -> None:
    """A walk that never raises a limit would prove nothing."""
    world = World()
    dice = random.Random(1)
    greatest = 0
    for _ in range(4000):
        _, act = dice.choice(world.actions(dice))
        act()
        greatest = max(greatest, sum(device.limit for node in world.nodes.values() for device in node.devices.values()))
    assert greatest > 0.8 * world.budget


# ---- planted bugs: each is caught ----


class BooksTheReadBack(Ledger):
    """Bug `readback`: a node that enforces less than its grant frees watts, though it may come back up by itself."""

    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        gpus = tuple(replace(gpu, grant_mw=min(gpu.grant_mw, gpu.limit_mw)) for gpu in report.gpus)
        return super().hear(replace(report, gpus=gpus), at_s)


class TakesAnyReportAsAck(Ledger):
    """Bug `acks`: any report counts as covering every grant on its way."""

    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        covers_all = Mark(report.mark.epoch, 10**9) if report.mark.epoch else report.mark
        return super().hear(replace(report, mark=covers_all), at_s)


class BelievesACutAtOnce(Ledger):
    """Bug: a cut counts when it is read back, though the draw has not come down."""

    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        gpus = tuple(replace(gpu, draw_mw=0, draw_at_s=report.node_time_s) for gpu in report.gpus)
        return super().hear(replace(report, gpus=gpus), at_s)


class CountsARaiseWhenHeard(Ledger):
    """Bug: a raise does not count while it is on its way."""

    def _fits(self, node: NodeBook, rise_mw: int) -> bool:
        held_mw = sum(booking.confirmed_mw for booking in self.gpus.values())
        return held_mw + rise_mw <= self.domains["room"].budget_mw


class TakesOldReports(Ledger):
    """Bug: a report that is older than one heard is believed."""

    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        node = self.nodes[report.node]
        node.report_seq, node.incarnation, node.node_time_s, node.mark = -1, "", 0.0, Mark()
        return super().hear(report, at_s)


class AnyIncarnation(Guard):
    """Bug `noinc`: a grant that was meant for the life before a restart is applied."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        mine = replace(batch, incarnation=self.incarnation)
        return super().grant(mine, at_s)


class AnySeq(Guard):
    """Bug `noseq`: an older grant than the last one taken is applied."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        taken, self.mark = self.mark, Mark(0, 0)
        duties = super().grant(batch, at_s)
        self.mark = max(taken, self.mark)
        return duties


class AnyEpoch(Guard):
    """Bug: a deposed controller's grant is applied."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        own = replace(batch, mark=Mark(self.memory.epoch, self.mark.seq + 1), controller_id=self.memory.controller_id)
        return super().grant(own, at_s)


class ComesBackUp(Guard):
    """Bug: after its lease a node goes back to its grant by itself, though it had given it up."""

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        report = super().report(at_s, loads)
        return replace(report, gpus=tuple(replace(gpu, void=True) for gpu in report.gpus))


class StartsAtItsFallback(Guard):
    """Bug: at start a limit that cannot be read goes to its fallback, though it may have been lower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for gpu in self._gpus.values():
            if gpu.spec.limit_mw is None:
                gpu.grant_mw = gpu.spec.fallback_mw


LEDGER_BUGS = [BooksTheReadBack, TakesAnyReportAsAck, BelievesACutAtOnce, CountsARaiseWhenHeard, TakesOldReports]
GUARD_BUGS = [AnyIncarnation, AnySeq, AnyEpoch, ComesBackUp, StartsAtItsFallback]


@pytest.mark.parametrize("bug", LEDGER_BUGS)
def test_a_bug_planted_in_the_ledger_is_caught(bug: type[Ledger]) -> None:
    assert _found(lambda: World(ledger=bug)), f"{bug.__name__} went unnoticed"


@pytest.mark.parametrize("bug", GUARD_BUGS)
def test_a_bug_planted_in_the_guard_is_caught(bug: type[Guard]) -> None:
    assert _found(lambda: World(guard=bug)), f"{bug.__name__} went unnoticed"


def _found(make: Callable[[], World]) -> bool:
    for seed in range(400):
        try:
            walk(make(), seed, STEPS)
        except Violation:
            return True
    return False
