"""The connections of an engine: to the controller (roles, and load if it asks for that) and to rapidd (load).

Each comes back by itself with a growing pause, and the engine serves on while any of them is away.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from rapid.core.cluster import EngineHello, PhaseLoad, RoleProgress
from rapid.core.commands import CancelRole, OrderRole
from rapid.core.errors import EngineRefused, EngineTaken, RapidError, Unreachable
from rapid.rpc import open_channel
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
from rapid.wire.errors import error_of

PUSH_INTERVAL_S = 0.25
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between attempts to connect; doubles
SETTLED_S = 5.0  # a connection that lasted this long starts the pauses from the first again
STARTING_S = 2.0  # a peer that may only be starting is not missed yet
ANSWER_WITHIN_S = 5.0  # a connection that brings nothing for this long at its start is given up
MAX_UNSENT = 64  # progress on its way to the controller; of more, the oldest is dropped

# What a refusal of the controller asks for; the first that fits decides.
_HELP = (
    (EngineTaken, " (stop the other one, or give this one another name or other GPUs)"),
    (EngineRefused, " (check its GPUs and its node, and that rapidd runs there)"),
)

Say = Callable[[str], None]  # one line for whoever reads the engine's log


async def keep_connected(peer: str, connect: Callable[[], Awaitable[None]], say: Say, stopping: asyncio.Event) -> None:
    """Call `connect` again and again until stopping; it returns, or raises, when its connection has ended.

    One line when a peer goes away, none for each attempt in between, and none while everything is only starting.
    """
    pause_s, told = FIRST_PAUSE_S, ""
    began_s = time.monotonic()
    while not stopping.is_set():
        since_s = time.monotonic()
        problem = await _ended(peer, connect)
        now_s = time.monotonic()
        if now_s - since_s >= SETTLED_S:
            pause_s, told = FIRST_PAUSE_S, ""
        if problem != told and now_s - began_s >= STARTING_S and not stopping.is_set():
            say(f"{problem}; tries again")
            told = problem
        # Engines that lose their controller together should not all come back at once.
        await pause(stopping, random.uniform(0.5, 1.0) * pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def pause(stopping: asyncio.Event, pause_s: float) -> None:
    """Wait, but not beyond the order to stop."""
    try:
        async with asyncio.timeout(pause_s):
            await stopping.wait()
    except TimeoutError:
        pass


async def _ended(peer: str, connect: Callable[[], Awaitable[None]]) -> str:
    """Why it ended, and what would help."""
    try:
        await connect()
    except grpc.aio.AioRpcError as failure:
        error = error_of(failure, address=peer)
        return f"{error}{next((help_ for kind, help_ in _HELP if isinstance(error, kind)), '')}"
    except TimeoutError:
        return f"{peer} did not answer within {ANSWER_WITHIN_S:g} s"
    except (OSError, RapidError) as error:
        return f"{peer}: {error}"
    return f"{peer} closed the connection"


@dataclass(frozen=True, slots=True)
class Mouth:
    """What an engine can be asked for at any time: how it introduces itself, where it stands, and its load."""

    hello: Callable[[], EngineHello]
    progress: Callable[[], RoleProgress]
    load: Callable[[], PhaseLoad]


class ControllerLink:
    """Attaches to the controller: says hello, tells where the engine stands, and hands on what it `heard`."""

    def __init__(
        self,
        address: str,
        tls: TlsConfig | None,
        mouth: Mouth,
        heard: Callable[[Welcome | OrderRole | CancelRole], None],
        say: Say,
        stopping: asyncio.Event,
    ) -> None:
        self._address, self._tls, self._mouth, self._heard = address, tls, mouth, heard
        self._say, self._stopping = say, stopping
        self._unsent: deque[RoleProgress] | None = None  # None: there is no connection
        self._news = asyncio.Event()
        self._load_interval_s = 0.0
        self._parting = "stopped"

    async def connect(self) -> None:
        """One connection, to its end."""
        self._unsent, self._load_interval_s = deque(maxlen=MAX_UNSENT), 0.0
        try:
            async with open_channel(self._address, self._tls) as channel:
                call = engine_pb2_grpc.EngineControlStub(channel).Attach(self._outgoing(self._unsent))
                messages = aiter(call)
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    first = await anext(messages, None)
                if first is None:
                    raise Unreachable("it closed the stream before its welcome")
                self._take(first)
                async for message in messages:
                    self._take(message)
        finally:
            self._unsent = None

    def tell(self, progress: RoleProgress) -> None:
        """Dropped while the controller is away: it hears the present state after each hello."""
        if self._unsent is not None:
            self._unsent.append(progress)
            self._news.set()

    def leave(self, why: str) -> None:
        """After the order to stop: say goodbye now, and why."""
        self._parting = why
        self._news.set()

    def _take(self, message: engine_pb2.AttachResponse) -> None:
        told = decode_told(message, instance=self._mouth.hello().instance)
        if isinstance(told, Welcome):
            self._load_interval_s = told.load_interval_s
            self._news.set()
            self._say(f"attached to controller {self._address}, epoch {told.epoch}")
        self._heard(told)

    async def _outgoing(self, unsent: deque[RoleProgress]) -> AsyncIterator[engine_pb2.AttachRequest]:
        """Hello, where it stands, then every step, and loads if the controller wants them."""
        hello = self._mouth.hello()
        yield encode_hello(hello)
        if hello.mark.epoch:
            yield encode_progress(self._mouth.progress())
        load_due_s = time.monotonic()
        while not self._stopping.is_set():
            self._news.clear()
            while unsent:
                yield encode_progress(unsent.popleft())
            if self._load_interval_s and (now_s := time.monotonic()) >= load_due_s:
                load_due_s = now_s + self._load_interval_s
                yield encode_engine_load(EngineLoad(now_s, self._mouth.load()))
            await self._wait(load_due_s - time.monotonic() if self._load_interval_s else None)
        yield encode_goodbye(Goodbye(self._parting))

    async def _wait(self, within_s: float | None) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            pass


class LoadLink:
    """Pushes the engine's load to the rapidd of its host, which listens at `address`."""

    def __init__(self, address: str, load: Callable[[], PhaseLoad], stopping: asyncio.Event) -> None:
        self._address, self._load, self._stopping = address, load, stopping

    async def connect(self) -> None:
        """One connection, to its end."""
        async with open_channel(self._address) as channel:
            await load_pb2_grpc.LoadServiceStub(channel).Push(self._pushes())

    async def _pushes(self) -> AsyncIterator[load_pb2.PushRequest]:
        while not self._stopping.is_set():
            yield encode_push(self._load())
            await pause(self._stopping, PUSH_INTERVAL_S)
