"""Looks at the metrics of every engine of this host, each in a task of its own: one that hangs holds up nobody."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from urllib.parse import urlsplit

from rapid.config.node import EngineTable
from rapid.core.cluster import PhaseLoad
from rapid.core.errors import Refused, ScrapeFailed
from rapid.core.scraped import Follower, Scraped
from rapid.pages.kinds import KINDS, read
from rapid.pages.page import Page
from rapidd.load.http import fetch
from rapidd.load.owners import Lister, Owners, list_pids
from rapidd.load.push import LoadTable
from rapidd.talk import Talk

DEADLINE_S = 2.0  # for a whole look; an engine that is busy answers in some ten milliseconds
JITTER = 0.1  # of the interval, so that engines that were started together are not looked at together
PATIENCE = 8  # intervals between looks at an engine that gives no load, at most: each may cost a whole deadline


class Scraper:
    """One engine. What it cannot make of its metrics goes to `loads` as the instance's problem, and to the log."""

    def __init__(
        self, engine: EngineTable, loads: LoadTable, owners: Owners, talk: Talk, clock: Callable[[], float]
    ) -> None:
        self._engine, self._loads, self._owners, self._talk, self._clock = engine, loads, owners, talk, clock
        self._follower = Follower(engine.instance, engine.served_role)
        self._lives = -1
        self._problem = ""
        self._failures = 0  # in a row
        self._bytes = 0  # of the page of this look

    async def run(self, dice: Random) -> None:
        """Look until cancelled. Looks that were missed are not made up for."""
        await asyncio.sleep(self.pause_s * dice.random())
        while True:
            begun_s = self._clock()
            try:
                await self.look()
            except Exception as mistake:  # ours; an engine's metrics must not cost the host its limits
                self._note("load missing", f"{self._engine.url} unexpected {type(mistake).__name__}: {mistake}")
            pause_s = self.pause_s * dice.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(0.0, begun_s + pause_s - self._clock()))

    @property
    def pause_s(self) -> float:
        """From look to look; it doubles while looks fail."""
        return float(self._engine.interval_s) * min(PATIENCE, 1 << self._failures)

    async def look(self) -> None:
        """Look once; whatever the engine does, this ends within DEADLINE_S."""
        at_s = self._clock()  # before the question, so that the load is never younger than it says
        self._bytes = 0
        try:
            load = self._follower.take(await read_metrics(self._engine, self._took), at_s)
        except ScrapeFailed as failed:
            self._loads.looked(self._engine.instance, self._bytes, at_s, failed.fault)
            self._failures = min(self._failures + 1, PATIENCE)
            self._note("load missing", f"{self._engine.url} {failed}")
            return
        self._failures = 0
        self._loads.looked(self._engine.instance, self._bytes, at_s)
        self._note_lives(load)
        owned = self._owners.of(load.instance)
        try:
            self._loads.take(replace(load, gpus=owned.gpus), at_s)
        except Refused as full:
            self._note("load missing", str(full))
            return
        self._note("load not the whole truth", self._follower.problem or owned.problem)

    def _took(self, data: bytes) -> None:
        self._bytes += len(data)

    def _note_lives(self, load: PhaseLoad) -> None:
        if self._lives == self._follower.lives:
            return
        if self._lives >= 0:
            self._talk.say("info", "engine restarted", load.instance, "it counts from zero again, and the load goes on")
        self._lives = self._follower.lives
        self._owners.look_soon()

    def _note(self, event: str, problem: str) -> None:
        """Say so when there is a problem or a new one; the report shows it for as long as it lasts."""
        if problem:
            self._talk.say("warning", event, self._engine.instance, problem)
        elif self._problem:
            self._talk.say("info", "load is well", self._engine.instance, "")
        self._problem = problem
        self._loads.note(self._engine.instance, problem)


async def read_metrics(engine: EngineTable, took: Callable[[bytes], None] = lambda data: None) -> Scraped:
    """What an engine's metrics say; `took` hears every piece of their page. Raises ScrapeFailed within DEADLINE_S."""
    page = Page(KINDS[engine.kind].picker)

    def take(data: bytes) -> None:
        took(data)
        page.feed(data)

    await fetch(urlsplit(engine.url), take, DEADLINE_S)
    page.end()
    return read(engine.kind, page)


async def scrape_all(
    engines: Sequence[EngineTable],
    workers: Sequence[Lister],
    loads: LoadTable,
    talk: Talk,
    clock: Callable[[], float],
) -> None:
    """Look at every engine until cancelled."""
    dice, owners = Random(), Owners(engines, partial(list_pids, workers))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(owners.run())
        for engine in engines:
            tasks.create_task(Scraper(engine, loads, owners, talk, clock).run(dice))
