"""Workers behind smg: SGLang engines as behind sglang-router, and engines that serve either role at any time.

SGLang (`--engine sglang`) must be drained before it changes role, so it is taken out of smg's list and put in again, as
rapidctl.engines.sglang says. smg keeps a worker that leaves for 5 s unless it was told otherwise, so it is told.

Any other (`--engine any`, such as vLLM with kv_both) has the role of the pool that it is in:

    switch   PUT /workers/{id} with the worker in the other role: it gets the new role's requests at once, while those
             of the old one go on to their end
    open     smg's list shows it there, healthy
    close    DELETE /workers/{id}: only to park it, and to put right what is wrong

Workers may be reached by HTTP or gRPC (grpc://); smg finds out what they are.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.core.findings.base import Finding
from rapid.engine import NotSwitched, Seen
from rapidctl.engines import sglang
from rapidctl.engines.base import Adapter, Kind, Place, Say
from rapidctl.engines.claim import Claim
from rapidctl.engines.http import CallFailed, Endpoint, Peer, opened
from rapidctl.engines.meter import Meter
from rapidctl.engines.workers import TYPES, Workers

SWITCH_S = 0.02  # measured: 5 to 9 ms for a PUT to show (bench.engines)
NO_SETTLE = {"health": {"drain_settle_secs": 0}}  # the drain is ours to watch
EXAMPLES = """\
rapidctl attach smg --instance p0 --node h1 --gpu GPU-1b2c... \\
    --router-url http://10.0.0.9:8000 --engine-url http://10.0.0.1:30000
rapidctl attach smg --instance v0 --node h2 --gpu GPU-9f8e... --engine any \\
    --router-url http://10.0.0.9:8000 --worker-url grpc://10.0.0.2:50051 \\
    --engine-url http://10.0.0.2:8000 --metrics vllm
rapidctl attach smg ... --check      # look first"""
ABOUT = """Put a worker of smg under RAPID's care.

With --engine sglang the engine changes its role in place, and must be drained before. With --engine any it serves
either role at any time, as vLLM does with kv_both, and smg moves it from pool to pool in one step.
"""


class Options(Struct, frozen=True, kw_only=True):
    """What an smg adapter is told."""

    router_url: Annotated[str, Meta(description="Where smg answers: http://127.0.0.1:8000.")]
    engine: Annotated[
        Literal["sglang", "any"], Meta(description="sglang changes its role in place; any serves either at any time.")
    ] = "sglang"
    engine_url: Annotated[str, Meta(description="The engine's HTTP server; any needs it for metrics alone.")] = ""
    worker_url: Annotated[str, Meta(description="The engine as smg reaches it, if not by --engine-url.")] = ""
    metrics: Annotated[
        Literal["", "vllm", "sglang"], Meta(description="Whose metrics --engine-url shows, for any.")
    ] = ""
    bootstrap_port: Annotated[int | None, Meta(description="Its bootstrap port, if it does not say itself.")] = None
    graph_memory_gb: Annotated[
        float | None, Meta(description="What decode graphs need; left out: a decode engine of the router is asked.")
    ] = None
    router_token_file: Annotated[Path | None, Meta(description="Holds the key that smg wants.")] = None
    router_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None
    engine_token_file: Annotated[Path | None, Meta(description="Holds the key that the engine wants.")] = None
    engine_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None


class MovedAdapter:
    """An engine that has the role of its pool. `engine` None: nothing but smg tells anything of it."""

    def __init__(self, place: Place, options: Options, router: Peer, engine: Peer | None, say: Say) -> None:
        self._name, self._options = place.instance, options
        self._workers = Workers(router, options.worker_url or options.engine_url)
        self._engine = engine
        self._role = place.role or Role.PREFILL
        self._configured = place.role
        self.claim = Claim(place.instance, f"the engine at {self._workers.url}")
        self.meter: Meter | None = None
        if engine is not None and options.metrics:
            self.meter = Meter(place, engine, options.metrics, lambda: self._role, say)
        self.product = "a worker of smg"
        self.roles: Sequence[Role] = sglang.BOTH
        self.switch_s = SWITCH_S

    # ---- what `attach` asks for ----

    async def begin(self) -> Role:
        self.claim.take()
        mine = [one for one in await self._workers.mine("begin") if not one.taken_out]
        listed = [one.role for one in mine if one.role in self.roles]
        role = listed[0] if listed else self._configured
        if role is None:
            raise RapidError(f"{self._name}: begin: smg does not list {self._workers.url}, so say its --role")
        if mine:
            self.product = f"{mine[0].runtime_type or 'a worker'} behind smg"
        await self.open(role)
        return role

    async def findings(self) -> list[Finding]:
        found = await sglang.pool_findings(self._workers, None)
        return [*found, await self.meter.finding()] if self.meter else found

    # ---- what rapid.engine asks for ----

    async def close(self) -> None:
        await self._workers.remove("close")

    async def drained(self) -> int:
        if self.meter is None:
            return len(await self._workers.mine("drain"))
        return await self.meter.held("drain")

    def serves_on(self) -> bool:
        return True

    async def switch(self, role: Role) -> None:
        mine = [one for one in await self._workers.mine("switch") if not one.taken_out]
        if len(mine) > 1:
            raise NotSwitched(f"{self._name}: switch: smg lists {self._workers.url} {len(mine)} times")
        if mine:
            await self._workers.replace("switch", mine[0], role, self._spec(role))
        self._role = role  # one that is listed nowhere, as when it was parked, gets its role when it is opened

    async def open(self, role: Role) -> None:
        await self._workers.add("open", role, self._spec(role))
        self._role = role

    async def live_role(self) -> Role | None:
        mine = [one for one in await self._workers.mine("read role") if not one.taken_out]
        return mine[0].role if len(mine) == 1 else self._role if not mine else None

    async def others(self) -> int | None:
        return await self._workers.others("order", self._role)

    async def look_around(self) -> Seen:
        listed, healthy, problem = await sglang.look_at(self._workers)
        if self._engine is not None:
            try:
                await self._engine.get("look", "/health")
            except CallFailed as error:
                return Seen(listed, healthy, up=error.sent or bool(error.status), problem=str(error))
        live = listed[0] if listed is not None and len(listed) == 1 else self._role
        return Seen(listed, healthy, live=live, problem=problem)

    def load(self) -> PhaseLoad:
        return self.meter.load if self.meter else PhaseLoad(self._name, self._role, 0.0)

    # ---- inside ----

    def _spec(self, role: Role) -> dict[str, Any]:
        port = self._options.bootstrap_port
        bootstrap = {"bootstrap_port": port} if port is not None and role is Role.PREFILL else {}
        return {"url": self._workers.url, "worker_type": TYPES[role], **bootstrap, **NO_SETTLE}


@asynccontextmanager
async def open_adapter(place: Place, options: Options, say: Say) -> AsyncIterator[Adapter]:
    """As rapidctl.engines.base.Kind says."""
    if options.engine == "sglang":
        async with sglang.open_sglang(place, _as_sglang(options), say, behind="smg", more=NO_SETTLE) as adapter:
            yield adapter
        return
    if not (options.worker_url or options.engine_url):
        raise ConfigInvalid("worker_url", "is missing: the engine as smg reaches it")
    if options.metrics and not options.engine_url:
        raise ConfigInvalid("engine_url", f"is missing: where the metrics of {options.metrics} are")
    endpoints = [Endpoint("router", options.router_url, options.router_token_file, options.router_ca)]
    if options.engine_url:
        endpoints.append(Endpoint("engine", options.engine_url, options.engine_token_file, options.engine_ca))
    async with opened(place.instance, *endpoints) as (router, *engines), asyncio.TaskGroup() as tasks:
        moved = MovedAdapter(place, options, router, engines[0] if engines else None, say)
        metering = tasks.create_task(moved.meter.run()) if moved.meter else None
        try:
            yield moved
        finally:
            moved.claim.close()
            if metering is not None:
                metering.cancel()


def _as_sglang(options: Options) -> sglang.Options:
    if not options.engine_url:
        raise ConfigInvalid("engine_url", "is missing: where the engine answers, http://127.0.0.1:30000")
    return sglang.Options(
        router_url=options.router_url,
        engine_url=options.engine_url,
        worker_url=options.worker_url,
        bootstrap_port=options.bootstrap_port,
        graph_memory_gb=options.graph_memory_gb,
        router_token_file=options.router_token_file,
        router_ca=options.router_ca,
        engine_token_file=options.engine_token_file,
        engine_ca=options.engine_ca,
    )


KIND = Kind("smg", Options, open_adapter, ABOUT, EXAMPLES)
