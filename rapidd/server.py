"""NodeService over gRPC: one controller at a time greets, grants and renews on a stream, and hears reports on it."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
from structlog.typing import FilteringBoundLogger

from rapid.clock import SystemClock
from rapid.core.cluster import GrantBatch, Greeting, Renewal
from rapid.core.errors import RapidError, Stale, WireInvalid
from rapid.rpc import RpcServer, start_server
from rapid.streams import Ended, read, told
from rapid.tls import TlsConfig
from rapid.v1 import node_pb2, node_pb2_grpc
from rapid.wire.node import Greeted, NodeDescription, decode_enforce, encode_description, encode_report
from rapidd.agent import Agent

WALL_S = SystemClock().wall_s
GREETING_TIMEOUT_S = 10.0  # from the start of the call to its first message
SERVICE = node_pb2.DESCRIPTOR.services_by_name["NodeService"].full_name

Context = grpc.aio.ServicerContext[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


class _Stream:
    """The stream of a controller that was greeted, until someone ends it; `news` wakes the one who sends on it."""

    def __init__(self, greeting: Greeting, news: asyncio.Event) -> None:
        self.greeting, self.news = greeting, news
        self.over = False
        self.why: RapidError | None = None

    def end(self, why: RapidError | None) -> None:
        """End it after the message that is being sent. None: in good order. The first reason counts."""
        if not self.over:
            self.over, self.why = True, why
        self.news.set()


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """What a controller, or a tool, can ask of this node."""

    def __init__(
        self,
        agent: Agent,
        describe: Callable[[], NodeDescription],
        log: FilteringBoundLogger,
        wall_s: Callable[[], float] = WALL_S,
    ) -> None:
        self._agent, self._node, self._log = agent, describe().node, log
        self._describe, self._wall_s = describe, wall_s
        self._stream: _Stream | None = None
        self._stopping: Ended | None = None

    async def Describe(self, request: node_pb2.DescribeRequest, context: Any) -> node_pb2.DescribeResponse:
        return encode_description(replace(self._describe(), wall_s=self._wall_s()))

    # grpc.aio also takes a coroutine that reads and writes the stream itself, which its stubs do not say.
    async def Enforce(  # type: ignore[override]
        self, requests: AsyncIterable[node_pb2.EnforceRequest], context: Context
    ) -> None:
        async with told(context):
            greeted = await self._greeted(context)
            await self._take_epoch(greeted.greeting)
            with self._agent.listening() as news, self._leading(greeted.greeting, news) as stream:
                self._log.info("controller greeted", peer=context.peer(), **_who(stream))
                try:
                    async with asyncio.TaskGroup() as tasks:
                        hearing = tasks.create_task(self._hear(context, stream))
                        await self._tell(context, stream, greeted.report_interval_s)
                        hearing.cancel()
                finally:
                    self._log.info("controller gone", why=str(stream.why or ""), **_who(stream))
                if stream.why is not None:
                    raise stream.why

    def stop(self) -> None:
        """End the stream, and refuse to begin another."""
        self._stopping = Ended(f"node {self._node}: the daemon stops")
        if self._stream is not None:
            self._stream.end(self._stopping)

    async def _greeted(self, context: Context) -> Greeted:
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                request = await read(context)
        except TimeoutError:
            raise WireInvalid("greeting", f"missing; nothing came within {GREETING_TIMEOUT_S:g} s") from None
        if request is None:
            raise WireInvalid("greeting", "missing; the stream ended before it")
        said = decode_enforce(request, node=self._node)
        if not isinstance(said, Greeted):
            raise WireInvalid("greeting", f"missing; the first message of a stream is {request.WhichOneof('body')}")
        return said

    async def _take_epoch(self, greeting: Greeting) -> None:
        try:
            await self._agent.greet(greeting)
        except Stale as stale:
            self._log.warning("greeting refused", detail=str(stale))
            raise
        except OSError as error:
            why = error.strerror or "the disk does not answer"
            text = (
                f"node {self._node}: epoch {greeting.epoch} is not taken, it cannot be kept in the state folder: {why}"
            )
            self._log.error("greeting refused", detail=text)
            raise Ended(text) from error

    @contextlib.contextmanager
    def _leading(self, greeting: Greeting, news: asyncio.Event) -> Iterator[_Stream]:
        """The one stream that counts, until another controller life is greeted; it ends the stream before it."""
        if self._stopping is not None:
            raise self._stopping
        if self._stream is not None:
            self._stream.end(self._superseded(self._stream.greeting, greeting))
        self._stream = stream = _Stream(greeting, news)
        try:
            yield stream
        finally:
            if self._stream is stream:
                self._stream = None

    def _superseded(self, old: Greeting, new: Greeting) -> RapidError:
        if old.controller_id == new.controller_id:
            text = f"node {self._node}: a newer stream of controller {new.controller_id} took over"
            return Ended(text, grpc.StatusCode.ABORTED)
        return Stale(f"node {self._node}: epoch {old.epoch} is lower than epoch {new.epoch}, which it has seen")

    async def _hear(self, context: Context, stream: _Stream) -> None:
        """Pass on what the controller says until it says no more. The stream lives as long as reports are taken."""
        try:
            while (request := await read(context)) is not None:
                match decode_enforce(request, node=self._node):
                    case GrantBatch() as batch:
                        self._agent.grant(batch)
                    case Renewal() as renewal:
                        self._agent.renew(renewal)
                    case Greeted():
                        raise WireInvalid("greeting", "only the first message of a stream may be one")
        except RapidError as error:
            stream.end(error)
        else:
            stream.end(None)

    async def _tell(self, context: Context, stream: _Stream, interval_s: float) -> None:
        """Send a report every interval_s, and at once when there is news, until the stream is over.

        A report is made when the reader has taken the one before, so a slow reader finds the newest and no queue grows.
        A write is never given up: gRPC could not send a status after it. One that hangs ends with its connection, which
        keepalive watches; a newer stream of the controller does not wait for it.
        """
        loop = asyncio.get_running_loop()
        while not stream.over:
            report = self._agent.report()
            stream.news.clear()  # it is all in there
            alarm = loop.call_later(interval_s, stream.news.set)
            try:
                await context.write(encode_report(report))
                await stream.news.wait()
            finally:
                alarm.cancel()


def _who(stream: _Stream) -> dict[str, str | int]:
    return {"epoch": stream.greeting.epoch, "controller": stream.greeting.controller_id}


@contextlib.asynccontextmanager
async def serving_node(service: NodeService, address: str, tls: TlsConfig | None, key: str) -> AsyncIterator[RpcServer]:
    """Serve at the address, which the config key names, while this lasts. Raises ConfigInvalid."""
    add = partial(node_pb2_grpc.add_NodeServiceServicer_to_server, service)
    server = await start_server({key: address}, add, services=[SERVICE], tls=tls)
    try:
        yield server
    finally:
        service.stop()
        await server.stop()
