"""The options of a kind, declared once as a struct, for the command line and for a file alike.

    class Options(Struct, frozen=True, kw_only=True):
        router_url: Annotated[str, Meta(description="Where the router answers.")]
        settle_s: Annotated[Seconds, Meta(description="...")] = msgspec.field(name="settle", default=Seconds(0))

A field's name is the key in the file, and with dashes the option. What it may hold: str, int, float, bool, Path,
Seconds, one of several words (Literal), several of one type (tuple[str, ...]); X | None: may be left out.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from rapid.config import parse
from rapid.config.shared import FORMATS, LEVELS, LogTable
from rapid.config.units import Seconds
from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid
from rapid.tls import TlsConfig
from rapidctl.engines.base import Kind, Place


@dataclass(frozen=True, slots=True)
class Wanted:
    """One option: how it is called, and what it takes. default None and not required: it may be left out."""

    key: str
    help: str
    type: type  # str, int, float, bool, Path or Seconds
    words: tuple[str, ...] = ()  # the only ones it takes; empty: any
    several: bool = False
    required: bool = False
    default: Any = None


class AttachFile(Struct, frozen=True):
    """What the file of any kind says; the kind's own table goes by its name."""

    kind: str
    instance: str
    node: str
    gpus: tuple[str, ...]
    role: str = ""
    address: str = ""
    load_socket: Path | None = None
    tls: TlsConfig | None = None
    log: LogTable = LogTable()


def wanted(shape: type[Struct]) -> list[Wanted]:
    """Every option of a kind, in order."""
    hints = get_type_hints(shape, include_extras=True)
    found = []
    for field in msgspec.structs.fields(shape):
        kind, help_ = _described(hints[field.name])
        kind, words, several = _taken(kind)
        default = None if field.default is NODEFAULT else field.default
        found.append(Wanted(field.encode_name, help_, kind, words, several, field.required, default))
    return found


def made(kind: Kind, given: Mapping[str, Any]) -> Struct:
    """The kind's options from those given by key; None: it was left out. Relative paths start from here.

    Raises ConfigInvalid, naming the key.
    """
    raw = {key: _raw(value) for key, value in given.items() if value is not None and value != ()}
    return parse.convert(raw, kind.options, path=Path("command line"))


def read_kind(path: Path) -> tuple[str, str]:
    """The kind that a file is for, and its text. Raises ConfigInvalid."""
    text = parse.read(path)
    kind = parse.load(text, path=path).get("kind")  # the rest is judged when its kind is known
    if not isinstance(kind, str):
        raise ConfigInvalid("kind", "is missing: the kind of engine, as in `rapidctl attach KIND`")
    return kind, text


def parse_file(text: str, kind: Kind, *, path: Path) -> tuple[AttachFile, Struct]:
    """What the file says of every kind's things and of this kind's own. Raises ConfigInvalid."""
    required = any(field.required for field in msgspec.structs.fields(kind.options))
    own: Any = (kind.name, kind.options) if required else (kind.name, kind.options, kind.options())
    shape = msgspec.defstruct("File", [own], bases=(AttachFile,), frozen=True, kw_only=True)
    file = parse.parse(text, shape, path=path)
    assert isinstance(file, AttachFile)
    for key, value in (("instance", file.instance), ("node", file.node)):
        parse.check_name(value, key)
    parse.check_one_of(file.log.level, LEVELS, "log.level")
    parse.check_one_of(file.log.format, FORMATS, "log.format")
    options = getattr(file, kind.name)
    assert isinstance(options, Struct)
    return file, options


def place_of(instance: str, node: str, gpus: tuple[str, ...], role: str, *, reports_load: bool) -> Place:
    """Who is to be attached. Raises ConfigInvalid, naming the key."""
    parse.check_name(instance, "instance")
    parse.check_name(node, "node")
    if not gpus or len(set(gpus)) < len(gpus):
        raise ConfigInvalid("gpus", "names a GPU twice" if gpus else "is empty; name the UUIDs of its GPUs")
    if role:
        parse.check_one_of(role, tuple(each.value for each in Role), "role")
    return Place(instance, node, gpus, Role(role) if role else None, reports_load)


# ---- inside ----


def _described(hint: Any) -> tuple[Any, str]:
    if get_origin(hint) is not Annotated:
        return hint, ""
    kind, *notes = get_args(hint)
    return kind, next((note.description or "" for note in notes if isinstance(note, Meta)), "")


def _taken(kind: Any) -> tuple[type, tuple[str, ...], bool]:
    """The plain type, the words it is bound to, and whether it is given several times."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _taken(next(each for each in get_args(kind) if each is not type(None)))
    if origin is tuple:
        return (*_taken(get_args(kind)[0])[:2], True)
    if origin is Literal:
        return str, get_args(kind), False
    assert kind in (str, int, float, bool, Path, Seconds), kind
    return kind, (), False


def _raw(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
