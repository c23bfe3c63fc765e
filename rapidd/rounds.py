"""Samples of all GPUs, in rounds on the grid of an interval, by one thread that reads one GPU after the other.

With a thread for each GPU, eight would wake at once and stand in line for the interpreter; to wake is most of what
rapidd costs. A GPU whose driver is slow goes apart, to be read by its own worker.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol

LATE_S = 0.2  # assumed: a call takes some milliseconds at most; a round that lasts so long waits for a driver
APART_S = 60.0  # for how long a GPU that was slow is left to its own worker
CLOCK_S = 1.0  # how often a GPU's clock is read: that takes more calls of its driver, and serves to judge ten seconds
_EARLY = 0.001  # of an interval: a round that rounding lets begin so much before its time is no other one


class Sampler(Protocol):
    """What is asked of the one who makes all calls to a GPU: rapidd.worker.Worker."""

    def sample_now(self, *, clock: bool) -> None: ...

    def submit_sample(self, *, clock: bool) -> None: ...


class Rounds:
    """A round every interval_s, from `start` to `stop`; those that were missed are not made up for."""

    def __init__(self, clock: Callable[[], float], interval_s: float) -> None:
        self._clock, self._interval_s = clock, interval_s
        self._samplers: list[Sampler] = []
        self._apart_until_s: dict[int, float] = {}  # of those that were slow, by their place among the samplers
        self._begun_s: float | None = None  # of the round that is under way
        self._over = threading.Lock()  # held until the end; of all ways to wait in Python the one that costs least
        self._over.acquire()
        # A driver call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="gpu-rounds", daemon=True)

    def add(self, sampler: Sampler) -> None:
        """One GPU more, at any time."""
        self._samplers.append(sampler)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """False if the thread did not end in timeout_s, so a driver call hangs."""
        with contextlib.suppress(RuntimeError):  # asked before
            self._over.release()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def rescue(self) -> bool:
        """While a driver hangs in the round that is under way, have every GPU sampled by its own worker; whether it is
        so. To be called again and again, for each is sampled once."""
        begun_s = self._begun_s
        if begun_s is None or self._clock() - begun_s < LATE_S:
            return False
        for sampler in self._samplers:
            sampler.submit_sample(clock=False)
        return True

    def turn(self) -> float:
        """One round, which the thread does again and again; the seconds until the next, 0 if that is due."""
        self._begun_s = begun_s = self._clock()
        number = int(begun_s / self._interval_s + _EARLY)
        self._sample(number, begun_s)
        self._begun_s = None
        return max(0.0, (number + 1) * self._interval_s - self._clock())

    def _run(self) -> None:
        pause_s = 0.0
        while not self._over.acquire(timeout=pause_s):
            pause_s = self.turn()

    def _sample(self, number: int, begun_s: float) -> None:
        """Every GPU once. A round that takes more than half of its interval loses its slowest GPU for a while."""
        with_clock = max(1, round(CLOCK_S / self._interval_s))
        at_s, slowest, slowest_s = begun_s, 0, 0.0
        for which, sampler in enumerate(self._samplers):
            # Each GPU's clock in another round than the next one's, so that no round is much longer than another.
            clock = (number + which) % with_clock == 0
            if begun_s < self._apart_until_s.get(which, begun_s):
                sampler.submit_sample(clock=clock)
                continue
            sampler.sample_now(clock=clock)
            before_s, at_s = at_s, self._clock()
            if at_s - before_s > slowest_s:
                slowest, slowest_s = which, at_s - before_s
        if at_s - begun_s > self._interval_s / 2:
            self._apart_until_s[slowest] = at_s + APART_S
