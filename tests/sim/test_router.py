"""Dispatch: least loaded first, and every request at exactly one place until it has finished."""

from collections import Counter
from random import Random

import pytest

from rapid.core.cluster import Role
from rapid.sim.model.requests import Backlog, PrefillDone, Request
from rapid.sim.router import Dispatch, Router, SendKv, SendPrompt, TurnedAway
from tests.sim.linear import LinearRouter, Place


def request(number: int, tokens: int = 100, arrival_s: float = 0.0) -> Request:
    return Request(number, arrival_s, tokens, 10)


def done(number: int, tokens: int = 100, source: str = "p0") -> PrefillDone:
    return PrefillDone(request(number, tokens), 1.0, 0.5, source)


def router(prefill: int = 2, decode: int = 2, max_waiting: int = 100) -> Router:
    made = Router(max_waiting)
    for index in range(prefill):
        assert made.open(f"p{index}", Role.PREFILL) == []
    for index in range(decode):
        assert made.open(f"d{index}", Role.DECODE) == []
    return made


def places(dispatches: list[Dispatch]) -> list[str]:
    return [item.instance for item in dispatches if not isinstance(item, TurnedAway)]


def test_a_prompt_goes_where_the_fewest_tokens_wait() -> None:
    made = router(prefill=3)
    sent = [places(made.arrive(request(number, tokens)))[0] for number, tokens in enumerate([500, 100, 300, 100, 250])]
    # 500 | 100 | 300, then 100 to the second, which then has 200, and 250 to the second again.
    assert sent == ["p0", "p1", "p2", "p1", "p1"]


def test_tokens_count_until_the_prompt_is_processed() -> None:
    made = router()
    made.arrive(request(1, 500))
    made.arrive(request(2, 400))
    assert made.prefill_done("p0", done(1, 500)) == [SendKv("d0", done(1, 500))]
    assert places(made.arrive(request(3, 100))) == ["p0"]


def test_a_kv_cache_goes_where_the_fewest_sequences_are_then_tokens() -> None:
    made = router()
    sent = []
    for number, tokens in enumerate([5000, 100, 100, 100]):
        made.arrive(request(number, tokens))
        owner = "p0" if made.outstanding("p0") else "p1"
        sent += places(made.prefill_done(owner, done(number, tokens)))
    assert sent == ["d0", "d1", "d1", "d0"]  # 1 and 1 sequences: fewer tokens; then 1 against 2 sequences
    assert made.finished("d1", 1)
    assert (made.outstanding("d0"), made.outstanding("d1")) == (2, 1)


def test_closed_instances_and_those_of_the_other_role_get_nothing() -> None:
    made = router(prefill=2, decode=1)
    made.close("p0")
    assert {places(made.arrive(request(number)))[0] for number in range(10)} == {"p1"}


def test_requests_wait_for_an_instance_and_are_counted() -> None:
    made = router(prefill=0, decode=0)
    assert made.arrive(request(1)) == []
    assert made.arrive(request(2)) == []
    assert made.waiting == 2
    assert made.open("p0", Role.PREFILL) == [SendPrompt("p0", request(1)), SendPrompt("p0", request(2))]
    assert made.prefill_done("p0", done(1)) == []
    assert made.waiting == 1
    assert made.open("d0", Role.DECODE) == [SendKv("d0", done(1))]
    assert made.waiting == 0


def test_the_wait_is_bounded_for_prompts_and_kv_caches() -> None:
    made = router(prefill=0, decode=0, max_waiting=2)
    assert made.arrive(request(1)) == []
    assert made.arrive(request(2)) == []
    assert made.arrive(request(3)) == [TurnedAway(request(3))]
    made.open("p0", Role.PREFILL)
    assert made.prefill_done("p0", done(1)) == []
    assert made.prefill_done("p0", done(2)) == []
    made.arrive(request(4))
    assert made.prefill_done("p0", done(4)) == [TurnedAway(request(4), done(4))]
    assert made.waiting == 2


def test_an_instance_that_joins_gets_nothing_until_it_opens() -> None:
    made = router(prefill=0)
    made.arrive(request(1))
    made.join("p0", Role.PREFILL)
    assert made.waiting == 1
    assert made.open("p0", Role.PREFILL) == [SendPrompt("p0", request(1))]


def test_what_is_handed_back_goes_to_the_others() -> None:
    made = router()
    made.arrive(request(1, 100))
    made.arrive(request(2, 900))
    made.arrive(request(3, 100))
    made.close("p0")
    assert made.hand_back("p0", Backlog(requests=(request(3, 100),))) == [SendPrompt("p1", request(3, 100))]
    assert (made.outstanding("p0"), made.outstanding("p1")) == (1, 2)


def test_the_requests_of_a_dead_instance_start_again_from_prefill_and_keep_their_arrival() -> None:
    made = router(prefill=2, decode=1)
    late = request(1, arrival_s=7.5)
    made.arrive(late)
    made.prefill_done("p0", PrefillDone(late, 8.0, 0.5, "p0"))
    assert made.lost("d0") == [SendPrompt("p0", late)]
    assert made.lost("p0") == [SendPrompt("p1", late)]
    assert made.lost("p1") == []
    assert made.waiting == 1
    assert made.lost("p1") == []  # not known: nothing to do


def test_a_kv_cache_that_waits_dies_with_the_instance_it_lies_on() -> None:
    made = router(prefill=2, decode=0)
    made.arrive(request(1))
    made.prefill_done("p0", done(1))
    assert made.lost("p0") == [SendPrompt("p1", request(1))]
    assert made.waiting == 0


def test_late_news_from_a_former_owner_is_ignored() -> None:
    made = router(prefill=2, decode=1)
    made.arrive(request(1))
    made.lost("p0")
    assert made.prefill_done("p0", done(1)) == []
    assert made.prefill_done("p1", done(1)) == [SendKv("d0", done(1))]
    assert made.prefill_done("p1", done(1)) == []
    assert not made.finished("p1", 1)
    assert made.finished("d0", 1)
    assert not made.finished("d0", 1)
    assert made.hand_back("d0", Backlog(kvs=(done(1),))) == []


def test_a_mixed_instance_takes_prompts_by_tokens_and_finishes_them_itself() -> None:
    made = router(prefill=1, decode=1)
    made.open("m0", Role.MIXED)
    sent = [places(made.arrive(request(number, tokens)))[0] for number, tokens in enumerate([300, 100, 100])]
    assert sent == ["p0", "m0", "m0"]
    assert made.prefill_done("p0", done(0)) == [SendKv("d0", done(0))]  # never to the mixed one
    assert made.finished("m0", 1)
    assert made.outstanding("m0") == 1


def test_an_id_that_is_in_use_does_not_arrive_again() -> None:
    made = router()
    made.arrive(request(7))
    with pytest.raises(AssertionError, match="request 7 is here already, at p0"):
        made.arrive(request(7))
    made.finished("p0", 7)
    assert places(made.arrive(request(7))) == ["p0"]


@pytest.mark.parametrize("seed", range(10))
def test_every_request_is_at_one_place_whatever_happens(seed: int) -> None:
    dice, made = Random(seed), Router(max_waiting=10**6)
    where: dict[int, tuple[str, str]] = {}  # request -> (instance, what it waits for there), as the engines see it
    roles: dict[str, Role] = {}
    finished: set[int] = set()

    def take(dispatches: list[Dispatch]) -> None:
        for item in dispatches:
            match item:
                case SendPrompt():
                    where[item.request.request_id] = (item.instance, "prefill")
                case SendKv():
                    where[item.done.request.request_id] = (item.instance, "decode")
                case TurnedAway():
                    pytest.fail("there is room")

    count = 0
    for _ in range(600):
        verb = dice.choice(["arrive", "arrive", "arrive", "work", "work", "work", "open", "close", "lost"])
        name = f"i{dice.randrange(5)}"
        if verb == "arrive":
            count += 1
            take(made.arrive(request(count, dice.randint(1, 1000))))
        elif verb == "open" and not (name in roles and made.outstanding(name)):
            roles[name] = dice.choice([Role.PREFILL, Role.DECODE])
            take(made.open(name, roles[name]))
        elif verb == "close" and name in roles:
            made.close(name)
        elif verb == "lost" and dice.random() < 0.2:
            roles.pop(name, None)
            where = {number: place for number, place in where.items() if place[0] != name}
            take(made.lost(name))
        elif verb == "work" and where:
            number = dice.choice(sorted(where))
            place, phase = where.pop(number)
            if phase == "prefill":
                take(made.prefill_done(place, done(number, source=place)))
            else:
                assert made.finished(place, number)
                finished.add(number)
        assert len(where) + made.waiting + len(finished) == count
        assert sum(made.outstanding(name) for name in roles) == len(where)


MAX_WAITING = 5  # few, so that a walk meets a full router


class Walk:
    """Two routers hear the same news, in a random order in which it could come; what they answer must agree.

    What the instances have is known from the answers. Now and then the router goes on as a copy of itself, while the
    original hears other news.
    """

    def __init__(self, seed: int, other: LinearRouter | None = None) -> None:
        self.seed, self.dice = seed, Random(seed)
        self.names = 2 + seed % 10
        self.one = Router(MAX_WAITING)
        self.other = other or LinearRouter(MAX_WAITING)
        self.has: dict[str, dict[int, Request | PrefillDone]] = {}
        self.closed: dict[str, None] = {}
        self.arrived = 0
        self.seen: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        verbs = ["arrive"] * 30 + ["work"] * 50 + ["open"] * 8 + ["close"] * 4 + ["hand_back"] * 3 + ["lost", "late"]
        for _ in range(steps):
            verb = self.dice.choice(verbs)
            name = f"i{self.dice.randrange(self.names)}"
            getattr(self, verb)(name)
            assert self.one.waiting == len(self.other.waiting)
            if self.dice.random() < 0.05:
                original, self.one = self.one, self.one.copy()
                original.lost(name)

    def arrive(self, name: str) -> None:
        self.arrived += 1
        tokens = self.dice.choice([1, 10, 10, 20, self.dice.randrange(1, 2000)])  # with many ties
        new = request(self.arrived, tokens)
        self.agree("arrive", self.one.arrive(new), self.other.arrive(new))

    def work(self, name: str) -> None:
        busy = [(name, number) for name, has in self.has.items() for number in has]
        if not busy:
            return
        name, number = self.dice.choice(busy)
        work = self.has[name].pop(number)
        if isinstance(work, Request) and self.role(name) is Role.PREFILL:
            made = PrefillDone(work, 1.0, 0.5, name)
            self.agree("prefill_done", self.one.prefill_done(name, made), self.other.prefill_done(name, made))
        else:
            assert self.one.finished(name, number)
            assert self.other.finished(name, number)

    def late(self, name: str) -> None:
        """News of a request from one that does not have it."""
        number = self.dice.randrange(self.arrived + 1)
        if number not in self.has.get(name, {}):
            assert not self.one.finished(name, number)
            assert self.one.prefill_done(name, done(number)) == self.other.prefill_done(name, done(number)) == []

    def open(self, name: str) -> None:
        role = self.dice.choice([Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE, Role.MIXED])
        role = self.role(name) if self.has.get(name) else role
        self.has.setdefault(name, {})
        self.closed.pop(name, None)
        self.agree("open", self.one.open(name, role), self.other.open(name, role))

    def close(self, name: str) -> None:
        if name in self.has:
            self.closed[name] = None
            self.one.close(name)
            self.other.close(name)

    def hand_back(self, name: str) -> None:
        """A closed one returns some of what it has."""
        if name in self.closed:
            work = [item for item in self.has[name].values() if self.dice.random() < 0.5]
            prompts = tuple(item for item in work if isinstance(item, Request))
            backlog = Backlog(prompts, tuple(item for item in work if isinstance(item, PrefillDone)))
            for item in work:
                del self.has[name][item.request_id if isinstance(item, Request) else item.request.request_id]
            self.agree("hand_back", self.one.hand_back(name, backlog), self.other.hand_back(name, backlog))

    def lost(self, name: str) -> None:
        self.has.pop(name, None)
        self.closed.pop(name, None)
        self.agree("lost", self.one.lost(name), self.other.lost(name))

    def role(self, name: str) -> Role:
        return next(place.role for place in self.other.places if place.name == name)

    def agree(self, verb: str, one: list[Dispatch], other: list[Dispatch]) -> None:
        assert one == other, f"seed {self.seed}: {verb}"
        self.seen[verb] += 1
        for item in one:
            self.seen[type(item).__name__] += 1
            match item:
                case SendPrompt():
                    self.has[item.instance][item.request.request_id] = item.request
                case SendKv():
                    self.has[item.instance][item.done.request.request_id] = item.done


def test_it_chooses_as_one_that_looks_at_every_instance() -> None:
    seen: Counter[str] = Counter()
    for seed in range(20):
        walk = Walk(seed)
        walk.run(3000)
        seen += walk.seen
    for verb in ("arrive", "prefill_done", "open", "hand_back", "lost", "SendPrompt", "SendKv", "TurnedAway"):
        assert seen[verb] > 100, f"{verb} came {seen[verb]} times"


class LastOfEquals(LinearRouter):
    def least(self, places: list[Place], role: Role) -> Place | None:
        return super().least(places[::-1], role)


class NoSecondLoad(LinearRouter):
    def least(self, places: list[Place], role: Role) -> Place | None:
        if role is Role.DECODE:
            return min(places, key=lambda place: len(place.has), default=None)
        return super().least(places, role)


class NothingForMixed(LinearRouter):
    def least(self, places: list[Place], role: Role) -> Place | None:
        return super().least([place for place in places if place.role is role], role)


@pytest.mark.parametrize("fault", [LastOfEquals, NoSecondLoad, NothingForMixed])
def test_the_walk_notices_another_choice(fault: type[LinearRouter]) -> None:
    with pytest.raises(AssertionError, match="seed 1: "):
        Walk(1, fault(MAX_WAITING)).run(3000)
