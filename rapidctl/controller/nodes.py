"""The streams to the nodes: one per node, dialled again for as long as the controller lives. Reports in, grants out."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import grpc
from structlog.typing import FilteringBoundLogger

from rapid.core.cluster import GrantBatch, Greeting, Renewal
from rapid.core.errors import RapidError, Stale, Unreachable
from rapid.core.events import NodeGone
from rapid.rpc import open_channel
from rapid.streams import Ended, first_of
from rapid.tls import TlsConfig
from rapid.v1 import node_pb2
from rapid.v1.node_pb2_grpc import NodeServiceStub
from rapid.wire.errors import error_of
from rapid.wire.node import decode_report, encode_grants, encode_greeting, encode_renewal
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.outbox import Outbox

OUTBOX_MAX = 32  # messages to one node that wait; a node that takes none for so long is dropped and dialled again
BACKOFF_S = (0.1, 2.0)  # the first pause before dialling again, doubled up to the second
MISSED_REPORTS = 3  # reports that may fail to come, beside a round trip, before a stream counts as dead
SAY_AGAIN_S = 60.0  # how often a node that cannot be reached is mentioned

_Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


class SteppedDown(RapidError):
    """Another controller leads, or this one has lost its journal: send nothing more, and exit."""


@dataclass(frozen=True, slots=True)
class Timing:
    """rpc_timeout_s bounds every single wait; a node reports every report_interval_s."""

    rpc_timeout_s: float
    report_interval_s: float

    @property
    def silence_s(self) -> float:
        """A stream that brings no report for so long is dead, whatever TCP says."""
        return self.rpc_timeout_s + MISSED_REPORTS * self.report_interval_s


class NodeLink:
    """The stream to one node. Everything that goes wrong with it ends the stream, and it is dialled again."""

    def __init__(
        self,
        node: str,
        address: str,
        inbox: Inbox,
        greeting: Callable[[], Greeting],
        *,
        timing: Timing,
        tls: TlsConfig | None,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
    ) -> None:
        self._node, self._address, self._inbox, self._greeting = node, address, inbox, greeting
        self._timing, self._tls, self._clock = timing, tls, clock
        self._log = log.bind(node=node, address=address)
        self._outbox: Outbox[node_pb2.EnforceRequest] | None = None
        self._said = ("", float("-inf"))
        self.reporting = False

    def grant(self, batch: GrantBatch) -> None:
        """Send grants, if there is a stream; otherwise the next steps command them anew."""
        if self._outbox is not None:
            self._outbox.put(encode_grants(batch))

    def renew(self, renewal: Renewal) -> None:
        """Send a renewal, if there is a stream, in place of an older one that still waits."""
        if self._outbox is not None:
            self._outbox.put(encode_renewal(renewal), newest_only=True)

    async def run(self) -> None:
        """Keep a stream for ever. Raises SteppedDown when the node has seen a controller that overrides this one."""
        pause_s, longest_s = BACKOFF_S
        while True:
            why = await self._session()
            if self.reporting:
                self.reporting = False
                pause_s = BACKOFF_S[0]
                self._inbox.put_end(NodeGone(0.0, self._node, str(why)))
                self._said = ("", float("-inf"))
            else:
                self._say_lost(why)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _session(self) -> RapidError:
        """One stream from dialling to its end, and why it ended."""
        try:
            async with open_channel(self._address, self._tls) as channel:
                call: _Call = NodeServiceStub(channel).Enforce()
                try:
                    interval_s = self._timing.report_interval_s
                    await self._send(call, encode_greeting(self._greeting(), report_interval_s=interval_s))
                    self._outbox = Outbox(OUTBOX_MAX)
                    await first_of(self._hear(call), self._tell(call, self._outbox))
                finally:
                    self._outbox = None
                    call.cancel()
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure, address=self._address)
            return self._stepping_down(error) if isinstance(error, Stale) else error
        except RapidError as error:
            return error
        return _ended()

    async def _hear(self, call: _Call) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timing.silence_s):
                    response: object = await call.read()
            except TimeoutError:
                raise Unreachable(f"no report came for {self._timing.silence_s:g} s") from None
            if not isinstance(response, node_pb2.EnforceResponse):
                return
            report = decode_report(response)
            if report.node != self._node:
                raise Ended(f"{self._address} is node {report.node!r}, not {self._node!r}")
            if not self.reporting:
                self.reporting = True
                self._log.info("node reports", incarnation=report.incarnation, gpus=len(report.gpus))
            await self._inbox.put_report(report)

    async def _tell(self, call: _Call, outbox: Outbox[node_pb2.EnforceRequest]) -> None:
        while True:
            await self._send(call, await outbox.take())

    async def _send(self, call: _Call, message: node_pb2.EnforceRequest) -> None:
        try:
            async with asyncio.timeout(self._timing.rpc_timeout_s):
                await call.write(message)
        except TimeoutError:
            raise Unreachable(f"took no message for {self._timing.rpc_timeout_s:g} s") from None
        except asyncio.InvalidStateError:
            # The call was over before we wrote, and reading says why; but nothing of the world is waited for for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.rpc_timeout_s):
                    await call.read()
            raise _ended() from None

    def _stepping_down(self, error: Stale) -> NoReturn:
        """A greeting that is stale for one node is no good for any."""
        mine = self._greeting()
        raise SteppedDown(
            f"{error}; another controller leads, and this one ({mine.controller_id}, epoch {mine.epoch}) sends nothing "
            "more. If it should lead because its journal was lost, stop the other one and start this one with "
            "--epoch-at-least N, N above the epoch that the node has seen"
        ) from error

    def _say_lost(self, why: RapidError) -> None:
        """Mention a node that cannot be reached when the reason changes, and once in a while."""
        text, said_s = self._said
        if str(why) != text or self._clock() - said_s >= SAY_AGAIN_S:
            self._log.warning("node cannot be reached", reason=str(why))
            self._said = (str(why), self._clock())


class Nodes:
    """All links."""

    def __init__(self, links: Mapping[str, NodeLink]) -> None:
        self._links = links

    def grant(self, batch: GrantBatch) -> None:
        if batch.node in self._links:
            self._links[batch.node].grant(batch)

    def renew(self, renewal: Renewal) -> None:
        if renewal.node in self._links:
            self._links[renewal.node].renew(renewal)

    @property
    def reporting(self) -> int:
        """How many nodes report over a stream now."""
        return sum(link.reporting for link in self._links.values())


def _ended() -> Ended:
    return Ended("the node has ended the stream")
