"""The rules of dispatch once more, as plainly as they can be said: look at every instance, every time."""

from dataclasses import dataclass, field

from rapid.core.cluster import Role
from rapid.sim.model.requests import Backlog, PrefillDone, Request
from rapid.sim.router import Dispatch, SendKv, SendPrompt, TurnedAway

Work = Request | PrefillDone


@dataclass
class Place:
    """An instance and what it has, in the order in which it got it."""

    name: str
    role: Role
    open: bool
    has: list[Request] = field(default_factory=list)

    def tokens(self) -> int:
        return sum(request.input_tokens for request in self.has)

    def has_no_more(self, request_id: int) -> bool:
        """Takes this request away from it; False: it has no such request."""
        before = len(self.has)
        self.has = [request for request in self.has if request.request_id != request_id]
        return len(self.has) < before


class LinearRouter:
    """What rapid.sim.router.Router promises, without any cleverness."""

    def __init__(self, max_waiting: int) -> None:
        self.places: list[Place] = []  # in the order of joining
        self.waiting: list[Work] = []
        self._max_waiting = max_waiting

    def open(self, name: str, role: Role) -> list[Dispatch]:
        place = self._at(name)
        if place is None:
            self.places.append(place := Place(name, role, True))
        place.role, place.open = role, True
        waiting, self.waiting = self.waiting, []
        caches_first = sorted(waiting, key=lambda work: isinstance(work, Request))
        return [sent for work in caches_first for sent in self._dispatch(work)]

    def close(self, name: str) -> None:
        place = self._at(name)
        assert place
        place.open = False

    def hand_back(self, name: str, backlog: Backlog) -> list[Dispatch]:
        work: list[Work] = [*backlog.requests, *backlog.kvs]
        return [sent for item in work if self._take(name, item) for sent in self._dispatch(item)]

    def lost(self, name: str) -> list[Dispatch]:
        again = [request for place in self.places if place.name == name for request in place.has]
        gone = [work for work in self.waiting if isinstance(work, PrefillDone) and work.source == name]
        self.places = [place for place in self.places if place.name != name]
        self.waiting = [work for work in self.waiting if work not in gone]
        again += [done.request for done in gone]
        return [sent for request in again for sent in self._dispatch(request)]

    def arrive(self, request: Request) -> list[Dispatch]:
        return self._dispatch(request)

    def prefill_done(self, name: str, done: PrefillDone) -> list[Dispatch]:
        return self._dispatch(done) if self._take(name, done) else []

    def finished(self, name: str, request_id: int) -> bool:
        place = self._at(name)
        return place is not None and place.has_no_more(request_id)

    def least(self, places: list[Place], role: Role) -> Place | None:
        """Of those that may take it; min() keeps the first of equals: who joined first."""
        if role is Role.DECODE:
            return min(places, key=lambda place: (len(place.has), place.tokens()), default=None)
        return min(places, key=lambda place: place.tokens(), default=None)

    def _at(self, name: str) -> Place | None:
        return next((place for place in self.places if place.name == name), None)

    def _take(self, name: str, work: Work) -> bool:
        return self.finished(name, _request(work).request_id)

    def _dispatch(self, work: Work) -> list[Dispatch]:
        roles = (Role.PREFILL, Role.MIXED) if isinstance(work, Request) else (Role.DECODE,)
        best = self.least([place for place in self.places if place.open and place.role in roles], roles[0])
        if best is not None:
            best.has.append(_request(work))
            return [SendPrompt(best.name, work) if isinstance(work, Request) else SendKv(best.name, work)]
        if len(self.waiting) >= self._max_waiting:
            return [TurnedAway(work) if isinstance(work, Request) else TurnedAway(work.request, work)]
        self.waiting.append(work)
        return []


def _request(work: Work) -> Request:
    return work if isinstance(work, Request) else work.request
