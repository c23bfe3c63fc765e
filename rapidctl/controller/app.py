"""The controller put together: journal, replay, loop, streams, servers, in this order, and back."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import msgspec
from structlog.typing import FilteringBoundLogger

from rapid import __version__, scrape
from rapid.clock import Clock
from rapid.config import ControllerConfig
from rapid.core.control import Control
from rapid.core.errors import Refused
from rapid.notify import Notifier, Watchdog
from rapid.rpc import RpcServer, start_server
from rapid.streams import first_of
from rapid.v1 import controller_pb2, controller_pb2_grpc, engine_pb2, engine_pb2_grpc
from rapidctl.controller import codec
from rapidctl.controller.damage import judging, way_out
from rapidctl.controller.engines import EngineService
from rapidctl.controller.hands import Hands
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.journal import Journal
from rapidctl.controller.loop import LifeLimits, Loop
from rapidctl.controller.metrics import Metrics, Shown
from rapidctl.controller.nodes import NodeLink, Nodes, Timing
from rapidctl.controller.recover import Recovered, recover
from rapidctl.controller.server import ControllerService
from rapidctl.controller.store import JournalFile, Life

if TYPE_CHECKING:
    from rapidctl.controller.mqtt import Mqtt

QUEUE_MAX = 4096  # events that wait for the loop
LIFE_MAX_BYTES = 256 * 2**20  # a life of the journal ends at this size, or at journal.keep_entries
LOAD_INTERVAL_S = 0.0  # engines need not report their load here: the rapidd of their host does
STOP_GRACE_S = 0.2  # for calls that are under way when the controller stops
SCRAPE_TIMEOUT_S = 1.0


def open_journal(config: ControllerConfig, *, fresh: bool) -> JournalFile:
    """Open the journal. Raises Refused for `fresh` while there is one; JournalCorrupt, JournalFailed."""
    path = config.journal.path
    if fresh and path.exists():
        raise Refused(
            f"--fresh, but there is a journal at {path}, which knows what was granted: start without --fresh to go on "
            f"from it, or put it aside. {way_out(path)}"
        )
    return JournalFile(path, keep_lives=config.journal.keep_lives)


def next_life(config: ControllerConfig, before: Recovered | None, *, epoch_at_least: int, wall_s: float) -> Life:
    """The life that begins now: one epoch above the last one, and at least as asked."""
    return Life(
        epoch=max(before.life.epoch + 1 if before else 1, epoch_at_least),
        controller_id=before.life.controller_id if before else f"c-{secrets.token_hex(6)}",
        started_wall_s=wall_s,
        version=__version__,
        settings=codec.encode(config.settings).decode(),
    )


class Controller:
    """One process: everything between an open journal and its orderly end."""

    def __init__(
        self,
        config: ControllerConfig,
        file: JournalFile,
        *,
        epoch_at_least: int,
        clock: Clock,
        notifier: Notifier,
        log: FilteringBoundLogger,
    ) -> None:
        self._config, self._notifier, self._log = config, notifier, log
        self._clock, now = clock, clock.monotonic_s
        notifier.status("replays its journal")
        began_s = now()
        self._before = recover(file, Control)
        self._tell_of_replay(now() - began_s)
        self._file, self._journal = file, Journal(file)
        self._inbox = Inbox(now, QUEUE_MAX)
        self._links = self._make_links(now)
        self._nodes = Nodes(self._links)
        self._engines = EngineService(
            self._inbox,
            lambda: self._loop.greeting.epoch,
            rpc_timeout_s=config.settings.rpc_timeout_s,
            load_interval_s=LOAD_INTERVAL_S,
        )
        self._metrics = Metrics(self._shown_to_a_thread)
        self._bus = self._make_bus()
        self._loop = Loop(
            self._inbox,
            self._journal,
            Hands(self._nodes, self._engines, log, tell=self._bus.tell if self._bus else None),
            self._metrics,
            make=lambda: Control(config.settings),
            life=next_life(config, self._before, epoch_at_least=epoch_at_least, wall_s=clock.wall_s()),
            limits=LifeLimits(config.journal.keep_entries, LIFE_MAX_BYTES),
            clock=now,
            pet=Watchdog(notifier, now).pet,
            decisions=self._before.decisions if self._before else (),
        )

    async def run(self) -> None:
        """Lead until SIGTERM or SIGINT. Raises SteppedDown, JournalFailed, ConfigInvalid for an address in use."""
        self._on = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._journal.close)
            stop = stack.enter_context(_signals(self._on))
            await self._loop.begin(self._before.snapshot if self._before else None)
            server = await stack.enter_async_context(self._serving())
            greeting = self._loop.greeting
            endpoints = {"address": server.addresses["listen.address"], "metrics": ""}
            if self._config.listen.metrics:
                serving = scrape.serving(self._config.listen.metrics, self._metrics.registry, "listen.metrics")
                endpoints["metrics"] = stack.enter_context(serving)
            who = {"epoch": greeting.epoch, "controller_id": greeting.controller_id}
            published = {"pid": os.getpid(), **who, **endpoints}
            stack.enter_context(_published(self._config.journal.path, published))
            await server.set_serving(True)
            self._log.info("leads", **who, **endpoints)
            self._notifier.status(f"leads in epoch {greeting.epoch}")
            self._notifier.ready()
            links = [link.run() for link in self._links.values()]
            bus = [self._bus.run()] if self._bus else []
            await first_of(self._loop.run(), self._tick(), self._until(stop), *links, *bus)
            self._log.info("stops", reason="asked to")

    def _tell_of_replay(self, took_s: float) -> None:
        before = self._before
        if before is None:
            self._log.info("no journal yet, every GPU is booked at its ceiling until heard")
            return
        about: dict[str, object] = {"events": before.entries, "life": before.number, "epoch": before.life.epoch}
        about["took_s"] = round(took_s, 3)
        if before.differs:
            self._log.warning(
                "replay differs, every GPU is booked at its ceiling until heard",
                **about,
                first_difference=before.differs,
                written_by=before.life.version,
            )
        else:
            self._log.info("replayed", **about, commands="identical")

    def _make_links(self, now: Callable[[], float]) -> dict[str, NodeLink]:
        settings = self._config.settings
        timing = Timing(settings.rpc_timeout_s, self._config.report.interval_s)
        return {
            node: NodeLink(
                node,
                address,
                self._inbox,
                lambda: self._loop.greeting,
                timing=timing,
                tls=self._config.tls,
                clock=now,
                log=self._log,
            )
            for node, address in self._config.addresses.items()
        }

    def _make_bus(self) -> "Mqtt | None":
        """On the facility's bus, if one is configured: only then are its libraries loaded."""
        if self._config.mqtt is None:
            return None
        from rapidctl.controller.mqtt import Mqtt

        return Mqtt(self._config.mqtt, self._inbox, lambda: self._loop.status(), clock=self._clock, log=self._log)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[RpcServer]:
        operators = ControllerService(self._inbox, self._loop)

        def add(server: grpc.aio.Server) -> None:
            controller_pb2_grpc.add_ControllerServiceServicer_to_server(operators, server)
            engine_pb2_grpc.add_EngineControlServicer_to_server(self._engines, server)

        files = (controller_pb2, engine_pb2)
        services = [each.full_name for file in files for each in file.DESCRIPTOR.services_by_name.values()]
        ports = {"listen.address": self._config.listen.address}
        server = await start_server(ports, add, services=services, tls=self._config.tls)
        try:
            yield server
        finally:
            self._notifier.stopping()
            self._inbox.close()
            self._engines.stop()
            operators.stop()
            await server.stop(STOP_GRACE_S)

    async def _tick(self) -> None:
        """A tick every tick_s; after a hold-up the next one comes at once, and the lost ones never."""
        on, tick_s = self._on, self._config.settings.tick_s
        next_s = on.time()
        while True:
            next_s = max(next_s + tick_s, on.time())
            await asyncio.sleep(next_s - on.time())
            self._inbox.put_tick(self._clock.wall_s())

    async def _until(self, stop: asyncio.Event) -> None:
        """When asked to stop, let the loop end its turn; it then returns."""
        await stop.wait()
        self._inbox.close()
        await asyncio.Event().wait()

    def _shown_to_a_thread(self) -> Shown:
        return asyncio.run_coroutine_threadsafe(self._shown(), self._on).result(SCRAPE_TIMEOUT_S)

    async def _shown(self) -> Shown:
        return Shown(
            status=self._loop.status(),
            queued=len(self._inbox),
            replaced_reports=self._inbox.replaced,
            journal_entries=self._journal.entries,
            journal_bytes=self._journal.size_bytes,
            nodes_reporting=self._nodes.reporting,
            engines_attached=self._engines.attached,
        )


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Event]:
    """Set when SIGTERM or SIGINT comes."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _published(journal: Path, endpoints: Mapping[str, object]) -> Iterator[None]:
    """Tell in endpoints.json beside the journal where this controller listens, for as long as this lasts."""
    path, draft = journal.with_name("endpoints.json"), journal.with_name("endpoints.json.tmp")
    with judging(journal):
        draft.write_bytes(msgspec.json.encode(dict(endpoints)))
        draft.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
