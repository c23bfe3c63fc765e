"""The bounds of every field on the wire, and the checks that hold them.

Each check takes the value and the field's name, and returns the value or raises WireInvalid. They run for every GPU in
every report, so the good path is one comparison and words are only put together for a bad value.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Protocol, TypeVar

from rapid.core.errors import WireInvalid

NAME_MAX = 128  # characters of an id: a UUID of a GPU has 40
TEXT_MAX = 1024  # characters of a line for people
GPUS_MAX = 1024  # GPUs of one node, and grants of one batch
LOADS_MAX = 1024  # instances in one report
ANSWERS_MAX = 4096  # answers in one report
BUCKETS_MAX = 256  # upper bounds of one histogram
NODES_MAX = 10_000
DOMAINS_MAX = 10_000
INSTANCES_MAX = 100_000
DECISIONS_MAX = 10_000
INPUTS_MAX = 256  # inputs of one decision
CANDIDATES_MAX = 8  # candidates of one decision
CHANGES_MAX = 100_000  # changes of one decision: it may move every GPU of a domain

GPU_POWER_MAX_MW = 100_000_000  # 100 kW for one GPU
POWER_MAX_MW = 10_000_000_000_000  # 10 GW for a site
COUNT_MAX = 2**63 - 1  # what a signed 64-bit column or field still holds
TIME_MAX_S = 1e10  # 300 years; microseconds are still told apart there

Kind = TypeVar("Kind")
Value = TypeVar("Value", bound=int)
Message = TypeVar("Message")
Noun = TypeVar("Noun")


class Fields(Protocol):
    """What a message offers to ask whether one of its fields is there."""

    def HasField(self, field_name: str, /) -> bool: ...


def name(value: str, field: str) -> str:
    """A REQUIRED id: printable, so that it can be logged and shown, and not empty."""
    if 0 < len(value) <= NAME_MAX and value.isprintable():
        return value
    raise WireInvalid(field, _name_problem(value))


def name_or_empty(value: str, field: str) -> str:
    """An OPTIONAL id."""
    return name(value, field) if value else value


def text(value: str, field: str) -> str:
    """An OPTIONAL line for people; what cannot be printed becomes a space."""
    if len(value) > TEXT_MAX:
        raise WireInvalid(field, f"{len(value)} characters, at most {TEXT_MAX} allowed")
    return printable(value)


def words(value: str, field: str) -> str:
    """A REQUIRED line for people."""
    if not value:
        raise WireInvalid(field, "missing")
    return text(value, field)


def power(value: int, field: str, least_mw: int = 1, most_mw: int = GPU_POWER_MAX_MW) -> int:
    """Milliwatts of one GPU; above zero unless least_mw says otherwise."""
    if least_mw <= value <= most_mw:
        return value
    raise WireInvalid(field, f"{value} mW is outside {least_mw}..{most_mw} mW")


def count(value: int, field: str, least: int = 0, most: int = COUNT_MAX) -> int:
    """A number of things, an epoch or a counter."""
    if least <= value <= most:
        return value
    raise WireInvalid(field, f"{value} is outside {least}..{most}")


def seconds(value: float, field: str, least_s: float = 0.0, most_s: float = TIME_MAX_S) -> float:
    """A point in time or a duration; never NaN, and infinite only where most_s is."""
    if least_s <= value <= most_s:
        return value
    raise WireInvalid(field, f"{value:g} s is outside {least_s:g}..{most_s:g} s")


def fraction(value: float, field: str) -> float:
    """A share from 0 to 1."""
    if 0.0 <= value <= 1.0:
        return value
    raise WireInvalid(field, f"{value:g} is outside 0..1")


def number(value: float, field: str) -> float:
    """Any number, infinities too, but not NaN: it would not equal itself after a replay."""
    if not math.isnan(value):
        return value
    raise WireInvalid(field, "is not a number")


def choice(value: Value, field: str, choices: Mapping[Value, Kind]) -> Kind:
    """The enum value, which is REQUIRED."""
    try:
        return choices[value]
    except KeyError:
        raise WireInvalid(field, f"unknown value {value}" if value else "missing") from None


def present(message: Fields, field: str) -> None:
    """The field, a message itself, is REQUIRED."""
    if not message.HasField(field):
        raise WireInvalid(field, "missing")


def inner(message: Message, field: str, decode: Callable[[Message], Noun]) -> Noun:
    """The noun of a message inside another; `field` is what the outer one calls it."""
    try:
        return decode(message)
    except WireInvalid as wrong:
        raise wrong.below(field) from None


def each(
    messages: Sequence[Message], field: str, decode: Callable[[Message], Noun], most: int, least: int = 0
) -> tuple[Noun, ...]:
    """The nouns of a repeated field of at least `least` and at most `most` entries."""
    size(messages, field, most, least)
    nouns: list[Noun] = []
    try:
        for message in messages:
            nouns.append(decode(message))  # not a comprehension: its length is the index of a bad entry
    except WireInvalid as wrong:
        raise wrong.below(f"{field}[{len(nouns)}]") from None
    return tuple(nouns)


def size(entries: Sized, field: str, most: int, least: int = 0) -> None:
    """The number of entries is within its bounds; asked before any of them is looked at."""
    if not least <= len(entries) <= most:
        raise WireInvalid(field, f"{len(entries)} entries, {least} to {most} allowed" if len(entries) else "missing")


def distinct(names: Sequence[str], field: str) -> None:
    """No name comes twice: of two entries for one GPU, nobody could say which counts."""
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise WireInvalid(field, f"{twice} is named twice")


def line(value: str) -> str:
    """A line for people as it may be sent: printable, and cut to its bound."""
    if len(value) > TEXT_MAX:
        value = value[: TEXT_MAX - 3] + "..."
    return printable(value)


def printable(value: str) -> str:
    """The same text with a space for each character that would break a line or steer a terminal."""
    return value if value.isprintable() else "".join(letter if letter.isprintable() else " " for letter in value)


def _name_problem(value: str) -> str:
    if not value:
        return "missing"
    if len(value) > NAME_MAX:
        return f"{len(value)} characters, at most {NAME_MAX} allowed"
    return f"{value!a} holds a character that cannot be printed"
