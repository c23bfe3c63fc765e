"""Samples that the worker's caller takes on its own thread: in turn with all else, and never waiting for a driver."""

import threading
from collections.abc import Iterator

import pytest

from rapidd.worker import Sampled, WriteDone
from tests.node.at_work import TIMEOUT_S
from tests.node.scripted_device import Rig, scripted


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scripted() as rig:
        yield rig


def test_a_sample_here_and_now_is_taken_on_the_thread_that_asks(rig: Rig) -> None:
    rig.worker.sample_now(clock=False)
    assert isinstance(rig.events.get_nowait(), Sampled)
    assert rig.device.calls == ["both"]


def test_a_sample_here_and_now_waits_for_no_call_that_is_under_way(rig: Rig) -> None:
    """Else a driver that hangs for one GPU would keep those of the others unwatched."""
    rig.hold()
    rig.worker.sample_now(clock=True)
    rig.device.may_go.set()
    assert [type(rig.event()), type(rig.event())] == [Sampled, Sampled]
    assert rig.device.calls == ["both", "both and clock"]


def test_a_write_waits_for_a_sample_here_and_now_and_is_not_lost(rig: Rig) -> None:
    rig.device.may_go.clear()
    sampling = threading.Thread(target=lambda: rig.worker.sample_now(clock=False))
    sampling.start()
    assert rig.device.entered.wait(TIMEOUT_S)
    rig.worker.submit_write(500_000)
    rig.device.may_go.set()
    sampling.join(TIMEOUT_S)
    assert [type(rig.event()), type(rig.event())] == [Sampled, WriteDone]
    assert rig.device.calls == ["both", "set 500", "limit"]


def test_a_sample_here_and_now_goes_behind_a_write_that_waits(rig: Rig) -> None:
    rig.hold()
    rig.worker.submit_write(500_000)
    rig.worker.sample_now(clock=False)
    rig.device.may_go.set()
    assert [type(rig.event()) for _ in range(3)] == [Sampled, WriteDone, Sampled]


def test_samples_that_wait_are_one_and_it_has_the_clock_if_any_asked_for_it(rig: Rig) -> None:
    rig.hold()
    for clock in (False, True, False):
        rig.worker.submit_sample(clock=clock)
    rig.device.may_go.set()
    assert [type(rig.event()) for _ in range(2)] == [Sampled, Sampled]
    assert rig.worker.stop(TIMEOUT_S)
    assert rig.device.calls == ["both", "both and clock"]


def test_nothing_is_sampled_after_the_stop(rig: Rig) -> None:
    assert rig.worker.stop(TIMEOUT_S)
    rig.worker.sample_now(clock=False)
    assert rig.events.empty()
