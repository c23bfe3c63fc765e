"""The load of an engine behind an adapter, from the engine's own metrics."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ScrapeFailed
from rapid.core.findings.base import Finding, green, yellow
from rapid.core.scraped import Follower, Scraped
from rapid.pages.kinds import KINDS, read
from rapid.pages.page import Page
from rapidctl.engines.base import Place, Say
from rapidctl.engines.http import CallFailed, Peer

INTERVAL_S = 0.5  # between two looks


class Meter:
    """Follows the metrics of one engine; `role` says which role it serves, which its metrics may not.

    kind  of the metrics, one of rapid.pages.kinds
    """

    def __init__(self, place: Place, engine: Peer, kind: str, role: Callable[[], Role], say: Say) -> None:
        self._place, self._engine, self._kind, self._role, self._say = place, engine, kind, role, say
        self._follower = Follower(place.instance)
        self._problem = ""
        # As old as the machine: nobody takes for fresh what has not been looked at yet.
        self._load = PhaseLoad(place.instance, place.role or Role.MIXED, 0.0, gpus=place.gpus)

    @property
    def load(self) -> PhaseLoad:
        """What the last look that worked has shown, and when that was."""
        return replace(self._load, role=self._role())

    async def run(self) -> None:
        """Look until cancelled, if anybody wants the load."""
        while self._place.reports_load:
            problem = ""
            try:
                at_s = time.monotonic()  # before the question, so that the load is never younger than it says
                now = replace(await self._look("load"), role=self._role())
                self._load = replace(self._follower.take(now, at_s), gpus=self._place.gpus)
            except (CallFailed, ScrapeFailed) as error:
                problem = str(error)
            if problem != self._problem:
                self._say(f"load: {problem or 'is read again'}")
                self._problem = problem
            await asyncio.sleep(INTERVAL_S)

    async def held(self, step: str) -> int:
        """How many requests run or wait. Raises CallFailed, and ScrapeFailed."""
        said = await self._look(step)
        return said.running_requests + said.waiting_requests

    async def finding(self) -> Finding:
        """Whether the metrics can be read."""
        try:
            said = await self._look("check")
        except (CallFailed, ScrapeFailed) as error:
            what = error.what if isinstance(error, CallFailed) else str(error)
            todo = "start the engine with its metrics on; without them nobody knows its load"
            return yellow("metrics", what, todo)
        return green("metrics", f"{said.running_requests} requests run, {said.waiting_requests} wait")

    async def _look(self, step: str) -> Scraped:
        answer = await self._engine.get(step, "/metrics")
        page = Page(KINDS[self._kind].picker)
        try:
            page.feed(answer.body)
            page.end()
            return read(self._kind, page)
        except ScrapeFailed as error:
            raise ScrapeFailed(f"{answer.call}: {error}") from error
