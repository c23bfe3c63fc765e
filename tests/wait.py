"""How a test waits: for a condition, with a deadline, and with a name for what did not come true."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


def wait_for(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """The first true value of the condition; TimeoutError naming `what` and the last value after deadline_s.

    The condition is tried at least once, and once more at the end. What it raises goes to the caller.
    """
    pause = threading.Event()
    end_s = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() >= end_s:
            raise late(what, deadline_s, value)
        pause.wait(POLL_S)
    return value


async def wait_until(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """Like wait_for, for tests that share their event loop with what they wait for."""
    end_s = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() >= end_s:
            raise late(what, deadline_s, value)
        await asyncio.sleep(POLL_S)
    return value


def late(what: str, deadline_s: float, value: object) -> TimeoutError:
    return TimeoutError(f"{what}: not within {deadline_s:g} s, last seen {value!r}")
