"""A controller that is a real ledger and little else: it wants limits, grants what fits, renews, and keeps history."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from rapid.core.cluster import Domain, Greeting, NodeReport, NodeSpec
from rapid.core.ledger import Ledger
from rapid.core.settings import LedgerSettings
from rapid.rpc import open_channel
from rapid.streams import first_of
from rapid.v1 import node_pb2
from rapid.wire.node import decode_report, encode_grants, encode_greeting, encode_renewal
from tests.kills.books import Held
from tests.node.caller import NODE, enforce

FLOOR_MW, FALLBACK_MW, CEILING_MW = 100_000, 400_000, 700_000
BUDGET_MW = 1_000_000  # two GPUs at their fallbacks, and 200 W that only one of them can have
LEASE_S = 1.0
REPORT_S = 0.1
REDIAL_S = 0.05
SILENT_S = 2.0
# A GPU in trouble is not given up here: it would be booked at its ceiling, and a history of ceilings proves little.
SETTINGS = LedgerSettings(settle_s=0.1, strikes=10**6)

Call = grpc.aio.StreamStreamCall[node_pb2.EnforceRequest, node_pb2.EnforceResponse]


class Keeper:
    """Talks to the rapidd at `address`, dials again whenever the stream ends, and notes each change of what is held."""

    def __init__(self, address: str, gpus: Sequence[str]) -> None:
        self.address, self.gpus = address, tuple(gpus)
        self.targets_mw: Mapping[str, int] = {}
        self.renewing = True
        self.books: list[Held] = []
        self.refusals: list[str] = []
        self.reports = 0
        self.report: NodeReport | None = None
        self.lease_until_s = 0.0  # on the node's clock, which is ours: the greatest that was sent
        self.ledger = self._life(1)
        self._news, self._hang_up, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._note()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work())
            try:
                yield
            finally:
                self._over.set()
                self._hang_up.set()

    def aim(self, targets_mw: Mapping[str, int]) -> None:
        """Want these limits from now on."""
        self.targets_mw = targets_mw
        self._news.set()

    def live_again(self) -> None:
        """Die, and come back with the journal: the next epoch, the same books."""
        self.ledger = self._life(self.ledger.epoch + 1)
        self._note()
        self._hang_up.set()

    @property
    def settled(self) -> bool:
        """Everything that is wanted is granted, in force and paid for."""
        movable = self.ledger.movable(time.monotonic(), SILENT_S)
        return set(self.targets_mw) <= set(movable) and self.ledger.settled(self.targets_mw)

    @property
    def stuck(self) -> bool:
        """A GPU is not reported any more, and what is booked for it leaves no room for what is wanted of another."""
        gone = [booking for booking in self.ledger.gpus.values() if not booking.present]
        return bool(gone) and any(booking.no_room for booking in self.ledger.gpus.values())

    def held_mw(self, gpu: str) -> int:
        """What is held for a GPU; its ceiling, if it was never heard of."""
        return self.ledger.held_mw(gpu) if gpu in self.ledger.gpus else CEILING_MW

    def _life(self, epoch: int) -> Ledger:
        spec = NodeSpec(NODE, "site", len(self.gpus), FLOOR_MW, CEILING_MW, FALLBACK_MW)
        books = self.ledger.snapshot() if epoch > 1 else None
        site = Domain("site", BUDGET_MW)
        return Ledger([site], [spec], SETTINGS, epoch=epoch, controller_id="keeper", snapshot=books)

    async def _work(self) -> None:
        while not self._over.is_set():
            self._hang_up.clear()
            try:
                async with open_channel(self.address) as channel:
                    await first_of(self._talk(channel), self._hang_up.wait())
            except grpc.aio.AioRpcError as error:
                self.refusals.append(error.details() or "")
            except asyncio.InvalidStateError:
                pass  # the stream had ended before we wrote: dial again
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDIAL_S):
                    await self._over.wait()

    async def _talk(self, channel: grpc.aio.Channel) -> None:
        call = enforce(channel)
        greeting = Greeting(self.ledger.epoch, self.ledger.controller_id)
        await call.write(encode_greeting(greeting, report_interval_s=REPORT_S))
        await first_of(self._listen(call), self._tell(call))

    async def _listen(self, call: Call) -> None:
        while isinstance(response := await call.read(), node_pb2.EnforceResponse):
            self._hear(decode_report(response))
            self._news.set()

    async def _tell(self, call: Call) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._act(call)

    def _hear(self, report: NodeReport) -> None:
        at_ns = time.monotonic_ns()
        self.report, self.reports = report, self.reports + 1
        self.ledger.hear(report, time.monotonic())
        self._note(at_ns)  # a cut frees its watts from here on

    async def _act(self, call: Call) -> None:
        at_s = time.monotonic()
        movable = set(self.ledger.movable(at_s, SILENT_S))
        wanted = {gpu: limit_mw for gpu, limit_mw in self.targets_mw.items() if gpu in movable}
        batches = self.ledger.grant(wanted, at_s, LEASE_S)
        self._note()  # a raise counts before it is sent
        renewals = self.ledger.renew(at_s, SILENT_S, LEASE_S) if self.renewing else []
        ends_s = [batch.not_after_s for batch in batches] + [renewal.not_after_s for renewal in renewals]
        self.lease_until_s = max([self.lease_until_s, *ends_s])
        for batch in batches:
            await call.write(encode_grants(batch))
        for renewal in renewals:
            await call.write(encode_renewal(renewal))

    def _note(self, at_ns: int | None = None) -> None:
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        last = {held.gpu: held.held_mw for held in self.books}
        for gpu in self.gpus:
            if (held_mw := self.held_mw(gpu)) != last.get(gpu):
                self.books.append(Held(at_ns, gpu, held_mw))
