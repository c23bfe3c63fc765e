"""A site with a broken part goes over its budget, and the checker sees it; sound parts and silence do not."""

from dataclasses import replace
from typing import Any

import pytest

from rapid.core.books import NodeBook
from rapid.core.cluster import GpuHealth, GrantBatch, NodeHealth, NodeReport, PhaseLoad
from rapid.core.commands import Command
from rapid.core.control import Control
from rapid.core.duties import Duty, Write
from rapid.core.events import Event
from rapid.core.guard import Guard
from rapid.core.ledger import Ledger
from rapid.sim.world.build import Parts
from rapid.sim.world.node import SimGpu
from rapid.sim.world.scenario import Silence, WorldSettings
from rapid.sim.world.site import Site
from tests.sim.sites import HEAVY, MI300X, Recorder, poisson, scenario


class LyingGpu(SimGpu):
    """Enforces 40 W more than it was asked for and than it says."""

    def enforce(self, asked_mw: int) -> None:
        self.limit_mw = asked_mw + 40_000

    def read_mw(self) -> int:
        return self.limit_mw - 40_000


class DeafGpu(SimGpu):
    """Ignores every cut once it has booted, and says that it has obeyed."""

    said_mw = MI300X.ceiling_mw

    def enforce(self, asked_mw: int) -> None:
        self.limit_mw = max(asked_mw, 0 if self.limit_mw == MI300X.ceiling_mw else self.limit_mw)
        self.said_mw = asked_mw

    def read_mw(self) -> int:
        return self.said_mw


class ForgetfulGuard(Guard):
    """Takes a cut for done without having written it."""

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        before_mw = {gpu.gpu: gpu.limit_mw for gpu in self.report(at_s).gpus}
        kept: list[Duty] = []
        for duty in super().grant(batch, at_s):
            if isinstance(duty, Write) and duty.limit_mw < before_mw[duty.gpu]:
                kept += self.wrote(duty.gpu, duty.limit_mw, duty.limit_mw, "", GpuHealth.OK, at_s)
            else:
                kept.append(duty)
        return kept

    def sampled(self, gpu: str, **reading: Any) -> list[Duty]:
        limits_mw = {each.gpu: each.limit_mw for each in super().report(reading["draw_at_s"]).gpus}
        return super().sampled(gpu, **(reading | {"limit_mw": limits_mw[gpu]}))


class HastyGuard(Guard):
    """Reports a limit as read back, and the draw as down, while the write is still under way."""

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        report = super().report(at_s, loads)
        gpus = [
            replace(gpu, limit_mw=gpu.grant_mw, limit_since_s=at_s, draw_mw=gpu.floor_mw, draw_at_s=at_s)
            for gpu in report.gpus
        ]
        return replace(report, gpus=tuple(gpus))


class LooseLedger(Ledger):
    """Grants every raise at once."""

    def _fits(self, node: NodeBook, rise_mw: int) -> bool:
        return True


class LooseControl(Control):
    """A controller with the loose ledger."""

    def step(self, event: Event) -> list[Command]:
        commands = super().step(event)
        self.ledger.__class__ = LooseLedger
        return commands


SLOW = WorldSettings(write_s=(0.05, 0.30))  # so that the order of cuts and raises shows


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(Parts(gpu=LyingGpu), id="a GPU that lies"),
        pytest.param(Parts(gpu=DeafGpu), id="a GPU that is deaf to cuts"),
        pytest.param(Parts(guard=ForgetfulGuard), id="a guard that forgets to write cuts"),
        pytest.param(Parts(guard=HastyGuard), id="a guard that reports cuts too early"),
        pytest.param(Parts(control=LooseControl), id="a ledger that does not sum up"),
    ],
)
def test_a_broken_part_shows_as_time_over_budget(parts: Parts) -> None:
    outcome = Site(scenario(world=SLOW), poisson(HEAVY, 12.0), parts=parts).run()
    assert outcome.over_budget_s > 0.01


def test_the_same_world_with_sound_parts_keeps_the_budget() -> None:
    outcome = Site(scenario(world=SLOW), poisson(HEAVY, 12.0)).run()
    assert outcome.watts_moved > 0, "else this shows nothing"
    assert outcome.over_budget_s == 0.0


def test_a_silent_node_lands_and_comes_back_within_the_budget() -> None:
    quiet = Silence("node1", 10.0, 22.0)
    mine = scenario("static", nodes=2, world=WorldSettings(silences=(quiet,)))
    watch = Recorder()
    site = Site(mine, poisson(40.0, 35.0), watch=watch)
    outcome = site.run()
    assert outcome.over_budget_s == 0.0
    assert outcome.unfinished == 0
    assert watch.greatest_mw("node1", 9.5) > mine.fallback_mw, "else landing shows nothing"
    assert watch.greatest_mw("node1", quiet.from_s + 6.0) <= mine.fallback_mw, "the lease is 5 s"
    nodes = {node.node: node.health for node in site.control.status(site.cluster.now_s).nodes}
    assert nodes == {"node0": NodeHealth.REPORTING, "node1": NodeHealth.REPORTING}
    assert watch.greatest_mw("node1", outcome.sim_s) > mine.fallback_mw, "it has been raised again"
