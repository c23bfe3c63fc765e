"""Every event and command survives the journal, byte for byte."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import Decision
from rapid.core.commands import Announce, Command, Notice
from rapid.core.events import Event, Ticked
from rapid.core.settings import Settings
from rapidctl.controller import codec
from tests.controller.strategies import values_of


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event_comes_back_equal_and_makes_the_same_bytes(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(values_of(kind))
    written = codec.encode(event)
    read = codec.decode_event(codec.kind_of(event), written)
    assert read == event
    assert codec.encode(read) == written


@pytest.mark.parametrize("kind", get_args(Command), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_command_comes_back_equal_and_makes_the_same_bytes(kind: type[Command], data: st.DataObject) -> None:
    commands = data.draw(st.lists(values_of(kind), max_size=3))
    written = codec.encode_commands(commands)
    read = codec.decode_commands(written)
    assert read == commands
    assert codec.encode_commands(read) == written


@given(values_of(Settings))
def test_settings_come_back_equal(settings: Settings) -> None:
    assert codec.decode_settings(codec.encode(settings)) == settings


@given(st.floats(allow_infinity=False, allow_nan=False))
def test_a_float_keeps_every_bit(value: float) -> None:
    read = codec.decode_event("Ticked", codec.encode(Ticked(value)))
    assert read.at_s.hex() == value.hex()


@pytest.mark.parametrize(("value", "json"), [(math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan")])
def test_what_json_cannot_say_is_said_by_name(value: float, json: str) -> None:
    written = codec.encode(Ticked(value))
    assert written == b'{"at_s":{"$float":"%s"},"wall_s":null}' % json.encode()
    assert repr(codec.decode_event("Ticked", written).at_s) == repr(value)


def test_infinity_is_found_deep_inside_and_beside_words_that_look_like_numbers() -> None:
    inputs: tuple[tuple[str, Any], ...] = (("since_power_s", math.inf), ("word", "inf"), ("none", "null"))
    command = Announce(Decision("d1", 0.0, 1.5, "rapid", "why", inputs))
    assert codec.decode_commands(codec.encode_commands([command])) == [command]


def test_a_list_of_commands_names_each_kind_in_order() -> None:
    written = codec.encode_commands([Notice("info", "n1", "hello"), Notice("error", "n2", "bye")])
    assert written.startswith(b'[["Notice",{"level":"info"')
    assert codec.encode_commands([]) == b"[]"


@pytest.mark.parametrize(
    ("kind", "json"),
    [("Tocked", b"{}"), ("Ticked", b"{}"), ("Ticked", b'{"at_s":null}'), ("Ticked", b'{"at_s"'), ("Notice", b"{}")],
)
def test_what_is_no_event_is_refused(kind: str, json: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        codec.decode_event(kind, json)


def test_what_is_no_command_is_refused() -> None:
    with pytest.raises(ValueError, match="'Explode'"):
        codec.decode_commands(b'[["Explode",{}]]')
