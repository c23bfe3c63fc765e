"""TOML to frozen structs. Whatever is wrong becomes one ConfigInvalid that names the key as the operator wrote it."""

import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from rapid.config.units import Milliwatts, Seconds, parse_duration, parse_power
from rapid.core.errors import ConfigInvalid, ConfigUnreadable

FILE_MAX_BYTES = 16 * 2**20  # a site of 10,000 nodes has 2 MB
DEPTH_MAX = 16  # tables in tables; what we know has four
NAME_MAX = 128  # characters of a name, as on the wire

Shape = TypeVar("Shape")
Table = inspect.StructType | inspect.DataclassType
_WRONG = re.compile(r"(?P<problem>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")
_EXPECTED = re.compile(r"Expected `(.+)`, got `(.+)`")
_WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")


def read(path: Path) -> str:
    """The text of the file. Raises ConfigUnreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigUnreadable(str(path), "there is no such file") from None
    except OSError as error:
        raise ConfigUnreadable(str(path), (error.strerror or str(error)).lower()) from error
    if len(data) > FILE_MAX_BYTES:
        raise ConfigUnreadable(str(path), f"is larger than {FILE_MAX_BYTES // 2**20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigUnreadable(str(path), f"line {line} is not UTF-8 text") from error


def parse(text: str, shape: type[Shape], *, path: Path, hook: Callable[[Any, Any], Any] | None = None) -> Shape:
    """The text as `shape`. `path` is the file it came from: relative paths start from its folder.

    `hook` makes the custom types that only this shape has. Raises ConfigInvalid.
    """
    return convert(load(text, path=path), shape, path=path, hook=hook)


def load(text: str, *, path: Path) -> dict[str, Any]:
    """The text as TOML, not judged yet. Raises ConfigUnreadable."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigUnreadable(str(path), str(error)) from error
    except ValueError:
        raise ConfigUnreadable(str(path), "holds a number of thousands of digits") from None
    except RecursionError:
        raise ConfigUnreadable(str(path), "has lists or tables nested too deeply") from None


def convert(
    raw: Mapping[str, Any], shape: type[Shape], *, path: Path, hook: Callable[[Any, Any], Any] | None = None
) -> Shape:
    """What TOML, or a command line, has given by key, as `shape`. Raises ConfigInvalid."""
    table = _table(inspect.type_info(shape))
    assert table is not None, shape
    _refuse_unknown(raw, table, raw)
    _refuse_boundless(raw, raw)

    def custom(kind: Any, value: Any) -> Any:
        if kind is Milliwatts:
            return parse_power(value)
        if kind is Seconds:
            return parse_duration(value)
        if kind is Path:
            return _path(value, path)
        assert hook is not None, kind
        return hook(kind, value)

    try:
        return msgspec.convert(raw, shape, dec_hook=custom)
    except msgspec.ValidationError as error:
        raise _named(str(error), raw) from error


# ---- checks that both configurations make ----


def check_name(value: str, key: str) -> None:
    """Raise ConfigInvalid unless the value can be the name of something."""
    if not 0 < len(value) <= NAME_MAX or not value.isprintable():
        raise ConfigInvalid(key, f"{value!r} is no name: 1 to {NAME_MAX} printable characters")


def check_one_of(value: str, known: tuple[str, ...], key: str) -> None:
    """Raise ConfigInvalid unless the value is a known one."""
    if value not in known:
        raise ConfigInvalid(key, f"{value!r} is not known; {_suggest(value, known)}")


def check_within(value: float, least: float, most: float, key: str, unit: str = "") -> None:
    """Raise ConfigInvalid unless least <= value <= most."""
    if not least <= value <= most:
        raise ConfigInvalid(key, f"{value:g}{unit} is outside {least:g}{unit}..{most:g}{unit}")


# ---- helpers ----


def _path(value: object, file: Path) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not a path")
    return file.absolute().parent / value


def _refuse_unknown(raw: Mapping[str, Any], table: Table, root: Any, steps: tuple[str | int, ...] = ()) -> None:
    """Raise ConfigInvalid for a key that no field has, before anything is said about the values."""
    known = {field.encode_name: field.type for field in table.fields}
    for key, value in raw.items():
        if key not in known:
            raise ConfigInvalid(_key((*steps, key), root), f"is unknown; {_suggest(key, tuple(known))}")
        if (inner := _table(known[key])) is None:
            continue
        if isinstance(value, dict):
            _refuse_unknown(value, inner, root, (*steps, key))
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            if isinstance(entry, dict):
                _refuse_unknown(entry, inner, root, (*steps, key, index))


def _refuse_boundless(value: object, root: Any, steps: tuple[str | int, ...] = ()) -> None:
    """Raise ConfigInvalid for what TOML lets be written and nobody can mean: deep nests, and whole numbers of more than
    64 bits, which are no float and may be too long to be shown."""
    if len(steps) > DEPTH_MAX:
        raise ConfigInvalid(_key(steps, root), f"is more than {DEPTH_MAX} tables deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_boundless(inner, root, (*steps, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_boundless(inner, root, (*steps, index))
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigInvalid(_key(steps, root), "is a whole number of more than 64 bits")


def _table(kind: inspect.Type) -> Table | None:
    """The table, or what each table in the list, is to be; None for a plain value."""
    if isinstance(kind, inspect.UnionType):
        return next((table for each in kind.types if (table := _table(each)) is not None), None)
    if isinstance(kind, inspect.VarTupleType):
        return _table(kind.item_type)
    return kind if isinstance(kind, inspect.StructType | inspect.DataclassType) else None


def _named(message: str, raw: Mapping[str, Any]) -> ConfigInvalid:
    """msgspec's message as an error that names the key by the names of the entries, not by their numbers."""
    found = _WRONG.fullmatch(message)
    assert found is not None
    steps: list[str | int] = []
    for step in _STEP.finditer(found["path"] or ""):
        steps.append(step["key"] or (-1 if step["index"] == "..." else int(step["index"])))
    if missing := _MISSING.fullmatch(found["problem"]):
        return ConfigInvalid(_key((*steps, missing[1]), raw), "is missing")
    return ConfigInvalid(_key(tuple(steps), raw), _in_words(found["problem"]))


def _in_words(problem: str) -> str:
    """msgspec's words for JSON types as TOML's."""
    if (found := _EXPECTED.fullmatch(problem)) is None:
        return problem
    kinds = [[_WORDS.get(kind, kind) for kind in found[at].split(" | ") if kind != "null"] for at in (1, 2)]
    wanted, given = (" or ".join(words) for words in kinds)
    return f"must be {wanted}, is {given}"


def _key(steps: tuple[str | int, ...], raw: Any) -> str:
    """The path in an operator's words: node.h1.fallback, not node[0].fallback."""
    words: list[str] = []
    for step in steps:
        inner = None
        if isinstance(step, str):
            words.append(step or '""')
            inner = raw.get(step) if isinstance(raw, dict) else None
        elif isinstance(raw, list) and 0 <= step < len(raw):
            inner = raw[step]
            name = (inner.get("name") or inner.get("instance")) if isinstance(inner, dict) else None
            words.append(name if isinstance(name, str) and name else str(step + 1))
        raw = inner
    return ".".join(words)


def _suggest(value: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(value, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
