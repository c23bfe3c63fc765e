"""One event is one line, whatever is in it."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import rapid.log
from rapid.clock import Clock, SystemClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The set-up is the process's own; leave none behind."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_terminal_gets_key_value_and_a_pipe_gets_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        rapid.log.configure(stream=stream)
        rapid.log.get(node="h1").info("limit set", gpu="GPU-1", limit_mw=600_000, reason="grant 3/17")
    at, rest = terminal.getvalue().split(" ", 1)
    assert at.endswith("Z")
    assert rest == 'info limit set node=h1 gpu=GPU-1 limit_mw=600000 reason="grant 3/17"\n'
    fields = json.loads(pipe.getvalue())
    assert list(fields) == ["at", "level", "event", "node", "gpu", "limit_mw", "reason"]
    assert (fields["level"], fields["event"], fields["limit_mw"]) == ("info", "limit set", 600_000)


@pytest.mark.parametrize(("format", "stream"), [("console", io.StringIO()), ("json", Terminal())])
def test_the_configuration_has_the_last_word_on_the_form(format: str, stream: io.StringIO) -> None:
    rapid.log.configure(format=format, stream=stream)
    rapid.log.get().info("started")
    assert stream.getvalue().startswith("{") == (format == "json")


@pytest.mark.parametrize(("level", "logged"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_lies_below_the_level_is_left_out(level: str, logged: int) -> None:
    stream = io.StringIO()
    rapid.log.configure(level, stream=stream)
    log = rapid.log.get()
    log.debug("a"), log.info("b"), log.warning("c"), log.error("d")
    assert len(lines(stream)) == logged


@given(event=st.text(), value=st.text() | st.binary() | st.floats() | st.none() | st.lists(st.integers()))
@pytest.mark.parametrize("format", ["console", "json"])
def test_an_event_is_one_printable_line_whatever_is_in_it(format: str, event: str, value: object) -> None:
    stream = io.StringIO()
    rapid.log.configure(format=format, stream=stream)
    rapid.log.get().info(event, value=value)
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue()[:-1].isprintable()


def test_infinity_is_said_in_a_way_that_json_allows() -> None:
    stream = io.StringIO()
    rapid.log.configure(stream=stream)
    rapid.log.get().info("silent", age_s=float("inf"))
    assert json.loads(stream.getvalue(), parse_constant=pytest.fail)["age_s"] == "inf"


def test_a_value_is_cut_at_its_bound_for_people() -> None:
    stream = Terminal()
    rapid.log.configure(stream=stream)
    rapid.log.get().info("long", fits="x" * rapid.log.VALUE_MAX, cut="y" * (rapid.log.VALUE_MAX + 1))
    assert stream.getvalue().count("x") == rapid.log.VALUE_MAX
    assert stream.getvalue().endswith(f"{'y' * rapid.log.VALUE_MAX}...\n")


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_traceback_stays_in_its_line(format: str) -> None:
    stream = io.StringIO()
    rapid.log.configure(format=format, stream=stream)
    try:
        raise ValueError("deep")
    except ValueError:
        rapid.log.get().error("failed", exc_info=True)
    assert len(lines(stream)) == 1
    assert "ValueError: deep" in stream.getvalue()


def full_disk() -> TextIO:
    return open("/dev/full", "w", buffering=1)


def no_reader() -> TextIO:
    reads, writes = os.pipe()
    os.close(reads)
    return open(writes, "w", buffering=1)


@pytest.mark.parametrize("opened", [full_disk, no_reader])
def test_a_line_that_cannot_be_written_does_not_take_the_one_who_logs(opened: Callable[[], TextIO]) -> None:
    stream = opened()
    try:
        rapid.log.configure(stream=stream)
        for number in range(1000):  # more than a buffer holds
            rapid.log.get().error("limit not in force", number=number)
    finally:
        with contextlib.suppress(OSError):  # of what is left in the buffer
            stream.close()


def test_warnings_of_libraries_come_out_in_the_same_form() -> None:
    stream = io.StringIO()
    rapid.log.configure("debug", stream=stream)
    library = logging.getLogger("some.library")
    library.info("not interesting")
    library.warning("port %d is odd", 7)
    library.log(35, "between the levels")
    try:
        raise ValueError("deep")
    except ValueError:
        library.exception("failed")
    said = [json.loads(line) for line in lines(stream)]
    assert [(each["level"], each["event"], each["library"]) for each in said] == [
        ("warning", "port 7 is odd", "some.library"),
        ("warning", "between the levels", "some.library"),
        ("error", "failed", "some.library"),
    ]
    assert "ValueError: deep" in said[2]["exception"]


def test_the_clocks_of_the_host_go_on() -> None:
    clock: Clock = SystemClock()
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert clock.wall_s() > 1.7e9
