"""Whatever comes, in any order: three promises of a guard after every step, and that each check can fail."""

import random
from dataclasses import replace

import pytest

from rapid.core.cluster import NodeReport, PhaseLoad
from rapid.core.duties import Duty, ReportSoon
from rapid.core.guard import Guard
from tests.core.hosts import Host, W, landed

HARD_BUDGET_MW = 1_100 * W
SEEDS = range(150)


class Unbounded(Guard):
    """Bug: the host's hard budget is not kept."""

    def _excess_mw(self, gpu: object, limit_mw: int) -> int:
        return 0


class KeepsAtTheEnd(Guard):
    """Bug: when the lease is over, what was granted stays granted."""

    def _land(self, at_s: float, why: str) -> list[Duty]:
        self._lease_until_s = None
        return [ReportSoon()]


class HidesTheWrite(Guard):
    """Bug: a report does not show a limit that is being written."""

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        report = super().report(at_s, loads)
        gpus = tuple(replace(gpu, limit_mw=self._gpus[gpu.gpu].limit_mw) for gpu in report.gpus)
        return replace(report, gpus=gpus)


def storm(guard_class: type[Guard], seed: int) -> None:
    """Grants, renewals, time, slow and failing writes, and somebody who lowers limits."""
    dice = random.Random(seed)
    host = landed(hard_budget_mw=HARD_BUDGET_MW, guard_class=guard_class)
    host.greet()
    leave_until_s = 0.0
    for seq in range(1, 120):
        device = dice.choice(list(host.devices.values()))
        device.denies, device.mute = dice.random() < 0.1, dice.random() < 0.1
        match dice.randrange(8):
            case 0 | 1:
                lease_s = dice.choice((-1.0, 0.5, 2.0))
                limits_mw = {gpu: dice.randrange(50, 800) * W for gpu in host.devices if dice.random() < 0.7}
                host.grant(seq, limits_mw, lease_s=lease_s)
                leave_until_s = max(leave_until_s, host.now + lease_s)
            case 2:
                host.renew(lease_s=1.0)
                leave_until_s = max(leave_until_s, host.now + 1.0)
            case 3:
                host.wait(dice.choice((0.05, 0.6, 3.0)))
            case 4:
                device.enforce(min(device.limit_mw, dice.randrange(100, 700) * W), host.now)
            case 5:
                host.sample()
            case _:
                host.finish()
        check(host, leave_until_s, f"seed {seed}, step {seq}")


def check(host: Host, leave_until_s: float, when: str) -> None:
    for one in host.report().gpus:
        device = host.devices[one.gpu]
        assert one.limit_mw >= device.limit_mw, f"{when}: {one.gpu} is shown lower than it is"
        if one.gpu in host.writes:
            assert one.limit_mw >= host.writes[one.gpu].limit_mw, f"{when}: {one.gpu} is shown lower than it may be now"
        if host.now >= leave_until_s:
            assert one.void, f"{when}: {one.gpu} holds a grant without a lease"
    total_mw = sum(device.limit_mw for device in host.devices.values())
    assert total_mw <= HARD_BUDGET_MW, f"{when}: {total_mw} mW pass the hard budget"


def test_a_report_never_shows_too_little_and_no_grant_outlives_its_lease() -> None:
    for seed in SEEDS:
        storm(Guard, seed)


@pytest.mark.parametrize("bug", [Unbounded, KeepsAtTheEnd, HidesTheWrite])
def test_a_bug_planted_in_the_guard_is_caught(bug: type[Guard]) -> None:
    assert any(_falls(bug, seed) for seed in SEEDS), f"{bug.__name__} went unnoticed"


def _falls(bug: type[Guard], seed: int) -> bool:
    try:
        storm(bug, seed)
    except AssertionError:
        return True
    return False
