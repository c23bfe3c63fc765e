"""An adapter, the router and the engine that it drives, and a controller that says what the test wants: one loop."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from rapid.core.cluster import Phase, Role, RoleProgress
from rapid.engine import Attached, attach
from rapidctl.engines import sglang, smg
from rapidctl.engines.base import Adapter, Place
from rapidctl.engines.sglang import SglangAdapter
from tests.engine.fakes import FakeController, served
from tests.engines.mock_router import MockRouter
from tests.engines.mock_sglang import MockSglang
from tests.wait import wait_until

SOON_S = 20.0
PREFILL, DECODE = Role.PREFILL, Role.DECODE


@asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
    """Its URL on loopback."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        assert site._server is not None
        address = site._server.sockets[0].getsockname()  # type: ignore[attr-defined]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{address[1]}"
    finally:
        await runner.cleanup()


@dataclass
class Bench:
    """`said` is the adapter's log."""

    engine: MockSglang
    router: MockRouter
    engine_url: str = ""
    router_url: str = ""
    said: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def adapter(self, role: Role | None = None, **options: Any) -> AsyncIterator[SglangAdapter]:
        """Not begun yet. `role` is the configured one; `options` replace those that fit."""
        place = Place("p0", "h1", ("g0",), role)
        given: dict[str, Any] = {"router_url": self.router_url, "engine_url": self.engine_url, **options}
        kind = smg.KIND if self.router.smg else sglang.KIND
        async with kind.open(place, kind.options(**given), self.said.append) as adapter:
            assert isinstance(adapter, SglangAdapter)
            yield adapter

    @asynccontextmanager
    async def attached(self, folder: Path, **options: Any) -> AsyncIterator["Ordered"]:
        """Begun, and attached to a controller of the test's."""
        async with self.adapter(**options) as adapter, care_of(adapter, folder, self.said) as ordered:
            yield ordered


@asynccontextmanager
async def care_of(adapter: Adapter, folder: Path, said: list[str]) -> AsyncIterator["Ordered"]:
    """Begun, and attached to a controller of the test's."""
    async with AsyncExitStack() as held:
        role = await adapter.begin()
        controller = FakeController()
        address = await held.enter_async_context(served(folder / "c.sock", controller))
        care = attach(
            adapter,
            instance="p0",
            node="h1",
            gpus=("g0",),
            role=role,
            roles=adapter.roles,
            address=address,
            say=said.append,
        )
        attached = await held.enter_async_context(care)
        await wait_until(lambda: any("attached to" in line for line in said), SOON_S, "a welcome")
        yield Ordered(controller, attached)


@dataclass
class Ordered:
    """What the controller hears."""

    controller: FakeController
    attached: Attached
    seq: int = 0

    async def order(self, role: Role, *, drain_s: float = 10.0) -> RoleProgress:
        """The end of the change."""
        self.seq += 1
        heard = len(self.controller.progress)
        await self.controller.order(role, seq=self.seq, drain_s=drain_s)
        ends = (Phase.SERVING, Phase.FAILED)

        def ended() -> list[RoleProgress]:
            return [each for each in self.controller.progress[heard:] if each.phase in ends]

        return (await wait_until(ended, SOON_S, f"the end of the change to {role.value}"))[0]

    async def noticed(self, text: str) -> RoleProgress:
        """The word in which this was said."""

        def found() -> list[RoleProgress]:
            return [each for each in self.controller.progress if text in f"{each.noticed} {each.error}"]

        return (await wait_until(found, SOON_S, f"word of {text!r}"))[0]


@asynccontextmanager
async def benched(*, kind: str = "sglang", role: str = "prefill") -> AsyncIterator[Bench]:
    """A router that lists another engine of each role, so that ours may leave its own."""
    bench = Bench(MockSglang(role, 8998, graph_gb=1.5), MockRouter(smg=kind == "smg"))
    for url, other in (("http://10.0.0.1:1", "prefill"), ("http://10.0.0.1:2", "decode")):
        bench.router.put(url, other)
    async with serving(bench.engine.app()) as bench.engine_url, serving(bench.router.app()) as bench.router_url:
        yield bench
