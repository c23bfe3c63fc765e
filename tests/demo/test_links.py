"""The connections of an engine, against a controller, a rapidd and a front end that the test plays."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import pytest

from rapid.core.cluster import EngineHello, Mark, Phase, PhaseLoad, Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.role_change import RoleChange
from rapid.rpc import start_server
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import PrefillDone, Request
from rapid.v1 import engine_pb2_grpc, load_pb2, load_pb2_grpc
from rapid.wire.common import decode_push
from rapid.wire.engine import (
    EngineLoad,
    Goodbye,
    Welcome,
    decode_attach,
    encode_cancel,
    encode_order,
    encode_welcome,
)
from rapidctl.demo.engine import Engine
from rapidctl.demo.links import ControllerLink, FrontEndLink, LoadLink, keep_connected
from rapidctl.demo.own_load import OwnLoad
from tests.wait import wait_until

SOON_S = 10.0
PROFILE = replace(profile_named("mi300x-8b"), switch_s=0.05)


class FakeController(engine_pb2_grpc.EngineControlServicer):
    """Welcomes everybody, remembers what it hears, and says what the test wants to."""

    def __init__(self, load_interval_s: float = 0.0) -> None:
        self.hellos: list[EngineHello] = []
        self.heard: list[RoleProgress | EngineLoad | Goodbye] = []
        self.refuse = ""
        self._load_interval_s = load_interval_s
        self._contexts: list[Any] = []

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        if self.refuse:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refuse)
        hello = None
        async for message in request_iterator:
            said = decode_attach(message, hello=hello)
            if isinstance(said, EngineHello):
                hello = said
                self.hellos.append(said)
                self._contexts.append(context)
                await context.write(encode_welcome(Welcome(len(self.hellos), self._load_interval_s)))
            else:
                self.heard.append(said)

    async def order(self, role: Role, *, seq: int = 1, late_s: float = 0.0) -> None:
        hello = self.hellos[-1]
        not_after_s = time.monotonic() + 5.0 - late_s
        order = OrderRole(hello.instance, hello.incarnation, Mark(1, seq), role, 5.0, not_after_s)
        await self._contexts[-1].write(encode_order(order))

    async def cancel(self, *, seq: int = 1) -> None:
        hello = self.hellos[-1]
        await self._contexts[-1].write(encode_cancel(CancelRole(hello.instance, hello.incarnation, Mark(1, seq))))

    @property
    def progress(self) -> list[RoleProgress]:
        return [said for said in self.heard if isinstance(said, RoleProgress)]

    @property
    def phases(self) -> list[Phase]:
        return [progress.phase for progress in self.progress]


class FakeDaemon(load_pb2_grpc.LoadServiceServicer):
    """Takes loads."""

    def __init__(self) -> None:
        self.loads: list[PhaseLoad] = []

    async def Push(self, request_iterator: Any, context: Any) -> load_pb2.PushResponse:
        async for message in request_iterator:
            load = decode_push(message)
            assert load.at_s <= time.monotonic()
            self.loads.append(load)
        return load_pb2.PushResponse(taken=len(self.loads))


class Bench:
    """One engine with its time kept by the test's event loop."""

    def __init__(self, role: Role = Role.PREFILL) -> None:
        self.stopping, self.woken = asyncio.Event(), asyncio.Event()
        self.said: list[str] = []
        self.role = role

    def controller(self, address: str) -> ControllerLink:
        return ControllerLink(
            address,
            None,
            node="h1",
            gpus=("GPU-1",),
            product="test",
            wake=self.woken.set,
            stopping=self.stopping,
            say=self.said.append,
        )

    def engine(self, clients: Any, controller: Any) -> Engine:
        return Engine(
            Instance("e0", self.role, PROFILE, LimitCurve.constant(600_000, PROFILE.lag), start_s=time.monotonic()),
            RoleChange(instance="e0", incarnation="i1", role=self.role, roles=(Role.PREFILL, Role.DECODE)),
            clients,
            controller,
            PROFILE.switch_s,
        )

    @asynccontextmanager
    async def running(self, engine: Engine, *connects: Callable[[Engine], Awaitable[None]]) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for connect in connects:
                once = partial(connect, engine)
                tasks.create_task(keep_connected("peer", once, self.said.append, self.stopping))
            living = tasks.create_task(self._live(engine))
            try:
                yield
            finally:
                self.stopping.set()
                living.cancel()

    async def _live(self, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.woken.clear()
            now_s = time.monotonic()
            engine.wake(now_s)
            timer = loop.call_at(min(engine.next_s(), now_s + 1.0), self.woken.set)
            await self.woken.wait()
            timer.cancel()


@asynccontextmanager
async def served(path: Path, servicer: FakeController | FakeDaemon) -> AsyncIterator[str]:
    def add(server: grpc.aio.Server) -> None:
        if isinstance(servicer, FakeController):
            engine_pb2_grpc.add_EngineControlServicer_to_server(servicer, server)
        else:
            load_pb2_grpc.add_LoadServiceServicer_to_server(servicer, server)

    server = await start_server({"at": f"unix:{path}"}, add, services=())
    try:
        yield f"unix:{path}"
    finally:
        await server.stop(0.0)


def has_loads(daemon: FakeDaemon) -> bool:
    return len(daemon.loads) >= 2


def no_load() -> OwnLoad:
    return OwnLoad(0.001, Random(1), time.monotonic())


async def test_order_is_carried_out_and_told_step_by_step(tmp_path: Path) -> None:
    bench, fake = Bench(), FakeController()
    async with served(tmp_path / "c.sock", fake) as address:
        link = bench.controller(address)
        engine = bench.engine(no_load(), link)
        async with bench.running(engine, link.connect):
            await wait_until(lambda: fake.hellos, SOON_S, "a hello")
            assert (fake.hellos[0].gpus, fake.hellos[0].role, fake.hellos[0].mark) == (("GPU-1",), Role.PREFILL, Mark())
            await fake.order(Role.DECODE)
            await wait_until(lambda: fake.phases[-1:] == [Phase.SERVING], SOON_S, "the commit")
            assert fake.phases == [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.SERVING]
            assert fake.progress[-1].role is Role.DECODE
            await fake.order(Role.DECODE)  # once more, as after a lost answer
            await wait_until(lambda: len(fake.progress) == 5, SOON_S, "the same answer")
            assert fake.progress[-1] == fake.progress[-2]
            await fake.order(Role.PREFILL, seq=2, late_s=6.0)
            await wait_until(lambda: len(fake.progress) == 6, SOON_S, "the refusal")
            assert "too late" in fake.progress[-1].error
        await wait_until(lambda: fake.heard[-1] == Goodbye("stopped"), SOON_S, "the goodbye")


async def test_cancel_rolls_back(tmp_path: Path) -> None:
    bench, fake = Bench(Role.DECODE), FakeController()
    async with served(tmp_path / "c.sock", fake) as address:
        link = bench.controller(address)
        engine = bench.engine(no_load(), link)
        now_s = time.monotonic()
        engine.kv(PrefillDone(Request(1, now_s, 1000, 1000), now_s, 0.1, "p9"), now_s)  # some 8 s to decode
        async with bench.running(engine, link.connect):
            await wait_until(lambda: fake.hellos, SOON_S, "a hello")
            await fake.order(Role.PREFILL)
            await fake.cancel()
            await wait_until(lambda: len(fake.phases) == 3, SOON_S, "the roll-back")
            assert fake.phases == [Phase.DRAINING, Phase.ROLLING_BACK, Phase.SERVING]
            assert fake.progress[-1].role is Role.DECODE


async def test_controller_that_comes_back_hears_where_the_engine_stands(tmp_path: Path) -> None:
    bench, first, second = Bench(), FakeController(), FakeController()
    link = bench.controller(f"unix:{tmp_path / 'c.sock'}")
    engine = bench.engine(no_load(), link)
    async with bench.running(engine, link.connect):
        async with served(tmp_path / "c.sock", first):
            await wait_until(lambda: first.hellos, SOON_S, "a hello")
            await first.order(Role.DECODE)
            await wait_until(lambda: first.phases, SOON_S, "the order is taken")
        async with served(tmp_path / "c.sock", second):
            await wait_until(lambda: second.progress, SOON_S, "another hello")
            assert (second.hellos[0].incarnation, second.hellos[0].mark) == ("i1", Mark(1, 1))
            await wait_until(lambda: second.phases[-1] is Phase.SERVING, SOON_S, "the change is over")
            assert second.progress[-1].role is Role.DECODE


async def test_refused_engine_tries_again(tmp_path: Path) -> None:
    bench, fake = Bench(), FakeController()
    fake.refuse = "instance e0: no node has reported gpu GPU-1"
    async with served(tmp_path / "c.sock", fake) as address:
        link = bench.controller(address)
        async with bench.running(bench.engine(no_load(), link), link.connect):
            fake.refuse = ""
            await wait_until(lambda: fake.hellos, SOON_S, "a hello")


@pytest.mark.parametrize(("interval_s", "some"), [(0.05, True), (0.0, False)])
async def test_load_goes_to_the_controller_only_if_it_asks(tmp_path: Path, interval_s: float, some: bool) -> None:
    bench, fake = Bench(), FakeController(interval_s)
    async with served(tmp_path / "c.sock", fake) as address:
        link = bench.controller(address)
        engine = bench.engine(no_load(), link)
        async with bench.running(engine, link.connect):
            await wait_until(lambda: fake.hellos, SOON_S, "a hello")
            if some:
                await wait_until(lambda: len(fake.heard) >= 2, SOON_S, "two loads")
        loads = [said for said in fake.heard if isinstance(said, EngineLoad)]
        assert bool(loads) is some
        assert all(load.load.instance == "e0" for load in loads)


async def test_load_is_pushed_and_again_after_rapidd_was_away(tmp_path: Path) -> None:
    bench, first, second = Bench(), FakeDaemon(), FakeDaemon()
    link = LoadLink(f"unix:{tmp_path / 'l.sock'}", bench.stopping)
    engine = bench.engine(no_load(), bench.controller("unix:/nowhere"))
    async with bench.running(engine, link.connect):
        for daemon in (first, second):
            async with served(tmp_path / "l.sock", daemon):
                await wait_until(partial(has_loads, daemon), SOON_S, "two loads")
    assert second.loads[0].at_s > first.loads[-1].at_s


async def test_engine_without_a_front_end_serves_on(tmp_path: Path) -> None:
    bench = Bench()
    link = FrontEndLink(tmp_path / "nobody.sock", bench.woken.set)
    engine = bench.engine(link, bench.controller("unix:/nowhere"))
    async with bench.running(engine, link.connect):
        engine.prompt(Request(1, time.monotonic(), 100, 5), time.monotonic())
        bench.woken.set()
        await wait_until(lambda: engine.instance.requests_left == 0, SOON_S, "the prompt is processed")
        assert engine.load(time.monotonic()).prompt_tokens == 100
