"""Where worker threads leave their events for the event loop.

Bounded by what workers may have outstanding, per GPU one write and one search for holders; by SAMPLES_MAX; and by the
thread that hears what a driver tells by itself (events.py).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping

from rapidd.device.base import LimitReading
from rapidd.worker import Event, Sampled

SAMPLES_MAX = 128  # per GPU; of a loop that hangs for longer, what comes then is dropped


class Inbox:
    """Made on the event loop that takes from it. Only `deliver` may be called from other threads.

    Most samples say nothing that cannot wait for the loop's next turn, and to wake it costs more than handling them.
    """

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.eager = True
        """Whether a full round of samples is worth waking for, whatever it says."""
        self.alarms_mw: Mapping[str, int] = {}
        """By GPU, the draw above which a round is worth waking for."""
        self._loop = asyncio.get_running_loop()
        self._taker: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waking = False
        self._events: list[Event] = []
        self._samples = 0
        self._alarmed = False
        self._limits: dict[str, LimitReading | None] = {}  # by GPU, of its last sample

    def deliver(self, event: Event) -> None:
        """Leave an event. It wakes the loop at once, unless it is a sample that shows the same limit as the one before.
        What of a round a slow GPU holds up waits for the next turn."""
        with self._lock:
            wake = self._takes(event) if isinstance(event, Sampled) else True
            if not isinstance(event, Sampled) or self._samples <= SAMPLES_MAX * self._gpus:
                self._events.append(event)
            if not wake or self._waking:
                return
            self._waking = True
        # A call that hung until the loop was gone has nobody to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def take(self) -> list[Event]:
        """All events so far, oldest first."""
        with self._lock:
            events, self._events, self._samples, self._alarmed = self._events, [], 0, False
        return events

    def expect_one_more(self) -> None:
        """There is one GPU more whose samples belong to a round."""
        self._gpus += 1

    def call(self, taker: Callable[[], None]) -> None:
        """From now on this is called on the loop whenever there is something to take at once, or `wake` was called."""
        self._taker = taker

    def wake(self) -> None:
        """Have the taker called soon."""
        self._loop.call_soon(self._wake)

    def _takes(self, sample: Sampled) -> bool:
        """Count the sample; whether it is worth waking for."""
        self._samples += 1
        moved = self._limits.get(sample.gpu) != sample.limit
        self._limits[sample.gpu] = sample.limit
        draw_mw = 0 if sample.power is None else sample.power.draw_mw or 0
        self._alarmed |= draw_mw > self.alarms_mw.get(sample.gpu, draw_mw)
        return moved or ((self.eager or self._alarmed) and self._samples % self._gpus == 0)

    def _wake(self) -> None:
        with self._lock:
            self._waking = False
        self._taker()
