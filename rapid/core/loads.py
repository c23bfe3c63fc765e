"""The latest load of every instance, whichever way it came: through the rapidd of its host or from the engine."""

from rapid.core.cluster import PhaseLoad
from rapid.core.slo import Slo

_MAX_LOADS = 16_384  # instances whose load is remembered; the one not heard for longest is forgotten first


class Loads:
    """Of two loads of an instance the fresher counts. Each that counts is also taken into the SLO figures."""

    def __init__(self, slo: Slo) -> None:
        self._slo = slo
        self._kept: dict[str, tuple[PhaseLoad, float]] = {}  # in the order in which they were heard
        self._problems: dict[str, dict[str, str]] = {}  # by node and instance, of the nodes' last reports

    def take(self, load: PhaseLoad, measured_s: float, at_s: float) -> None:
        """A load that is from measured_s of the controller's clock."""
        kept = self._kept.get(load.instance)
        if kept is not None and kept[1] > measured_s:
            return
        self._kept.pop(load.instance, None)
        if len(self._kept) >= _MAX_LOADS:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._slo.forget(oldest)
        self._kept[load.instance] = (load, measured_s)
        self._slo.take(load, at_s)

    def fresh(self, instance: str, at_s: float, stale_after_s: float) -> tuple[PhaseLoad, float] | None:
        """The load and the time that it is from; None if there is none, or it is stale."""
        kept = self._kept.get(instance)
        return None if kept is None or at_s - kept[1] > stale_after_s else kept

    def hear_problems(self, node: str, problems: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """What a node says is wrong with the loads of its instances; those among it that had nothing wrong before."""
        before = self._problems.pop(node, {})
        if problems:
            self._problems[node] = dict(problems)
        return [(instance, problem) for instance, problem in problems if instance not in before]

    def problem(self, instance: str) -> str:
        """What is wrong with the load of an instance; empty: nothing that its node knows of."""
        return next((found[instance] for found in self._problems.values() if instance in found), "")
