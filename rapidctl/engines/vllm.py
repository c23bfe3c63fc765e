"""vLLM: moved between the pools of smg (`kv_both`), or told its role where it has one (/v1/pd_role).

An engine of 0.32 has no role: with NIXL and `kv_both` each request says which half of it is asked for, so its role is
the pool of the router that it is in. One with pd_role (an open pull request) has a role of its own, and takes no
request of another. Which of the two it is is asked, never assumed: an engine without the route answers 404, and that
is not a fast switch.

    step      kv_both                                  pd_role
    close     only to park: out of the router's list   out of the router's list, if there is a router
    drained   only to park: no request waits or runs,  no request that it has accepted is left; what it owes to
              and no KV is owed to a peer              peers it waits for itself, in the switch
    switch    into the router's other pool, in one     POST, then its state until it is at rest
              step, seen in its list
    open      into the router's list, if not there     the same

With kv_both requests of the old role run to their end while those of the new one come in, so nothing is closed and
nothing waits: smg does that in one PUT. sglang-router leaves the role as it is, which is seen.

What is owed to a peer: a prefill engine keeps the KV of a request that is finished until decode has pulled it, and
frees it when its lease (30 s) is over. vLLM shows no count of those, only how much of its KV cache is in use.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rapid.config.units import Seconds
from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ConfigInvalid, RapidError, ScrapeFailed
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.engine import Seen, SwitchFailed
from rapid.pages.page import Page, Picker
from rapidctl.engines.base import Kind, Place, Say
from rapidctl.engines.http import CallFailed, Endpoint, Peer, opened
from rapidctl.engines.meter import Meter
from rapidctl.engines.pd_role import FAILED, PdRole
from rapidctl.engines.workers import TYPES, Worker, Workers

WAITING, RUNNING, KV_USED = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"
MOVED = "vllm:nixl_bytes_transferred_count"
SWITCH_S = 0.02  # both ways; what takes time is the drain
DRAIN_S = 100.0  # for what pd_role waits for itself, below what rapid.engine grants a switch
_PICKER = Picker((WAITING, RUNNING, KV_USED, MOVED))
NO_ROLE = (
    "it has no role of its own (no /v1/pd_role), so only a router can give it one: say --router-url, of an smg, "
    "or start it with pd_role"
)


class Options(Struct, frozen=True, kw_only=True):
    """What `rapidctl attach vllm` must be told."""

    engine_url: Annotated[str, Meta(description="Its HTTP server, for metrics and role: http://127.0.0.1:8000.")]
    worker_url: Annotated[str, Meta(description="As the router reaches it, if not so: grpc://127.0.0.1:50051.")] = ""
    router_url: Annotated[str, Meta(description="Where smg answers. Left out: the engine must have pd_role.")] = ""
    engine_token_file: Annotated[Path | None, Meta(description="Holds the key that the engine wants.")] = None
    engine_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None
    router_token_file: Annotated[Path | None, Meta(description="Holds the key that the router wants.")] = None
    router_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None
    kv_lease_s: Annotated[Seconds, Meta(description="How long the engine keeps KV that a peer has yet to pull.")] = (
        msgspec.field(name="kv_lease", default=Seconds(30))
    )


class VllmAdapter:
    """One engine, and the router that sends it requests."""

    def __init__(self, place: Place, options: Options, engine: Peer, router: Peer | None, say: Say) -> None:
        self._place, self._options, self._engine = place, options, engine
        self._role = place.role or Role.PREFILL
        self._workers = Workers(router, options.worker_url or options.engine_url) if router else None
        self._own = PdRole(engine)
        self._has_role = False  # of its own
        self._idle_s: float | None = None  # since when it holds KV and no request
        self.meter = Meter(place, engine, "vllm", lambda: self._role, say)
        self.product = "vLLM"

    # ---- what `attach` knows beside the steps ----

    @property
    def roles(self) -> Sequence[Role]:
        return (Role.PREFILL, Role.DECODE)

    @property
    def switch_s(self) -> float:
        return SWITCH_S

    async def begin(self) -> Role:
        self.product = f"vLLM {await self._version('begin')}".strip()
        self._role = await self._found()
        await self.open(self._role)
        return self._role

    async def findings(self) -> list[Finding]:
        found: list[Finding] = []
        try:
            role = await self._found()
        except RapidError as error:
            found.append(red("role", str(error), "see that engine and router run, and that their URLs are right"))
        else:
            whose = "its own" if self._has_role else "the router's pool"
            found.append(green("role", f"{role.value}, {whose}"))
            found += await self._routed(role)
        found.append(await self.meter.finding())
        with contextlib.suppress(CallFailed, ScrapeFailed):
            if not (await self._page("check")).has(MOVED):
                todo = 'start it with --kv-transfer-config, "kv_connector":"NixlConnector" and "kv_role":"kv_both"'
                found.append(yellow("transfer", "its metrics know no NIXL: can it send and receive KV?", todo))
        return found

    # ---- what rapid.engine asks for ----

    async def close(self) -> None:
        self._idle_s = None
        if self._workers is not None:
            await self._workers.remove("close")

    async def drained(self) -> int:
        if self._has_role:
            # Without a router requests go on coming until the engine itself takes no more, which the switch begins.
            return (await self._own.state("drain")).active_requests if self._workers is not None else 0
        page = await self._page("drain")
        left = page.requests(WAITING) + page.requests(RUNNING)
        if left or not page.fraction(KV_USED):
            self._idle_s = None
            return left
        now_s = time.monotonic()
        self._idle_s = now_s if self._idle_s is None else self._idle_s
        return 1 if now_s - self._idle_s < self._options.kv_lease_s else 0

    def serves_on(self) -> bool:
        return not self._has_role

    async def switch(self, role: Role) -> None:
        if self._has_role:
            await self._own.switch(role, DRAIN_S)
        elif (listed := await self._listed("switch")) is not None and listed.role is not role:
            assert self._workers is not None
            await self._workers.replace("switch", listed, role, self._spec(role))
        self._role = role

    async def open(self, role: Role) -> None:
        if self._workers is not None:
            await self._workers.add("open", role, self._spec(role))
        if self._has_role and (state := await self._own.state("open")).served is not role:
            raise RapidError(f"{self._place.instance}: open: the engine is {state.phase} as {state.role}")
        self._role = role

    async def live_role(self) -> Role | None:
        if not self._has_role:
            listed = await self._listed("read role")
            return self._role if listed is None else listed.role
        state = await self._own.state("read role")
        if state.phase == FAILED:
            why = state.error or "no reason given"
            raise SwitchFailed(f"{self._place.instance}: the engine has closed itself: {why}; restart it")
        return state.served

    async def others(self) -> int | None:
        return await self._workers.others("order", self._role) if self._workers is not None else None

    async def look_around(self) -> Seen:
        listed, healthy, live, problem = None, True, None, ""
        try:
            if self._workers is not None:
                mine = [one for one in await self._workers.mine("look") if not one.taken_out]
                listed = tuple(one.role or Role.MIXED for one in mine)
                healthy = all(one.is_healthy for one in mine)
        except RapidError as error:
            problem = str(error)
        try:
            if self._has_role:
                live = (await self._own.state("look")).served
            else:
                await self._engine.get("look", "/health")
        except CallFailed as error:
            return Seen(listed=listed, healthy=healthy, up=bool(error.status or error.sent), problem=str(error))
        return Seen(listed=listed, healthy=healthy, live=live, problem=problem)

    def load(self) -> PhaseLoad:
        return self.meter.load

    # ---- inside ----

    async def _found(self) -> Role:
        """The role that it has. Raises RapidError while that cannot be told."""
        try:
            state = await self._own.state("begin")
        except CallFailed as error:
            if error.status != 404:
                raise
            self._has_role = False
        else:
            self._has_role = True
            if state.served is None:
                why = f", {state.error}" if state.error else ""
                raise RapidError(f"{self._place.instance}: begin: the engine is {state.phase} as {state.role}{why}")
            return state.served
        if self._workers is None:
            raise RapidError(f"{self._place.instance}: begin: {NO_ROLE}")
        listed = await self._listed("begin")
        return self._role if listed is None or listed.role is None else listed.role

    async def _listed(self, step: str) -> Worker | None:
        """Where the router has it; None: nowhere."""
        mine = await self._workers.mine(step) if self._workers is not None else []
        return next((one for one in mine if not one.taken_out), None)

    async def _routed(self, role: Role) -> list[Finding]:
        if self._workers is None:
            return [yellow("router", "none is named: who sends requests must follow its role", "say --router-url")]
        try:
            mine = await self._workers.mine("check")
        except RapidError as error:
            return [red("router", str(error), "see that it runs, and that --router-url is right")]
        if [one.role for one in mine] == [role]:
            return [green("router", f"lists it as {role.value}")]
        seen = ", ".join(one.worker_type for one in mine) or "not at all"
        return [yellow("router", f"lists it {seen}", "nothing: attach puts that right")]

    async def _page(self, step: str) -> Page:
        page = Page(_PICKER)
        page.feed((await self._engine.get(step, "/metrics")).body)
        page.end()
        if not page.has(RUNNING):
            raise ScrapeFailed(f"{self._place.instance}: {step}: {self._engine.endpoint.url}/metrics has no {RUNNING}")
        return page

    async def _version(self, step: str) -> str:
        """Raises CallFailed: then nobody is there, or not vLLM."""
        said = (await self._engine.get(step, "/version", missing="is it a vLLM server?")).read(dict[str, Any])
        return str(said.get("version", ""))

    def _spec(self, role: Role) -> dict[str, Any]:
        assert self._workers is not None
        return {"url": self._workers.url, "worker_type": TYPES[role], "health": {"drain_settle_secs": 0}}


@asynccontextmanager
async def open_(place: Place, options: Options, say: Say) -> AsyncIterator[VllmAdapter]:
    """Raises ConfigInvalid."""
    engine = Endpoint("engine", options.engine_url, options.engine_token_file, options.engine_ca)
    router = Endpoint("router", options.router_url, options.router_token_file, options.router_ca)
    if place.role is Role.MIXED:
        raise ConfigInvalid("role", "is mixed; what attach drives is prefill or decode")
    if options.kv_lease_s <= 0:
        raise ConfigInvalid("kv_lease", "must be above 0 s")
    endpoints = (engine, router) if options.router_url else (engine,)
    raised: Exception | None = None
    async with opened(place.instance, *endpoints) as peers, asyncio.TaskGroup() as tasks:
        adapter = VllmAdapter(place, options, peers[0], peers[1] if len(peers) > 1 else None, say)
        looking = tasks.create_task(adapter.meter.run())
        try:
            yield adapter
        except Exception as error:
            raised = error  # which a TaskGroup would hide in a group
        finally:
            looking.cancel()
    if raised is not None:
        raise raised


KIND = Kind(
    name="vllm",
    options=Options,
    open=open_,
    about="Drive a vLLM engine.\n\n"
    "One with NIXL and kv_both is moved between the pools of smg; one with a role of its own (/v1/pd_role) is told to "
    "change it, and its router as well, if one is named. Which of the two it is is asked.",
    examples="""\
rapidctl attach vllm --instance v0 --node h1 --gpu GPU-1b2c --role prefill \\
  --engine-url http://127.0.0.1:8000 --worker-url grpc://127.0.0.1:50051 \\
  --router-url http://127.0.0.1:30000
rapidctl attach vllm --instance v0 --node h1 --gpu GPU-1b2c \\
  --engine-url http://127.0.0.1:8000""",
)
