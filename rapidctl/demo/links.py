"""The three connections of a simulated engine: to the front end, to rapidd (load) and to the controller (roles).

Each comes back by itself, with a growing pause, and the engine serves on while any of them is away. Whatever comes in
wakes the engine, so that its process can sleep for the rest.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from pathlib import Path

import grpc
import grpc.aio

from rapid.core.cluster import Role, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.errors import RapidError, Unreachable
from rapid.rpc import open_channel
from rapid.sim.model.requests import Backlog, Finished, PrefillDone, Pulled
from rapid.tls import TlsConfig
from rapid.v1 import engine_pb2, engine_pb2_grpc, load_pb2, load_pb2_grpc
from rapid.wire.common import encode_push
from rapid.wire.engine import (
    EngineLoad,
    Goodbye,
    Welcome,
    decode_told,
    encode_engine_load,
    encode_goodbye,
    encode_hello,
    encode_progress,
)
from rapidctl.demo import talk
from rapidctl.demo.engine import Engine

PUSH_INTERVAL_S = 0.25
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between attempts to connect; doubles
SETTLED_S = 5.0  # a connection that lasted this long starts the pauses from the first again
ANSWER_WITHIN_S = 5.0  # a connection that brings nothing for this long at its start is given up
MAX_UNSENT = 64  # progress messages on their way to the controller
LAG_INTERVAL_S = 1.0


Say = Callable[[str], None]  # one line for whoever reads the engine's stderr


async def keep_connected(peer: str, connect: Callable[[], Awaitable[None]], say: Say, stopping: asyncio.Event) -> None:
    """Call `connect` again and again until stopping; it returns, or raises, when its connection has ended.

    One line when a peer goes away, none for each attempt in between, and none while everything is only starting.
    """
    pause_s, told = FIRST_PAUSE_S, ""
    began_s = time.monotonic()
    while not stopping.is_set():
        since_s = time.monotonic()
        problem = await _ended(connect)
        if time.monotonic() - since_s >= SETTLED_S:
            pause_s, told = FIRST_PAUSE_S, ""
        if problem != told and not stopping.is_set() and time.monotonic() - began_s >= SETTLED_S:
            say(f"{peer} is away: {problem}")
            told = problem
        await _pause(stopping, pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _ended(connect: Callable[[], Awaitable[None]]) -> str:
    try:
        await connect()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name.lower()}: {error.details()}"
    except (OSError, RapidError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return "it closed the connection"


async def _pause(stopping: asyncio.Event, pause_s: float) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await stopping.wait()
    except TimeoutError:
        pass


class FrontEndLink:
    """The engine's clients, behind the front end's Unix socket. While it is away, answers go nowhere."""

    def __init__(self, path: Path, wake: Callable[[], None]) -> None:
        self._path, self._wake = path, wake
        self._outlet: talk.Outlet | None = None
        self._lag_at_s = -inf

    async def connect(self, engine: Engine) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=talk.LINE_MAX)
        self._outlet = outlet = talk.Outlet(writer)
        try:
            change = engine.change
            outlet.send(talk.Hello(change.instance, change.role, engine.is_open))
            async for message in talk.heard(reader, talk.to_engine):
                self._heard(engine, message)
                self._wake()
        finally:
            self._outlet = None
            outlet.close()
            engine.forsaken(time.monotonic())
            self._wake()

    def _heard(self, engine: Engine, message: talk.FromEngine | talk.ToEngine) -> None:
        now_s = time.monotonic()
        match message:
            case talk.Prompt():
                engine.prompt(message.request, now_s)
            case talk.Kv():
                engine.kv(message.done, now_s)
            case talk.Release():
                engine.release(message.done, now_s)
            case talk.Quiet():
                engine.quiet(now_s)

    def leave(self) -> None:
        """End the connection; the front end gives what the engine has to others."""
        if self._outlet is not None:
            self._outlet.close()

    def tell_lag(self, engine: Engine, now_s: float) -> None:
        """Once in LAG_INTERVAL_S; call it often."""
        if now_s >= self._lag_at_s + LAG_INTERVAL_S:
            self._lag_at_s = now_s
            lateness = engine.lateness
            self._send(talk.Lag(lateness.events, lateness.sum_s, lateness.max_s))

    # ---- Clients ----

    def prefilled(self, done: PrefillDone) -> bool:
        return self._send(talk.Prefilled(done))

    def pulled(self, pulled: Pulled) -> None:
        self._send(talk.Pulled(pulled.done.request.request_id))

    def finished(self, finished: Finished) -> None:
        self._send(talk.Ended(finished.request.request_id, finished.at_s, finished.ttft_s, finished.tpot_s))

    def closed(self) -> bool:
        return self._send(talk.Closed())

    def opened(self, role: Role) -> None:
        self._send(talk.Opened(role))

    def hand_back(self, backlog: Backlog) -> None:
        for message in talk.hand_backs(backlog.requests, backlog.kvs):
            self._send(message)

    def _send(self, message: talk.FromEngine) -> bool:
        return self._outlet is not None and self._outlet.send(message)


class LoadLink:
    """Pushes the engine's load to the rapidd of its host."""

    def __init__(self, target: str, stopping: asyncio.Event) -> None:
        self._target, self._stopping = target, stopping

    async def connect(self, engine: Engine) -> None:
        async with open_channel(self._target) as channel:
            await load_pb2_grpc.LoadServiceStub(channel).Push(self._pushes(engine))

    async def _pushes(self, engine: Engine) -> AsyncIterator[load_pb2.PushRequest]:
        while not self._stopping.is_set():
            yield encode_push(engine.load(time.monotonic()))
            await _pause(self._stopping, PUSH_INTERVAL_S)


class ControllerLink:
    """Attaches to the controller: says hello, takes orders, tells where they stand."""

    def __init__(
        self,
        target: str,
        tls: TlsConfig | None,
        *,
        node: str,
        gpus: tuple[str, ...],
        product: str,
        wake: Callable[[], None],
        stopping: asyncio.Event,
        say: Say,
    ) -> None:
        self._target, self._tls, self._node, self._gpus, self._product = target, tls, node, gpus, product
        self._wake, self._stopping, self._say = wake, stopping, say
        self._unsent: asyncio.Queue[RoleProgress] | None = None
        self._load_interval_s = 0.0

    async def connect(self, engine: Engine) -> None:
        self._unsent = asyncio.Queue(MAX_UNSENT)
        self._load_interval_s = 0.0
        try:
            async with open_channel(self._target, self._tls) as channel:
                call = engine_pb2_grpc.EngineControlStub(channel).Attach(self._outgoing(engine, self._unsent))
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    first = await anext(aiter(call), None)
                if first is None:
                    raise Unreachable(f"controller {self._target} closed the stream before its welcome")
                self._heard(engine, first)
                async for message in call:
                    self._heard(engine, message)
        finally:
            self._unsent = None

    def tell(self, progress: RoleProgress) -> None:
        """Dropped while the controller is away, or if it does not read: it hears the present state on each hello."""
        left = f", {progress.requests_left} requests left" if progress.requests_left else ""
        problem = f": {progress.error}" if progress.error else ""
        mark = f"{progress.mark.epoch}.{progress.mark.seq}"
        self._say(f"order {mark}: {progress.phase.value} as {progress.role.value}{left}{problem}")
        if self._unsent is not None and not self._unsent.full():
            self._unsent.put_nowait(progress)

    def _heard(self, engine: Engine, message: engine_pb2.AttachResponse) -> None:
        now_s = time.monotonic()
        told = decode_told(message, instance=engine.change.instance)
        match told:
            case Welcome():
                self._load_interval_s = told.load_interval_s
                self._say(f"attached to controller {self._target}, epoch {told.epoch}")
            case OrderRole():
                engine.order(
                    incarnation=told.incarnation,
                    mark=told.mark,
                    role=told.role,
                    drain_s=told.drain_s,
                    not_after_s=told.not_after_s,
                    now_s=now_s,
                )
            case CancelRole():
                engine.cancel(incarnation=told.incarnation, mark=told.mark, now_s=now_s)
        self._wake()

    async def _outgoing(
        self, engine: Engine, unsent: asyncio.Queue[RoleProgress]
    ) -> AsyncIterator[engine_pb2.AttachRequest]:
        """Hello, how the last order stands, then every progress, and loads if the controller wants them."""
        yield encode_hello(engine.hello(self._node, self._gpus, self._product, time.monotonic()))
        if engine.change.mark.epoch:
            yield encode_progress(engine.change.progress())
        while not self._stopping.is_set():
            progress = await self._next(unsent)
            if progress is not None:
                yield encode_progress(progress)
            elif self._load_interval_s > 0:
                now_s = time.monotonic()
                yield encode_engine_load(EngineLoad(now_s, engine.load(now_s)))
        yield encode_goodbye(Goodbye("stopped"))

    async def _next(self, unsent: asyncio.Queue[RoleProgress]) -> RoleProgress | None:
        """The next progress to tell; None when a load is due, or to look whether it is time to stop."""
        try:
            async with asyncio.timeout(self._load_interval_s or PUSH_INTERVAL_S):
                return await unsent.get()
        except TimeoutError:
            return None
