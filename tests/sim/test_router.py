"""Dispatch: least loaded first, and every request at exactly one place until it has finished."""

from random import Random

import pytest

from rapid.core.cluster import Role
from rapid.sim.requests import Backlog, PrefillDone, Request
from rapid.sim.router import Dispatch, Router, SendKv, SendPrompt, TurnedAway


def request(number: int, tokens: int = 100, arrival_s: float = 0.0) -> Request:
    return Request(number, arrival_s, tokens, 10)


def done(number: int, tokens: int = 100) -> PrefillDone:
    return PrefillDone(request(number, tokens), 1.0, 0.5)


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
    assert made.prefill_done("p0", done(1, 500)) == [SendKv("d0", "p0", done(1, 500))]
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
    assert made.open("d0", Role.DECODE) == [SendKv("d0", "p0", done(1))]
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
    assert made.prefill_done("p0", done(4)) == [TurnedAway(request(4))]
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
    made.prefill_done("p0", PrefillDone(late, 8.0, 0.5))
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
    assert made.prefill_done("p1", done(1)) == [SendKv("d0", "p1", done(1))]
    assert made.prefill_done("p1", done(1)) == []
    assert not made.finished("p1", 1)
    assert made.finished("d0", 1)
    assert not made.finished("d0", 1)
    assert made.hand_back("d0", Backlog(kvs=(done(1),))) == []


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
                take(made.prefill_done(place, done(number)))
            else:
                assert made.finished(place, number)
                finished.add(number)
        assert len(where) + made.waiting + len(finished) == count
        assert sum(made.outstanding(name) for name in roles) == len(where)
