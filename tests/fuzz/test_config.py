"""Whatever a configuration holds, it is read whole, or refused in one line that names the key."""

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from rapid.config import (
    NodeConfig,
    load_controller_config,
    load_node_config,
    parse_controller_config,
    parse_node_config,
)
from rapid.core.errors import ConfigInvalid, ConfigUnreadable
from tests.fuzz import toml
from tests.fuzz.planted import caught

HERE = Path("/etc/rapid/x.toml")
Parse = Callable[[str], object]
PARSERS: dict[str, Parse] = {
    "rapidd.toml": partial(parse_node_config, path=HERE),
    "controller.toml": partial(parse_controller_config, path=HERE),
}
LOADERS = {"rapidd.toml": load_node_config, "controller.toml": load_controller_config}


def refusal_of(parse: Parse, text: str) -> ConfigInvalid | None:
    """How the text is refused; None if it is read."""
    try:
        parse(text)
    except ConfigInvalid as wrong:
        return wrong
    return None


def reads_or_names_the_key(parse: Parse, text: str) -> None:
    """What both loaders promise, whatever they are given."""
    wrong = refusal_of(parse, text)
    event("read" if wrong is None else type(wrong).__name__)
    if wrong is None:
        return
    assert str(wrong).isprintable(), "more than one line"
    if isinstance(wrong, ConfigUnreadable):
        assert str(wrong).startswith("config file /")
    else:
        assert wrong.key, "no key"
        assert str(wrong).startswith("config key ")


files = pytest.mark.parametrize("name", PARSERS)
START = {name: (toml.ETC / name).read_text() for name in PARSERS}


@files
@given(text=st.text(max_size=60))
@example("a = " + "[" * 5000)
@example("a = " + "9" * 5000)
@example("load.max_instances = 0x" + "f" * 5000)
@example("policy.settings." + "a." * 5000 + "a = 1")
@example('"a\\nb" = 1')
@example('"" = 1')
def test_any_text(name: str, text: str) -> None:
    reads_or_names_the_key(PARSERS[name], text)


@files
@given(data=st.data())
def test_slips_of_the_pen(name: str, data: st.DataObject) -> None:
    reads_or_names_the_key(PARSERS[name], data.draw(toml.spoiled(START[name])))


@files
@given(data=st.data())
def test_wrong_values(name: str, data: st.DataObject) -> None:
    reads_or_names_the_key(PARSERS[name], toml.document(data.draw(toml.changed(toml.example(name)))))


@files
@given(data=st.binary(max_size=40), at=st.integers(0, 2000))
def test_any_bytes(name: str, data: bytes, at: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    text = START[name].encode()
    file.write_bytes(text[:at] + data + text[at:])
    reads_or_names_the_key(lambda _: LOADERS[name](file), "")


# ---- planted bugs ----


def without_a_net(text: str) -> object:
    """What TOML and msgspec raise comes out as it is."""
    return msgspec.convert(tomllib.loads(text), NodeConfig)


def without_keys(text: str) -> object:
    try:
        return parse_node_config(text, path=HERE)
    except ConfigInvalid as wrong:
        raise ConfigInvalid("", str(wrong)) from wrong


def without_escapes(text: str) -> object:
    try:
        return parse_node_config(text, path=HERE)
    except ConfigUnreadable:
        raise
    except ConfigInvalid as wrong:
        wrong.args = (f"{wrong}: {text}",)
        raise


@pytest.mark.parametrize(
    ("parse", "error", "says"),
    [
        (without_a_net, msgspec.ValidationError, ""),
        (without_keys, AssertionError, "no key"),
        (without_escapes, AssertionError, "more than one line"),
    ],
)
def test_a_planted_bug_is_caught(parse: Parse, error: type[Exception], says: str) -> None:
    tables = toml.changed(toml.example("rapidd.toml")).map(toml.document)
    assert says in caught(tables, partial(reads_or_names_the_key, parse), error)


def test_a_loader_that_lets_a_parse_error_out_is_caught() -> None:
    caught(toml.spoiled(START["rapidd.toml"]), partial(reads_or_names_the_key, tomllib.loads), tomllib.TOMLDecodeError)
