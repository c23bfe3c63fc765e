"""The adapter of SGLang engines, step by step: what each does at router and engine, and what comes of it when it does
not work. Each message names the instance, the step, and what to do.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from rapid.core.cluster import Phase
from rapid.engine import NotSwitched
from rapidctl.engines.sglang import SglangAdapter
from rapidctl.engines.workers import RouterDisagrees, Workers
from tests.engines.bench import DECODE, PREFILL, SOON_S, Bench, benched, serving
from tests.engines.mock_sglang import MockSglang, work
from tests.wait import wait_until


@pytest.fixture(params=["sglang", "smg"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with benched(kind=request.param) as made:
        yield made


# ---- a change ----


async def test_it_begins_in_the_role_that_the_engine_has_and_is_listed_once(bench: Bench) -> None:
    bench.engine.role = "decode"
    async with bench.adapter(PREFILL) as adapter:
        assert await adapter.begin() is DECODE
        assert bench.router.roles(bench.engine_url) == ["decode"]
        assert adapter.product == f"SGLang 0.5.23 behind {'smg' if bench.router.smg else 'sglang-router'}"


async def test_a_change_goes_out_of_the_pool_drains_switches_and_goes_into_the_other(
    bench: Bench, tmp_path: Path
) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.calls.clear()
        end = await site.order(DECODE)

        assert (end.phase, end.role, end.error) == (Phase.SERVING, DECODE, "")
        assert bench.router.calls == ["remove", "add decode"]
        assert bench.engine.switched == ["decode: ok"]
        end = await site.order(PREFILL)
        assert (end.role, bench.router.roles(bench.engine_url)) == (PREFILL, ["prefill"])


async def test_prefill_workers_are_added_with_their_bootstrap_port(bench: Bench) -> None:
    async with bench.adapter() as adapter:
        await adapter.begin()
        mine = next(one for one in bench.router.workers if one["url"] == bench.engine_url)
        assert mine["bootstrap_port"] == 8998, "as the engine itself says it"


async def test_requests_and_kv_that_is_owed_keep_it_from_being_drained(bench: Bench) -> None:
    async with bench.adapter() as adapter:
        await adapter.begin()
        assert await adapter.drained() == 0
        bench.engine.running, bench.engine.owing = 3, 2
        assert await adapter.drained() == 3
        bench.engine.running, bench.engine.owing = 1, 1
        assert await adapter.drained() == 1


async def test_none_counted_is_not_drained_before_the_engine_itself_would_switch(bench: Bench) -> None:
    """Its figures are of a moment ago."""
    async with bench.adapter() as adapter:
        await adapter.begin()
        bench.engine.faults["hide load"] = "yes"
        bench.engine.running = 1
        assert await adapter.drained() == 1
        bench.engine.running = 0
        assert await adapter.drained() == 0
        assert bench.engine.switched == [], "to ask is not to switch"


async def test_one_more_request_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    bench.engine.faults["one more request"] = "yes"
    async with bench.attached(tmp_path) as site:
        assert (await site.order(DECODE)).role is DECODE
    assert [text.partition(":")[2][:22] for text in bench.engine.switched] == [" instance is not idle;", " ok"]


async def test_the_graphs_of_a_decode_engine_tell_what_ours_need(bench: Bench) -> None:
    bench.engine.graph_gb = None
    async with bench.adapter() as adapter, serving(_decode_peer()) as peer:
        await adapter.begin()
        bench.router.workers = [one for one in bench.router.workers if one["worker_type"] != "decode"]
        bench.router.put(peer, "decode")
        await adapter.switch(DECODE)
    assert bench.engine.graph_gb == 2.5


def _decode_peer() -> web.Application:
    return MockSglang("decode", 8999, graph_gb=2.5).app()


# ---- what the engine refuses ----


NOT_SET = "--enable-pd-role-switch is not set on this server; start it with --enable-pd-role-switch"
NO_BUDGET = "decode_cuda_graph_memory_gb is required before capturing decode graphs; say how much decode graphs need: "
NOT_IDLE = "instance is not idle; drain all requests before switching"


@pytest.mark.parametrize(
    ("plant", "text"),
    [
        ({"switches": False}, NOT_SET),
        ({"graph_gb": None}, f"{NO_BUDGET}--graph-memory-gb"),
        ({"running": 2}, NOT_IDLE),
    ],
)
async def test_what_it_refuses_leaves_it_as_it_was(bench: Bench, plant: dict[str, object], text: str) -> None:
    async with bench.adapter() as adapter:
        await adapter.begin()
        for name, value in plant.items():
            setattr(bench.engine, name, value)
        with pytest.raises(NotSwitched) as refused:
            await adapter.switch(DECODE)
    assert str(refused.value) == f"p0: switch: the engine refuses to become decode: {text}"


async def test_too_little_memory_for_graphs_is_refused_and_said(bench: Bench) -> None:
    bench.engine.graph_gb = None
    async with bench.adapter(graph_memory_gb=9.0) as adapter:
        await adapter.begin()
        with pytest.raises(NotSwitched, match=r"headroom: required=9.000 GB.*free memory there, or give less: --graph"):
            await adapter.switch(DECODE)


async def test_an_engine_that_cannot_switch_offers_its_one_role(bench: Bench) -> None:
    bench.engine.switches = False
    async with bench.adapter() as adapter:
        await adapter.begin()
        assert tuple(adapter.roles) == (PREFILL,)


async def test_a_rebuild_that_fails_puts_it_out_of_service_until_it_is_started_anew(
    bench: Bench, tmp_path: Path
) -> None:
    bench.engine.faults["fail rebuild"] = "yes"
    async with bench.attached(tmp_path) as site:
        end = await site.order(DECODE)

        assert end.phase is Phase.FAILED
        assert end.error == (
            "p0: switch: the engine refuses to become decode: role switch failed; instance unhealthy, restart "
            "required: out of memory; restart the engine, and it is taken in again"
        )
        assert bench.router.roles(bench.engine_url) == []
        bench.engine.unhealthy, bench.engine.started_s = False, 1.0  # another life
        await site.noticed("it is there again, as prefill")
        await wait_until(lambda: site.attached.phase is Phase.SERVING, SOON_S, "it to serve")
        assert bench.router.roles(bench.engine_url) == ["prefill"]


async def test_a_switch_whose_answer_is_lost_is_not_sent_again_its_role_is_read(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.engine.faults["lose answer"] = "yes"
        end = await site.order(DECODE)

        assert (end.phase, end.role) == (Phase.SERVING, DECODE)
        assert bench.engine.switched == ["decode: ok"], "once"
        assert Phase.UNCERTAIN in site.controller.phases


async def test_one_that_says_it_switched_and_did_not_is_rolled_back(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.engine.faults["say so and do nothing"] = "yes"
        end = await site.order(DECODE)

        assert (end.phase, end.role) == (Phase.SERVING, PREFILL)
        assert end.error == "it says that it has switched, but it still has role prefill"
        assert bench.router.roles(bench.engine_url) == ["prefill"]


async def test_one_that_never_drains_is_opened_again_and_says_how_much_is_left(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.engine.running = 4
        end = await site.order(DECODE, drain_s=0.5)

        assert (end.phase, end.role) == (Phase.SERVING, PREFILL)
        assert end.error == "drain took longer than 0.5 s, 4 requests left"
        assert bench.router.roles(bench.engine_url) == ["prefill"]


async def test_one_that_another_router_feeds_is_told_so(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.engine.running = 2
        ending = asyncio.ensure_future(site.order(DECODE, drain_s=4.0))
        await wait_until(lambda: site.attached.phase is Phase.DRAINING, SOON_S, "the drain")
        while not ending.done():
            bench.engine.finished += 1  # and another has come for it
            await work(0.1)
        end = await ending
    assert "requests left: p0: drain: " in end.error
    assert f"since router {bench.router_url} let go of it: another router or client sends to it" in end.error


# ---- what the router does not do ----


def list_of(adapter: SglangAdapter, url: str) -> Workers:
    """The same list, and less patience."""
    return Workers(adapter.workers.router, url, within_s=(0.2, 0.2))


async def test_a_202_that_never_came_true_is_said_with_the_routers_own_words(bench: Bench) -> None:
    bench.router.faults.add("ignore add")
    async with bench.adapter() as adapter:
        with pytest.raises(RouterDisagrees) as disagrees:
            await list_of(adapter, "http://10.0.0.1:3").add("open", DECODE, {"url": "u", "worker_type": "decode"})
    assert str(disagrees.value) == (
        f"p0: open: router {bench.router_url} has not taken http://10.0.0.1:3 in as decode after 0.2 s (listed: "
        'nowhere): it had said: {"status": "accepted"}; see that it reaches the engine there, and look into its log'
    )


async def test_a_removal_that_never_came_true_is_said(bench: Bench) -> None:
    bench.router.faults.add("ignore remove")
    async with bench.adapter() as adapter:
        with pytest.raises(RouterDisagrees) as disagrees:
            await list_of(adapter, "http://10.0.0.1:1").remove("close")
    assert str(disagrees.value) == (
        f"p0: close: router {bench.router_url} was told to take http://10.0.0.1:1 out, and still lists it after 0.2 s "
        "(listed: prefill healthy)"
    )


async def test_a_close_that_does_not_work_leaves_it_in_its_pool(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.faults.add("503")
        ending = asyncio.ensure_future(site.order(DECODE))
        await wait_until(lambda: site.attached.phase is Phase.ROLLING_BACK, SOON_S, "a roll-back")
        bench.router.faults.clear()
        end = await ending

        assert (end.phase, end.role) == (Phase.SERVING, PREFILL)
        assert end.error.startswith(f"could not close: p0: close: GET {bench.router_url}/workers: 503 Service Unavail")
        assert end.error.endswith("look into the log of the router")


@pytest.mark.parametrize("call", ["remove", "add"])
async def test_an_answer_of_the_router_that_is_lost_does_no_harm(bench: Bench, tmp_path: Path, call: str) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.faults.add(f"lose {call}")
        end = await site.order(DECODE)

        assert (end.phase, end.role) == (Phase.SERVING, DECODE)
        assert bench.router.roles(bench.engine_url) == ["decode"]
        assert bench.router.calls.count("add decode") == 1, "the list has shown that it was taken in"


async def test_the_last_of_a_role_refuses_to_leave_it(bench: Bench, tmp_path: Path) -> None:
    async with bench.attached(tmp_path) as site:
        bench.router.workers = [one for one in bench.router.workers if one["url"] == bench.engine_url]
        end = await site.order(DECODE)
    assert (end.role, end.error) == (PREFILL, "the last that serves prefill, as its own side sees it")
    assert bench.engine.switched == []
