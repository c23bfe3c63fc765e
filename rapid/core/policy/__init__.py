"""Policies by name. Each is pure, View -> Targets, in one file."""

import dataclasses
from collections.abc import Callable, Mapping

from rapid.core.errors import ConfigInvalid
from rapid.core.policy.base import NO_CHANGE, Policy
from rapid.core.policy.rapid import Rapid
from rapid.core.policy.static import Static
from rapid.core.policy.uniform import Uniform

_FIXED = frozenset({"name", "moves_power", "moves_roles"})
_BASES: dict[str, Uniform | Static | Rapid] = {
    "uniform": Uniform(),
    "static": Static(),
    "power": Rapid(moves_roles=False, name="power"),
    "roles": Rapid(moves_power=False, name="roles"),
    "rapid": Rapid(),
}
NAMES = tuple(_BASES)


def settings_of(name: str) -> tuple[str, ...]:
    """The named settings of a policy. Raises ConfigInvalid for an unknown policy."""
    return tuple(each.name for each in dataclasses.fields(_base(name)) if each.name not in _FIXED)


def make(name: str, settings: Mapping[str, float]) -> Policy:
    """The policy with its settings changed. Raises ConfigInvalid for an unknown policy, setting or value."""
    base = _base(name)
    known = settings_of(name)
    values: dict[str, float | int] = {}
    for key, value in settings.items():
        if key not in known:
            raise ConfigInvalid(
                f"policy.settings.{key}", f"policy {name} has no such setting (it has: {', '.join(known) or 'none'})"
            )
        if not 0 <= value < float("inf"):
            raise ConfigInvalid(f"policy.settings.{key}", f"must be a number from 0 up, is {value:g}")
        values[key] = int(value) if key.endswith("_mw") else value
    change: Callable[..., Policy] = dataclasses.replace
    return change(base, **values)


def _base(name: str) -> Uniform | Static | Rapid:
    if name not in _BASES:
        raise ConfigInvalid("policy.name", f"no policy named {name!r} (known: {', '.join(NAMES)})")
    return _BASES[name]


__all__ = ["NAMES", "NO_CHANGE", "Policy", "make", "settings_of"]
