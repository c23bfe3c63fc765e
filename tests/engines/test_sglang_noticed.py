"""What an adapter notices outside of any order, and puts right, or says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase
from tests.engines.bench import DECODE, SOON_S, Bench, benched
from tests.wait import wait_until


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benched() as made:
        yield made


async def test_what_the_router_forgets_is_put_back(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.workers.clear()
        await site.noticed("the router listed it nowhere; that was put right")
        assert bench.router.roles(bench.engine_url) == ["prefill"]


async def test_a_double_is_removed_also_under_another_name_of_the_host(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.put(bench.engine_url.replace("127.0.0.1", "localhost"), "decode")
        await site.noticed("the router lists it 2 times: prefill and decode; that was put right")
        assert [one["url"] for one in bench.router.workers if "10.0.0" not in one["url"]] == [bench.engine_url]


async def test_one_that_is_in_the_wrong_pool_is_moved(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        for worker in bench.router.workers:
            worker["worker_type"] = "decode" if worker["url"] == bench.engine_url else worker["worker_type"]
        await site.noticed("the router lists it as decode; that was put right")
        assert bench.router.roles(bench.engine_url) == ["prefill"]


async def test_a_role_that_another_hand_changed_is_adopted_and_the_pool_follows(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.engine.role = "decode"
        await site.noticed("another hand has made it decode")
        await wait_until(lambda: bench.router.roles(bench.engine_url) == ["decode"], SOON_S, "the router to follow")
        assert (site.attached.role, bench.engine.switched) == (DECODE, [])


async def test_a_router_that_is_away_is_the_problem_of_the_instance(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.faults.add("503")
        said = await site.noticed("look: GET")
        assert said.phase is Phase.SERVING
        assert said.error.startswith(f"p0: look: GET {bench.router_url}/workers: 503 Service Unavailable")
        bench.router.faults.clear()
        await wait_until(lambda: site.controller.progress[-1].error == "", SOON_S, "it to be well again")


async def test_one_that_the_router_finds_unhealthy_says_so(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        for worker in bench.router.workers:
            worker["is_healthy"] = worker["url"] != bench.engine_url
        await site.noticed("the router finds it unhealthy and sends it nothing; see that it reaches the engine")
