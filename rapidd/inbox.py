"""Where worker threads leave their events for the event loop.

Bounded by what workers may have outstanding: per GPU one write, one search for holders, and one sample for each time
that one was asked for since the last `take`. What a driver tells by itself is bounded by its thread (events.py).
"""

import asyncio
import contextlib
import threading

from rapidd.worker import Event, Sampled


class Inbox:
    """Made on the event loop that takes from it. Only `deliver` may be called from other threads."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        # Whether a full round of samples is worth waking for; else it waits for the next turn.
        self.eager = True
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._samples = 0

    def deliver(self, event: Event) -> None:
        """Leave an event. It wakes the loop at once; samples do at most when every GPU has one, for a waking costs more
        than handling them. What a slow GPU holds up waits for the next turn."""
        with self._lock:
            self._events.append(event)
            sample = isinstance(event, Sampled)
            self._samples += sample
            wake = not sample or (self.eager and self._samples >= self._gpus)
        if wake:
            # A call that hung until the loop was gone has nobody to wake.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._news.set)

    def take(self) -> list[Event]:
        """All events so far, oldest first."""
        with self._lock:
            events, self._events, self._samples = self._events, [], 0
        return events

    def wake(self) -> None:
        """End the wait that is going on, or else the next one."""
        self._news.set()

    async def wait(self, timeout_s: float) -> None:
        """Until there is something to take, someone calls `wake`, or the time is up."""
        # An alarm is a third of the work of asyncio.timeout, which cancels and raises; this runs ten times a second.
        alarm = self._loop.call_later(timeout_s, self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()
        self._news.clear()
