"""How long role changes take, drain included, as they were seen."""

from collections.abc import Mapping

from rapid.core.cluster import Phase, Role, View

SwitchesState = tuple[tuple[tuple[str, float, str], ...], tuple[tuple[str, float], ...]]

EASE = 0.3  # share by which the mean follows the last change
MAX_UNDER_WAY = 1024
FORGOTTEN_S = 120.0


class Switches:
    """Follows ordered changes to their ends, apart for each direction."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[float, Role]] = {}  # since when, and to which role; bounded
        self._mean_s: dict[Role, float] = {}

    def ordered(self, roles: Mapping[str, Role], at_s: float) -> None:
        """These instances have been told to change."""
        for name, role in roles.items():
            if len(self._under_way) >= MAX_UNDER_WAY:
                del self._under_way[next(iter(self._under_way))]
            self._under_way[name] = (at_s, role)

    def observe(self, view: View) -> None:
        """Looks who has arrived."""
        if not self._under_way:
            return
        known = {one.instance: one for one in view.instances}
        for name, (since_s, role) in list(self._under_way.items()):
            one = known.get(name)
            taken_s = view.at_s - since_s
            if one is None or taken_s > FORGOTTEN_S:
                del self._under_way[name]
            elif one.phase is Phase.SERVING and taken_s > 0:
                del self._under_way[name]
                if one.role is role:
                    before_s = self._mean_s.get(role, taken_s)
                    self._mean_s[role] = before_s + EASE * (taken_s - before_s)

    def mean_s(self, to_prefill: bool) -> float | None:
        """Seconds from the order until it serves; None: none was seen."""
        return self._mean_s.get(Role.PREFILL if to_prefill else Role.DECODE)

    def state(self) -> SwitchesState:
        """All that restore() needs."""
        under_way = tuple((name, since_s, role.value) for name, (since_s, role) in self._under_way.items())
        return under_way, tuple((role.value, mean_s) for role, mean_s in self._mean_s.items())

    def restore(self, state: SwitchesState) -> None:
        """Go on from there."""
        under_way, means = state
        self._under_way = {name: (since_s, Role(role)) for name, since_s, role in under_way}
        self._mean_s = {Role(role): mean_s for role, mean_s in means}
