"""A worker on a device, and its events one by one."""

import queue
from collections.abc import Callable

from rapidd.device.base import Device
from rapidd.worker import Event, Sampled, Worker, WriteDone

TIMEOUT_S = 10.0  # No test waits this long unless it fails.


class AtWork:
    """A started worker; every wait is bounded."""

    def __init__(self, device: Device, clock: Callable[[], float]) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.worker = Worker(device, self.events.put, clock)
        self.worker.start()

    def event(self) -> Event:
        return self.events.get(timeout=TIMEOUT_S)

    def write(self, limit_mw: int) -> WriteDone:
        self.worker.submit_write(limit_mw)
        event = self.event()
        assert isinstance(event, WriteDone)
        return event

    def sample(self, *, clock: bool = True) -> Sampled:
        self.worker.submit_sample(clock=clock)
        event = self.event()
        assert isinstance(event, Sampled)
        return event

    def stop(self) -> None:
        assert self.worker.stop(TIMEOUT_S)
