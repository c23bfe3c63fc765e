"""TOML to try a loader with: valid files with something changed, and values of every kind."""

import json
import math
import re
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ETC = Path(__file__).parents[2] / "packaging" / "etc"
_BARE = re.compile(r"[A-Za-z0-9_-]+")

_POWERS = ("400W", "0W", "-1W", "1e3W", "5 kW", "99999MW")
_TIMES = ("2s", "0s", "1h", "9999h", "0.0005ms")
_ADDRESSES = ("127.0.0.1:0", "[::1]:7600", "unix:/run/x", "unix:", "0.0.0.0:1", ":1", "http://[")
_TEXTS = ("", "all", "sim", "h1", "a\nb", "\0", "x" * 3000, "é")

words = st.sampled_from((*_POWERS, *_TIMES, *_ADDRESSES, *_TEXTS))
scalars: st.SearchStrategy[Any] = (
    words
    | st.text(max_size=8)
    | st.booleans()
    | st.integers(-5, 2**12)
    | st.sampled_from([2**63, -(2**64), 10**400])
    | st.floats()
    | st.just(date(2026, 11, 22))
    | st.just(datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC))
    | st.just(time(1, 2, 3))
)
keys = st.sampled_from(["default", "name", "budget", "GPU-1", "a\nb", "a.b", ""]) | st.text(max_size=4)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


def example(name: str) -> dict[str, Any]:
    """A shipped configuration with everything switched on that it shows."""
    text = re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", (ETC / name).read_text())
    return tomllib.loads(text)


@st.composite
def changed(draw: st.DrawFn, table: dict[str, Any]) -> dict[str, Any]:
    """The table with one to three of its values, at any depth, taken away, replaced, or joined by another."""
    table = json.loads(json.dumps(table))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, table)
    return table


def _change(draw: st.DrawFn, table: dict[str, Any]) -> None:
    inside: Any = table
    while True:
        at: Any = draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if not (isinstance(inside[at], dict | list) and inside[at] and draw(st.integers(0, 4))):
            break
        inside = inside[at]
    how = draw(st.integers(0, 5))
    if how == 0 and len(inside) > 1:
        del inside[at]
    elif how == 1 and isinstance(inside, dict):
        inside[draw(keys)] = draw(values)
    elif how == 2 and isinstance(inside, list):
        inside.append(draw(values))
    else:
        inside[at] = draw(values)


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> str:
    """The text with a few pieces of it taken away, doubled or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 30)))
        pieces = st.sampled_from(["", "\n", '"', "[", "]", "{", "=", "\0", "'''", text[at:end] * 2])
        piece = draw(pieces | st.text(max_size=4))
        text = text[:at] + piece + text[end:]
    return text


def written(value: Any) -> str:
    """The value as TOML; a table inside of another is written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, int):
        return str(value)
    return _string(value) if isinstance(value, str) else str(value.isoformat())


def document(table: dict[str, Any]) -> str:
    return "".join(f"{_key(key)} = {written(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
