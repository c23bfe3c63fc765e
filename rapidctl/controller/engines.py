"""EngineControl over gRPC: engines attach, say where they stand, and are told to change role."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterator

import grpc

from rapid.core.cluster import EngineHello, RoleProgress
from rapid.core.commands import CancelRole, OrderRole, RefuseEngine
from rapid.core.errors import RapidError, Unreachable, WireInvalid
from rapid.core.events import EngineCame, EngineGone, EngineLoaded, EngineMoved
from rapid.rpc import Context
from rapid.streams import Ended, first_of, read, told
from rapid.v1 import engine_pb2, engine_pb2_grpc
from rapid.wire.engine import EngineLoad, Goodbye, Welcome, decode_attach, encode_cancel, encode_order, encode_welcome
from rapid.wire.errors import error_named
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.outbox import Outbox

OUTBOX_MAX = 16  # orders to one engine that wait; the core gives one at a time
MISSED_LOADS = 5  # loads that may fail to come, beside a round trip, before a stream counts as dead


class _Stream:
    """What goes out to one engine, and why its stream has ended."""

    def __init__(self) -> None:
        self.outbox: Outbox[engine_pb2.AttachResponse] = Outbox(OUTBOX_MAX)
        self.reason = "its stream broke"


class EngineService(engine_pb2_grpc.EngineControlServicer):
    """Serves Attach. A process of an engine has one stream; a newer one ends the older.

    `load_interval_s` is how often an engine is asked for its load (0: never, its rapidd reports it).
    """

    def __init__(self, inbox: Inbox, epoch: Callable[[], int], *, rpc_timeout_s: float, load_interval_s: float) -> None:
        self._inbox, self._epoch = inbox, epoch
        self._rpc_timeout_s, self._load_interval_s = rpc_timeout_s, load_interval_s
        self._silence_s = rpc_timeout_s + MISSED_LOADS * load_interval_s if load_interval_s else None
        self._streams: dict[tuple[str, str], _Stream] = {}

    # grpc.aio also takes a coroutine that reads and writes the stream itself, which its stubs do not say.
    async def Attach(  # type: ignore[override]
        self, requests: AsyncIterable[engine_pb2.AttachRequest], context: Context
    ) -> None:
        async with told(context):
            hello = await self._first(context)
            with self._attaching(hello) as stream:
                await self._introduce(hello, stream)
                await first_of(self._hear(context, hello, stream), self._tell(context, stream))

    def tell(self, command: OrderRole | CancelRole) -> None:
        """Send it, if this process of the engine is attached; otherwise the core gives the change up in time."""
        if (stream := self._streams.get((command.instance, command.incarnation))) is not None:
            message = encode_order(command) if isinstance(command, OrderRole) else encode_cancel(command)
            stream.outbox.put(message)

    def stop(self) -> None:
        """End all streams: the controller stops, and engines do well to look for the next one at once."""
        for stream in self._streams.values():
            stream.outbox.end(Unreachable("the controller stops; attach again when it is back"))

    @property
    def attached(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    # ---- the course of a stream ----

    async def _first(self, context: Context) -> EngineHello:
        try:
            async with asyncio.timeout(self._rpc_timeout_s):
                request = await read(context)
        except TimeoutError:
            raise WireInvalid("hello", f"missing; nothing came within {self._rpc_timeout_s:g} s") from None
        if request is None:
            raise WireInvalid("hello", "missing; the stream ended before it")
        hello = decode_attach(request, hello=None)
        assert isinstance(hello, EngineHello), "decode_attach takes nothing else as the first"
        return hello

    @contextlib.contextmanager
    def _attaching(self, hello: EngineHello) -> Iterator[_Stream]:
        key = (hello.instance, hello.incarnation)
        stream = _Stream()
        if (older := self._streams.get(key)) is not None:
            text = f"instance {hello.instance}: a newer stream of the same process took over"
            older.outbox.end(Ended(text, grpc.StatusCode.ABORTED))
        # Before the core has judged it: an order of the very same step must find its way.
        self._streams[key] = stream
        try:
            yield stream
        except RapidError as error:
            stream.reason = str(error)
            raise
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]
                self._inbox.put_end(EngineGone(0.0, hello.instance, hello.incarnation, stream.reason))

    async def _introduce(self, hello: EngineHello, stream: _Stream) -> None:
        """Let the core judge the hello. Raises what it refuses the engine with."""
        stream.outbox.put(encode_welcome(Welcome(self._epoch(), self._load_interval_s)))
        for command in await self._inbox.ask(EngineCame(0.0, hello)):
            if isinstance(command, RefuseEngine):
                raise error_named(command.kind, command.reason)

    async def _hear(self, context: Context, hello: EngineHello, stream: _Stream) -> None:
        """Pass on what the engine says, until it says no more."""
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    request = await read(context)
            except TimeoutError:
                text = f"instance {hello.instance}: no load came for {self._silence_s:g} s"
                raise Unreachable(text) from None
            if request is None:
                stream.reason = "it has ended its stream"
                return
            match decode_attach(request, hello=hello):
                case EngineLoad(engine_time_s, load):
                    event = EngineLoaded(0.0, hello.instance, hello.incarnation, engine_time_s, load)
                    await self._inbox.put(event)
                case RoleProgress() as progress:
                    await self._inbox.put(EngineMoved(0.0, progress))
                case Goodbye(reason):
                    stream.reason = f"it said goodbye: {reason or 'no reason given'}"
                    return

    async def _tell(self, context: Context, stream: _Stream) -> None:
        while True:
            message = await stream.outbox.take()
            try:
                async with asyncio.timeout(self._rpc_timeout_s):
                    await context.write(message)
            except TimeoutError:
                raise Unreachable(f"the engine took no message for {self._rpc_timeout_s:g} s") from None
