"""The parts of the bus that need no broker: topics, the sieve, what waits in the bag, what hangs on the board."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.config.mqtt import MqttKeyTable
from rapid.core.facility.nouns import AT_ONCE_S, INF, BudgetOrder, BudgetResult, Outcome
from rapidctl.controller.facility.board import NUMBERS, Board
from rapidctl.controller.facility.keys import KeyRing
from rapidctl.controller.facility.messages import DomainState, Event, NodeState, Result, utc
from rapidctl.controller.facility.postbag import EVENTS_MAX, REFUSALS_MAX, Postbag
from rapidctl.controller.facility.sieve import ANSWERS_BURST, Sieve
from rapidctl.controller.facility.topics import Topics
from rapidctl.controller.facility.waiting import ORDERS_MAX, Waiting
from rapidctl.controller.facility.words import refusal, result_of
from tests.controller.fakes import HandClock
from tests.facility.broker import Signer

NOW_S = 1.75e9
TOPIC = "rapid/v1/s1/domain/row%2F1/budget/set"
names = st.text(min_size=1, max_size=128)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("a")


@pytest.fixture(scope="module")
def ring(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    path = signer.publish(tmp_path_factory.mktemp("keys") / "a.pem")
    return KeyRing([MqttKeyTable("a", "bms", path)])


class Gate:
    """A sieve, and the answers that it gave."""

    def __init__(self, keys: KeyRing, unsigned: str = "") -> None:
        self.answers: list[tuple[str, Result]] = []
        self.clock = HandClock(0.0)
        self.sieve = Sieve(
            "s1",
            keys,
            unsigned,
            answer=lambda topic, result: self.answers.append((topic, result)),
            wall_s=lambda: NOW_S,
            clock=self.clock,
        )

    def why(self, payload: bytes, topic: str = TOPIC) -> str | None:
        """Why it did not get through."""
        assert self.sieve.order(topic, payload, retained=False) is None
        return self.answers[-1][1].why


def order(**more: object) -> dict[str, object]:
    made: dict[str, object] = {"site": "s1", "domain": "row/1", "id": "c1", "issued": "2025-06-15T15:06:40Z"}
    return {**made, "budget_w": 1234.5, **more}


# ---- topics ----


@given(names, names)
def test_no_name_leaves_its_level_and_no_two_share_one(one: str, other: str) -> None:
    topics = Topics("s1")
    for topic in (topics.domain(one), topics.node(one), topics.set(one), topics.result(one)):
        assert not set(topic) & set("+#$\0 ")
        assert topic.isascii()
    assert topics.set(one).count("/") == 6
    assert topics.level_of_set(topics.set(one)) is not None or len(one.encode()) > 170
    assert (topics.set(one) == topics.set(other)) == (one == other)


@pytest.mark.parametrize(
    "topic",
    [
        "rapid/v1/s1/domain/a/b/budget/set",
        "rapid/v1/s1/domain//budget/set",
        "rapid/v1/s2/domain/a/budget/set",
        "rapid/v1/s1/domain/a/budget/result",
        "rapid/v1/s1/domain/+/budget/set",
        "rapid/v1/s1/domain/" + "a" * 513 + "/budget/set",
        "rapid/v1/s1/domain/\x01/budget/set",
        "rapid/v1/s1/domain/budget/set",
    ],
)
def test_a_topic_that_is_none_of_ours_is_not_answered(topic: str, ring: KeyRing) -> None:
    gate = Gate(ring)
    assert gate.sieve.order(topic, b"anything", retained=False) is None
    assert gate.answers == []


# ---- the sieve ----


def test_a_signed_order_gets_through(ring: KeyRing, signer: Signer) -> None:
    found = Gate(ring).sieve.order(TOPIC, signer.sign(order()), retained=False)
    assert found is not None
    assert (found.source, found.domain, found.budget_mw, found.issued_wall_s) == ("bms", "row/1", 1_234_500, NOW_S)
    assert (found.not_before_wall_s, found.expires_wall_s) == (AT_ONCE_S, INF)


def test_a_retained_message_is_no_order(ring: KeyRing, signer: Signer) -> None:
    gate = Gate(ring)
    assert gate.sieve.order(TOPIC, signer.sign(order()), retained=True) is None
    assert (gate.answers, gate.sieve.refused) == ([], 1)


@given(st.binary(max_size=300))
def test_whatever_bytes_come_are_refused_and_crash_nothing(ring: KeyRing, payload: bytes) -> None:
    assert Gate(ring).why(payload) == "bad_signature"
    assert Gate(ring, "unsigned").why(payload) in ("malformed", "bad_signature")


_json: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["site", "domain", "id", "issued", "budget_w", "expires", "x"]), _json))
def test_whatever_was_signed_is_an_order_or_refused(ring: KeyRing, signer: Signer, said: dict[str, object]) -> None:
    gate = Gate(ring)
    found = gate.sieve.order(TOPIC, signer.sign(said), retained=False)
    assert (found is None) == (len(gate.answers) == 1)


@given(_json, st.text(max_size=30), st.text(max_size=30))
def test_whatever_stands_in_a_token_is_refused(ring: KeyRing, header: object, payload: str, signature: str) -> None:
    import base64

    parts = (json.dumps(header).encode(), payload.encode(), signature.encode())
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    assert Gate(ring).why(json.dumps({"jws": token}).encode()) == "bad_signature"


def test_a_flood_is_answered_by_the_allowance_and_counted(ring: KeyRing) -> None:
    gate = Gate(ring)
    for _ in range(1_000):
        gate.sieve.order(TOPIC, b"{}", retained=False)
    assert (len(gate.answers), gate.sieve.refused) == (ANSWERS_BURST, 1_000)
    assert gate.sieve.untold == 1_000 - ANSWERS_BURST
    gate.clock.now_s = 1.0
    for _ in range(100):
        gate.sieve.order(TOPIC, b"{}", retained=False)
    assert len(gate.answers) == ANSWERS_BURST + 10


# ---- the bag ----


def answer(number: int, outcome: Outcome = Outcome.ACCEPTED) -> Result:
    return result_of("s1", BudgetResult(number, f"c{number}", "bms", "row", outcome, NOW_S))


def event(text: str) -> Event:
    return Event("s1", utc(NOW_S), "notice", "info", "x", text, None, 0)


async def taken(bag: Postbag, count: int) -> list[dict[str, object]]:
    return [json.loads((await bag.take()).payload) for _ in range(count)]


async def test_an_answer_stays_until_it_is_delivered() -> None:
    bag = Postbag()
    for number in (1, 2, 1, 2):
        bag.put_answer("t", answer(number))
    assert [it["number"] for it in await taken(bag, 2)] == [1, 2]
    bag.delivered(1)
    bag.again()
    assert [it["number"] for it in await taken(bag, 1)] == [2], "a new connection, and it had not come"
    bag.delivered(2)
    assert len(bag) == 0


async def test_a_broker_that_takes_nothing_costs_no_room() -> None:
    bag = Postbag()
    for index in range(10_000):
        bag.put_state("t", b"%d" % index)
        bag.put_event("e", event(str(index)))
        bag.put_answer("r", refusal("s1", "row", "stale", "", NOW_S))
    assert len(bag) == 1 + EVENTS_MAX + REFUSALS_MAX
    await taken(bag, REFUSALS_MAX)
    assert (await bag.take()).payload == b"9999", "of a state the newest"
    (first, second) = await taken(bag, 2)
    assert (first["text"], first["dropped"]) == (str(10_000 - EVENTS_MAX), 10_000 - EVENTS_MAX)
    assert second["dropped"] == 0


async def test_who_waits_for_a_letter_gets_the_next() -> None:
    bag = Postbag()
    waiting = asyncio.ensure_future(bag.take())
    await asyncio.sleep(0)
    bag.put_state("t", b"{}")
    assert (await waiting).topic == "t"


# ---- orders that wait ----


def waits(number: int) -> tuple[BudgetOrder, ...]:
    return (BudgetOrder(f"c{number}", "bms", "row", 1_000, NOW_S, AT_ONCE_S),)


async def test_an_order_that_comes_again_waits_once() -> None:
    waiting = Waiting()
    for _ in range(10_000):
        assert waiting.put(waits(1))
    assert waiting.put(waits(2))
    assert [await waiting.take(), await waiting.take()] == [waits(1), waits(2)]
    assert (len(waiting), waiting.dropped) == (0, 0)
    assert waiting.put(waits(1)), "it was taken; whoever asks again is answered again"


async def test_the_newest_word_finds_room() -> None:
    waiting = Waiting()
    assert all(waiting.put(waits(number)) for number in range(ORDERS_MAX))
    assert not waiting.put(waits(ORDERS_MAX))
    assert (len(waiting), waiting.dropped) == (ORDERS_MAX, 1)
    assert await waiting.take() == waits(1)


async def test_who_waits_for_an_order_gets_the_next() -> None:
    waiting = Waiting()
    taker = asyncio.ensure_future(waiting.take())
    await asyncio.sleep(0)
    waiting.put(waits(1))
    assert await taker == waits(1)


# ---- the board ----


def domain(**more: object) -> DomainState:
    zero = {"attainment": None, "parent": None, "held_by": None, "compliant_since": None, "advice": ""}
    made: dict[str, Any] = {name: zero.get(name, 0) for name in DomainState.__struct_fields__}
    made |= {"site": "s1", "domain": "row", "time": utc(NOW_S)}
    return DomainState(**made | more)


def test_a_change_is_due_at_once_and_numbers_now_and_then() -> None:
    board = Board(10.0)
    assert board.due({"t": domain()}, 0.0) == ["t"]
    assert board.due({"t": domain(time=utc(NOW_S + 1))}, 0.25) == []
    assert board.due({"t": domain(draw_w=5.0)}, 0.5) == []
    assert board.due({"t": domain(draw_w=5.0, budget_w=3.0)}, 0.75) == ["t"]
    assert board.due({"t": domain(draw_w=7.0, budget_w=3.0)}, 10.7) == []
    assert board.due({"t": domain(draw_w=7.0, budget_w=3.0)}, 10.8) == ["t"]
    assert board.due({"t": domain(draw_w=7.0, budget_w=3.0)}, 99.0) == [], "the same is not told twice"
    board.clear()
    assert board.due({"t": domain(draw_w=7.0, budget_w=3.0)}, 99.0) == ["t"]


def test_what_counts_as_a_mere_number_is_a_field_of_some_state() -> None:
    fields = {*DomainState.__struct_fields__, *NodeState.__struct_fields__}
    assert fields >= NUMBERS
    assert {"budget_w", "compliant", "unknown_gpus", "over_budget", "health", "held_by"} & NUMBERS == set()
    assert msgspec.json.encode(domain())
