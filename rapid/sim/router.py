"""Which instance serves which request: the pure dispatch that the demo's router and the simulator share.

A prompt goes to the prefill instance with the fewest tokens outstanding, a KV cache to the decode instance with the
fewest sequences, then tokens; ties go to the instance that joined first. The router knows only what it has dispatched
and what has come back, so it works with real engines, and it never looks at how long an answer will be.

Every request has one owner at a time. News of a request from anyone but its owner is late and is ignored.
"""

from collections import deque
from dataclasses import dataclass, field

from rapid.core.cluster import Role
from rapid.sim.requests import Backlog, PrefillDone, Request

# Requests that wait because no instance of their role is open; one more is turned away.
MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class SendPrompt:
    """Submit the request to this instance."""

    instance: str
    request: Request


@dataclass(frozen=True, slots=True)
class SendKv:
    """Offer this KV cache, which lies at `source`, to this instance."""

    instance: str
    source: str
    done: PrefillDone


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The router is full: the request gets an error."""

    request: Request


Dispatch = SendPrompt | SendKv | TurnedAway


@dataclass(slots=True)
class _Peer:
    """One instance as the router knows it. tokens: prompts outstanding (prefill), context received (decode)."""

    name: str
    role: Role
    open: bool = False
    tokens: int = 0
    requests: dict[int, Request] = field(default_factory=dict)


class Router:
    """Keeps every request at exactly one place until it has finished."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._peers: dict[str, _Peer] = {}
        self._prompts: deque[Request] = deque()
        self._kvs: deque[tuple[str, PrefillDone]] = deque()  # with the instance where the cache lies

    @property
    def waiting(self) -> int:
        """Requests that wait at the router, for want of an open instance."""
        return len(self._prompts) + len(self._kvs)

    def outstanding(self, name: str) -> int:
        """Requests that this instance has."""
        return len(self._peers[name].requests)

    # ---- instances ----

    def join(self, name: str, role: Role) -> None:
        """An instance is there, and closed. Joining is optional: open() makes an unknown instance known."""
        assert name not in self._peers, f"{name} is here already"
        self._peers[name] = _Peer(name, role)

    def open(self, name: str, role: Role) -> list[Dispatch]:
        """The instance takes work in this role from now on: a new one, one that switched, or one that rolled back."""
        peer = self._peers.setdefault(name, _Peer(name, role))
        assert peer.role is role or not peer.requests, f"{name} changes role with {len(peer.requests)} requests"
        peer.role, peer.open = role, True
        return self._dispatch_waiting()

    def close(self, name: str) -> None:
        """Nothing more goes to this instance; it keeps what it has until it finishes it or hands it back."""
        self._peers[name].open = False

    def hand_back(self, name: str, backlog: Backlog) -> list[Dispatch]:
        """The instance returns work that it has not begun."""
        peer = self._peers[name]
        out: list[Dispatch] = []
        for request in backlog.requests:
            if self._release(peer, request.request_id):
                out += self._place_prompt(request)
        for done in backlog.kvs:
            if self._release(peer, done.request.request_id):
                out += self._place_kv(name, done)
        return out

    def lost(self, name: str) -> list[Dispatch]:
        """The instance is dead (or was never known). Its requests start again from prefill; they keep their arrival."""
        peer = self._peers.pop(name, None)
        again = list(peer.requests.values()) if peer else []
        again += [done.request for source, done in self._kvs if source == name]
        self._kvs = deque(item for item in self._kvs if item[0] != name)
        out: list[Dispatch] = []
        for request in again:
            out += self._place_prompt(request)
        return out

    # ---- requests ----

    def arrive(self, request: Request) -> list[Dispatch]:
        """A new request; its id must not be in use."""
        number = request.request_id
        assert not any(number in peer.requests for peer in self._peers.values()), f"request {number} is here already"
        return self._place_prompt(request)

    def prefill_done(self, name: str, done: PrefillDone) -> list[Dispatch]:
        """An instance has processed a prompt."""
        if not self._release(self._peers.get(name), done.request.request_id):
            return []
        return self._place_kv(name, done)

    def finished(self, name: str, request_id: int) -> bool:
        """An instance says that a request is complete; False: late news, not to be counted."""
        return self._release(self._peers.get(name), request_id)

    # ---- inside ----

    def _place_prompt(self, request: Request) -> list[Dispatch]:
        peer = self._least_loaded(Role.PREFILL)
        if peer is None:
            if self.waiting >= self._max_waiting:
                return [TurnedAway(request)]
            self._prompts.append(request)
            return []
        self._give(peer, request)
        return [SendPrompt(peer.name, request)]

    def _place_kv(self, source: str, done: PrefillDone) -> list[Dispatch]:
        peer = self._least_loaded(Role.DECODE)
        if peer is None:
            if self.waiting >= self._max_waiting:
                return [TurnedAway(done.request)]
            self._kvs.append((source, done))
            return []
        self._give(peer, done.request)
        return [SendKv(peer.name, source, done)]

    def _dispatch_waiting(self) -> list[Dispatch]:
        """KV caches first: they hold memory. What still finds no place waits again, in the same order."""
        kvs, self._kvs = self._kvs, deque()
        prompts, self._prompts = self._prompts, deque()
        out: list[Dispatch] = []
        for source, done in kvs:
            out += self._place_kv(source, done)
        for request in prompts:
            out += self._place_prompt(request)
        return out

    def _least_loaded(self, role: Role) -> _Peer | None:
        """The open instance of the role with the least load. None: there is none."""
        best: _Peer | None = None
        best_load = (0, 0)
        for peer in self._peers.values():
            if peer.role is not role or not peer.open:
                continue
            load = (peer.tokens, 0) if role is Role.PREFILL else (len(peer.requests), peer.tokens)
            if best is None or load < best_load:
                best, best_load = peer, load
        return best

    def _give(self, peer: _Peer, request: Request) -> None:
        peer.requests[request.request_id] = request
        peer.tokens += request.input_tokens

    def _release(self, peer: _Peer | None, request_id: int) -> bool:
        """Takes the request from its owner; False when `peer` is not the owner."""
        if peer is None or request_id not in peer.requests:
            return False
        peer.tokens -= peer.requests.pop(request_id).input_tokens
        return True
