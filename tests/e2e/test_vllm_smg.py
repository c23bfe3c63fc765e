"""`vllm` without a role of its own, behind a real smg: what changes is the pool, in one step, and nothing is closed."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rapid.core.cluster import Role
from rapidctl.engines.base import Place
from rapidctl.engines.http import CallFailed
from rapidctl.engines.options import made
from rapidctl.engines.vllm import KIND, VllmAdapter
from tests.engines.dynamo_cluster import Process, write_model
from tests.engines.mock_vllm import MockVllm
from tests.engines.ports import free_port
from tests.wait import wait_until

PROGRAM = Path(__file__).parents[2] / ".venv-smg/bin/smg"
PREFILL, DECODE = Role.PREFILL, Role.DECODE
WITHIN_S = 30.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PROGRAM.exists(), reason="smg is not here: run `make routers`"),
]


class Site:
    """Two engines behind smg: v0 is the one that is moved."""

    def __init__(self, url: str, engines: list[MockVllm], session: aiohttp.ClientSession) -> None:
        self.url, self.engines, self._session = url, engines, session

    async def listed(self, engine: MockVllm) -> list[dict[str, Any]]:
        """Its entries; one that is on its way out gets nothing more, and is none."""
        async with self._session.get(f"{self.url}/workers") as answer:
            workers: list[dict[str, Any]] = (await answer.json())["workers"]
        return [one for one in workers if one["url"] == engine.url and one.get("status") != "draining"]

    @asynccontextmanager
    async def adapter(self, role: Role | None = None, **more: Any) -> AsyncIterator[VllmAdapter]:
        given = made(KIND, {"engine_url": self.engines[0].url, "router_url": self.url} | more)
        async with KIND.open(Place("v0", "h", ("GPU-0",), role), given, lambda _: None) as adapter:
            assert isinstance(adapter, VllmAdapter)
            yield adapter


@asynccontextmanager
async def site_in(folder: Path) -> AsyncIterator[Site]:
    model, port = write_model(folder / "model"), free_port()
    async with (
        MockVllm("prefill", model=str(model)).served() as first,
        MockVllm("decode", model=str(model)).served() as second,
        aiohttp.ClientSession() as session,
    ):
        words = ["launch", "--host", "127.0.0.1", "--port", str(port), "--pd-disaggregation"]
        words += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        words += ["--prefill", first.url, str(free_port()), "--decode", second.url]
        smg = Process("smg", [str(PROGRAM), *words], dict(os.environ), folder / "smg.log")
        smg.start()
        site = Site(f"http://127.0.0.1:{port}", [first, second], session)
        try:
            await healthy(site)
            yield site
        finally:
            smg.kill()


async def healthy(site: Site) -> None:
    """Until it lists both."""
    up = False
    while not up:
        try:
            up = all([any(one["is_healthy"] for one in await site.listed(engine)) for engine in site.engines])
        except aiohttp.ClientError:
            await wait_until(lambda: True, WITHIN_S, "a moment")


@pytest.mark.timeout(60)
async def test_it_is_moved_in_one_step_and_serves_all_along(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site, site.adapter() as adapter:
        assert await adapter.begin() is PREFILL, "as the router has it"
        (before,) = await site.listed(site.engines[0])
        site.engines[0].running = 3
        assert adapter.serves_on()

        await adapter.switch(DECODE)

        assert await adapter.live_role() is DECODE
        (after,) = await site.listed(site.engines[0])
        assert (after["worker_type"], after["is_healthy"], after["id"]) == ("decode", True, before["id"])
        await adapter.open(DECODE)
        assert await adapter.others() == 1
        seen = await adapter.look_around()
        assert (seen.listed, seen.live, seen.problem) == ((DECODE,), None, "")


@pytest.mark.timeout(60)
async def test_to_be_parked_it_leaves_the_list_and_waits_for_what_it_owes(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site, site.adapter(kv_lease="300ms") as adapter:
        engine = site.engines[0]
        await adapter.begin()
        engine.running, engine.kv_used = 2, 0.5
        await adapter.close()
        assert await site.listed(engine) == []
        assert await adapter.drained() == 2
        engine.running = 0
        assert await adapter.drained() == 1, "KV that a peer has yet to pull"
        engine.kv_used = 0.0
        assert await adapter.drained() == 0
        engine.kv_used = 0.5
        left = 1
        while left:  # until the lease is over, and what it kept is free
            left = await adapter.drained()

        await adapter.switch(DECODE)
        assert await adapter.live_role() is DECODE, "which the router will hear when it is opened"
        assert await site.listed(engine) == []
        await adapter.open(DECODE)
        assert [one["worker_type"] for one in await site.listed(engine)] == ["decode"]


@pytest.mark.timeout(60)
async def test_a_router_at_another_address_is_named(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site, site.adapter(router_url=site.engines[1].url) as adapter:
        with pytest.raises(
            CallFailed, match=r"v0: begin: GET .*/workers: 404 Not Found.*is it the URL of sglang-router"
        ):
            await adapter.begin()
