"""Two real vLLM engines on a CPU, NIXL and kv_both between them, smg before them: KV moves in both directions.

Not part of any other run: `make test-vllm` (3.5 GB to install, 8 GB of memory, two minutes). What is asserted is bytes:
a decode engine that receives no KV computes the prompt itself, and answers just as well.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rapid.core.cluster import Role
from rapidctl.engines.base import Place
from rapidctl.engines.options import made
from rapidctl.engines.vllm import KIND, VllmAdapter
from tests.engines.dynamo_cluster import Process, page, write_model
from tests.engines.ports import free_port
from tests.seen import SEEN
from tests.wait import wait_for

ROOT = Path(__file__).parents[2]
VLLM, SMG = ROOT / ".venv-vllm/bin/vllm", ROOT / ".venv-smg/bin/smg"
PREFILL, DECODE = Role.PREFILL, Role.DECODE
MODEL, PROMPT_TOKENS, ANSWER_TOKENS = "tiny", 200, 8
TRANSFER = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"}
UP_WITHIN_S, ANSWER_WITHIN_S = 400.0, 120.0
HERE = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", "UCX_NET_DEVICES": "lo"}
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@dataclass
class Engine:
    """One engine, and the adapter that drives it."""

    name: str
    url: str
    process: Process
    session: aiohttp.ClientSession
    adapter: VllmAdapter | None = None

    async def metric(self, name: str) -> float:
        """The sum of its series; 0 where there is none."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            page = await answer.text()
        return sum(float(value) for value in re.findall(rf"^vllm:{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))

    async def complete(self, prompt: str, tokens: int, transfer: dict[str, Any]) -> dict[str, Any]:
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "kv_transfer_params": transfer,
        }
        async with self.session.post(f"{self.url}/v1/completions", json=body) as answer:
            said: dict[str, Any] = await answer.json()
            assert answer.status == 200, said
        return said

    def driven(self) -> VllmAdapter:
        assert self.adapter is not None
        return self.adapter


class Pair:
    """Both engines, and smg, which says which of them is asked for what."""

    def __init__(self, engines: list[Engine], router_url: str, session: aiohttp.ClientSession) -> None:
        self.engines, self.router_url, self._session, self._prompts = engines, router_url, session, 0

    async def in_pool(self, role: Role) -> Engine:
        async with self._session.get(f"{self.router_url}/workers") as answer:
            workers = (await answer.json())["workers"]
        (url,) = [one["url"] for one in workers if one["worker_type"] == role.value and one["is_healthy"]]
        return next(engine for engine in self.engines if engine.url == url)

    async def prefill(self) -> tuple[str, dict[str, Any]]:
        """A prompt that no cache has seen, and where its KV is."""
        self._prompts += 1
        prompt = " ".join(f"w{3 + (17 * self._prompts + 7 * number) % 4000}" for number in range(PROMPT_TOKENS))
        asked: dict[str, Any] = {"do_remote_decode": True, "do_remote_prefill": False}
        asked |= dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
        said = await (await self.in_pool(PREFILL)).complete(prompt, 1, asked)
        where: dict[str, Any] = said["kv_transfer_params"]
        return prompt, where

    async def decode(self, prompt: str, where: dict[str, Any]) -> None:
        said = await (await self.in_pool(DECODE)).complete(prompt, ANSWER_TOKENS, where)
        assert said["usage"]["completion_tokens"] == ANSWER_TOKENS

    async def received(self) -> dict[str, float]:
        """Bytes of KV that each has pulled from the other."""
        return {engine.name: await engine.metric("nixl_bytes_transferred_sum") for engine in self.engines}


@asynccontextmanager
async def pair_in(folder: Path) -> AsyncIterator[Pair]:
    model = _model(folder / "model")
    ports = [free_port(), free_port()]
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    async with AsyncExitStack() as held:
        session = await held.enter_async_context(aiohttp.ClientSession(timeout=timeout, trust_env=False))
        engines = [_engine(f"v{index}", port, model, folder, session) for index, port in enumerate(ports)]
        for engine in engines:
            engine.process.start()
            held.callback(_stop, engine.process)
        for engine in engines:
            _up(f"{engine.url}/health", engine.process)
        smg = _smg(engines, folder)
        smg.start()
        held.callback(_stop, smg)
        router_url = f"http://127.0.0.1:{smg.command[smg.command.index('--port') + 1]}"
        _up(f"{router_url}/readiness", smg)
        for engine in engines:
            given = made(KIND, {"engine_url": engine.url, "router_url": router_url})
            opened = KIND.open(Place(engine.name, "h", (engine.name,)), given, lambda _: None)
            adapter = await held.enter_async_context(opened)
            assert isinstance(adapter, VllmAdapter)
            engine.adapter = adapter
        yield Pair(engines, router_url, session)


def _model(folder: Path) -> Path:
    """Large enough for vLLM's attention on a CPU: heads of 64."""
    config = write_model(folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 256, "intermediate_size": 512}))
    return folder


def _engine(name: str, port: int, model: Path, folder: Path, session: aiohttp.ClientSession) -> Engine:
    words = [str(VLLM), "serve", str(model), "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
    words += ["--max-num-seqs", "8", "--kv-transfer-config", json.dumps(TRANSFER)]
    env = {
        **os.environ,
        **HERE,
        **QUIET,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
    }
    return Engine(name, f"http://127.0.0.1:{port}", Process(name, words, env, folder / f"{name}.log"), session)


def _smg(engines: list[Engine], folder: Path) -> Process:
    words = [str(SMG), "launch", "--host", "127.0.0.1", "--port", str(free_port()), "--pd-disaggregation"]
    words += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    words += ["--prefill", engines[0].url, str(free_port()), "--decode", engines[1].url]
    return Process("smg", words, dict(os.environ), folder / "smg.log")


def _up(url: str, process: Process) -> None:
    def answers() -> bool:
        assert process.alive, process.log.read_text()[-3000:]
        try:
            page(url)
        except OSError:
            return False
        return True

    wait_for(answers, UP_WITHIN_S, url)


def _stop(process: Process) -> None:
    if process.alive:
        process.stop()


@pytest.mark.skipif(not VLLM.exists() or not SMG.exists(), reason="run `make test-vllm`, which installs both")
@pytest.mark.timeout(900)
async def test_kv_moves_in_both_directions_after_a_change(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with pair_in(tmp_path) as pair:
        v0, v1 = pair.engines
        assert [await engine.driven().begin() for engine in pair.engines] == [PREFILL, DECODE]

        await pair.decode(*await pair.prefill())
        first = await pair.received()
        assert first["v0"] == 0
        assert first["v1"] > 0

        await v0.driven().switch(DECODE)
        await v1.driven().switch(PREFILL)
        assert [await engine.driven().live_role() for engine in pair.engines] == [DECODE, PREFILL]
        assert (await pair.in_pool(DECODE), await pair.in_pool(PREFILL)) == (v0, v1)

        await pair.decode(*await pair.prefill())
        second = await pair.received()
        assert second["v1"] == first["v1"], "what it had received as decode"
        assert second["v0"] == first["v1"], "the same prompt length, the other way"

        record_property(SEEN, f"bytes of KV received by each: {first}, and after both have changed: {second}")
        prompt, where = await pair.prefill()
        await v1.driven().close()
        assert await v1.driven().drained() == 1, "it keeps the KV of a finished request for its peer"
        await pair.decode(prompt, where)
        assert await v1.driven().drained() == 0
        assert [await engine.metric("nixl_num_failed_transfers_total") for engine in pair.engines] == [0, 0]
