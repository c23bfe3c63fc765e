"""What ties a simulated engine to the rest: its steps as rapid.engine calls them, and its front end's socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from rapid.core.cluster import Phase, Role
from rapid.engine import Attached, attach
from rapid.engine.link import keep_connected
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import PrefillDone, Request
from rapidctl.demo.engine import Clients, Engine
from rapidctl.demo.links import FrontEndLink, Steps
from rapidctl.demo.own_load import OwnLoad
from tests.engine.fakes import SOON_S, FakeController, served
from tests.wait import wait_until

PROFILE = replace(profile_named("mi300x-8b"), switch_s=0.05)
CURVE = LimitCurve.constant(600_000, PROFILE.lag)


class Bench:
    """One engine with its time kept by the test's event loop."""

    def __init__(self, role: Role = Role.PREFILL, clients: Clients | None = None) -> None:
        self.stopping, self.woken = asyncio.Event(), asyncio.Event()
        instance = Instance("e0", role, PROFILE, CURVE, start_s=time.monotonic())
        self.engine = Engine(instance, clients or OwnLoad(0.001, Random(1), time.monotonic()))
        self.steps = Steps(self.engine, self.woken.set)

    @asynccontextmanager
    async def living(self) -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(self._live())
            try:
                yield tasks
            finally:
                self.stopping.set()
                living.cancel()

    @asynccontextmanager
    async def attached(self, address: str) -> AsyncIterator[Attached]:
        role = self.engine.role
        care = attach(self.steps, instance="e0", node="h1", gpus=("GPU-1",), role=role, address=address)
        async with self.living(), care as attached:
            yield attached

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.woken.clear()
            now_s = time.monotonic()
            self.engine.wake(now_s)
            self.steps.look()
            timer = loop.call_at(min(self.engine.next_s(), now_s + 1.0), self.woken.set)
            await self.woken.wait()
            timer.cancel()


async def test_order_is_carried_out(tmp_path: Path) -> None:
    bench, fake = Bench(), FakeController()
    async with served(tmp_path / "c.sock", fake) as address, bench.attached(address):
        await wait_until(lambda: fake.hellos, SOON_S, "a hello")
        await fake.order(Role.DECODE)
        await wait_until(lambda: fake.phases[-1:] == [Phase.SERVING], SOON_S, "the commit")
        assert fake.phases == [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.SERVING]
        assert (bench.engine.role, bench.engine.is_open) == (Role.DECODE, True)


async def test_cancel_rolls_back(tmp_path: Path) -> None:
    bench, fake = Bench(Role.DECODE), FakeController()
    now_s = time.monotonic()
    bench.engine.kv(PrefillDone(Request(1, now_s, 1000, 1000), now_s, 0.1, "p9"), now_s)  # some 8 s to decode
    async with served(tmp_path / "c.sock", fake) as address, bench.attached(address):
        await wait_until(lambda: fake.hellos, SOON_S, "a hello")
        await fake.order(Role.PREFILL)
        await wait_until(lambda: fake.phases == [Phase.DRAINING], SOON_S, "the drain")
        assert not bench.engine.is_open
        await fake.cancel()
        await wait_until(lambda: len(fake.phases) == 3, SOON_S, "the roll-back")
        assert (fake.phases[-1], bench.engine.role, bench.engine.is_open) == (Phase.SERVING, Role.DECODE, True)


async def test_load_is_that_of_the_model() -> None:
    bench = Bench()
    bench.engine.prompt(Request(1, time.monotonic(), 100, 5), time.monotonic())
    load = bench.steps.load()
    assert (load.instance, load.role, load.arrived) == ("e0", Role.PREFILL, 1)


async def test_engine_without_a_front_end_serves_on(tmp_path: Path) -> None:
    woken = asyncio.Event()
    link = FrontEndLink(tmp_path / "nobody.sock", woken.set)
    bench = Bench(clients=link)

    async def meet() -> None:
        await link.connect(bench.engine)

    async with bench.living() as tasks:
        tasks.create_task(keep_connected("front end", meet, print, bench.stopping))
        bench.engine.prompt(Request(1, time.monotonic(), 100, 5), time.monotonic())
        bench.woken.set()
        await wait_until(lambda: bench.engine.instance.requests_left == 0, SOON_S, "the prompt is processed")
        assert bench.engine.load(time.monotonic()).prompt_tokens == 100
