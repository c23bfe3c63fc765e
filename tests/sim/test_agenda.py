"""Things happen in order of time, messages arrive in the order in which they were sent, requests as they come."""

from collections.abc import Iterator
from functools import partial
from math import inf
from random import Random

import pytest

from rapid.core.errors import TraceInvalid
from rapid.sim.model.requests import Request
from rapid.sim.world.agenda import Agenda, Link
from rapid.sim.world.arrivals import Arrivals


@pytest.mark.parametrize("seed", range(3))
def test_actions_come_in_order_of_time_and_then_of_putting(seed: int) -> None:
    dice, agenda = Random(seed), Agenda()
    done: list[tuple[float, int]] = []
    for number in range(200):
        at_s = float(dice.randint(0, 20))
        agenda.put(at_s, partial(lambda number, at_s: done.append((at_s, number)), number))
    while agenda.next_s < inf:
        agenda.act()
    assert done == sorted(done), f"seed {seed}"
    assert len(done) == 200


@pytest.mark.parametrize("seed", range(3))
def test_a_link_is_late_but_keeps_the_order(seed: int) -> None:
    dice, agenda = Random(seed), Agenda()
    link = Link(agenda, dice, (0.001, 0.5))
    sent_s = sorted(dice.uniform(0.0, 5.0) for _ in range(100))
    arrived: list[tuple[int, float]] = []
    for number, at_s in enumerate(sent_s):
        link.send(partial(lambda number, at_s: arrived.append((number, at_s)), number), at_s)
    while len(agenda):
        agenda.act()
    assert [number for number, _ in arrived] == list(range(100)), f"seed {seed}"
    assert all(at_s >= sent_s[number] + 0.001 for number, at_s in arrived)
    assert max(at_s - sent_s[number] for number, at_s in arrived) <= 0.5 + 1e-9


def test_arrivals_are_read_one_ahead_and_can_be_foreseen() -> None:
    read: list[int] = []

    def told() -> Iterator[Request]:
        for number in range(6):
            read.append(number)
            yield Request(number, float(number), 10 + number, 5)

    arrivals = Arrivals(told(), 10.0)
    assert (read, arrivals.next_s) == ([0], 10.0)
    assert [request.arrival_s for request in arrivals.ahead(12.5)] == [10.0, 11.0, 12.0]
    assert read == [0, 1, 2, 3], "one more, to know that it comes later"
    taken = [arrivals.take() for _ in range(6)]
    assert taken == [Request(number, 10.0 + number, 10 + number, 5) for number in range(6)]
    assert arrivals.next_s == inf
    assert not arrivals.ahead(inf)


def test_a_request_out_of_order_is_refused_when_it_comes() -> None:
    arrivals = Arrivals([Request(0, 1.0, 1, 1), Request(1, 2.0, 1, 1), Request(2, 1.5, 1, 1)], 10.0)
    arrivals.take()
    with pytest.raises(TraceInvalid, match=r"request 2: arrives at 1.5 s, after one of 2 s"):
        arrivals.take()


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(TraceInvalid, match="nan"):
        Arrivals([Request(0, float("nan"), 1, 1)], 10.0)
