"""The adapter of workers that serve either role at any time: smg moves them in one step, and nothing is drained."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.errors import RapidError
from rapid.core.findings.base import Grade
from rapidctl.engines import smg
from rapidctl.engines.base import Place
from tests.engines.bench import DECODE, PREFILL, SOON_S, Bench, Ordered, benched, care_of
from tests.wait import wait_until

WORKER = "grpc://10.0.0.3:50051"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benched(kind="smg") as made:
        yield made


def options(bench: Bench, **more: Any) -> smg.Options:
    return smg.Options(router_url=bench.router_url, engine="any", worker_url=WORKER, bootstrap_port=8998, **more)


@pytest.fixture
async def site(bench: Bench, tmp_path: Path) -> AsyncIterator[Ordered]:
    """v0, which smg lists as prefill."""
    bench.router.put(WORKER, "prefill", runtime_type="vllm")
    place = Place("v0", "h1", ("g0",))
    async with (
        smg.KIND.open(place, options(bench), bench.said.append) as adapter,
        care_of(adapter, tmp_path, bench.said) as ordered,
    ):
        assert adapter.product == "vllm behind smg"
        bench.router.calls.clear()
        yield ordered


async def test_it_is_moved_in_one_step_and_is_never_out_of_both_pools(bench: Bench, site: Ordered) -> None:
    end = await site.order(DECODE)

    assert (end.phase, end.role, end.error) == (Phase.SERVING, DECODE, "")
    assert bench.router.calls == ["replace decode"]
    assert bench.router.roles(WORKER) == ["decode"]
    assert (await site.order(PREFILL)).role is PREFILL


async def test_a_move_whose_answer_is_lost_is_read_off_the_list(bench: Bench, site: Ordered) -> None:
    bench.router.faults.add("lose replace")
    end = await site.order(DECODE)
    assert (end.phase, end.role, bench.router.roles(WORKER)) == (Phase.SERVING, DECODE, ["decode"])


async def test_what_smg_forgets_is_put_back_in_its_role(bench: Bench, site: Ordered) -> None:
    await site.order(DECODE)
    bench.router.workers.clear()
    await site.noticed("the router listed it nowhere; that was put right")
    assert bench.router.roles(WORKER) == ["decode"]


async def test_one_that_another_hand_has_moved_is_adopted(bench: Bench, site: Ordered) -> None:
    for worker in bench.router.workers:
        worker["worker_type"] = "decode"
    await site.noticed("another hand has made it decode")
    await wait_until(lambda: site.attached.phase is Phase.SERVING, SOON_S, "it to serve")
    assert (site.attached.role, bench.router.calls) == (DECODE, []), "it was moved already"


async def test_to_park_it_is_taken_out(bench: Bench, site: Ordered) -> None:
    await site.controller.order(PREFILL, seq=5, park=True)
    await wait_until(lambda: site.attached.phase is Phase.PARKED, SOON_S, "it to be parked")
    assert bench.router.roles(WORKER) == []
    site.seq = 5
    assert (await site.order(DECODE)).role is DECODE
    assert bench.router.roles(WORKER) == ["decode"]


async def test_one_that_smg_does_not_list_needs_to_be_told_its_role(bench: Bench) -> None:
    async with smg.KIND.open(Place("v0", "h1", ("g0",)), options(bench), bench.said.append) as adapter:
        with pytest.raises(RapidError, match=f"v0: begin: smg does not list {WORKER}, so say its --role"):
            await adapter.begin()
    async with smg.KIND.open(Place("v0", "h1", ("g0",), Role.DECODE), options(bench), bench.said.append) as adapter:
        assert await adapter.begin() is DECODE
        mine = next(one for one in bench.router.workers if one["url"] == WORKER)
        assert "bootstrap_port" not in mine, "that is for prefill"


async def test_a_check_says_how_it_is_listed(bench: Bench) -> None:
    bench.router.put(WORKER, "prefill")
    async with smg.KIND.open(Place("v0", "h1", ("g0",)), options(bench), bench.said.append) as adapter:
        found = {finding.topic: finding for finding in await adapter.findings()}
    assert {topic: finding.grade for topic, finding in found.items()} == {"router": Grade.GREEN, "worker": Grade.GREEN}
