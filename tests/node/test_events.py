"""What drivers tell by themselves comes through, at a bounded pace, and nobody waits for it in vain."""

import queue
import threading
import time

from rapid.core.cluster import EventKind
from rapidd.device.base import Device, DeviceEvent
from rapidd.events import PAUSE_S, EventThread

TIMEOUT_S = 10.0  # no test waits this long unless it fails
XID = DeviceEvent("GPU-a", EventKind.XID, 79)


class TellingBackend:
    """Has something to tell when the test says so; obeys `Backend`."""

    devices: tuple[Device, ...] = ()
    faults = ()

    def __init__(self) -> None:
        self.told: queue.Queue[DeviceEvent] = queue.Queue()
        self.waits_s: list[float] = []
        self.hangs = threading.Event()
        self.hangs.set()

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        self.waits_s.append(timeout_s)
        assert self.hangs.wait(TIMEOUT_S)
        try:
            return self.told.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None: ...


def started(backend: TellingBackend) -> tuple[EventThread, "queue.Queue[DeviceEvent]"]:
    heard: queue.Queue[DeviceEvent] = queue.Queue()
    thread = EventThread(backend, heard.put)
    thread.start()
    return thread, heard


def test_what_the_driver_tells_is_delivered() -> None:
    backend = TellingBackend()
    thread, heard = started(backend)
    backend.told.put(XID)
    assert heard.get(timeout=TIMEOUT_S) == XID
    assert thread.stop(TIMEOUT_S)


def test_a_driver_that_goes_mad_is_heard_at_a_bounded_pace() -> None:
    backend = TellingBackend()
    for _ in range(1_000):
        backend.told.put(XID)
    thread, heard = started(backend)
    begun_s = time.monotonic()
    for _ in range(5):
        heard.get(timeout=TIMEOUT_S)
    assert time.monotonic() - begun_s >= 4 * PAUSE_S
    assert thread.stop(TIMEOUT_S)


def test_after_the_stop_nothing_is_delivered_any_more() -> None:
    backend = TellingBackend()
    thread, heard = started(backend)
    assert thread.stop(TIMEOUT_S)
    backend.told.put(XID)
    assert heard.empty()
    assert max(backend.waits_s) <= 1.0, "the stop waits for one wait at most"


def test_a_driver_call_that_hangs_does_not_hold_up_the_stop() -> None:
    backend = TellingBackend()
    backend.hangs.clear()
    thread, _ = started(backend)
    assert not thread.stop(0.05)
    backend.hangs.set()
    assert thread.stop(TIMEOUT_S)
