"""What a domain really draws: mean power over windows of two seconds, by the energy counters in its nodes' reports.

A counter has no gaps, as samples of the draw have. What could not be measured lately is unknown, and counts as all that
is booked for it.
"""

from collections import deque
from dataclasses import dataclass

from rapid.core.cluster import GpuReport, NodeReport
from rapid.core.compliance import WINDOW_S

STALE_S = 2.5 * WINDOW_S  # a mean that is older says nothing of now (assumed: one window, and reports late by another)
RECENT_S, RECENT_STEP_S = 60.0, 5.0  # over which the attainment that is published is taken


@dataclass(slots=True)
class _Counter:
    """One energy counter: the window that is open, and the mean of the last (None: none was whole)."""

    first_mj: int
    first_s: float
    last_s: float
    last_mj: int
    mean_mw: int | None = None
    measured_s: float = float("-inf")  # of the controller

    def read(self, energy_mj: int, sampled_s: float, at_s: float) -> None:
        if sampled_s <= self.last_s:
            return  # no new sample
        if energy_mj < self.last_mj:
            self.first_mj, self.first_s, self.mean_mw = energy_mj, sampled_s, None
        self.last_mj, self.last_s = energy_mj, sampled_s
        passed_s = sampled_s - self.first_s
        if passed_s >= WINDOW_S:
            self.mean_mw, self.measured_s = int((energy_mj - self.first_mj) / passed_s), at_s
            self.first_mj, self.first_s = energy_mj, sampled_s


class Meter:
    """The counters of all GPUs."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}
        self._lives: dict[str, str] = {}  # the clock of a node begins anew with each

    def hear(self, report: NodeReport, at_s: float) -> None:
        """A report that the ledger has taken."""
        if self._lives.get(report.node) != report.incarnation:
            self._lives[report.node] = report.incarnation
            for gpu in report.gpus:
                self._counters.pop(gpu.gpu, None)
        for gpu in report.gpus:
            if gpu.energy_mj is not None:
                self._read(gpu, gpu.energy_mj, report.node_time_s, at_s)

    def mean_mw(self, gpu: str, at_s: float) -> int | None:
        """The mean power of the last window; None: it was not measured lately."""
        counter = self._counters.get(gpu)
        fresh = counter is not None and at_s - counter.measured_s <= STALE_S
        return counter.mean_mw if counter is not None and fresh else None

    def _read(self, gpu: GpuReport, energy_mj: int, node_time_s: float, at_s: float) -> None:
        sampled_s = gpu.draw_at_s if gpu.draw_mw is not None else node_time_s
        counter = self._counters.get(gpu.gpu)
        if counter is None:
            self._counters[gpu.gpu] = _Counter(energy_mj, sampled_s, sampled_s, energy_mj)
        else:
            counter.read(energy_mj, sampled_s, at_s)


Totals = tuple[tuple[float, float], tuple[float, float]]  # (requests, attained) of TTFT and of TPOT


class Recent:
    """SLO attainment of the last minute: the shares of TTFTs and TPOTs that met their targets, multiplied."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, Totals]] = deque(maxlen=int(RECENT_S / RECENT_STEP_S))

    def see(self, totals: Totals, at_s: float) -> None:
        """Totals of now; to be told once a tick."""
        if not self._marks or at_s - self._marks[-1][0] >= RECENT_STEP_S:
            self._marks.append((at_s, totals))

    def attainment(self, totals: Totals) -> float | None:
        """None: nothing was measured."""
        if not self._marks:
            return None
        product: float | None = None
        for before, now in zip(self._marks[0][1], totals, strict=True):
            if (counted := now[0] - before[0]) > 0:
                product = (1.0 if product is None else product) * min(1.0, max(0.0, (now[1] - before[1]) / counted))
        return product
