"""A worker on a device, and its events one by one."""

import queue
from collections.abc import Callable

from rapidd.device.base import Device
from rapidd.worker import Event, Sampled, Worker, WriteDone

TIMEOUT_S = 10.0  # No test waits this long unless it fails.
LOOK_S = 0.002  # how soon a worker sees that a sample is due


class OnDemand:
    """A pace at which a sample is due when a test says so; obeys `Pace`."""

    def __init__(self) -> None:
        self.due, self.clock = False, True

    def left_s(self, at_s: float) -> float:
        return 0.0 if self.due else LOOK_S

    def begin(self, at_s: float) -> bool:
        self.due = False
        return self.clock


class AtWork:
    """A started worker; every wait is bounded."""

    def __init__(self, device: Device, clock: Callable[[], float]) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.pace = OnDemand()
        self.worker = Worker(device, self.events.put, clock, self.pace)
        self.worker.start()

    def event(self) -> Event:
        return self.events.get(timeout=TIMEOUT_S)

    def write(self, limit_mw: int) -> WriteDone:
        self.worker.submit_write(limit_mw)
        event = self.event()
        assert isinstance(event, WriteDone)
        return event

    def sample(self, *, clock: bool = True) -> Sampled:
        self.pace.clock, self.pace.due = clock, True
        event = self.event()
        assert isinstance(event, Sampled)
        return event

    def stop(self) -> None:
        assert self.worker.stop(TIMEOUT_S)
