"""Whether an engine that its router has let go of still gets new requests: then somebody else sends them."""

import time

from rapid.core.errors import RapidError, ScrapeFailed
from rapid.pages import sglang
from rapid.pages.page import Page
from rapidctl.engines.http import CallFailed, Peer

WIRE_S = 1.0  # a request that the router had sent before it let go is there by then (assumed)
LOOK_S = 0.5  # between two looks: metrics cost an engine some milliseconds


class Stray:
    """Of what an engine holds and has finished since its router let go, all must have been there at the start. If it is
    more, there is another source. Engines without metrics tell nothing."""

    def __init__(self, engine: Peer, router: Peer) -> None:
        self._engine, self._router = engine, router
        self._look_s = 0.0
        self._base: int | None = None  # held and finished when the last request of the router had come
        self._more = 0  # than that

    async def closed(self) -> None:
        """The router has let go."""
        self._look_s, self._base, self._more = time.monotonic() + WIRE_S, None, 0

    async def look(self, held: int) -> None:
        """It holds so many now. Raises RapidError for what it cannot have had from its router."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            await self._count(held)
        if self._more > 0:
            router, engine = self._router.endpoint.url, self._engine.endpoint.url
            what = f"{engine} has got {self._more} requests since router {router} let go of it"
            todo = "another router or client sends to it; take it out there"
            raise RapidError(f"{self._engine.instance}: drain: {what}: {todo}")

    async def _count(self, held: int) -> None:
        if (finished := await self._finished()) is None:
            return
        self._base = held + finished if self._base is None else self._base
        self._more = held + finished - self._base

    async def _finished(self) -> int | None:
        """None: it does not tell."""
        page = Page(sglang.PICKER)
        try:
            page.feed((await self._engine.get("drain", "/metrics")).body)
            page.end()
            return page.count(sglang.FINISHED) if page.has(sglang.FINISHED) else None
        except (CallFailed, ScrapeFailed):
            return None
