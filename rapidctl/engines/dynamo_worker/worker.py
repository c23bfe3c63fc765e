"""One engine, in one role at a time; in and out of service."""

import asyncio
import contextlib
import logging
import re
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rapidctl.engines.dynamo_worker.half import ROLES, Broken, Build, Half, Refused
from rapidctl.engines.dynamo_worker.steps import Ears, Listener, Steps

STOP_WITHIN_S = 30.0  # for a runtime that holds no request to shut down; it takes milliseconds
LEAVE_WITHIN_S = 60.0  # on SIGTERM, for requests to end
PAGE_WITHIN_S = 2.0
LOOK_S = 0.5  # how often its own page is read, for TPOT

LOG = logging.getLogger("rapid.dynamo")


@dataclass(slots=True)
class Page:
    """What matters of the worker's own page, which its system port serves."""

    held: int  # requests that it has been given and has not answered
    finished: int

    @classmethod
    def of(cls, text: str) -> "Page":
        def count(name: str) -> int:
            series = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
            own = [value for labels, value in series if not labels or 'dynamo_endpoint="generate"' in labels]
            return sum(int(float(value)) for value in own)

        inside = count("dynamo_component_inflight_requests") + count("dynamo_work_handler_queue_depth")
        return cls(inside, count("dynamo_component_request_duration_seconds_count"))


@dataclass
class Worker:
    """One engine, in one role at a time; in and out of service."""

    build: Build
    words: Sequence[str]
    role: str
    page_url: str
    tasks: asyncio.TaskGroup
    listen: Callable[[Half, Steps], Ears] = Listener
    taking: bool = False  # requests, as far as it has told discovery
    leaving: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # by itself
    _half: Half | None = None
    _listed: bool = False
    _serving: asyncio.Task[None] | None = None
    _steps: Steps = field(default_factory=Steps)
    _listener: Ears | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    # ---- what it can be told ----

    async def state(self) -> dict[str, Any]:
        """Raises Refused when it cannot be told."""
        half = self._half
        return {
            "role": self.role,
            "taking": self.taking,
            "left": (await self._page()).held if self._serving is not None else 0,
            "endpoint": half.endpoint if half else "",
            "worker": str(half.runtime.endpoint(half.endpoint).connection_id()) if half else "",
        }

    async def close(self) -> None:
        """Take the model card back: a KV router chooses it no more. The endpoint stays, for Dynamo (1.6.1) cancels the
        requests that have just been sent to an endpoint that goes, and are not yet being answered."""
        async with self._turn:
            if self.taking:
                assert self._half is not None, "a worker that takes requests has an engine"
                await self._half.withdraw()
                self.taking = False

    async def delist(self) -> None:
        """Take the endpoint out of discovery as well, for routers that choose among endpoints."""
        async with self._turn:
            if self.taking:
                raise Refused("it takes requests; close it first")
            if self._serving is not None and self._listed:
                await self._endpoint().unregister_endpoint_instance()
                self._listed = False

    async def switch(self, role: str) -> None:
        """Become `role`, out of service. Raises Refused or Broken."""
        async with self._turn:
            if role not in ROLES:
                raise Refused(f"role {role!r} is none of {', '.join(ROLES)}")
            if self.taking:
                raise Refused("it takes requests; close it first")
            if role == self.role and self._half is not None:
                return
            await self._end()
            try:
                self._half = await self.build(self.words, role)
            except Exception as error:  # whatever an engine may raise
                await self._back(role, error)
            self.role = role

    async def open(self) -> None:
        """Into discovery, in the role that it has."""
        async with self._turn:
            await self._open()

    async def renew(self) -> None:
        """Into discovery again, after that has forgotten it: a worker that stood still for longer than its lease (10 s)
        is taken out and, in 1.6.1, never comes back by itself. What it has is answered before. Raises Broken."""
        async with self._turn:
            await self._end()
            await self._open()

    async def leave(self) -> None:
        """Out of service for good: no new request, those that have begun are answered."""
        self.leaving = True
        async with self._turn:
            with contextlib.suppress(Broken):
                await self._end(LEAVE_WITHIN_S)

    async def look(self) -> None:
        """Read its own page now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(Refused):
                if self._serving is not None:
                    steps, page = self._steps, await self._page()
                    steps.finished(page.finished)

    # ---- inside ----

    async def _open(self) -> None:
        if self.leaving:
            raise Refused("it has been told to end")
        if self._half is None:
            self._half = await self.build(self.words, self.role)
        if self._serving is None:
            self._steps = Steps()
            self._listener = self.listen(self._half, self._steps)
            self._serving = self.tasks.create_task(self._serve(self._half))
        elif not self.taking:
            if not self._listed:
                await self._endpoint().register_endpoint_instance()
            await self._half.publish()
        self.taking = self._listed = True

    def _endpoint(self) -> Any:
        assert self._half is not None, "a worker that takes requests has an engine"
        return self._half.runtime.endpoint(self._half.endpoint)

    async def _page(self) -> Page:
        def read() -> str:
            with urllib.request.urlopen(self.page_url, timeout=PAGE_WITHIN_S) as answer:
                return str(answer.read().decode())

        try:
            return Page.of(await asyncio.to_thread(read))
        except (OSError, ValueError) as error:
            raise Refused(f"its own metrics cannot be read at {self.page_url}: {error}") from error

    async def _end(self, within_s: float = STOP_WITHIN_S) -> None:
        """The half that serves ends; what it holds is answered before."""
        half, serving, self._half, self._serving = self._half, self._serving, None, None
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        if half is None:
            return
        self.taking = False
        half.runtime.shutdown()
        if serving is not None:
            done, _ = await asyncio.wait((serving,), timeout=within_s)
            if not done:
                raise Broken(f"its runtime did not shut down within {within_s:g} s; start the worker again")

    async def _back(self, role: str, error: Exception) -> None:
        """It could not be built in this role. Raises Refused, or Broken when not in the old one either."""
        LOG.exception("cannot be built as %s", role)
        try:
            self._half = await self.build(self.words, self.role)
        except Exception as again:
            raise Broken(f"cannot be built as {role} ({error}), nor again as {self.role}: {again}") from again
        raise Refused(f"cannot be built as {role}: {error}") from error

    async def _serve(self, half: Half) -> None:
        """To its end, which Dynamo calls an error also when it was asked for."""
        try:
            await half.serve()
            error = None
        except Exception as raised:
            error = raised
        if half is self._half:
            LOG.error("the engine has ended by itself: %s", error)
            self.ended.set()
