"""Which instance serves which request: the pure dispatch that the demo's router and the simulator share.

A prompt goes to the prefill or mixed instance with the fewest prompt tokens outstanding, a KV cache to the decode
instance with the fewest sequences, then tokens; ties go to the instance that joined first. A mixed instance finishes
what it began, so no KV cache leaves it. The router knows only what it has dispatched and what has come back, so it
works with real engines, and it never looks at how long an answer will be.

Every request has one owner at a time. News of a request from anyone but its owner is late and is ignored. A dispatch
costs O(log instances), and what the router remembers is bounded by the requests that it or an instance holds.
"""

from collections import deque
from dataclasses import dataclass, field

from rapid.core.cluster import Role
from rapid.sim.least import LeastLoaded
from rapid.sim.model.requests import Backlog, PrefillDone, Request

# Requests that wait because no instance of their role is open; one more is turned away.
MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class SendPrompt:
    """Submit the request to this instance."""

    instance: str
    request: Request


@dataclass(frozen=True, slots=True)
class SendKv:
    """Offer this KV cache to this instance."""

    instance: str
    done: PrefillDone


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The router is full: the request gets an error, and the KV cache that it may have is to be released."""

    request: Request
    done: PrefillDone | None = None


Dispatch = SendPrompt | SendKv | TurnedAway


@dataclass(slots=True)
class _Peer:
    """One instance as the router knows it. tokens: the prompts of its requests."""

    name: str
    number: int  # in the order of joining
    role: Role
    open: bool = False
    tokens: int = 0
    requests: dict[int, Request] = field(default_factory=dict)

    def copy(self) -> "_Peer":
        return _Peer(self.name, self.number, self.role, self.open, self.tokens, self.requests.copy())


class Router:
    """Keeps every request at exactly one place until it has finished."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._joined = 0
        self._peers: dict[str, _Peer] = {}
        self._numbers: dict[int, _Peer] = {}
        self._owners: dict[int, str] = {}  # by request: the peer that has it
        self._for_prompts = LeastLoaded()  # the open peers that take prompts
        self._for_kvs = LeastLoaded()  # the open peers that take KV caches
        self._prompts: deque[Request] = deque()
        self._kvs: deque[PrefillDone] = deque()

    def copy(self) -> "Router":
        """An independent copy: it makes the same choices from here on."""
        other = Router(self._max_waiting)
        other._joined = self._joined
        other._peers = {name: peer.copy() for name, peer in self._peers.items()}
        other._numbers = {peer.number: peer for peer in other._peers.values()}
        other._owners = self._owners.copy()
        other._for_prompts, other._for_kvs = self._for_prompts.copy(), self._for_kvs.copy()
        other._prompts, other._kvs = self._prompts.copy(), self._kvs.copy()
        return other

    @property
    def waiting(self) -> int:
        """Requests that wait at the router, for want of an open instance."""
        return len(self._prompts) + len(self._kvs)

    @property
    def remembered(self) -> int:
        """How many entries the router keeps about requests: bounded by instances and requests that are under way."""
        requests = sum(len(peer.requests) for peer in self._peers.values())
        return self.waiting + requests + len(self._owners) + self._for_prompts.size + self._for_kvs.size

    def outstanding(self, name: str) -> int:
        """Requests that this instance has."""
        return len(self._peers[name].requests)

    # ---- instances ----

    def join(self, name: str, role: Role) -> None:
        """An instance is there, and closed. Joining is optional: open() makes an unknown instance known."""
        assert name not in self._peers, f"{name} is here already"
        self._joined += 1
        self._peers[name] = self._numbers[self._joined] = _Peer(name, self._joined, role)

    def open(self, name: str, role: Role) -> list[Dispatch]:
        """The instance takes work in this role from now on: a new one, one that switched, or one that rolled back."""
        if name not in self._peers:
            self.join(name, role)
        peer = self._peers[name]
        assert peer.role is role or not peer.requests, f"{name} changes role with {len(peer.requests)} requests"
        self._shut(peer)
        peer.role, peer.open = role, True
        self._file(peer)
        return self._dispatch_waiting()

    def close(self, name: str) -> None:
        """Nothing more goes to this instance; it keeps what it has until it finishes it or hands it back."""
        self._shut(self._peers[name])

    def hand_back(self, name: str, backlog: Backlog) -> list[Dispatch]:
        """The instance returns work that it has not begun."""
        out: list[Dispatch] = []
        for request in backlog.requests:
            if self._release(name, request.request_id):
                out += self._place_prompt(request)
        for done in backlog.kvs:
            if self._release(name, done.request.request_id):
                out += self._place_kv(done)
        return out

    def lost(self, name: str) -> list[Dispatch]:
        """The instance is dead (or was never known). Its requests start again from prefill; they keep their arrival."""
        again = self._forget(name)
        again += [done.request for done in self._kvs if done.source == name]
        self._kvs = deque(done for done in self._kvs if done.source != name)
        out: list[Dispatch] = []
        for request in again:
            out += self._place_prompt(request)
        return out

    # ---- requests ----

    def arrive(self, request: Request) -> list[Dispatch]:
        """A new request; its id must not be in use."""
        owner = self._owners.get(request.request_id)
        assert owner is None, f"request {request.request_id} is here already, at {owner}"
        return self._place_prompt(request)

    def prefill_done(self, name: str, done: PrefillDone) -> list[Dispatch]:
        """An instance has processed a prompt."""
        if not self._release(name, done.request.request_id):
            return []
        return self._place_kv(done)

    def finished(self, name: str, request_id: int) -> bool:
        """An instance says that a request is complete; False: late news, not to be counted."""
        return self._release(name, request_id)

    # ---- inside ----

    def _place_prompt(self, request: Request) -> list[Dispatch]:
        number = self._for_prompts.least()
        if number is None:
            if self.waiting >= self._max_waiting:
                return [TurnedAway(request)]
            self._prompts.append(request)
            return []
        return [SendPrompt(self._give(number, request), request)]

    def _place_kv(self, done: PrefillDone) -> list[Dispatch]:
        number = self._for_kvs.least()
        if number is None:
            if self.waiting >= self._max_waiting:
                return [TurnedAway(done.request, done)]
            self._kvs.append(done)
            return []
        return [SendKv(self._give(number, done.request), done)]

    def _dispatch_waiting(self) -> list[Dispatch]:
        """KV caches first: they hold memory. What still finds no place waits again, in the same order."""
        kvs, self._kvs = self._kvs, deque()
        prompts, self._prompts = self._prompts, deque()
        out: list[Dispatch] = []
        for done in kvs:
            out += self._place_kv(done)
        for request in prompts:
            out += self._place_prompt(request)
        return out

    def _give(self, number: int, request: Request) -> str:
        """Makes this peer the owner of the request, and says its name."""
        peer = self._numbers[number]
        peer.requests[request.request_id] = request
        peer.tokens += request.input_tokens
        self._owners[request.request_id] = peer.name
        self._file(peer)
        return peer.name

    def _release(self, name: str, request_id: int) -> bool:
        """Takes the request from its owner; False when `name` is not the owner."""
        if self._owners.get(request_id) != name:
            return False
        del self._owners[request_id]
        peer = self._peers[name]
        peer.tokens -= peer.requests.pop(request_id).input_tokens
        if peer.open:
            self._file(peer)
        return True

    def _file(self, peer: _Peer) -> None:
        """The load of an open peer has changed."""
        if peer.role is Role.DECODE:
            self._for_kvs.put(peer.number, len(peer.requests), peer.tokens)
        else:
            self._for_prompts.put(peer.number, peer.tokens)

    def _shut(self, peer: _Peer) -> None:
        peer.open = False
        self._for_prompts.drop(peer.number)
        self._for_kvs.drop(peer.number)

    def _forget(self, name: str) -> list[Request]:
        """The instance is no peer any more; what it had, in the order in which it got it."""
        peer = self._peers.pop(name, None)
        if peer is None:
            return []
        self._shut(peer)
        del self._numbers[peer.number]
        for number in peer.requests:
            del self._owners[number]
        return list(peer.requests.values())
