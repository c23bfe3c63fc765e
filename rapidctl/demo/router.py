"""The front end of one host: takes arrivals, hands them to engines over a Unix socket, and keeps the record.

The rules of dispatch are rapid.sim.router's; here they meet real connections, which end when an engine dies. Its
requests are then dispatched anew.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rapid.core.cluster import Role, SloTargets
from rapid.core.errors import WireInvalid
from rapid.sim.model.requests import Backlog, Finished, PrefillDone, Request
from rapid.sim.router import Dispatch, Router, SendKv, SendPrompt, TurnedAway
from rapidctl.demo import talk
from rapidctl.demo.record import Record

HELLO_WITHIN_S = 5.0
MAX_ENGINES = 64  # connections at once
MAX_DOORS = 10_000  # the oldest are forgotten first


@dataclass(frozen=True, slots=True)
class Door:
    """An engine began to take requests in `role`, or (None) stopped to."""

    at_s: float
    instance: str
    role: Role | None


@dataclass(frozen=True, slots=True)
class _Cache:
    """A KV cache that lies at its source, for the engine that is to pull it (empty: none takes any)."""

    done: PrefillDone
    puller: str = ""


class FrontEnd:
    """Where one host's requests come in. Everything happens on one event loop, so no step sees half of another."""

    def __init__(self, host: str, slo: SloTargets, say: Callable[[str], None]) -> None:
        self.host = host
        self.record = Record(slo)
        self.lags: dict[str, talk.Lag] = {}  # by engine: the last life's
        self.turned_away = 0
        self.dispatched_again = 0
        self.doors: deque[Door] = deque(maxlen=MAX_DOORS)  # in the order of time, for the picture
        self.role_moves = 0  # engines that came back to work in another role; a restart is none
        self._say = say
        self._router = Router()
        self._caches: dict[int, _Cache] = {}  # by request: what has not been pulled
        self._outlets: dict[str, talk.Outlet] = {}

    @property
    def engines(self) -> int:
        """How many are connected."""
        return len(self._outlets)

    @property
    def waiting(self) -> int:
        """Requests that wait here because no engine of their role takes any."""
        return self._router.waiting

    def outstanding(self, instance: str) -> int:
        """Requests that an engine has; none for one that is not connected."""
        return self._router.outstanding(instance) if instance in self._outlets else 0

    async def serve(self, path: Path, stack: AsyncExitStack) -> None:
        """Listen until the stack closes."""
        server = await asyncio.start_unix_server(self._connected, path, limit=talk.LINE_MAX)
        stack.push_async_callback(self._shut, server)

    def arrive(self, request: Request) -> None:
        """A user sends a request."""
        self.record.offer(request)
        self._perform(self._router.arrive(request))

    def begin_anew(self) -> None:
        """Forget every request that has finished; what runs on counts in the new record."""
        self.record = self.record.anew()

    async def _shut(self, server: asyncio.Server) -> None:
        server.close()
        for outlet in tuple(self._outlets.values()):
            outlet.close()
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outlet = talk.Outlet(writer)
        name = ""
        try:
            async with asyncio.timeout(HELLO_WITHIN_S):
                hello = await anext(talk.heard(reader, talk.from_engine), None)
            if isinstance(hello, talk.Hello) and len(self._outlets) < MAX_ENGINES:
                name = hello.instance
                self._join(hello, outlet)
                async for message in talk.heard(reader, talk.from_engine):
                    self._heard(name, outlet, message)
        except (WireInvalid, TimeoutError) as wrong:
            self._say(f"{self.host}: engine {name or 'without a name'} is cut off: {wrong}")
        finally:
            outlet.close()
            self._leave(name, outlet)

    def _join(self, hello: talk.Hello, outlet: talk.Outlet) -> None:
        """A second connection under one name replaces the first: the engine has been started again."""
        if hello.instance in self._outlets:
            self._leave(hello.instance, self._outlets[hello.instance])
        self._outlets[hello.instance] = outlet
        dispatches = self._router.open(hello.instance, hello.role)
        self._note(hello.instance, hello.role if hello.open else None)
        if not hello.open:
            # An instance joins open; nothing has been sent to it yet, so what came its way goes elsewhere.
            self._router.close(hello.instance)
            dispatches = self._withdraw(hello.instance, dispatches)
        self._perform(dispatches)

    def _withdraw(self, name: str, dispatches: Iterable[Dispatch]) -> list[Dispatch]:
        mine: list[Dispatch] = []
        for dispatch in dispatches:
            match dispatch:
                case SendPrompt() if dispatch.instance == name:
                    mine += self._router.hand_back(name, Backlog(requests=(dispatch.request,)))
                case SendKv() if dispatch.instance == name:
                    mine += self._router.hand_back(name, Backlog(kvs=(dispatch.done,)))
                case _:
                    mine.append(dispatch)
        return mine

    def _leave(self, name: str, outlet: talk.Outlet) -> None:
        """The engine is gone, unless a newer connection of it has taken over."""
        if self._outlets.get(name) is not outlet:
            return
        del self._outlets[name]
        self._note(name, None)
        self._drop_caches(name)
        again = self._router.lost(name)
        self.dispatched_again += len(again)
        self._perform(again)

    def _heard(self, name: str, outlet: talk.Outlet, message: talk.FromEngine | talk.ToEngine) -> None:
        if self._outlets.get(name) is not outlet:
            return  # a newer connection of the same engine has taken over
        match message:
            case talk.Opened():
                self._opened(name, message.role)
            case talk.Closed():
                self._note(name, None)
                self._router.close(name)
                outlet.send(talk.Quiet())
            case talk.HandBack():
                self._perform(self._router.hand_back(name, Backlog(message.requests, message.kvs)))
            case talk.Prefilled():
                self._prefilled(name, message.done)
            case talk.Pulled():
                self._pulled(name, message.request_id)
            case talk.Ended():
                self._ended(name, message)
            case talk.Lag():
                self.lags[name] = message

    def _opened(self, name: str, role: Role) -> None:
        before = next((door.role for door in reversed(self.doors) if door.instance == name and door.role), None)
        self.role_moves += before is not None and before is not role
        self._note(name, role)
        self._perform(self._router.open(name, role))

    def _note(self, name: str, role: Role | None) -> None:
        self.doors.append(Door(time.monotonic(), name, role))

    def _prefilled(self, name: str, done: PrefillDone) -> None:
        outstanding = self._router.outstanding(name)
        dispatches = self._router.prefill_done(name, done)
        self.record.first_token(done.request.request_id, done.ttft_s)
        if self._router.outstanding(name) == outstanding:
            self._send(name, talk.Release(done))  # late: the request has been dispatched anew
            return
        self._caches[done.request.request_id] = _Cache(done)
        self._perform(dispatches)

    def _pulled(self, name: str, request_id: int) -> None:
        cache = self._caches.get(request_id)
        if cache is not None and cache.puller == name:
            self._release(request_id)

    def _release(self, request_id: int) -> None:
        """Nobody needs the KV cache any longer, if there is one."""
        cache = self._caches.pop(request_id, None)
        if cache is not None and cache.done.source in self._outlets:
            self._send(cache.done.source, talk.Release(cache.done))

    def _drop_caches(self, name: str) -> None:
        """An engine is gone: nobody pulls what it was to pull, and what lay there has gone with it."""
        for request_id, cache in tuple(self._caches.items()):
            if name in (cache.puller, cache.done.source):
                self._release(request_id)

    def _ended(self, name: str, ended: talk.Ended) -> None:
        request = self.record.offered.get(ended.request_id)
        if self._router.finished(name, ended.request_id) and request is not None:
            self.record.end(Finished(request, ended.at_s, ended.ttft_s, ended.tpot_s))

    def _perform(self, dispatches: Iterable[Dispatch]) -> None:
        """Send. An engine that cannot be sent to is about to be lost, and with it comes the request again."""
        for dispatch in dispatches:
            match dispatch:
                case SendPrompt():
                    self._send(dispatch.instance, talk.Prompt(dispatch.request))
                case SendKv():
                    self._caches[dispatch.done.request.request_id] = _Cache(dispatch.done, dispatch.instance)
                    self._send(dispatch.instance, talk.Kv(dispatch.done))
                case TurnedAway():
                    self.turned_away += 1
                    self._release(dispatch.request.request_id)

    def _send(self, instance: str, message: talk.ToEngine) -> None:
        self._outlets[instance].send(message)
