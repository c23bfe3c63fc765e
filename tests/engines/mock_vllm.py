"""A vLLM engine as its HTTP side shows itself: metrics, and /v1/pd_role to the letter of the RFC and its pull request.

What a test may set: `has_role` (else the route answers 404), `leaves` (what becomes of a change: "commits",
"times out", "is uncertain"), `lose` (answers to POST that never come, though it acts), `others_first` (another
controller's change is under way), `key` (an API key that it wants).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

MODEL = "tiny"


class MockVllm:
    """One engine."""

    def __init__(self, role: str = "prefill", *, has_role: bool = False, key: str = "", model: str = MODEL) -> None:
        self.role, self.has_role, self.key, self.model = role, has_role, key, model
        self.epoch, self.phase = 0, "ready"
        self.target: str | None = None
        self.error: str | None = None
        self.active = 0  # requests that it has accepted
        self.waiting = self.running = 0
        self.kv_used = 0.0
        self.leaves, self.lose = "commits", 0
        self.steps_s = 0.03  # from step to step of a change
        self.posts: list[dict[str, Any]] = []
        self.answered: list[tuple[str, int]] = []  # role at the time, status
        self.url = ""
        self._tasks: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def served(self) -> AsyncIterator["MockVllm"]:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        for path in ("/server_info", "/get_server_info", "/model_info", "/get_model_info"):
            app.router.add_get(path, self._info)
        app.router.add_get("/v1/pd_role", self._get_role)
        app.router.add_post("/v1/pd_role", self._post_role)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with asyncio.TaskGroup() as self._tasks:
                yield self
        finally:
            await runner.cleanup()

    # ---- what every server has ----

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        self._check_key(request)
        return web.json_response({"version": "0.32.0"})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]})

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"model_path": self.model, "tokenizer_path": self.model, "served_model_name": MODEL, "is_generation": True}
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        label = f'{{engine="0",model_name="{MODEL}"}}'
        lines = [
            f"vllm:num_requests_waiting{label} {self.waiting}",
            f"vllm:num_requests_running{label} {self.running + self.active}",
            f"vllm:kv_cache_usage_perc{label} {self.kv_used}",
            f"vllm:nixl_bytes_transferred_count{label} 0",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _complete(self, request: web.Request) -> web.Response:
        if self.has_role:
            fence = (request.headers.get("x-vllm-pd-role"), request.headers.get("x-vllm-pd-epoch"))
            if self.phase != "ready" or fence != (self.role, str(self.epoch)):
                return web.json_response({"error": "P/D admission rejected", **self._status()}, status=409)
        self.active += 1
        try:
            await lasting(0.05)
        finally:
            self.active -= 1
        text = {"index": 0, "message": {"role": "assistant", "content": "x"}, "text": "x", "finish_reason": "length"}
        self.answered.append((self.role, 200))
        return web.json_response({"id": "1", "object": "chat.completion", "model": MODEL, "choices": [text]})

    def _check_key(self, request: web.Request) -> None:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized(text='{"error":"Unauthorized"}', content_type="application/json")

    # ---- the role ----

    def _status(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "epoch": self.epoch,
            "phase": self.phase,
            "target_role": self.target,
            "active_requests": self.active,
            "error": self.error,
            "transition_seconds": None,
        }

    async def _get_role(self, request: web.Request) -> web.Response:
        self._check_key(request)
        if not self.has_role:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response(self._status())

    async def _post_role(self, request: web.Request) -> web.StreamResponse:
        self._check_key(request)
        if not self.has_role:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        self.posts.append(body)
        role, epoch = body["role"], body["expected_epoch"]
        if self.phase != "ready":
            return _conflict("A role transition is already in progress or failed")
        if not (self.role == role and epoch in (self.epoch, self.epoch - 1)):
            if epoch != self.epoch:
                return _conflict("Stale role epoch")
            self.begin(role, body["drain_timeout"])
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self._status(), status=202)

    def begin(self, role: str, drain_s: float) -> None:
        """A change, on order or by another hand."""
        assert self._tasks is not None
        self.phase, self.target, self.error = "draining", role, None
        self._tasks.create_task(self._change(role, drain_s))

    async def _change(self, role: str, drain_s: float) -> None:
        try:
            async with asyncio.timeout(drain_s):
                while self.active or self.leaves == "times out":
                    await lasting(self.steps_s)
                self.phase = "preparing"
                await lasting(self.steps_s)
        except TimeoutError:
            self.error, self.phase = "TimeoutError: ", "rolling_back"
            await lasting(self.steps_s)
            self.phase = "ready"
            return
        self.phase = "committing"
        await lasting(self.steps_s)
        if self.leaves == "is uncertain":
            self.error, self.phase = "RuntimeError: Engine ranks disagree on the serving role or epoch", "failed"
            return
        self.role, self.epoch, self.phase = role, self.epoch + 1, "ready"


def _conflict(detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=409)


async def lasting(for_s: float) -> None:
    """What takes a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await asyncio.Event().wait()
