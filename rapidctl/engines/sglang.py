"""SGLang engines behind sglang-router: out of its pools, drained, switched live, and into the other pool.

    close    DELETE /workers/{id} at the router, until it lists the worker no more
    drained  GET /v1/loads at the engine, and when that is zero, its own word that it would switch (prepare_only)
    switch   POST /pd_role_switch at the engine, which does it only when idle
    open     POST /workers at the router, until it lists the worker healthy, in the role that the engine says it has

Weights and the KV pool stay; the engine drops its prefix cache.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import RapidError
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.engine import Seen
from rapidctl.engines.base import Kind, Place, Say
from rapidctl.engines.claim import Claim
from rapidctl.engines.http import CallFailed, Endpoint, Peer, opened
from rapidctl.engines.meter import Meter
from rapidctl.engines.sglang_engine import Info, SglangEngine
from rapidctl.engines.stray import Stray
from rapidctl.engines.workers import TYPES, Worker, Workers

SWITCH_S = 1.0  # assumed: nothing is published; see docs/engines.md
BOTH = (Role.PREFILL, Role.DECODE)
EXAMPLES = """\
rapidctl attach sglang --instance p0 --node h1 --gpu GPU-1b2c... \\
    --engine-url http://127.0.0.1:30000 --worker-url http://10.0.0.1:30000 \\
    --router-url http://10.0.0.9:8000
rapidctl attach sglang ... --check      # look first
rapidctl attach --config /etc/rapid/attach-p0.toml

# attach-p0.toml
kind = "sglang"
instance = "p0"
node = "h1"
gpus = ["GPU-1b2c..."]
address = "10.0.0.9:7600"
[tls]
ca = "tls/ca.crt"
cert = "tls/h1.crt"
key = "tls/h1.key"
[sglang]
engine_url = "http://127.0.0.1:30000"
router_url = "http://10.0.0.9:8000"
worker_url = "http://10.0.0.1:30000\""""
ABOUT = """Put an SGLang engine behind sglang-router under RAPID's care.

The engine must have been started with --enable-pd-role-switch, and with the mooncake or mori transfer backend. The
adapter takes it out of the router's pool, waits until it holds no request, has it change role in place, and puts it
into the other pool. It also puts it back when the router has forgotten it.
"""


class Options(Struct, frozen=True, kw_only=True):
    """What an SGLang adapter is told."""

    router_url: Annotated[str, Meta(description="Where the router answers: http://127.0.0.1:8000.")]
    engine_url: Annotated[str, Meta(description="Where the engine answers: http://127.0.0.1:30000.")]
    worker_url: Annotated[str, Meta(description="The engine as the router reaches it, if not by --engine-url.")] = ""
    bootstrap_port: Annotated[int | None, Meta(description="Its bootstrap port, if it does not say itself.")] = None
    graph_memory_gb: Annotated[
        float | None, Meta(description="What decode graphs need; left out: a decode engine of the router is asked.")
    ] = None
    router_token_file: Annotated[Path | None, Meta(description="Holds the key that the router wants.")] = None
    router_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None
    engine_token_file: Annotated[Path | None, Meta(description="Holds the key that the engine wants.")] = None
    engine_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None


class SglangAdapter:
    """One engine, and the router that sends it requests. `more` goes along with every worker that is added."""

    def __init__(
        self, place: Place, options: Options, router: Peer, engine: Peer, say: Say, *, behind: str, more: dict[str, Any]
    ) -> None:
        self._name, self._options, self._behind, self._more = place.instance, options, behind, more
        self._engine = SglangEngine(engine)
        self.workers = Workers(router, options.worker_url or options.engine_url)
        self._role = place.role or Role.PREFILL
        self._bootstrap_port = options.bootstrap_port
        self._stray = Stray(engine, router)
        self.claim = Claim(place.instance, f"the engine at {self.workers.url}")
        self.meter = Meter(place, engine, "sglang", lambda: self._role, say)
        self.product = f"SGLang behind {behind}"
        self.roles: Sequence[Role] = BOTH
        self.switch_s = SWITCH_S

    # ---- what `attach` asks for ----

    async def begin(self) -> Role:
        self.claim.take()
        info = await self._engine.info("begin")
        self.product = f"SGLang {info.version} behind {self._behind}"
        role = self._told("begin", info)
        if not info.switches:
            self.roles = (role,)
        await self.open(role)
        return role

    async def findings(self) -> list[Finding]:
        found = []
        role: Role | None = None
        try:
            info = await self._engine.info("check")
            role = self._told("check", info)
            found.append(green("engine", f"SGLang {info.version} answers, its live role is {role.value}"))
            if not info.switches:
                todo = "start it with --enable-pd-role-switch; until then it stays in this role"
                found.append(yellow("role", "it cannot change its role", todo))
        except CallFailed as error:
            found.append(red("engine", error.what, error.todo or "look into its log"))
        except RapidError as error:
            found.append(red("engine", str(error), "start it as it says"))
        return [*found, *await pool_findings(self.workers, role), await self.meter.finding()]

    # ---- what rapid.engine asks for ----

    async def close(self) -> None:
        await self.workers.remove("close")
        await self._stray.closed()

    async def drained(self) -> int:
        left = await self._engine.left(_other(self._role))
        if left:
            await self._stray.look(left)
        return left

    async def switch(self, role: Role) -> None:
        await self._engine.switch(role, await self._hints(role))
        self._role = role

    async def open(self, role: Role) -> None:
        info = await self._engine.info("open")
        live = self._told("open", info)
        if live is not role:
            raise RapidError(
                f"{self._name}: open: the engine has role {live.value}, so it is not opened as {role.value}"
            )
        await self.workers.add("open", role, self._spec(role, info))
        # The router asks a worker until it is well, and by then this may be another life of it, as it was launched.
        if (live := self._told("open", await self._engine.info("open"))) is not role:
            await self.workers.remove("open")
            raise RapidError(f"{self._name}: open: meanwhile the engine was started anew, as {live.value}")
        self._role = role

    async def live_role(self) -> Role | None:
        return (await self._engine.info("read role")).role

    async def others(self) -> int | None:
        return await self.workers.others("order", self._role)

    async def look_around(self) -> Seen:
        listed, healthy, problem = await look_at(self.workers)
        try:
            info = await self._engine.info("look")
        except CallFailed as error:
            # One that answers something, or late, is there; so is one whose answer got lost.
            return Seen(listed, healthy, up=error.sent or bool(error.status), problem=str(error))
        return Seen(listed, healthy, live=info.role, life=info.life, problem=problem)

    def load(self) -> PhaseLoad:
        return self.meter.load

    # ---- inside ----

    def _told(self, step: str, info: Info) -> Role:
        """The role that the engine says it has. Raises RapidError."""
        if info.role in BOTH:
            assert info.role is not None
            return info.role
        modes = [state.disaggregation_mode for state in info.internal_states]
        where = f"{self._name}: {step}: the engine at {self._options.engine_url}"
        if info.role is Role.MIXED:
            raise RapidError(f"{where} has no role; start it with --disaggregation-mode prefill or decode")
        raise RapidError(f"{where} does not say one role but {modes}; live roles need SGLang 0.5.23 or later")

    def _spec(self, role: Role, info: Info) -> dict[str, Any]:
        port = self._bootstrap_port or info.disaggregation_bootstrap_port
        if role is Role.PREFILL and port is None:
            raise RapidError(f"{self._name}: open: the engine does not say its bootstrap port; say --bootstrap-port")
        bootstrap = {"bootstrap_port": port} if role is Role.PREFILL else {}
        return {"url": self.workers.url, "worker_type": TYPES[role], **bootstrap, **self._more}

    async def _hints(self, role: Role) -> dict[str, Any]:
        """What a switch to decode needs for its graphs, where the engine has none yet."""
        if role is not Role.DECODE:
            return {}
        if self._options.graph_memory_gb is not None:
            return {"decode_cuda_graph_memory_gb": self._options.graph_memory_gb}
        with contextlib.suppress(CallFailed):
            if (await self._engine.info("switch")).has_graphs:
                return {}
            for worker in await self.workers.all("switch"):
                if worker.role is Role.DECODE and (hints := await self._of_peer(worker)):
                    return hints
        return {}  # the engine itself says what it misses

    async def _of_peer(self, worker: Worker) -> dict[str, Any]:
        """What the graphs of a decode engine take."""
        peer = self._engine.peer.at(worker.url)
        with contextlib.suppress(CallFailed):
            for state in (await SglangEngine(peer).info("switch")).internal_states:
                if state.decode_cuda_graph_bs and state.decode_cuda_graph_memory_gb is not None:
                    memory_gb, sizes = state.decode_cuda_graph_memory_gb, state.decode_cuda_graph_bs
                    return {"decode_cuda_graph_memory_gb": memory_gb, "decode_cuda_graph_bs": sizes}
        return {}


async def look_at(workers: Workers) -> tuple[tuple[Role, ...] | None, bool, str]:
    """Where the router lists our worker, whether healthy, and why that cannot be told."""
    try:
        mine = [one for one in await workers.mine("look") if not one.taken_out]
    except CallFailed as error:
        return None, True, str(error)
    return tuple(one.role or Role.MIXED for one in mine), all(one.is_healthy for one in mine), ""


async def pool_findings(workers: Workers, role: Role | None) -> list[Finding]:
    """What a look at the router shows of our worker, whose role should be this one (None: not known)."""
    router = workers.router.endpoint.url
    try:
        everybody, mine = len(await workers.all("check")), await workers.mine("check")
    except CallFailed as error:
        return [red("router", error.what, error.todo or "look into its log")]
    found = [green("router", f"answers at {router} and lists {everybody} workers")]
    listed = ", ".join(f"{one.worker_type}{'' if one.is_healthy else ' (not healthy)'}" for one in mine)
    if not mine:
        todo = "attaching puts it in; if it is there under another URL, say --worker-url"
        return [*found, yellow("worker", f"{workers.url} is not listed", todo)]
    if len(mine) > 1:
        todo = "attaching leaves one; see that no other adapter claims it"
        return [*found, red("worker", f"{workers.url} is listed {len(mine)} times: {listed}", todo)]
    if role is not None and mine[0].role is not role:
        todo = "attaching puts it where it belongs; see who put it there"
        return [*found, red("worker", f"{workers.url} is listed as {listed}, and the engine is {role.value}", todo)]
    if not mine[0].is_healthy:
        return [
            *found,
            yellow("worker", f"{workers.url} is listed as {listed}", "see that the router reaches it there"),
        ]
    return [*found, green("worker", f"{workers.url} is listed once, as {listed}")]


@asynccontextmanager
async def open_sglang(
    place: Place, options: Options, say: Say, *, behind: str, more: dict[str, Any]
) -> AsyncIterator[SglangAdapter]:
    """An adapter, at work on the engine's metrics as long as it is open."""
    router = Endpoint("router", options.router_url, options.router_token_file, options.router_ca)
    engine = Endpoint("engine", options.engine_url, options.engine_token_file, options.engine_ca)
    async with opened(place.instance, router, engine) as (routing, serving), asyncio.TaskGroup() as tasks:
        adapter = SglangAdapter(place, options, routing, serving, say, behind=behind, more=more)
        metering = tasks.create_task(adapter.meter.run())
        try:
            yield adapter
        finally:
            metering.cancel()
            adapter.claim.close()


@asynccontextmanager
async def open_adapter(place: Place, options: Options, say: Say) -> AsyncIterator[SglangAdapter]:
    """As rapidctl.engines.base.Kind says."""
    async with open_sglang(place, options, say, behind="sglang-router", more={}) as adapter:
        yield adapter


def _other(role: Role) -> Role:
    return Role.DECODE if role is Role.PREFILL else Role.PREFILL


KIND = Kind("sglang", Options, open_adapter, ABOUT, EXAMPLES)
