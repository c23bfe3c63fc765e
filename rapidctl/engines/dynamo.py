"""NVIDIA Dynamo (1.6): a worker that runs under rapidctl.engines.dynamo_worker, moved between prefill and decode.

Dynamo has no call that changes a role. Its worker therefore runs in a wrapper, in Dynamo's own environment, that can
withdraw it and publish it again in the other role in the same process; this adapter, in RAPID's environment, tells the
wrapper what to do over a Unix socket. Two processes, because RAPID's gRPC and protobuf are newer than those that the
engines in a Dynamo image pin: nothing needs to be installed there but one file without dependencies.

    step      at the worker                                     is over when
    close     its endpoint leaves discovery                     the frontend lists the worker no more
    drained   requests that it was given and has not answered,  none is left
              by its own count and by its engine's
    switch    its runtime shuts down; the engine is built in    the wrapper says that it is, under a new worker id
              the other role, on a new runtime
    open      the new runtime publishes model card and          the frontend lists it and, where its router counts them,
              endpoint                                          has registered it in that role

What a frontend says is read at one frontend; others of the same discovery learn it at about the same time, and the
quiet time at the end of a drain is for those that learn it last. Killed, the wrapper is gone from the frontend when its
lease runs out (10 s with file discovery): until then some requests are sent to nobody, which Dynamo can retry
(--migration-limit). Its prefix cache is lost with each change, as the engine is built anew.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ConfigInvalid, RapidError, ScrapeFailed
from rapid.core.findings.base import Finding, green, red
from rapid.engine import NotSwitched, SwitchFailed
from rapid.pages.page import Page, Picker
from rapidctl.engines.base import Kind, Place, Say
from rapidctl.engines.http import WITHIN_S, Endpoint, Peer, opened
from rapidctl.engines.meter import Meter

REGISTERED = "dynamo_component_router_worker_registered"
SWITCH_S = 0.1  # the mocker takes 10 ms; a real engine as long as it takes to build (assumed)
SWITCH_WITHIN_S = 100.0  # for the wrapper's answer; what is later has an unknown outcome
SEEN_WITHIN_S = 5.0  # for a frontend to learn what discovery knows; 5 to 100 ms were seen
POLL_S = 0.02
ANSWER_MAX_BYTES = 4096
START = "start it in Dynamo's environment: python -m rapidctl.engines.dynamo_worker --help"


class Options(Struct, frozen=True, kw_only=True):
    """What `rapidctl attach dynamo` must be told."""

    control: Annotated[Path, Meta(description="The Unix socket of the worker, its own --control.")]
    frontend_url: Annotated[str, Meta(description="Where a Dynamo frontend answers: http://127.0.0.1:8000.")]
    worker_url: Annotated[str, Meta(description="The worker's system port (DYN_SYSTEM_PORT): http://127.0.0.1:8081.")]
    frontend_token_file: Annotated[Path | None, Meta(description="Holds the key that the frontend wants.")] = None
    frontend_ca: Annotated[Path | None, Meta(description="PEM file of the authority behind its certificate.")] = None


class State(Struct, frozen=True):
    """What the wrapper says of its worker. `worker` is its id in Dynamo, another one after each switch."""

    role: str
    taking: bool
    left: int
    endpoint: str
    worker: str


class _Answer(Struct, frozen=True):
    error: str = ""
    refused: bool = False
    broken: bool = False


class WorkerRefused(RapidError):
    """The worker is as it was."""


class WorkerBroken(RapidError):
    """The worker can serve neither role until it is started anew."""


class Wrapper:
    """The wrapper of one worker, over its Unix socket, from `connect` until it hangs up: that is the life of the
    worker's process. While we are connected, the worker leaves to us when it is to be in service."""

    def __init__(self, instance: str, path: Path, tasks: asyncio.TaskGroup) -> None:
        self._instance, self._path, self._tasks = instance, path, tasks
        self._writer: asyncio.StreamWriter | None = None  # None: not connected
        self._answer: asyncio.Future[bytes] | None = None
        self._turn = asyncio.Lock()
        self.gone = asyncio.Event()

    async def connect(self, step: str) -> None:
        """Raises RapidError."""
        if self._writer is not None:
            return
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path, limit=ANSWER_MAX_BYTES)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise RapidError(f"{self._call(step)}: {why}; {START}") from error
        self.gone.clear()
        self._tasks.create_task(self._listen(reader, self._writer))

    async def tell(self, step: str, do: str, *, within_s: float = WITHIN_S, role: str = "") -> State:
        """One order, given once. Raises RapidError, in which case the worker may have obeyed; WorkerRefused if it has
        not; WorkerBroken."""
        call = self._call(step)
        async with self._turn:
            line = await self._exchange(call, json.dumps({"do": do, "role": role}).encode() + b"\n", within_s)
        try:
            answer = msgspec.json.decode(line, type=_Answer)
            if answer.error:
                kind = WorkerRefused if answer.refused else WorkerBroken if answer.broken else RapidError
                raise kind(f"{call}: {answer.error}")
            return msgspec.json.decode(line, type=State)
        except msgspec.DecodeError as error:
            raise RapidError(f"{call}: is no worker of RAPID: {error}; is --control right?") from error

    def hang_up(self) -> None:
        """The wrapper then puts the worker back into service, if we had taken it out."""
        if self._writer is not None:
            self._writer.transport.abort()

    # ---- inside ----

    def _call(self, step: str) -> str:
        return f"{self._instance}: {step}: worker at {self._path}"

    async def _exchange(self, call: str, order: bytes, within_s: float) -> bytes:
        if self._writer is None:
            raise WorkerRefused(f"{call}: has ended; {START}")
        self._answer = asyncio.get_running_loop().create_future()
        self._writer.write(order)
        try:
            async with asyncio.timeout(within_s):
                line = await self._answer
        except TimeoutError as error:
            self.hang_up()  # or its late answer would be taken for the next one's
            raise RapidError(f"{call}: no answer within {within_s:g} s; is it stuck? See its log") from error
        if not line:
            raise RapidError(f"{call}: hung up without an answer; see its log")
        return line

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"-"
        while line:
            try:
                line = await reader.readline()
            except (OSError, ValueError):
                line = b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(line)
        writer.transport.abort()
        self._writer = None
        self.gone.set()


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

    async def registered(self, step: str, worker: str) -> set[str] | None:
        """The roles in which its router sends requests to the worker; None: it is one that does not tell (only that of
        --router-mode kv does). Raises CallFailed."""
        answer = await self.peer.get(step, "/metrics")
        page = Page(Picker((REGISTERED,)))
        try:
            page.feed(answer.body)
            page.end()
        except ScrapeFailed as error:
            raise ScrapeFailed(f"{answer.call}: {error}") from error
        if not page.has(REGISTERED):
            return None
        return {
            labels.get("worker_type", "") for labels, value in page.of(REGISTERED, router_worker_id=worker) if value
        }


class Dynamo:
    """One worker; an Adapter that also ReadsRole, SeesOthers and SeesEnd."""

    roles = (Role.PREFILL, Role.DECODE)
    switch_s = SWITCH_S
    product = "Dynamo worker"

    def __init__(self, place: Place, wrapper: Wrapper, frontend: Frontend, worker: Peer, say: Say) -> None:
        self._place, self._wrapper, self._frontend = place, wrapper, frontend
        self._role = place.role or Role.PREFILL  # until the wrapper has said
        self.meter = Meter(place, worker, "dynamo", lambda: self._role, say)

    async def begin(self) -> Role:
        await self._wrapper.connect("begin")
        state = await self._tell("begin", "state")
        if not state.taking:  # an adapter before us was killed in the middle of a change
            state = await self._tell("begin", "open")
        await self._until(lambda: self._seen("begin", state))
        return self._role

    async def ended(self) -> str:
        await self._wrapper.gone.wait()
        return "the worker has hung up"

    async def close(self) -> None:
        state = await self._tell("close", "close")
        await self._until(lambda: self._delisted("close", state))

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
            state = await self._tell("open", "open")
        except WorkerBroken as error:
            raise SwitchFailed(str(error)) from error
        await self._until(lambda: self._seen("open", state))

    async def others(self) -> int | None:
        state = await self._tell("order", "state")
        return len(await self._frontend.listed("order", state.endpoint) - {state.worker})

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

    async def _tell(self, step: str, do: str, *, role: str = "", within_s: float = WITHIN_S) -> State:
        state = await self._wrapper.tell(step, do, role=role, within_s=within_s)
        try:
            self._role = Role(state.role)
        except ValueError as error:
            raise RapidError(f"{self._place.instance}: {step}: the worker has no role {state.role!r}") from error
        return state

    async def _delisted(self, step: str, state: State) -> None:
        """Raises RapidError while the frontend knows the worker."""
        if state.worker in await self._frontend.listed(step, state.endpoint):
            raise RapidError(f"{self._asked(step)} still lists worker {state.worker}; it may be stuck, see its log")

    async def _seen(self, step: str, state: State) -> None:
        """Raises RapidError unless the frontend sends the worker requests of its role."""
        if state.worker not in await self._frontend.listed(step, state.endpoint):
            todo = (
                "see that both use the same discovery and namespace (DYN_DISCOVERY_BACKEND, DYN_FILE_KV, DYN_NAMESPACE)"
            )
            raise RapidError(f"{self._asked(step)} does not list worker {state.worker} at {state.endpoint}; {todo}")
        registered = await self._frontend.registered(step, state.worker)
        if registered is not None and state.role not in registered:
            as_ = f"as {', '.join(sorted(registered))}" if registered else "in no role"
            text = f"{self._asked(step)} has worker {state.worker} registered {as_}, must be {state.role}"
            raise RapidError(f"{text}; are there peers of both roles?")

    def _asked(self, step: str) -> str:
        return f"{self._place.instance}: {step}: frontend {self._frontend.peer.endpoint.url}"

    async def _until(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look again and again until it raises no RapidError, for a while; then raise the last."""
        problem = RapidError(f"{self._place.instance}: the frontend has not answered within {SEEN_WITHIN_S:g} s")
        try:
            async with asyncio.timeout(SEEN_WITHIN_S):
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
