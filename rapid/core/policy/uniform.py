"""Policy `uniform`: equal limits, fixed roles. The baseline."""

from dataclasses import dataclass

from rapid.core.cluster import Targets, View
from rapid.core.fit import fair
from rapid.core.policy.base import NO_CHANGE


@dataclass(frozen=True, slots=True)
class Uniform:
    """Equal limits as high as every domain has room for."""

    name: str = "uniform"

    def decide(self, view: View) -> Targets:
        """Move every limit to the equal share."""
        return move_to(view, fair(view.gpus, view.rooms_mw, view.chains), "equal shares of the budget")


def move_to(view: View, limits_mw: dict[str, int], reason: str) -> Targets:
    """Targets for the limits that differ from the view's."""
    changed = {gpu.gpu: limits_mw[gpu.gpu] for gpu in view.gpus if limits_mw[gpu.gpu] != gpu.limit_mw}
    return Targets(changed, {}, reason) if changed else NO_CHANGE
