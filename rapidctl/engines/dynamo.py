"""NVIDIA Dynamo (1.6): a worker that runs under rapidctl.engines.dynamo_worker, moved between prefill and decode.

Dynamo has no call that changes a role. Its worker therefore runs in a wrapper, in Dynamo's own environment, that can
withdraw it and publish it again in the other role in the same process; this adapter, in RAPID's environment, tells the
wrapper what to do over a Unix socket. Two processes, because RAPID's gRPC and protobuf are newer than those that the
engines in a Dynamo image pin: nothing needs to be installed there but one file without dependencies.

    step      at the worker                                     is over when
    close     its model card is withdrawn; its endpoint stays,  the frontend's router has it registered no more
              as Dynamo cancels what was just sent to one that
              goes, but for a router that tells of no cards
    drained   requests that it was given and has not answered,  none is left
              by its own count and by its engine's
    switch    its runtime shuts down; the engine is built in    the wrapper says that it is, under a new worker id
              the other role, on a new runtime
    open      the new runtime publishes model card and          the frontend lists it and, where its router counts them,
              endpoint                                          has registered it in that role

What a frontend says is read at one frontend; others of the same discovery learn it at about the same time, and the
quiet time at the end of a drain is for those that learn it last. Killed, the worker is gone from the frontend when its
lease runs out (10 s): until then some requests are sent to nobody, which Dynamo can retry (--migration-limit). One that
stands still for longer than its lease is forgotten for good; that is noticed, and it is published anew. The prefix
cache is lost with each change, as the engine is built anew.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ConfigInvalid, RapidError, ScrapeFailed
from rapid.core.findings.base import Finding, green, red
from rapid.engine import NotSwitched, Seen, SwitchFailed
from rapid.pages.page import Page, Picker
from rapidctl.engines.base import Kind, Place, Say
from rapidctl.engines.dynamo_control import State, WorkerBroken, WorkerRefused, Wrapper
from rapidctl.engines.http import WITHIN_S, Endpoint, Peer, opened
from rapidctl.engines.meter import Meter

REGISTERED = "dynamo_component_router_worker_registered"
SWITCH_S = 0.1  # the mocker takes 10 ms; a real engine as long as it takes to build (assumed)
SWITCH_WITHIN_S = 100.0  # for the wrapper's answer; what is later has an unknown outcome
SEEN_WITHIN_S = 5.0  # for a frontend to learn what discovery knows; 5 to 100 ms were seen
POLL_S = 0.02
DISCOVERY = ("DYN_DISCOVERY_BACKEND", "DYN_FILE_KV", "DYN_NAMESPACE")


class Options(Struct, frozen=True, kw_only=True):
    """What `rapidctl attach dynamo` must be told."""

    control: Annotated[Path, Meta(description="The Unix socket of the worker, its own --control.")]
    frontend_url: Annotated[str, Meta(description="Where a Dynamo frontend answers: http://127.0.0.1:8000.")]
    worker_url: Annotated[str, Meta(description="The worker's system port (DYN_SYSTEM_PORT): http://127.0.0.1:8081.")]
    frontend_token_file: Annotated[Path | None, Meta(description="Holds the key that the frontend wants.")] = None
    frontend_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None


class NotListed(RapidError):
    """The frontend has not heard of the worker."""


class _Instance(Struct, frozen=True):
    namespace: str
    component: str
    endpoint: str
    instance_id: int


class _Health(Struct, frozen=True):
    instances: tuple[_Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Frontend:
    """What a frontend knows of workers."""

    peer: Peer

    async def listed(self, step: str, endpoint: str) -> set[str]:
        """The workers that discovery has shown it at this endpoint, by id. Raises CallFailed."""
        health = (await self.peer.get(step, "/health")).read(_Health)
        return {
            str(one.instance_id)
            for one in health.instances
            if f"{one.namespace}.{one.component}.{one.endpoint}" == endpoint
        }

    async def registered(self, step: str) -> dict[str, set[str]] | None:
        """The roles in which its router chooses each worker, by id; None: it is one that does not tell (only that of
        --router-mode kv does). It may still tell of the last of a role that has gone. Raises RapidError."""
        answer = await self.peer.get(step, "/metrics")
        page = Page(Picker((REGISTERED,)))
        try:
            page.feed(answer.body)
            page.end()
        except ScrapeFailed as error:
            raise ScrapeFailed(f"{answer.call}: {error}") from error
        found: dict[str, set[str]] = {}
        for labels, value in page.of(REGISTERED):
            roles = found.setdefault(labels.get("router_worker_id", ""), set())
            if value:
                roles.add(labels.get("worker_type", ""))
        return found if page.has(REGISTERED) else None

    async def view(self, step: str, state: State) -> "View":
        """Of the workers at the endpoint of this one. Raises RapidError."""
        listed = await self.listed(step, state.endpoint)
        registered = await self.registered(step)
        if registered is None:
            return View(listed, listed)
        return View(listed, {worker for worker in listed if state.role in registered.get(worker, ())})


@dataclass(frozen=True, slots=True)
class View:
    """Workers by id: whom discovery has shown the frontend, and whom of those it sends requests."""

    listed: set[str]
    served: set[str]


class Dynamo:
    """One worker; an Adapter that also ReadsRole, SeesOthers, Reconciles and SeesEnd."""

    roles = (Role.PREFILL, Role.DECODE)
    switch_s = SWITCH_S
    product = "Dynamo worker"
    seen_within_s = SEEN_WITHIN_S

    def __init__(self, place: Place, wrapper: Wrapper, frontend: Frontend, worker: Peer, say: Say) -> None:
        self._place, self._wrapper, self._frontend, self._say = place, wrapper, frontend, say
        self._role = place.role or Role.PREFILL  # until the wrapper has said
        self.meter = Meter(place, worker, "dynamo", lambda: self._role, say)

    async def begin(self) -> Role:
        await self._wrapper.connect("begin")
        await self._into_service("begin")  # an adapter before us may have been killed in the middle of a change
        return self._role

    async def ended(self) -> str:
        await self._wrapper.gone.wait()
        return "the worker has hung up"

    async def close(self) -> None:
        # Asked first: a frontend that does not answer leaves the worker as it is.
        tells_of_cards = await self._frontend.registered("close") is not None
        state = await self._tell("close", "close")
        if not tells_of_cards:
            state = await self._tell("close", "delist")
        await self._until(lambda: self._let_go("close", state))

    async def drained(self) -> int:
        return (await self._tell("drain", "state")).left

    async def switch(self, role: Role) -> None:
        try:
            await self._tell("switch", "switch", role=role.value, within_s=SWITCH_WITHIN_S)
        except WorkerRefused as error:
            raise NotSwitched(str(error)) from error
        except WorkerBroken as error:
            raise SwitchFailed(str(error)) from error

    async def live_role(self) -> Role | None:
        await self._tell("read role", "state")
        return self._role

    async def open(self, role: Role) -> None:
        try:
            await self._into_service("open")
        except WorkerBroken as error:
            raise SwitchFailed(str(error)) from error

    async def others(self) -> int | None:
        state = await self._tell("order", "state")
        return len((await self._frontend.view("order", state)).served - {state.worker})

    async def look_around(self) -> Seen:
        state = await self._tell("look", "state")
        try:
            view = await self._frontend.view("look", state)
        except RapidError as error:
            return Seen(live=self._role, problem=str(error))
        served = state.worker in view.served
        there = served or (state.taking and state.worker in view.listed)
        return Seen((self._role,) if there else (), healthy=served, live=self._role)

    def load(self) -> PhaseLoad:
        return self.meter.load

    async def findings(self) -> list[Finding]:
        found: list[Finding] = []
        try:
            await self._wrapper.connect("check")
            state = await self._tell("check", "state")
            found.append(green("worker", f"{state.worker} is {state.role}, {state.left} requests in it"))
            await self._seen("check", state)
            found.append(green("frontend", f"lists it at {state.endpoint}"))
        except RapidError as error:
            what, _, todo = str(error).rpartition("; ")
            found.append(red("frontend" if found else "worker", what or todo, todo))
        return [*found, await self.meter.finding()]

    # ---- inside ----

    async def _into_service(self, step: str) -> None:
        """Return when the frontend sends it requests."""
        before = await self._tell(step, "state")
        state = await self._tell(step, "open")
        try:
            await self._until(lambda: self._seen(step, state))
        except NotListed as error:
            if not before.taking:
                raise
            # It thinks that it is in service, and discovery has forgotten it.
            self._say(f"{error}; it is published anew")
            renewed = await self._tell(step, "renew", within_s=SWITCH_WITHIN_S)
            await self._until(lambda: self._seen(step, renewed))

    async def _tell(self, step: str, do: str, *, role: str = "", within_s: float = WITHIN_S) -> State:
        state = await self._wrapper.tell(step, do, role=role, within_s=within_s)
        try:
            self._role = Role(state.role)
        except ValueError as error:
            raise RapidError(f"{self._place.instance}: {step}: the worker has no role {state.role!r}") from error
        return state

    async def _let_go(self, step: str, state: State) -> None:
        """Raises RapidError while the frontend sends the worker requests."""
        if state.worker in (await self._frontend.view(step, state)).served:
            raise RapidError(f"{self._asked(step)} still sends to worker {state.worker}; it may be stuck, see its log")

    async def _seen(self, step: str, state: State) -> None:
        """Raises RapidError unless the frontend sends the worker requests of its role; NotListed when it has never
        heard of it."""
        view = await self._frontend.view(step, state)
        if state.worker not in view.listed:
            todo = f"see that both use the same discovery and namespace ({', '.join(DISCOVERY)})"
            raise NotListed(f"{self._asked(step)} does not list worker {state.worker} at {state.endpoint}; {todo}")
        if state.worker not in view.served:
            text = f"{self._asked(step)} lists worker {state.worker} and does not choose it as {state.role}"
            raise RapidError(f"{text}; see its log: are there peers of both roles?")

    def _asked(self, step: str) -> str:
        return f"{self._place.instance}: {step}: frontend {self._frontend.peer.endpoint.url}"

    async def _until(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look again and again until it raises no RapidError, for a while; then raise the last."""
        problem = RapidError(f"{self._place.instance}: the frontend has not answered within {self.seen_within_s:g} s")
        try:
            async with asyncio.timeout(self.seen_within_s):
                while True:
                    try:
                        return await look()
                    except RapidError as error:
                        problem = error
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise problem from None


@asynccontextmanager
async def open_(place: Place, options: Options, say: Say) -> AsyncIterator[Dynamo]:
    if place.role is Role.MIXED:
        raise ConfigInvalid("role", "mixed is no role that a Dynamo worker leaves or takes; prefill or decode")
    frontend = Endpoint("frontend", options.frontend_url, options.frontend_token_file, options.frontend_ca)
    raised: Exception | None = None
    peers = opened(place.instance, frontend, Endpoint("worker", options.worker_url))
    async with peers as (peer, worker), asyncio.TaskGroup() as tasks:
        wrapper = Wrapper(place.instance, options.control, tasks)
        adapter = Dynamo(place, wrapper, Frontend(peer), worker, say)
        looking = tasks.create_task(adapter.meter.run())
        try:
            yield adapter
        except Exception as error:
            raised = error  # which a TaskGroup would hide in a group
        finally:
            looking.cancel()
            wrapper.hang_up()
    if raised is not None:
        raise raised


KIND = Kind(
    name="dynamo",
    options=Options,
    open=open_,
    about="""A worker of NVIDIA Dynamo that runs under `python -m rapidctl.engines.dynamo_worker`, in Dynamo's own
environment. It is withdrawn, drained, built anew in the other role and published again, in one process; the frontend is
asked whether it knows.""",
    examples="""
  # in Dynamo's environment (pip install --no-deps rapid-power)
  DYN_SYSTEM_PORT=8081 python -m rapidctl.engines.dynamo_worker \\
      --control /run/rapid/d0.sock -- --model-path /models/tiny \\
      --model-name tiny --disaggregation-mode decode
  # in RAPID's
  rapidctl attach dynamo --instance d0 --node h1 --gpu GPU-1b2c... \\
      --control /run/rapid/d0.sock --worker-url http://127.0.0.1:8081 \\
      --frontend-url http://127.0.0.1:8000
""",
)
