"""Any event or command whatever: hypothesis strategies read off the types of the frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

_PLAIN: dict[object, st.SearchStrategy[Any]] = {
    # NaN is left out only because it is not equal to itself.
    float: st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 0.1, 1e22, 5e-324]),
    int: st.integers(min_value=0, max_value=2**64 - 1),
    str: st.text(max_size=8) | st.sampled_from(["null", '{"$float":"inf"}', "1.5", 'a"b\\']),
    bool: st.booleans(),
    NoneType: st.none(),
}


def values_of(type_: Any) -> st.SearchStrategy[Any]:
    """Values of a type made of dataclasses, enums, tuples, unions and plain values."""
    if type_ in _PLAIN:
        return _PLAIN[type_]
    origin, parts = get_origin(type_), get_args(type_)
    if origin in (Union, UnionType):
        return st.one_of([values_of(part) for part in parts])
    if origin is tuple and parts[-1] is Ellipsis:
        return st.lists(values_of(parts[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[values_of(part) for part in parts])
    if origin is Mapping:
        return st.dictionaries(values_of(parts[0]), values_of(parts[1]), max_size=2)
    if isinstance(type_, type) and issubclass(type_, Enum):
        return st.sampled_from(type_)
    assert isinstance(type_, type), f"no strategy for {type_}"
    assert is_dataclass(type_), f"no strategy for {type_}"
    hints = get_type_hints(type_)
    return st.builds(type_, **{field.name: values_of(hints[field.name]) for field in fields(type_)})
