"""What ties a simulated engine to the rest: its front end's socket, and the steps of a role change as rapid.engine
calls them. Whatever comes in wakes the engine, so that its process can sleep for the rest.
"""

import asyncio
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from rapid.core.cluster import PhaseLoad, Role
from rapid.sim.model.requests import Backlog, Finished, PrefillDone, Pulled
from rapidctl.demo import talk
from rapidctl.demo.engine import Engine

LAG_INTERVAL_S = 1.0


class FrontEndLink:
    """The engine's clients, behind the front end's Unix socket. While it is away, answers go nowhere."""

    def __init__(self, path: Path, wake: Callable[[], None]) -> None:
        self._path, self._wake = path, wake
        self._outlet: talk.Outlet | None = None
        self._lag_at_s = -inf

    async def connect(self, engine: Engine) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=talk.LINE_MAX)
        self._outlet = outlet = talk.Outlet(writer)
        try:
            outlet.send(talk.Hello(engine.instance.name, engine.role, engine.is_open))
            async for message in talk.heard(reader, talk.to_engine):
                self._heard(engine, message)
                self._wake()
        finally:
            self._outlet = None
            outlet.close()
            engine.forsaken(time.monotonic())
            self._wake()

    def _heard(self, engine: Engine, message: talk.FromEngine | talk.ToEngine) -> None:
        now_s = time.monotonic()
        match message:
            case talk.Prompt():
                engine.prompt(message.request, now_s)
            case talk.Kv():
                engine.kv(message.done, now_s)
            case talk.Release():
                engine.release(message.done, now_s)
            case talk.Quiet():
                engine.quiet(now_s)

    def leave(self) -> None:
        """End the connection; the front end gives what the engine has to others."""
        if self._outlet is not None:
            self._outlet.close()

    def tell_lag(self, engine: Engine, now_s: float) -> None:
        """Once in LAG_INTERVAL_S; call it often."""
        if now_s >= self._lag_at_s + LAG_INTERVAL_S:
            self._lag_at_s = now_s
            lateness = engine.lateness
            self._send(talk.Lag(lateness.events, lateness.sum_s, lateness.max_s))

    # ---- Clients ----

    def prefilled(self, done: PrefillDone) -> bool:
        return self._send(talk.Prefilled(done))

    def pulled(self, pulled: Pulled) -> None:
        self._send(talk.Pulled(pulled.done.request.request_id))

    def finished(self, finished: Finished) -> None:
        self._send(talk.Ended(finished.request.request_id, finished.at_s, finished.ttft_s, finished.tpot_s))

    def closed(self) -> bool:
        return self._send(talk.Closed())

    def opened(self, role: Role) -> None:
        self._send(talk.Opened(role))

    def hand_back(self, backlog: Backlog) -> None:
        for message in talk.hand_backs(backlog.requests, backlog.kvs):
            self._send(message)

    def _send(self, message: talk.FromEngine) -> bool:
        return self._outlet is not None and self._outlet.send(message)


class Steps:
    """The engine as RAPID sees it. `wake` has its process look at it again."""

    def __init__(self, engine: Engine, wake: Callable[[], None]) -> None:
        self._engine, self._wake = engine, wake
        self._switched = asyncio.Event()

    def look(self) -> None:
        """To be called after each wake: whether a switch has ended."""
        if self._engine.has_switched:
            self._switched.set()

    async def close(self) -> None:
        self._engine.close(time.monotonic())
        self._wake()

    async def drained(self) -> int:
        return self._engine.requests_left(time.monotonic())

    async def switch(self, role: Role) -> None:
        self._switched.clear()
        self._engine.switch(role, time.monotonic())
        self._wake()
        await self._switched.wait()

    async def open(self, role: Role) -> None:
        self._engine.open(time.monotonic())
        self._wake()

    def load(self) -> PhaseLoad:
        return self._engine.load(time.monotonic())
