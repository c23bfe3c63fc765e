"""Time as something that is handed in, so that a test can move it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that never goes backwards, and one that tells people when something was."""

    def monotonic_s(self) -> float:
        """Seconds of CLOCK_MONOTONIC: the same for every process on this host, until it boots again."""

    def wall_s(self) -> float:
        """Seconds since 1970, UTC. It may jump; nothing but logs and records may rest on it."""


class SystemClock:
    """The clocks of the host, without a frame of Python: rapidd reads them hundreds of times a second."""

    monotonic_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)
