"""Whatever others do to the devices, in any order: what a guard never does, and that each check can fail.

Promises 1 and 2: nothing rises without a grant, and what was given up stays given up.
"""

import random

import pytest

from rapid.core.cluster import EventKind, GpuReport
from rapid.core.compliance import Reading
from rapid.core.drift import FenceSettings
from rapid.core.duties import Duty
from rapid.core.excursion import ExcursionSettings
from rapid.core.guard import Guard
from rapid.core.guarded import GpuState
from rapid.core.vigil import Vigil
from tests.core.hosts import CEILING, Host, W

HARD_MW = 1_300 * W
SEEDS = range(120)
LIMITS_W = (100, 200, 300, 400, 500, 650, 700)


class WritesTheFenced(Guard):
    """Bug: one who fights back is fought for ever."""

    def _answer_move(self, gpu: GpuState, mover: object, at_s: float) -> list[Duty]:
        duties = super()._answer_move(gpu, mover, at_s)  # type: ignore[arg-type]
        return [*duties, self._write(gpu, at_s)] if gpu.unmanaged and gpu.writing_mw is None else duties


class RisesWhenItLetsGo(Guard):
    """Bug: after an excursion limits go to where they were, whoever gave them up meanwhile."""

    def _watch_draw(self, gpu: GpuState, reading: Reading | None, at_s: float) -> list[Duty]:
        assert self.vigil is not None
        before = self.vigil.excursion.active
        duties = super()._watch_draw(gpu, reading, at_s)
        if before and not self.vigil.excursion.active:
            gpu.grant_mw = gpu.spec.fallback_mw
            return [*duties, *self._enforce(gpu, at_s)]
        return duties


class ForgetsTheCut(Guard):
    """Bug: a grant that comes during an excursion lifts the cut."""

    def _take(self, *grant: object) -> list[Duty]:
        for gpu in self._gpus.values():
            gpu.cut_mw = None
        return super()._take(*grant)  # type: ignore[arg-type]


class TrustsAReload(Guard):
    """Bug: what was in force before the driver was loaded anew is still believed."""

    def happened(self, gpu: str, kind: EventKind, code: int, detail: str, at_s: float) -> list[Duty]:
        return []


class Judge:
    """Watches one host from outside: what it was granted, and what it asks of its devices."""

    def __init__(self, host: Host, when: str) -> None:
        self.host, self.when = host, when
        self.granted_mw: dict[str, int] = {}  # by a grant that nobody has given up
        self.at_most_mw = {gpu: device.limit_mw for gpu, device in host.devices.items()}  # while it is void
        self.fenced: set[str] = set()
        self.seen = 0

    def look(self) -> None:
        """After every step."""
        vigil = self.host.guard.vigil
        assert vigil is not None
        for one in self.host.report().gpus:
            self._look_at(one)
        words, self.seen = self.host.words[self.seen :], len(self.host.words)
        for word in words:
            self._hear(word)
        if vigil.excursion.active:
            cuts = [gpu.cut_mw for gpu in self.host.guard._gpus.values() if not gpu.unmanaged]
            assert None not in cuts, f"{self.when}: an excursion goes on, and nothing is cut"

    def _hear(self, word: str) -> None:
        """What was said and asked for, in its order."""
        match word.replace(":", "").split():
            case ["error", "gpu", "fenced", gpu, *_]:
                self.fenced.add(gpu)
            case ["info", "gpu", "managed", "again", gpu]:
                self.fenced.discard(gpu)
            case ["write", gpu, *_]:
                assert gpu not in self.fenced, f"{self.when}: {gpu} is fenced, and written"

    def _look_at(self, one: GpuReport) -> None:
        write = self.host.writes.get(one.gpu)
        if one.void:
            self.granted_mw.pop(one.gpu, None)
            most_mw = self.at_most_mw[one.gpu]
            assert one.grant_mw <= most_mw, f"{self.when}: {one.gpu} rose to {one.grant_mw}, it was void at {most_mw}"
        else:
            assert one.grant_mw == self.granted_mw[one.gpu], f"{self.when}: {one.gpu} holds what nobody granted"
        self.at_most_mw[one.gpu] = one.grant_mw
        if write is not None:
            assert write.limit_mw <= max(one.grant_mw, one.limit_mw), f"{self.when}: {one.gpu} is written too high"

    def granted(self, limits_mw: dict[str, int]) -> None:
        """What of a batch was taken is what the guard says is not void and stands as it was sent."""
        for one in self.host.report().gpus:
            if not one.void and one.grant_mw == limits_mw.get(one.gpu):
                self.granted_mw[one.gpu] = one.grant_mw
                self.at_most_mw[one.gpu] = one.grant_mw

    def sampled(self) -> None:
        """All was read: nothing is shown lower than it is."""
        for one in self.host.report().gpus:
            device = self.host.devices[one.gpu]
            if one.gpu not in self.host.writes:
                assert one.limit_mw >= device.limit_mw, f"{self.when}: {one.gpu} is shown lower than it is"


def storm(guard_class: type[Guard], seed: int) -> None:
    """Grants, lost leases, other writers, a BMC, driver reloads, draws beyond all limits, and time."""
    dice = random.Random(seed)
    vigil = Vigil(ExcursionSettings(hold_s=1.0), HARD_MW)
    host = Host(guard_class=guard_class, vigil=vigil, hard_budget_mw=HARD_MW, fence=FenceSettings(4, 20.0))
    for device in host.devices.values():
        device.tells, device.energy_mj = dice.random() < 0.5, 1e6
    host.settle()
    host.greet()
    judge = Judge(host, f"seed {seed}, start")
    for seq in range(1, 150):
        judge.when = f"seed {seed}, step {seq}"
        gpu, device = dice.choice(list(host.devices.items()))
        match dice.randrange(12):
            case 0 | 1:
                limits_mw = {name: dice.choice(LIMITS_W) * W for name in host.devices if dice.random() < 0.7}
                host.grant(seq, limits_mw, lease_s=dice.choice((0.5, 3.0)))
                judge.granted(limits_mw)
            case 2:
                host.renew(lease_s=3.0)
            case 3:
                host.wait(dice.choice((0.05, 0.6, 4.0)))
            case 4:
                device.enforce(dice.choice(LIMITS_W) * W, host.now)
            case 5:
                device.hold(dice.choice((300 * W, 10**9)), host.now)
            case 6:
                device.greedy_mw = dice.choice((0, 0, 900 * W))
                device.follow(host.now)
            case 7 if dice.random() < 0.5:
                device.reload(CEILING, host.now)
                kind = dice.choice((EventKind.RELOADED, EventKind.BACK, EventKind.LOST))
                host.do(host.guard.happened(gpu, kind, 0, "", host.now))
                if kind is not EventKind.LOST:
                    shown = next(one for one in host.report().gpus if one.gpu == gpu)
                    assert shown.limit_mw >= device.limit_mw, f"{judge.when}: {gpu} is shown lower than it may be"
            case 8 if dice.random() < 0.1:
                host.do(host.guard.unfence(host.now))
            case 9 | 10:
                host.sample()
                judge.sampled()
            case _:
                host.finish()
        judge.look()


def test_nothing_rises_without_leave_whatever_others_do() -> None:
    for seed in SEEDS:
        storm(Guard, seed)


@pytest.mark.parametrize("bug", [WritesTheFenced, RisesWhenItLetsGo, ForgetsTheCut, TrustsAReload])
def test_a_bug_planted_in_the_guard_is_caught(bug: type[Guard]) -> None:
    assert any(_falls(bug, seed) for seed in SEEDS), f"{bug.__name__} went unnoticed"


def test_the_storm_sees_fences_and_excursions() -> None:
    """A storm in which nothing happens would prove nothing."""
    seen: list[str] = []

    class Telling(Guard):
        def _answer_move(self, gpu: GpuState, mover: object, at_s: float) -> list[Duty]:
            duties = super()._answer_move(gpu, mover, at_s)  # type: ignore[arg-type]
            seen.extend(["fenced"] if gpu.unmanaged else [])
            return duties

        def _watch_draw(self, gpu: GpuState, reading: Reading | None, at_s: float) -> list[Duty]:
            duties = super()._watch_draw(gpu, reading, at_s)
            assert self.vigil is not None
            seen.extend(["cut" if self.vigil.excursion.active else "let go"] if duties else [])
            return duties

    for seed in SEEDS:
        storm(Telling, seed)
    assert {"fenced", "cut", "let go"} <= set(seen)


def _falls(bug: type[Guard], seed: int) -> bool:
    try:
        storm(bug, seed)
    except AssertionError:
        return True
    return False
