"""Policies by name. Each is pure, View -> Targets, in one file or package."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rapid.core.errors import ConfigInvalid
from rapid.core.policy.base import NO_CHANGE, Policy, StatefulPolicy
from rapid.core.policy.predictive import Predictive, PredictiveSettings, Start
from rapid.core.policy.rapid import Rapid
from rapid.core.policy.static import Static
from rapid.core.policy.uniform import Uniform
from rapid.core.settings import POLICY_START


@dataclasses.dataclass(frozen=True, slots=True)
class _Recipe:
    """How a policy is made of its named settings and of its start profile, both frozen dataclasses full of defaults.

    start  what the policy may be told of the engines before it has seen them (None: it has no use for that). It is
           handed on as None unless some value of it was given.
    """

    settings: Any
    build: Callable[[Any, Any], Policy] = lambda settings, _: settings
    start: Any = None


_FIXED = frozenset({"name", "moves_power", "moves_roles"})
_RECIPES: dict[str, _Recipe] = {
    "uniform": _Recipe(Uniform()),
    "static": _Recipe(Static()),
    "power": _Recipe(Rapid(moves_roles=False, name="power")),
    "roles": _Recipe(Rapid(moves_power=False, name="roles")),
    "rapid": _Recipe(Rapid()),
    "predictive": _Recipe(PredictiveSettings(), Predictive, Start()),
}
NAMES = tuple(_RECIPES)


def settings_of(name: str) -> tuple[str, ...]:
    """The named settings of a policy, and the values of its start profile behind POLICY_START.

    Raises ConfigInvalid for an unknown policy.
    """
    recipe = _recipe(name)
    return (*_fields(recipe.settings), *(POLICY_START + each for each in _fields(recipe.start)))


def make(name: str, settings: Mapping[str, float]) -> Policy:
    """A new policy with these settings changed. Raises ConfigInvalid for an unknown policy, setting or value."""
    recipe = _recipe(name)
    values: dict[str, float | int] = {}
    start: dict[str, float] = {}
    for key, value in settings.items():
        if key.startswith(POLICY_START):
            inner = key.removeprefix(POLICY_START)
            start[inner] = _checked(name, f"policy.start.{inner}", value, _fields(recipe.start))
        else:
            value = _checked(name, f"policy.settings.{key}", value, _fields(recipe.settings))
            values[key] = int(value) if key.endswith("_mw") else value
    changed = dataclasses.replace(recipe.start, **start) if start else None
    return recipe.build(dataclasses.replace(recipe.settings, **values), changed)


def _checked(policy: str, key: str, value: float, known: tuple[str, ...]) -> float:
    _, table, name = key.split(".", 2)
    if name not in known:
        noun = "setting" if table == "settings" else "start value"
        raise ConfigInvalid(key, f"policy {policy} has no such {noun} (it has: {', '.join(known) or 'none'})")
    if not 0 <= value < float("inf"):
        raise ConfigInvalid(key, f"must be a number from 0 up, is {value:g}")
    return value


def _fields(values: Any) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(values) if each.name not in _FIXED) if values else ()


def _recipe(name: str) -> _Recipe:
    if name not in _RECIPES:
        raise ConfigInvalid("policy.name", f"no policy named {name!r} (known: {', '.join(NAMES)})")
    return _RECIPES[name]


__all__ = ["NAMES", "NO_CHANGE", "Policy", "StatefulPolicy", "make", "settings_of"]
