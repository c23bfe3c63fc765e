"""An SGLang engine as far as routers and adapters can tell (0.5.23): its HTTP routes, its role, and pd_role_switch.

It serves one leg of each request: as prefill it computes, and owes the KV until decode has pulled it; as decode it
pulls the KV, and streams a token each 20 ms. What comes in the wrong role, or in the middle of a switch, is refused and
counted, as is KV that does not come. As a process:

    python -m tests.engines.mock_sglang --port 30000 --role prefill --bootstrap-port 8998 --model FOLDER
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.engines.dynamo_cluster import MODEL

PREFILL_S, TOKEN_S = 0.02, 0.02
OWED_S = 10.0  # how long KV is kept for a peer
ROLES = ("prefill", "decode")


@dataclass
class Owed:
    """The KV of one request, by its room."""

    computed: asyncio.Event = field(default_factory=asyncio.Event)
    pulled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class MockSglang:
    """One engine. `faults` are what a test plants: see `fault`."""

    role: str
    bootstrap_port: int
    model: str = ""
    key: str = ""  # that callers must bring; empty: none
    switches: bool = True  # started with --enable-pd-role-switch
    graph_gb: float | None = None  # what its decode graphs take; None: it has none yet
    headroom_gb: float = 8.0
    switch_s: float = 0.05
    faults: dict[str, str] = field(default_factory=dict)
    running: int = 0
    rooms: dict[int, "Owed"] = field(default_factory=dict)
    owing: int = 0  # requests whose KV is yet to be pulled; they run, too
    owed_s: float = OWED_S
    finished: int = 0
    refused: list[str] = field(default_factory=list)  # requests that came when or where they could not be served
    switched: list[str] = field(default_factory=list)  # every role that it was asked to take, and what it said
    unhealthy: bool = False
    switching: bool = False
    started_s: float = field(default_factory=time.monotonic)
    served: asyncio.Lock = field(default_factory=asyncio.Lock)  # the scheduler: one message at a time

    # ---- requests ----

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """One leg of a request. The router sends both halves of a pair the same body, which names the prefill half by
        its bootstrap port: so an engine knows whether it was meant as prefill."""
        body = await request.json()
        if (why := self._misplaced(body)) is not None:
            self.refused.append(f"{self.role}: {why}")
            return web.json_response({"error": why}, status=503)
        leg = self._prefill if self.role == "prefill" else self._decode
        self.running += 1
        try:
            return await leg(request, body)
        finally:
            self.running -= 1
            self.finished += 1

    def _misplaced(self, body: dict[str, Any]) -> str | None:
        if self.faults.get("refuse all"):
            return "a fault of the test"
        if self.switching or self.unhealthy:
            return "it changes its role" if self.switching else "it is unhealthy"
        if "bootstrap_room" not in body:
            return "not a leg of a pair"
        meant = "prefill" if body["bootstrap_port"] == self.bootstrap_port else "decode"
        return None if meant == self.role else f"meant for {meant}"

    async def _prefill(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """The KV is owed to decode until it has been pulled."""
        room = int(body["bootstrap_room"])
        await work(PREFILL_S)
        owed = self._owed(room)
        owed.computed.set()
        self.owing += 1
        try:
            async with asyncio.timeout(self.owed_s):
                await owed.pulled.wait()
        except TimeoutError:
            self.refused.append("prefill: nobody pulled")
        finally:
            self.owing -= 1
            del self.rooms[room]
        return web.json_response(_whole("prefill", 1))

    async def _decode(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 1)
        if not await self._pull(body):
            self.refused.append("decode: no KV came")
            return web.json_response({"error": "no KV came"}, status=500)
        if not body.get("stream"):
            await work(TOKEN_S * tokens)
            return web.json_response(_whole("decode", tokens))
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for token in range(tokens):
            await work(TOKEN_S)
            await answer.write(_chunk({"content": f"t{token} "}, None))
        await answer.write(_chunk({}, "stop") + b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    async def _pull(self, body: dict[str, Any]) -> bool:
        """Get the KV from the prefill half, which may still be computing it."""
        url = f"http://127.0.0.1:{body['bootstrap_port']}/pull/{body['bootstrap_room']}"
        timeout = aiohttp.ClientTimeout(total=OWED_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session, session.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def pull(self, request: web.Request) -> web.Response:
        """Served on the bootstrap port. The leg of decode may come first, and waits for that of prefill."""
        if self.role != "prefill":
            return web.Response(status=404)
        owed = self._owed(int(request.match_info["room"]))
        try:
            async with asyncio.timeout(self.owed_s):
                await owed.computed.wait()
        except TimeoutError:
            return web.Response(status=404)
        owed.pulled.set()
        return web.Response()

    def _owed(self, room: int) -> "Owed":
        return self.rooms.setdefault(room, Owed())

    # ---- the role ----

    async def switch(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self.served:
            said = await self._switch(body)
        if body.get("prepare_only"):
            return web.json_response(said, status=200 if said["success"] else 400)
        self.switched.append(f"{body['new_role']}: {said['message']}")
        if self.faults.pop("lose answer", ""):
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(said, status=200 if said["success"] else 400)

    async def _switch(self, body: dict[str, Any]) -> dict[str, Any]:
        role, prepare = body["new_role"], bool(body.get("prepare_only"))

        def no(message: str, *, safe: bool) -> dict[str, Any]:
            return self._said(role, message, success=False, safe=safe)

        if not self.switches:
            return no("--enable-pd-role-switch is not set on this server", safe=True)
        if self.unhealthy:
            return no("instance is unhealthy after a failed role switch; restart required", safe=False)
        if role not in ROLES:
            return no(f"invalid new_role={role!r}", safe=True)
        if role == self.role:
            return self._said(role, "already in target role", success=True)
        if self.running or (not prepare and self.faults.pop("one more request", "")):
            return no("instance is not idle; drain all requests before switching", safe=True)
        if role == "decode" and self.graph_gb is None:
            needed = body.get("decode_cuda_graph_memory_gb")
            if needed is None:
                return no("decode_cuda_graph_memory_gb is required before capturing decode graphs", safe=True)
            if needed > self.headroom_gb:
                return no(
                    f"insufficient decode CUDA graph headroom: required={needed:.3f} GB, "
                    f"available={self.headroom_gb:.3f} GB",
                    safe=True,
                )
        if prepare:
            return self._said(role, "ready", success=True, safe=True)
        return await self._rebuild(role, body)

    async def _rebuild(self, role: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.faults.pop("say so and do nothing", ""):
            return self._said(role, "ok", success=True)
        self.switching = True
        await work(self.switch_s)
        self.switching = False
        if self.faults.pop("fail rebuild", ""):
            self.unhealthy = True
            why = "role switch failed; instance unhealthy, restart required: out of memory"
            return self._said(role, why, success=False)
        if role == "decode" and self.graph_gb is None:
            self.graph_gb = body["decode_cuda_graph_memory_gb"]
        self.role = role
        return self._said(role, "ok", success=True)

    def _said(self, role: str, message: str, *, success: bool, safe: bool = False) -> dict[str, Any]:
        return {
            "success": success,
            "message": message,
            "old_role": self.role,
            "new_role": role,
            "safe_to_restore": safe,
        }

    # ---- what it shows ----

    async def info(self, request: web.Request) -> web.Response:
        async with self.served:
            state = {
                "disaggregation_mode": self.faults.get("say role", self.role),
                "decode_cuda_graph_bs": [1, 2, 4] if self.graph_gb is not None else None,
                "decode_cuda_graph_memory_gb": self.graph_gb or 0.0,
                "enable_pd_role_switch": self.switches,
                "startup_time": {"total": self.started_s},
            }
        return web.json_response(
            {
                "model_path": self.model,
                "tokenizer_path": self.model,
                "served_model_name": MODEL,
                "disaggregation_mode": "as launched",
                "disaggregation_bootstrap_port": self.bootstrap_port,
                "version": "0.5.23",
                "tp_size": 1,
                "dp_size": 1,
                "internal_states": [state],
            }
        )

    async def loads(self, request: web.Request) -> web.Response:
        mine = {"prefill_inflight_queue_reqs": self.owing, "mode": self.role}
        running = 0 if self.faults.get("hide load") else self.running - self.owing
        load = {"dp_rank": 0, "num_running_reqs": running, "num_waiting_reqs": 0, "disaggregation": mine}
        return web.json_response({"version": "0.5.23", "loads": [load]})

    async def metrics(self, request: web.Request) -> web.Response:
        labels = 'engine_type="dynamic",model_name="tiny",dp_rank="0"'
        rows = {
            "sglang:num_running_reqs": self.running,
            "sglang:num_queue_reqs": 0,
            "sglang:token_usage": 0.0,
            "sglang:num_requests_total": self.finished,
        }
        text = "".join(f"{name}{{{labels}}} {value}\n" for name, value in rows.items())
        return web.Response(text=text, content_type="text/plain")

    async def model_info(self, request: web.Request) -> web.Response:
        return web.json_response({"model_path": self.model, "tokenizer_path": self.model, "is_generation": True})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    # ---- the test's own ----

    async def said(self, request: web.Request) -> web.Response:
        """GET: everything that it counted. POST: a fault to plant."""
        if request.method == "POST":
            self.faults.update(await request.json())
        told = {"role": self.role, "held": self.running, "finished": self.finished}
        return web.json_response({**told, "refused": self.refused, "switched": self.switched, "faults": self.faults})

    # ---- inside ----

    def app(self) -> web.Application:
        @web.middleware
        async def checked(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            free = request.path.startswith(("/health", "/metrics", "/test"))
            if self.key and not free and request.headers.get("Authorization") != f"Bearer {self.key}":
                return web.json_response({"error": "Unauthorized"}, status=401)
            return await handler(request)

        app = web.Application(middlewares=[checked])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/pd_role_switch", self.switch)
        for path in ("/server_info", "/get_server_info"):
            app.router.add_get(path, self.info)
        for path in ("/model_info", "/get_model_info"):
            app.router.add_get(path, self.model_info)
        app.router.add_get("/v1/loads", self.loads)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/health", self.health)
        app.router.add_route("*", "/test", self.said)
        return app


_HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}


async def work(work_s: float) -> None:
    """What a GPU would do for so long."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(work_s, over.set)
    await over.wait()


def _chunk(delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({**_HEAD, 'choices': [choice]})}\n\n".encode()


def _whole(role: str, tokens: int) -> dict[str, Any]:
    words = " ".join(f"t{token}" for token in range(tokens))
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens}
    return {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}


async def serve(engine: MockSglang, port: int, stopping: asyncio.Event) -> None:
    """On loopback, until told to stop."""
    # Routers look whether it speaks gRPC, which aiohttp would write a page about each time.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    bootstrap = web.Application()
    bootstrap.router.add_get("/pull/{room}", engine.pull)
    runners = [web.AppRunner(app, access_log=None) for app in (engine.app(), bootstrap)]
    try:
        for runner, at in zip(runners, (port, engine.bootstrap_port), strict=True):
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", at).start()
        await stopping.wait()
    finally:
        for runner in runners:
            await runner.cleanup()


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--role", choices=ROLES, required=True)
    options.add_argument("--bootstrap-port", type=int, required=True)
    options.add_argument("--model", required=True)
    given = options.parse_args()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    graph_gb = 1.5 if given.role == "decode" else None
    await serve(MockSglang(given.role, given.bootstrap_port, given.model, graph_gb=graph_gb), given.port, stopping)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
