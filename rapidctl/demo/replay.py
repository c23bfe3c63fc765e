"""The requests of a trace, sent to every host when they are due."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from rapid.sim.model.requests import Request
from rapidctl.demo.router import FrontEnd

FINISH_WITHIN_S = 10.0  # after the time of the trace; what has not finished then has missed
LOOK_S = 0.1


async def replay(
    fronts: Sequence[FrontEnd],
    requests: Sequence[Request],
    *,
    start_s: float,
    slowdown: float = 1.0,
    first_number: int = 0,
) -> float:
    """Send the same arrivals to all; returns how late the latest was. Request ids count from first_number."""
    latest_s = 0.0
    for number, request in enumerate(requests, start=first_number):
        due_s = start_s + slowdown * request.arrival_s
        if (early_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(early_s)
        latest_s = max(latest_s, time.monotonic() - due_s)
        due = replace(request, request_id=number, arrival_s=due_s)
        for front in fronts:
            front.arrive(due)
    return latest_s


async def finish(fronts: Sequence[FrontEnd], over_s: float) -> None:
    """Wait until over_s, and then until every request has finished or has had the time to."""
    await asyncio.sleep(max(0.0, over_s - time.monotonic()))
    for _ in range(round(FINISH_WITHIN_S / LOOK_S)):
        if not any(front.record.unfinished for front in fronts):
            return
        await asyncio.sleep(LOOK_S)
