"""Running means that explain an outcome: limits, instances and work per role. Cost per change, not per second."""

from collections.abc import Mapping

from rapid.core.cluster import Role
from rapid.sim.world.outcome import PerRole

_ROLES = (Role.PREFILL, Role.DECODE, Role.MIXED)


class Means:
    """Told every change of a role or a limit, from before begin() on; the means are those between begin() and end().

    roles     of every instance; None later on: it has none
    limits    of every GPU of every instance, in mW: instance -> list
    """

    def __init__(self, roles: Mapping[str, Role], limits_mw: Mapping[str, list[int]]) -> None:
        self._roles: dict[str, Role | None] = dict(roles)
        self._limits_mw = {name: list(limits) for name, limits in limits_mw.items()}
        self._at_s = self._begun_s = 0.0
        self._ended = False
        keys = (*_ROLES, None)
        self._count: dict[Role | None, int] = dict.fromkeys(keys, 0)
        self._gpus: dict[Role | None, int] = dict.fromkeys(keys, 0)
        self._sum_mw: dict[Role | None, int] = dict.fromkeys(keys, 0)
        self._count_s: dict[Role | None, float] = dict.fromkeys(keys, 0.0)
        self._gpu_s: dict[Role | None, float] = dict.fromkeys(keys, 0.0)
        self._limit_mj: dict[Role | None, float] = dict.fromkeys(keys, 0.0)
        self._busy_s: dict[Role | None, float] = dict.fromkeys(keys, 0.0)
        self._busy_since_s = dict.fromkeys(self._roles, 0.0)
        for name in self._roles:
            self._join(name, 1)

    def begin(self, at_s: float, busy_s: Mapping[str, float]) -> None:
        """Forget what was; busy_s: how long each instance has had work so far."""
        self._at_s = self._begun_s = at_s
        for sums in (self._count_s, self._gpu_s, self._limit_mj, self._busy_s):
            sums.update(dict.fromkeys(sums, 0.0))
        self._busy_since_s.update(busy_s)

    def end(self, at_s: float, busy_s: Mapping[str, float]) -> None:
        """Count up to at_s; nothing after it counts."""
        self._live(at_s)
        for name, role in self._roles.items():
            self._count_busy(name, role, busy_s[name])
        self._ended = True

    def limited(self, instance: str, gpu: int, limit_mw: int, at_s: float) -> None:
        """A GPU of an instance has another limit."""
        if self._ended:
            return
        self._live(at_s)
        limits_mw = self._limits_mw[instance]
        self._sum_mw[self._roles[instance]] += limit_mw - limits_mw[gpu]
        limits_mw[gpu] = limit_mw

    def moved(self, instance: str, role: Role | None, at_s: float, busy_s: float) -> None:
        """An instance has another role; busy_s: how long it has had work so far."""
        if self._ended:
            return
        self._live(at_s)
        self._count_busy(instance, self._roles[instance], busy_s)
        self._join(instance, -1)
        self._roles[instance] = role
        self._join(instance, 1)

    # ---- the means ----

    def limit_w(self) -> PerRole:
        return self._per_role(self._limit_mj, self._gpu_s, 1e-3)

    def instances(self) -> PerRole:
        span_s = self._at_s - self._begun_s
        return self._per_role(self._count_s, dict.fromkeys(self._count_s, span_s))

    def changing(self) -> float:
        span_s = self._at_s - self._begun_s
        return self._count_s[None] / span_s if span_s else 0.0

    def busy(self) -> PerRole:
        return self._per_role(self._busy_s, self._count_s)

    # ---- inside ----

    def _per_role(
        self, sums: Mapping[Role | None, float], weights: Mapping[Role | None, float], unit: float = 1.0
    ) -> PerRole:
        means = [
            sums[role] / weights[role] * unit if weights[role] and self._count_s[role] else None for role in _ROLES
        ]
        return PerRole(*means)

    def _live(self, at_s: float) -> None:
        span_s = at_s - self._at_s
        if span_s > 0:
            self._at_s = at_s
            for role, count in self._count.items():
                if count:
                    self._count_s[role] += count * span_s
                    self._gpu_s[role] += self._gpus[role] * span_s
                    self._limit_mj[role] += self._sum_mw[role] * span_s

    def _join(self, instance: str, sign: int) -> None:
        role, limits_mw = self._roles[instance], self._limits_mw[instance]
        self._count[role] += sign
        self._gpus[role] += sign * len(limits_mw)
        self._sum_mw[role] += sign * sum(limits_mw)

    def _count_busy(self, instance: str, role: Role | None, busy_s: float) -> None:
        self._busy_s[role] += busy_s - self._busy_since_s[instance]
        self._busy_since_s[instance] = busy_s
