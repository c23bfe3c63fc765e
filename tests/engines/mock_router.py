"""A router as far as an adapter can tell: the list of workers of sglang-router 0.3.2, or of smg 1.13.0, with faults."""

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class MockRouter:
    """`smg` says which of the two it is. Whoever is added is healthy at once.

    faults  "ignore add", "ignore remove", "ignore replace": a 202 and nothing else. "lose add", "lose remove",
            "lose replace": it does what it is told, and hangs up, once. A status ("503"): answered to everything
    key     that callers must bring; empty: none
    """

    smg: bool = False
    key: str = ""
    faults: set[str] = field(default_factory=set)
    workers: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # all but the looks
    added: int = 0

    def put(self, url: str, role: str, *, healthy: bool = True, **more: Any) -> None:
        """As if somebody else had added it."""
        self.added += 1
        entry = {"id": f"w{self.added}", "url": url, "worker_type": role, "is_healthy": healthy}
        self.workers.append({**entry, **more})

    def roles(self, url: str) -> list[str]:
        """Where this one is listed."""
        return [worker["worker_type"] for worker in self.workers if worker["url"] == url]

    # ---- its routes ----

    async def list_all(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"workers": self.workers, "total": len(self.workers)})

    async def look(self, request: web.Request) -> web.StreamResponse:
        found = next((one for one in self.workers if one["id"] == request.match_info["id"]), None)
        if found is None:
            return web.json_response({"error": "not found"}, status=404)
        job = {"status": "failed", "message": "Worker already exists"} if "ignore add" in self.faults else None
        return web.json_response({**found, "job_status": job})

    async def add(self, request: web.Request) -> web.StreamResponse:
        spec = await request.json()
        self.calls.append(f"add {spec['worker_type']}")
        if "ignore add" not in self.faults:
            if self.roles(spec["url"]):
                return web.json_response({"error": "Worker already exists"}, status=409 if self.smg else 202)
            self.put(spec["url"], spec["worker_type"], **{key: spec[key] for key in spec if key == "bootstrap_port"})
        return self._taken(request, "add")

    async def remove(self, request: web.Request) -> web.StreamResponse:
        self.calls.append("remove")
        if "ignore remove" not in self.faults:
            self.workers = [one for one in self.workers if one["id"] != request.match_info["id"]]
        return self._taken(request, "remove")

    async def replace(self, request: web.Request) -> web.StreamResponse:
        spec = await request.json()
        self.calls.append(f"replace {spec['worker_type']}")
        if self.smg and "ignore replace" not in self.faults:
            for worker in self.workers:
                if worker["id"] == request.match_info["id"]:
                    worker["worker_type"] = spec["worker_type"]
        return self._taken(request, "replace")

    def app(self) -> web.Application:
        @web.middleware
        async def checked(request: web.Request, handler: Any) -> web.StreamResponse:
            if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
                return web.json_response({"error": "invalid API key"}, status=401)
            if status := next((fault for fault in self.faults if fault.isdigit()), ""):
                return web.json_response({"error": "a fault of the test"}, status=int(status))
            answer: web.StreamResponse = await handler(request)
            return answer

        app = web.Application(middlewares=[checked])
        app.router.add_get("/workers", self.list_all)
        app.router.add_get("/workers/{id}", self.look)
        app.router.add_post("/workers", self.add)
        app.router.add_put("/workers/{id}", self.replace)
        app.router.add_delete("/workers/{id}", self.remove)
        return app

    # ---- inside ----

    def _taken(self, request: web.Request, what: str) -> web.StreamResponse:
        if f"lose {what}" in self.faults:
            self.faults.discard(f"lose {what}")
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"status": "accepted"}, status=202)
