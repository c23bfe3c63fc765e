"""systemd hears what the service says, over the real socket protocol."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.notify import Notifier, Watchdog


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "notify"))
        yield listener


def test_every_word_arrives(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready()
    notifier.status("8 GPUs\nunder lease")
    notifier.watchdog()
    notifier.stopping()
    heard = [manager.recv(100) for _ in range(4)]
    assert heard == [b"READY=1", b"STATUS=8 GPUs under lease", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_meant_by_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(f"\0rapid-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@rapid-test-{os.getpid()}"}).ready()
        assert listener.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_said() -> None:
    Notifier({}).ready()


def test_a_manager_that_is_gone_or_does_not_listen_stops_nobody(manager: socket.socket, tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).watchdog()
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    for _ in range(10_000):  # far more than the socket holds: the rest is dropped, and the caller never waits
        notifier.watchdog()
    assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(environ: dict[str, str], watchdog_s: float | None) -> None:
    assert Notifier(environ).watchdog_s == watchdog_s


class Turns:
    """A loop of 0.25 s turns, and the seconds at which its signs of life arrived."""

    def __init__(self, manager: socket.socket, usec: str) -> None:
        self.now_s, self.manager = 0.0, manager
        self.heard_s: list[float] = []
        environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": usec}
        self.watchdog = Watchdog(Notifier(environ), lambda: self.now_s)

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.watchdog.pet()
            with contextlib.suppress(BlockingIOError):
                assert self.manager.recv(100) == b"WATCHDOG=1"
                self.heard_s.append(self.now_s)
            self.now_s += 0.25


def test_turns_reach_the_watchdog_at_half_its_interval(manager: socket.socket) -> None:
    turns = Turns(manager, "2000000")
    turns.turn(14)
    assert turns.heard_s == [0.0, 1.0, 2.0, 3.0]


def test_a_loop_that_does_not_turn_is_not_petted_and_makes_up_for_nothing(manager: socket.socket) -> None:
    turns = Turns(manager, "2000000")
    turns.turn(1)
    turns.now_s = 60.0  # it hung for a minute
    turns.turn(4)
    assert turns.heard_s == [0.0, 60.0]


def test_a_watchdog_that_nobody_set_hears_nothing(manager: socket.socket) -> None:
    turns = Turns(manager, "0")
    turns.turn(50)
    assert turns.heard_s == []
