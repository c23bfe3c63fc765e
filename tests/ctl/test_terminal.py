"""rapidctl on a real terminal: colours, questions, and a live view that leaves nothing behind."""

import signal
import subprocess
import sys

import pytest

from tests.ctl.cluster import broken
from tests.ctl.fake_controller import FakeController
from tests.ctl.terminal import DEADLINE_S, Terminal
from tests.wait import wait_for

IN, OUT = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


def test_colour_on_a_terminal_and_the_red_in_red(controller: FakeController) -> None:
    controller.status = broken()
    with Terminal("status", address=controller.address) as terminal:
        assert terminal.end() == 1
    assert "\x1b[31m\x1b[1msilent for 63 s\x1b[0m" in terminal.seen
    assert "\x1b[31m\x1b[1mred: node h2: silent for 63 s" in terminal.seen


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_no_colour_where_it_is_not_wanted(controller: FakeController, env: dict[str, str]) -> None:
    with Terminal("status", address=controller.address, env=env) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.seen
    assert "h1    rack1      2    1250    1167  reporting\n" in terminal.seen


@pytest.mark.parametrize(("keys", "code", "asked"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), ("\x04", 1, 0)])
def test_a_raise_is_asked_about_and_no_is_the_default(
    controller: FakeController, keys: str, code: int, asked: int
) -> None:
    with Terminal("budget", "set", "rack1", "2.7kW", address=controller.address) as terminal:
        terminal.wait_text("Raise the budget of rack1 from 2600 W to 2700 W? [y/N]: ")
        terminal.type(keys)
        assert terminal.end() == code
    assert len(controller.asked) == asked
    assert ("nothing was changed" in terminal.text) == (code == 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_live_view_leaves_nothing_behind(controller: FakeController, number: signal.Signals) -> None:
    with Terminal("watch", "--interval", "0.1", address=controller.address) as terminal:
        terminal.wait_text("policy rapid", times=3)
        terminal.process.send_signal(number)
        assert terminal.end() == 0
    before, _, rest = terminal.seen.partition(IN)
    _, _, after = rest.rpartition(OUT)
    assert (before.strip(), after.replace(SHOW_CURSOR, "")) == ("", "")
    assert SHOW_CURSOR in rest


def test_the_live_view_keeps_the_picture_of_a_controller_that_is_away_and_goes_on(controller: FakeController) -> None:
    port = controller.port
    with Terminal("watch", "--interval", "0.1", address=controller.address, columns=120) as terminal:
        terminal.wait_text("policy rapid")
        controller.stop()
        terminal.wait_text("no picture: ")
        terminal.wait_text("trying again; the last one was:")
        controller.start(port)
        away = terminal.text.count("no picture: ")
        pictures = terminal.text.count("policy rapid")
        terminal.wait_text("policy rapid", times=pictures + away + 5)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_a_picture_taller_than_the_terminal_says_that_it_is_cut(controller: FakeController) -> None:
    with Terminal("watch", "--count", "1", address=controller.address, rows=12) as terminal:
        assert terminal.end() == 0
    assert "more lines need a taller terminal" in terminal.text


def test_the_live_view_of_an_absent_controller_is_an_error_on_the_ordinary_screen(controller: FakeController) -> None:
    controller.stop()
    with Terminal("watch", address=controller.address) as terminal:
        assert terminal.end() == 3
    assert "cannot reach the controller" in terminal.seen.rpartition(OUT)[2]


def test_lines_go_on_when_the_controller_comes_back_and_say_once_that_it_went(controller: FakeController) -> None:
    port = controller.port
    command = [sys.executable, "-m", "rapidctl", "--address", controller.address, "watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "policy" not in process.stdout.readline()
        controller.stop()
        said = process.stderr.readline()
        controller.start(port)
        rows = [process.stdout.readline() for _ in range(30)]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        rest = process.stderr.read()
    assert f"the controller at {controller.address}" in said
    assert said.endswith("; waiting for it\n")
    assert all("site held 2400 W of 9000 W" in row for row in rows)
    assert rest == ""


def test_a_reader_that_has_seen_enough_is_no_error(controller: FakeController) -> None:
    command = [sys.executable, "-m", "rapidctl", "--address", controller.address, "watch", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        wait_for(lambda: process.poll() is not None, DEADLINE_S, "rapidctl ends")
        assert process.stderr.read() == ""
