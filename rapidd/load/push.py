"""The newest load of each instance, for as long as it is fresh; and the service that takes what engines push."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import grpc.aio

from rapid.core.cluster import PhaseLoad
from rapid.core.errors import ConfigInvalid, Refused, ScrapeFault, WireInvalid
from rapid.rpc import RpcServer, start_server
from rapid.streams import Ended, first_of, read, told
from rapid.tls import UNIX
from rapid.v1 import load_pb2, load_pb2_grpc
from rapid.wire.common import decode_push

SILENT_S = 60.0  # a stream that has brought nothing for so long is closed
FOLDER_MODE = 0o750  # a Unix socket does not say who calls, so the folder says who may
SERVICE = load_pb2.DESCRIPTOR.services_by_name["LoadService"].full_name
FRESH_S = 10.0  # an engine pushes a few times a second; one that is silent for this long has stopped

Context = grpc.aio.ServicerContext[load_pb2.PushRequest, load_pb2.PushResponse]


@dataclass(frozen=True, slots=True)
class Looks:
    """How it went to read one engine's metrics, since this daemon started; good_at_s is the last time that it did well
    (None: never)."""

    count: int = 0
    read_bytes: int = 0
    good_at_s: float | None = None
    failures: Mapping[ScrapeFault, int] = field(default_factory=dict)

    def after(self, read_bytes: int, at_s: float, fault: ScrapeFault | None) -> "Looks":
        """With one look more."""
        count, read_bytes = self.count + 1, self.read_bytes + read_bytes
        if fault is None:
            return Looks(count, read_bytes, at_s, self.failures)
        return Looks(count, read_bytes, self.good_at_s, {**self.failures, fault: self.failures.get(fault, 0) + 1})


class LoadTable:
    """The newest load of at most `max_instances` instances, what is wrong with loads, and how engines were read.

    Times are of the host's monotonic clock.
    """

    def __init__(self, max_instances: int) -> None:
        self._max_instances = max_instances
        self._newest: dict[str, PhaseLoad] = {}
        self._problems: dict[str, str] = {}
        self._looks: dict[str, Looks] = {}

    def take(self, load: PhaseLoad, at_s: float) -> None:
        """Keep the load if it is news. Raises WireInvalid for one from the future, Refused when the table is full."""
        if load.at_s > at_s:
            ahead = f"{load.at_s:.3f} s is {load.at_s - at_s:.3f} s ahead of this host's CLOCK_MONOTONIC"
            raise WireInvalid("load.at_s", f"{ahead}; take the time there, before the push")
        held = self._newest.get(load.instance)
        if load.at_s <= at_s - FRESH_S or (held is not None and load.at_s < held.at_s):
            return  # too old to be reported, or overtaken
        if held is None and len(self._newest) >= self._max_instances and not self._forget_stale(at_s):
            raise Refused(
                f"instance {load.instance}: this host carries the load of {self._max_instances} instances already; "
                "raise load.max_instances"
            )
        self._newest[load.instance] = load

    def fresh(self, at_s: float) -> tuple[PhaseLoad, ...]:
        """Every load that is less than FRESH_S old, in the order in which its instance came."""
        self._forget_stale(at_s)
        return tuple(self._newest.values())

    def note(self, instance: str, problem: str) -> None:
        """What is wrong with the load of a scraped instance, in one line; empty: nothing."""
        if problem:
            self._problems[instance] = problem
        else:
            self._problems.pop(instance, None)

    def problems(self) -> tuple[tuple[str, str], ...]:
        """(instance, problem), as long as it lasts."""
        return tuple(self._problems.items())

    def looked(self, instance: str, read_bytes: int, at_s: float, fault: ScrapeFault | None = None) -> None:
        """The metrics of an instance were looked at, and well if there is no fault."""
        self._looks[instance] = self._looks.get(instance, Looks()).after(read_bytes, at_s, fault)

    def looks(self) -> Mapping[str, Looks]:
        """By instance; it does not change any more."""
        return dict(self._looks)

    def _forget_stale(self, at_s: float) -> bool:
        """Whether there was one to forget."""
        stale = [name for name, load in self._newest.items() if load.at_s <= at_s - FRESH_S]
        for name in stale:
            del self._newest[name]
        return bool(stale)


class LoadService(load_pb2_grpc.LoadServiceServicer):
    """Takes what the engines of this host push. A stream that ends takes nothing away: its load ages out.

    What is scraped may not be pushed too: the counters of the two would not fit together.
    """

    def __init__(self, loads: LoadTable, clock: Callable[[], float], scraped: Collection[str] = ()) -> None:
        self._loads, self._clock, self._scraped = loads, clock, frozenset(scraped)
        self._stopping = asyncio.Event()

    async def Push(self, requests: AsyncIterable[load_pb2.PushRequest], context: Context) -> load_pb2.PushResponse:
        taken = load_pb2.PushResponse()
        async with told(context):
            await first_of(self._until_stopped(), self._take_all(context, taken))
        return taken

    def stop(self) -> None:
        """End every stream."""
        self._stopping.set()

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        raise Ended("the daemon stops")

    async def _take_all(self, context: Context, taken: load_pb2.PushResponse) -> None:
        while (request := await _next(context)) is not None:
            load = decode_push(request)
            if load.instance in self._scraped:
                problem = f"instance {load.instance}: its metrics are read here ([[engine]]); push or be read, not both"
                raise Ended(problem, grpc.StatusCode.FAILED_PRECONDITION)
            try:
                self._loads.take(load, self._clock())
            except Refused as full:
                raise Ended(str(full), grpc.StatusCode.RESOURCE_EXHAUSTED) from full
            taken.taken += 1


async def _next(context: Context) -> load_pb2.PushRequest | None:
    try:
        async with asyncio.timeout(SILENT_S):
            return await read(context)
    except TimeoutError:
        text = f"nothing was pushed for {SILENT_S:g} s; push a few times a second"
        raise Ended(text) from None


@contextlib.asynccontextmanager
async def serving_load(service: LoadService, path: Path, key: str) -> AsyncIterator[RpcServer]:
    """Serve on a Unix socket, which the config key names, while this lasts. Raises ConfigInvalid."""
    _make_private_folder(path.parent, key)
    add = partial(load_pb2_grpc.add_LoadServiceServicer_to_server, service)
    server = await start_server({key: f"{UNIX}{path}"}, add, services=[SERVICE])
    await server.set_serving(True)
    try:
        yield server
    finally:
        service.stop()
        await server.stop()


def _make_private_folder(folder: Path, key: str) -> None:
    """A folder that only its owner and group get into; one that is there already must be such a folder."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        mode = folder.stat().st_mode & 0o777
    except OSError as error:
        raise ConfigInvalid(key, f"folder {folder} cannot be used: {error.strerror}") from error
    if mode & 0o007:
        raise ConfigInvalid(
            key,
            f"folder {folder} has mode {mode:o}, so every user could push load; use a folder of mode {FOLDER_MODE:o}",
        )
