"""Policy `static`: limits per role as configured, fixed roles."""

from dataclasses import dataclass

from rapid.core.cluster import Role, Targets, View
from rapid.core.fit import fit
from rapid.core.policy.uniform import move_to


@dataclass(frozen=True, slots=True)
class Static:
    """The same limit for every GPU of a role; a GPU without an instance goes to its floor.

    Defaults: 750 W for prefill and 450 W for decode, the best static split of the RAPID paper at 4,800 W.
    """

    prefill_mw: int = 750_000
    decode_mw: int = 450_000
    mixed_mw: int = 600_000
    name: str = "static"

    def decide(self, view: View) -> Targets:
        """Move every limit to the one configured for its role, cut to what the domains have room for."""
        by_role = {Role.PREFILL: self.prefill_mw, Role.DECODE: self.decode_mw, Role.MIXED: self.mixed_mw}
        asked = {gpu.gpu: gpu.floor_mw for gpu in view.gpus}
        for instance in view.instances:
            for gpu in instance.gpus:
                if gpu in asked:
                    asked[gpu] = by_role[instance.role]
        return move_to(view, fit(asked, view.gpus, view.rooms_mw, view.chains), "limits per role as configured")
