"""Daemons with a bug, each a real rapidd around a broken guard: `python -m tests.kills.rogue BUG --config FILE`."""

import sys
from dataclasses import replace

import rapidd.start
from rapid.core.cluster import GrantBatch, NodeReport, PhaseLoad, Renewal
from rapid.core.guard import Duty, Guard
from rapidd.__main__ import main


class FreesItsGpus(Guard):
    """Goes to the factory limits when nobody leads any more, as many a daemon does when it ends."""

    def _land(self, at_s: float, why: str) -> list[Duty]:
        duties = super()._land(at_s, why)
        for gpu in self._gpus.values():
            gpu.grant_mw = gpu.spec.ceiling_mw
            duties += self._enforce(gpu, at_s)
        return duties


class LetsARenewalRevive(Guard):
    """Goes back to what it was granted last when it is renewed after it has landed."""

    granted: GrantBatch

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        self.granted = batch
        return super().grant(batch, at_s)

    def renew(self, renewal: Renewal, at_s: float) -> list[Duty]:
        duties = super().renew(renewal, at_s)
        if self._lease_until_s is None and hasattr(self, "granted"):
            for name, limit_mw in self.granted.limits_mw:
                self._gpus[name].grant_mw = limit_mw
                duties += self._enforce(self._gpus[name], at_s)
        return duties


class ReportsBeforeItObeys(Guard):
    """Reports the limit that it was granted, and not the one that was read back."""

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        told = super().report(at_s, loads)
        return replace(told, gpus=tuple(replace(gpu, limit_mw=gpu.grant_mw) for gpu in told.gpus))


BUGS = {bug.__name__: bug for bug in (FreesItsGpus, LetsARenewalRevive, ReportsBeforeItObeys)}

if __name__ == "__main__":
    bug, *arguments = sys.argv[1:]
    vars(rapidd.start)["Guard"] = BUGS[bug]
    sys.exit(main(arguments))
