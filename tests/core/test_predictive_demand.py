"""What users ask for, from counters: offered work, counted once, whatever becomes of it."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from rapid.core.cluster import Histogram, InstanceView, PhaseLoad, Role, View
from rapid.core.policy.predictive.demand import LONG_S, PAST_S, Demand, Offered
from tests.core.views import gpu, instance, view

TICK_S = 0.5
STEP_S = 0.010


@dataclass(slots=True)
class Counter:
    """One instance: what it has served so far, and what it holds."""

    name: str
    role: Role
    prompt_tokens: float = 0.0
    firsts: float = 0.0
    output_tokens: float = 0.0
    lasts: float = 0.0
    waiting: int = 0
    waiting_tokens: int = 0
    running: int = 0
    heard: bool = True

    def seen(self, at_s: float) -> InstanceView:
        ttft, tpot = (Histogram((1.0,), (int(count), 0)) for count in (self.firsts, self.lasts))
        load = PhaseLoad(
            self.name,
            self.role,
            at_s,
            waiting_requests=self.waiting,
            waiting_tokens=self.waiting_tokens,
            running_requests=self.running,
            prompt_tokens=int(self.prompt_tokens),
            output_tokens=int(self.output_tokens),
            ttft=ttft,
            tpot=tpot,
        )
        return instance(self.name, self.role, (f"{self.name}-gpu",), queue=load if self.heard else None)

    def serve(self, rps: float, tokens: float) -> None:
        """Prompts of so many tokens for a tick."""
        self.firsts += rps * TICK_S
        self.prompt_tokens += rps * TICK_S * tokens

    def answer(self, rps: float, tokens: float) -> None:
        """Answers of so many tokens for a tick, with as many on their way as that takes."""
        self.lasts += rps * TICK_S
        self.output_tokens += rps * TICK_S * tokens
        self.running = round(rps * tokens * STEP_S)


@dataclass(slots=True)
class Book:
    """Ticks go by, and the demand is followed."""

    counters: list[Counter]
    offered: Offered = field(default_factory=Offered)
    at_s: float = 100.0

    def view(self) -> View:
        seen = view(
            [gpu(f"{each.name}-gpu", 600) for each in self.counters],
            [each.seen(self.at_s) for each in self.counters],
        )
        return replace(seen, at_s=self.at_s)

    def tick(self) -> Demand:
        self.at_s += TICK_S
        return self.offered.observe(self.view(), STEP_S)


def prefill(name: str = "p") -> Counter:
    return Counter(name, Role.PREFILL)


def decode(name: str = "d") -> Counter:
    return Counter(name, Role.DECODE)


def steady(book: Book, rps: float, tokens: float, answer: float, seconds: float) -> Demand:
    """Everything that is asked for is served at once, by the first instance of each role."""
    first = next(each for each in book.counters if each.role is Role.PREFILL)
    second = next(each for each in book.counters if each.role is Role.DECODE)
    now = book.offered.now
    for _ in range(round(seconds / TICK_S)):
        first.serve(rps, tokens)
        second.answer(rps, answer)
        now = book.tick()
    return now


# ---- offered work ----


def test_rates_and_lengths_of_a_steady_load_are_found() -> None:
    now = steady(Book([prefill(), decode()]), 10.0, 2_000.0, 150.0, 60.0)

    assert now.prompt_rps == pytest.approx(10.0, rel=0.05)
    assert now.prompt_tokens == pytest.approx(2_000.0, rel=0.05)
    assert now.prompt_tps == pytest.approx(20_000.0, rel=0.05)
    assert now.output_tokens == pytest.approx(150.0, rel=0.1)
    assert now.context_tokens == now.prompt_tokens + now.output_tokens / 2


def test_work_that_waits_is_offered_though_nobody_serves_it() -> None:
    book = Book([prefill(), decode()])
    steady(book, 10.0, 1_000.0, 100.0, 20.0)
    served, starved = book.counters[0].firsts, book.counters[0]
    for _ in range(round(LONG_S / TICK_S)):
        starved.waiting += 5
        starved.waiting_tokens += 5_000
        now = book.tick()

    assert starved.firsts == served, "nothing is served"
    assert now.prompt_rps == pytest.approx(10.0, rel=0.05)
    assert now.prompt_tps == pytest.approx(10_000.0, rel=0.05)
    assert now.queued_tokens == 5_000 * LONG_S / TICK_S


def test_nothing_is_asked_for_at_first_sight_of_engines_that_have_long_served() -> None:
    old = replace(prefill(), firsts=1e6, prompt_tokens=1e9)

    assert Book([old, decode()]).tick().prompt_rps == 0.0


def test_it_ends_when_nobody_asks_any_more() -> None:
    book = Book([prefill(), decode()])
    steady(book, 10.0, 1_000.0, 100.0, 20.0)

    assert steady(book, 0.0, 1_000.0, 100.0, 2 * LONG_S).prompt_rps == 0.0


def test_prompts_that_are_handed_back_count_once() -> None:
    """An engine that closes gives its queue to another."""
    plain, moved = Book([prefill("p"), prefill("q"), decode()]), Book([prefill("p"), prefill("q"), decode()])
    for book in (plain, moved):
        steady(book, 10.0, 1_000.0, 100.0, 20.0)
        book.counters[0].waiting, book.counters[0].waiting_tokens = 20, 20_000
        book.tick()
    closing, heir = moved.counters[:2]
    heir.waiting, heir.waiting_tokens = closing.waiting, closing.waiting_tokens
    closing.waiting = closing.waiting_tokens = 0

    assert plain.tick() == moved.tick()


def test_an_engine_that_changes_role_brings_no_work_with_it() -> None:
    """Its counters go on, and it is silent in between."""
    plain, moved = Book([prefill("p"), prefill("q"), decode()]), Book([prefill("p"), prefill("q"), decode()])
    for book in (plain, moved):
        steady(book, 10.0, 1_000.0, 100.0, 20.0)
        book.counters[1].serve(10.0, 1_000.0)
    changing = moved.counters[1]
    for lived in range(8):
        changing.heard, changing.role = lived >= 3, Role.DECODE
        seen = [book.tick() for book in (plain, moved)]

    assert seen[0] == seen[1]


def test_counters_that_fall_start_anew() -> None:
    """A new life of the engine: what it says is what it has done since."""
    book = Book([prefill(), decode()])
    before = steady(book, 10.0, 1_000.0, 100.0, 20.0)
    reborn = book.counters[0]
    reborn.firsts = reborn.prompt_tokens = 0.0
    for _ in range(round(2 * LONG_S / TICK_S)):
        now = steady(book, 10.0, 1_000.0, 100.0, TICK_S)
        assert 0.8 * before.prompt_rps <= now.prompt_rps <= 1.05 * before.prompt_rps, book.at_s


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_silence_for_a_while_is_no_demand_and_no_burst_after_it(role: Role) -> None:
    """What was done meanwhile is counted when it is heard; the rate is never beyond what that makes in the window."""
    book = Book([prefill(), decode()])
    steady(book, 10.0, 1_000.0, 100.0, 20.0)
    silent = next(each for each in book.counters if each.role is role)
    silent.heard = False
    steady(book, 10.0, 1_000.0, 100.0, 2.0)
    silent.heard = True
    rates = [steady(book, 10.0, 1_000.0, 100.0, TICK_S).prompt_rps for _ in range(30)]

    assert max(rates) <= 20.0
    assert rates[-1] == pytest.approx(10.0, rel=0.05)


# ---- lengths ----


def test_mean_lengths_follow_a_shift() -> None:
    book = Book([prefill(), decode()])
    steady(book, 10.0, 6_000.0, 100.0, 40.0)
    soon = steady(book, 40.0, 300.0, 400.0, LONG_S + TICK_S)
    late = steady(book, 40.0, 300.0, 400.0, 60.0)

    assert soon.prompt_tokens == pytest.approx(300.0, rel=0.05)
    assert late.output_tokens == pytest.approx(400.0, rel=0.1)


def test_answers_that_have_not_ended_yet_have_a_say() -> None:
    """Long answers announce themselves by those that run, before the first of them has finished."""
    book = Book([prefill(), decode()])
    before = steady(book, 10.0, 1_000.0, 100.0, 40.0).output_tokens
    second = book.counters[1]
    for _ in range(8):
        book.counters[0].serve(10.0, 1_000.0)
        second.output_tokens += second.running * TICK_S / STEP_S
        second.running += 5
        now = book.tick()

    assert now.output_tokens > 1.5 * before


# ---- bursts of the past ----


def test_the_reserve_remembers_a_burst_and_forgets_it() -> None:
    book = Book([prefill(), decode()])
    steady(book, 5.0, 1_000.0, 100.0, 30.0)
    burst = steady(book, 50.0, 1_000.0, 100.0, 20.0)
    after = steady(book, 5.0, 1_000.0, 100.0, PAST_S / 2)
    calm = steady(book, 5.0, 1_000.0, 100.0, PAST_S)

    assert burst.reserve_tps >= burst.prompt_tps
    assert after.prompt_tps == pytest.approx(5_000.0, rel=0.05), "it is over"
    assert after.reserve_tps > 4 * after.prompt_tps
    assert after.reserve_output_tps > 2 * after.prompt_rps * after.output_tokens
    assert calm.reserve_tps == pytest.approx(calm.prompt_tps, rel=0.1)


def test_the_reserve_is_never_below_what_is_asked_for_now() -> None:
    book = Book([prefill(), decode()])
    for rps in (1.0, 30.0, 3.0, 60.0):
        for _ in range(20):
            now = steady(book, rps, 1_000.0, 100.0, TICK_S)
            assert now.reserve_tps >= now.prompt_tps * (1 - 1e-9)


# ---- memory ----


def sizes(values: object) -> int:
    return sum(map(sizes, values)) if isinstance(values, tuple) else 1


def test_memory_does_not_grow() -> None:
    book = Book([prefill(), decode()])
    steady(book, 10.0, 1_000.0, 100.0, 400.0)
    before = sizes(book.offered.state())
    steady(book, 10.0, 1_000.0, 100.0, 200.0)

    assert sizes(book.offered.state()) == before


def test_engines_of_any_names_that_come_and_go_do_not_fill_the_memory() -> None:
    book = Book([prefill(), decode()])
    for life in range(70):
        book.counters[2:] = [prefill(f"{life}.{number}") for number in range(300)]
        book.tick()

    assert len(book.offered.state()[1]) < 70 * 300


@pytest.mark.parametrize("after_s", [0.5, 7.0, 100.0])
def test_it_goes_on_from_its_state(after_s: float) -> None:
    one, other = Book([prefill(), decode()]), Book([prefill(), decode()])
    for book in (one, other):
        steady(book, 10.0, 2_000.0, 150.0, after_s)
    other.offered = Offered()
    other.offered.restore(one.offered.state())

    assert other.offered.state() == one.offered.state()
    for rps in (3.0, 30.0):
        assert steady(other, rps, 500.0, 60.0, 10.0) == steady(one, rps, 500.0, 60.0, 10.0)


def test_rates_rise_with_what_is_asked_for() -> None:
    found = [steady(Book([prefill(), decode()]), rps, 1_000.0, 100.0, 30.0).prompt_rps for rps in (1.0, 2.0, 8.0, 64.0)]

    assert all(low < high for low, high in pairwise(found))
