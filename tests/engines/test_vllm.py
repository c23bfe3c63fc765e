"""`vllm`: an engine with a role of its own, as the RFC has it. The way by routing alone is in test_vllm_smg.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.engine import NotSwitched, SwitchFailed
from rapidctl.engines.base import Place
from rapidctl.engines.http import CallFailed
from rapidctl.engines.options import made
from rapidctl.engines.vllm import KIND, VllmAdapter
from tests.engines.mock_vllm import MockVllm
from tests.engines.ports import free_port
from tests.wait import wait_until

PREFILL, DECODE = Role.PREFILL, Role.DECODE
SOON_S = 10.0


@asynccontextmanager
async def adapter_of(engine: MockVllm, *, role: Role | None = None, **options: Any) -> AsyncIterator[VllmAdapter]:
    place = Place("v0", "h", ("GPU-0",), role)
    given = made(KIND, {"engine_url": engine.url} | options)
    async with KIND.open(place, given, lambda _: None) as adapter:
        assert isinstance(adapter, VllmAdapter)
        yield adapter


async def test_a_change_is_posted_once_with_the_epoch_and_waited_for() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        assert await adapter.begin() is PREFILL
        assert adapter.product == "vLLM 0.32.0"
        await adapter.close()
        assert await adapter.drained() == 0
        await adapter.switch(DECODE)
        assert (engine.role, engine.epoch, engine.phase) == ("decode", 1, "ready"), "a 202 is not an answer"
        assert await adapter.live_role() is DECODE
        await adapter.open(DECODE)
        await adapter.switch(PREFILL)
        assert engine.posts == [
            {"role": "decode", "expected_epoch": 0, "drain_timeout": 100.0},
            {"role": "prefill", "expected_epoch": 1, "drain_timeout": 100.0},
        ]


async def test_the_switch_waits_for_what_the_engine_has_accepted() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.active = 1
        switching = asyncio.create_task(adapter.switch(DECODE))
        await wait_until(lambda: engine.phase == "draining", SOON_S, "the drain")
        assert await adapter.live_role() is None, "it serves neither"
        engine.active = 0
        await switching
        assert engine.role == "decode"


async def test_a_drain_that_the_engine_gives_up_leaves_it_as_it_was() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.leaves = "times out"
        with pytest.raises(NotSwitched, match="v0: switch: it is prefill at epoch 0 still: TimeoutError"):
            await adapter._own.switch(DECODE, 0.1)
        assert (engine.role, engine.phase) == ("prefill", "ready")
        await adapter.open(PREFILL)


async def test_an_engine_that_has_closed_itself_is_out_of_service() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.leaves = "is uncertain"
        with pytest.raises(SwitchFailed, match=r"v0: switch: the engine has closed itself: RuntimeError.*; restart it"):
            await adapter.switch(DECODE)
        with pytest.raises(SwitchFailed, match="restart it"):
            await adapter.live_role()
        with pytest.raises(RapidError, match="v0: begin: the engine is failed as prefill, RuntimeError"):
            await adapter.begin()


async def test_a_lost_answer_is_not_asked_for_again_but_read() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.lose = 1
        with pytest.raises(CallFailed) as raised:
            await adapter.switch(DECODE)
        assert raised.value.sent
        await wait_until(lambda: engine.phase == "ready", SOON_S, "the end of the change")
        assert await adapter.live_role() is DECODE
        assert len(engine.posts) == 1


@pytest.mark.parametrize(("theirs", "switched"), [("decode", True), ("prefill", False)])
async def test_a_change_by_another_hand_is_waited_for_and_what_it_leaves_counts(theirs: str, switched: bool) -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.begin(theirs, 5.0)
        if switched:
            await adapter.switch(DECODE)
        else:
            with pytest.raises(NotSwitched, match="it is prefill at epoch 1 still: it refused, as a change that"):
                await adapter.switch(DECODE)
        assert engine.posts == [], "nothing is posted into another's change"


async def test_a_route_that_goes_away_is_no_fast_switch() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        engine.has_role = False
        with pytest.raises(NotSwitched, match=r"404 Not Found .*; it has no such route: live roles need a vLLM with"):
            await adapter.switch(DECODE)


async def test_an_engine_without_a_role_and_without_a_router_cannot_change_it_and_says_so() -> None:
    async with MockVllm().served() as engine, adapter_of(engine) as adapter:
        with pytest.raises(RapidError, match=r"v0: begin: it has no role of its own \(no /v1/pd_role\), so only a"):
            await adapter.begin()


async def test_what_it_sees_is_what_the_engine_says() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        await adapter.begin()
        seen = await adapter.look_around()
        assert (seen.live, seen.up, seen.listed) == (PREFILL, True, None)
        engine.role = "decode"
        assert (await adapter.look_around()).live is DECODE
        url = engine.url
    nobody = MockVllm()
    nobody.url = url
    async with adapter_of(nobody) as adapter:
        seen = await adapter.look_around()
        assert not seen.up
        assert "connection refused" in seen.problem


async def test_looking_says_what_is_missing() -> None:
    async with MockVllm(has_role=True).served() as engine, adapter_of(engine) as adapter:
        found = {finding.topic: finding for finding in await adapter.findings()}
        assert found["role"].what == "prefill, its own"
        assert found["router"].grade.value == "yellow"
        assert "transfer" not in found
        assert engine.posts == []


async def test_a_key_is_named_when_it_is_missing_or_wrong(tmp_path: Path) -> None:
    token = tmp_path / "key"
    token.write_text("right\n")
    async with MockVllm(has_role=True, key="right").served() as engine:
        async with adapter_of(engine) as adapter:
            with pytest.raises(CallFailed, match=r"401 Unauthorized .*it wants a key: .*--engine-token-file"):
                await adapter.begin()
        async with adapter_of(engine, engine_token_file=token) as adapter:
            assert await adapter.begin() is PREFILL


async def test_an_engine_that_is_not_there_is_named() -> None:
    nobody = MockVllm()
    nobody.url = f"http://127.0.0.1:{free_port()}"
    async with adapter_of(nobody) as adapter:
        with pytest.raises(CallFailed, match=r"v0: begin: GET http://127.0.0.1:\d+/version: connection refused"):
            await adapter.begin()


@pytest.mark.parametrize(
    ("options", "role", "says"),
    [
        ({"engine_url": "127.0.0.1:8000"}, None, "engine_url: '127.0.0.1:8000' is no URL of a host"),
        ({"router_url": "ftp://x"}, None, "router_url: 'ftp://x' is no URL of a host"),
        ({"kv_lease": "0s"}, None, "kv_lease: must be above 0 s"),
        ({}, Role.MIXED, "role: is mixed; what attach drives is prefill or decode"),
    ],
)
async def test_what_can_never_work_is_refused_at_once(options: dict[str, Any], role: Role | None, says: str) -> None:
    engine = MockVllm()
    engine.url = "http://127.0.0.1:1"
    with pytest.raises(ConfigInvalid) as raised:
        async with adapter_of(engine, role=role, **options):
            pass
    assert says in str(raised.value)
