"""What drivers tell without being asked: a thread of its own waits for it and hands it over."""

import threading
from collections.abc import Callable

from rapidd.device.base import Backend, DeviceEvent

WAIT_S = 0.5  # one wait; `stop` may take as long
PAUSE_S = 0.05  # after each event: of a driver that goes mad, twenty a second are heard


class EventThread:
    """Delivers every event of a backend between `start` and `stop`. `deliver` runs on the thread and must not raise."""

    def __init__(self, backend: Backend, deliver: Callable[[DeviceEvent], None]) -> None:
        self._backend, self._deliver = backend, deliver
        self._over = threading.Event()
        # A driver call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="device-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """False if the thread did not end in timeout_s, so a driver call hangs."""
        self._over.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.is_set():
            event = self._backend.wait_event(WAIT_S)
            if event is not None and not self._over.is_set():
                self._deliver(event)
                self._over.wait(PAUSE_S)
