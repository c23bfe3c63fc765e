"""Events and commands to and from JSON: the same value always makes the same bytes, and the bytes make the value again.

Field order is that of the dataclass, enums go by value, floats by their shortest exact decimal. JSON has no infinity
and no NaN; they become {"$float":"inf"}, "-inf" or "nan". A string can never look like that: its quotes are escaped.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from rapid.core.commands import Command
from rapid.core.events import Event
from rapid.core.settings import Settings

EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
COMMAND_TYPES: dict[str, type[Command]] = {kind.__name__: kind for kind in get_args(Command)}

_MARKER = b'{"$float":'
_to_json = msgspec.json.Encoder().encode
_to_msgpack = msgspec.msgpack.Encoder().encode
_pairs = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]])
_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    each: msgspec.json.Decoder(each) for each in (*get_args(Event), *get_args(Command), Settings)
}
# A float64 of MessagePack whose exponent is all ones: infinite or NaN (or, rarely, other bytes that look like one).
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)


def kind_of(value: Event | Command) -> str:
    """The name that says which type to read the JSON back as."""
    return type(value).__name__


def encode(value: Event | Command | Settings) -> bytes:
    """One event, command or Settings as JSON."""
    data = _to_json(value)
    # msgspec writes a non-finite float as null. None is null too and common, so look closer only if there is one, and
    # take the value apart (ten times slower) only if the closer look finds something.
    if b"null" in data and _NOT_FINITE.search(_to_msgpack(value)):
        return _to_json(_marked(msgspec.to_builtins(value)))
    return data


def encode_commands(commands: Iterable[Command]) -> bytes:
    """The commands of one step, in their order, as a JSON list of [kind, command]."""
    return b"[" + b",".join(b'["%s",%s]' % (kind_of(it).encode(), encode(it)) for it in commands) + b"]"


def decode_event(kind: str, data: bytes) -> Event:
    """Raises ValueError (msgspec's errors among them) for a kind or JSON that is no event."""
    if kind not in EVENT_TYPES:
        raise ValueError(f"no event is called {kind!r}")
    event: Event = _decode(EVENT_TYPES[kind], data)
    return event


def decode_commands(data: bytes) -> list[Command]:
    """Raises ValueError for JSON that is no list of commands."""
    commands: list[Command] = []
    for kind, raw in _pairs.decode(data):
        if kind not in COMMAND_TYPES:
            raise ValueError(f"no command is called {kind!r}")
        commands.append(_decode(COMMAND_TYPES[kind], bytes(raw)))
    return commands


def decode_settings(data: bytes) -> Settings:
    """Raises ValueError for JSON that is no Settings of this version."""
    settings: Settings = _decode(Settings, data)
    return settings


def _decode(type_: type, data: bytes) -> Any:
    if _MARKER in data:
        return msgspec.convert(_unmarked(msgspec.json.decode(data)), type_)
    return _decoders[type_].decode(data)


def _marked(value: Any) -> Any:
    """The same tree of builtins with each non-finite float replaced by its marker."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, dict):
        return {key: _marked(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(each) for each in value]
    return value


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        return {key: _unmarked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    return value
