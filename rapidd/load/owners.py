"""Which GPUs an engine computes on: those on which the driver lists one of the processes behind its port.

Who listens may have started those that compute (vLLM, SGLang, a Dynamo worker), or have been started beside them by a
common parent (several API servers), so the search climbs from the listener. It never climbs to a process that has
another engine below it, a supervisor or a shell: all of the host's GPUs would be everybody's.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import psutil

from rapid.config.node import EngineTable
from rapid.core.errors import ConfigInvalid

LOOK_S = 60.0  # between two looks at all processes of the host, which cost some ten milliseconds
SOON_S = 5.0  # after an engine came or restarted: it has loaded no weights before
LOOK_TIMEOUT_S = 10.0
LIST_TIMEOUT_S = 2.0
CLIMB_MAX = 3  # parents above the listener

Pids = Mapping[str, tuple[int, ...]]  # by GPU, as the driver lists them


@dataclass(frozen=True, slots=True)
class Host:
    """The processes of this host at one moment: who listens on a port, and who started whom."""

    listeners: Mapping[int, frozenset[int]]
    parents: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Owned:
    """The GPUs of an engine, or why they are not known, in one line."""

    gpus: tuple[str, ...] = ()
    problem: str = ""


class Lister(Protocol):
    """What is asked of the one who makes all calls to a GPU: rapidd.worker.Worker."""

    @property
    def gpu(self) -> str: ...

    def submit_list(self, done: Callable[[tuple[int, ...]], None]) -> None: ...


async def list_pids(workers: Sequence[Lister], timeout_s: float = LIST_TIMEOUT_S) -> Pids:
    """The processes on every GPU whose driver tells them within timeout_s."""
    loop, whole = asyncio.get_running_loop(), asyncio.Event()
    listed: dict[str, tuple[int, ...]] = {}

    def take(gpu: str, pids: tuple[int, ...]) -> None:
        listed[gpu] = pids
        if len(listed) == len(workers):
            whole.set()

    def hand_over(gpu: str, pids: tuple[int, ...]) -> None:
        with contextlib.suppress(RuntimeError):  # a call that hung until the loop was gone
            loop.call_soon_threadsafe(take, gpu, pids)

    for worker in workers:
        worker.submit_list(partial(hand_over, worker.gpu))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await whole.wait()
    return listed


class Owners:
    """The GPUs of every engine, found again and again by the processes that `ask` gets from the driver."""

    def __init__(self, engines: Sequence[EngineTable], ask: Callable[[], Awaitable[Pids]]) -> None:
        self._ask = ask
        self._unknown = tuple(engine for engine in engines if not engine.gpus)
        self._owned = {engine.instance: Owned(engine.gpus) for engine in engines}
        self._soon = asyncio.Event()

    def of(self, instance: str) -> Owned:
        return self._owned[instance]

    def look_soon(self) -> None:
        """An engine has come or restarted."""
        self._soon.set()

    async def run(self) -> None:
        """Look until cancelled. There is nothing to find out when the configuration says it all."""
        while self._unknown:
            await self._soon.wait()
            self._soon.clear()
            await self.look()
            alarm = asyncio.get_running_loop().call_later(LOOK_S, self._soon.set)
            try:
                await asyncio.sleep(SOON_S)
                await self._soon.wait()
            finally:
                alarm.cancel()

    async def look(self) -> None:
        """Find the GPUs of every engine that has none configured. What could not be found out now stays as it was."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                pids, host = await self._ask(), await asyncio.to_thread(look_at_host)
        except TimeoutError:
            return
        self._owned |= find(self._unknown, pids, host)


def find(engines: Iterable[EngineTable], pids: Pids, host: Host) -> dict[str, Owned]:
    """Whose GPUs are whose, by instance."""
    engines = tuple(engines)
    listening = {each.instance: host.listeners.get(urlsplit(each.url).port or 0, frozenset()) for each in engines}
    children: dict[int, list[int]] = {}
    for pid, parent in host.parents.items():
        children.setdefault(parent, []).append(pid)
    owned: dict[str, Owned] = {}
    for engine in engines:
        own = listening[engine.instance]
        others = frozenset().union(*(listening[other.instance] for other in engines)) - own
        gpus = _climb(own, others, pids, host.parents, children)
        owned[engine.instance] = Owned(gpus) if gpus else Owned(problem=_why_not(engine, own, pids))
    return owned


def _climb(
    own: frozenset[int],
    others: frozenset[int],
    pids: Pids,
    parents: Mapping[int, int],
    children: Mapping[int, list[int]],
) -> tuple[str, ...]:
    roots = own
    for _ in range(CLIMB_MAX + 1):
        family = _family(roots, children)
        if family & others:
            return ()
        if gpus := tuple(gpu for gpu, listed in pids.items() if not family.isdisjoint(listed)):
            return gpus
        roots = frozenset(parents.get(pid, 0) for pid in roots)
        if not roots or min(roots) <= 1:
            return ()
    return ()


def _family(roots: frozenset[int], children: Mapping[int, list[int]]) -> frozenset[int]:
    family, left = set(roots), list(roots)
    while left:
        for child in children.get(left.pop(), ()):
            if child not in family:
                family.add(child)
                left.append(child)
    return frozenset(family)


def _why_not(engine: EngineTable, own: frozenset[int], pids: Pids) -> str:
    port = urlsplit(engine.url).port
    if not any(pids.values()):
        why = "the driver lists no process on any GPU"
    elif not own:
        why = f"no process that rapidd can see listens on port {port}"
    else:
        who = ", ".join(map(str, sorted(own)[:4]))
        why = f"the driver lists nothing of process {who}, which listens on port {port}"
    return f"its GPUs are not known: {why}; set engine.{engine.instance}.gpus"


def look_at_host() -> Host:
    """Every process that this one may see. It walks through all of /proc, so not on the event loop."""
    listeners: dict[int, set[int]] = {}
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        connections = []  # not even our own network may be looked at
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.pid is not None and connection.laddr:
            listeners.setdefault(connection.laddr.port, set()).add(connection.pid)
    parents = {each.pid: each.info["ppid"] or 0 for each in psutil.process_iter(["ppid"])}
    return Host({port: frozenset(pids) for port, pids in listeners.items()}, parents)


def check_gpus(engines: Iterable[EngineTable], known: Iterable[str]) -> None:
    """Raise ConfigInvalid for an engine on a GPU that this host does not have."""
    known = tuple(known)
    for engine in engines:
        for gpu in engine.gpus:
            if gpu not in known:
                raise ConfigInvalid(
                    f"engine.{engine.instance}.gpus", f"this host has no gpu {gpu} (it has: {', '.join(known)})"
                )
