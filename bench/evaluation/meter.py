"""What each role drew while requests arrived, which no outcome says: the exact energy counters, read from outside."""

from dataclasses import dataclass

from rapid.core.cluster import Decision, Phase, Role
from rapid.sim.model.requests import Finished
from rapid.sim.world.outcome import PerRole
from rapid.sim.world.site import Site
from rapid.sim.world.watch import Queues

AWAY = (Phase.SWITCHING, Phase.WARMING)  # an instance that has left one role and not come to the next


@dataclass(slots=True)
class _Tally:
    """Of one role."""

    energy_mj: float = 0.0
    gpu_s: float = 0.0


class Meter:
    """A Watch. Counts from the trace's time 0 to the last whole second before until_s."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self._site: Site | None = None
        self._roles: dict[str, Role | None] = {}  # None: away
        self._counted_s: dict[str, float] = {}  # up to where, and the counter there
        self._counted_mj: dict[str, float] = {}
        self._tallies: dict[Role | None, _Tally] = {}

    def look_at(self, site: Site) -> None:
        """To be called before the site runs."""
        self._site = site

    @property
    def draw_w(self) -> PerRole:
        """Mean draw of a GPU while its instance had the role; None where none had it."""
        return PerRole(self._draw_w(Role.PREFILL), self._draw_w(Role.DECODE), self._draw_w(Role.MIXED))

    def _draw_w(self, role: Role) -> float | None:
        tally = self._tallies.get(role)
        return tally.energy_mj / tally.gpu_s / 1e3 if tally and tally.gpu_s else None

    def decided(self, at_s: float, decision: Decision) -> None:
        """Decisions draw nothing."""

    def limited(self, at_s: float, gpu: str, instance: str, limit_mw: int) -> None:
        """Limits are in the outcome."""

    def finished(self, finished: Finished) -> None:
        """Requests are in the outcome."""

    def moved(self, at_s: float, instance: str, phase: Phase, role: Role) -> None:
        self._count(instance, at_s)
        self._roles[instance] = None if phase in AWAY else role

    def queues(self, at_s: float, queues: Queues) -> None:
        """The tick of a second."""
        for instance in self._roles:
            self._count(instance, at_s)

    def _count(self, instance: str, at_s: float) -> None:
        """What it has drawn since the last count is its role's."""
        if not 0 <= at_s <= self._until_s:
            return
        assert self._site is not None
        machine = self._site.cluster.instances[instance]
        energy_mj = machine.energy_mj(self._site.cluster.now_s)
        if instance in self._counted_s:
            tally = self._tallies.setdefault(self._roles[instance], _Tally())
            tally.energy_mj += energy_mj - self._counted_mj[instance]
            tally.gpu_s += (at_s - self._counted_s[instance]) * self._site.scenario.profile.gpus
        self._counted_s[instance], self._counted_mj[instance] = at_s, energy_mj
