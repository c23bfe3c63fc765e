"""The queue is bounded, keeps the order, and stamps a time that never goes back."""

import asyncio
from dataclasses import replace

import pytest

from rapid.core.cluster import GrantAnswer, Mark
from rapid.core.commands import Notice
from rapid.core.errors import Unreachable
from rapid.core.events import EngineGone, NodeGone, NodeHeard, PauseAsked, Ticked
from rapidctl.controller.inbox import ANSWERS_MAX, Inbox
from tests.controller.fakes import HandClock, report


@pytest.fixture
def clock() -> HandClock:
    return HandClock(10.0)


def asked(n: int) -> PauseAsked:
    return PauseAsked(0.0, f"r{n}", True, "me")


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_events_come_out_in_order_with_the_time_of_their_arrival(clock: HandClock) -> None:
    inbox = Inbox(clock, 8)
    await inbox.put(asked(1))
    clock.now_s = 11.0
    inbox.put_tick()
    await inbox.put_report(report())
    assert len(inbox) == 3
    taken = [item.event for item in await inbox.take(10)]
    assert taken == [replace(asked(1), at_s=10.0), Ticked(11.0), NodeHeard(11.0, report())]
    assert len(inbox) == 0


async def test_no_more_than_asked_for_is_taken(clock: HandClock) -> None:
    inbox = Inbox(clock, 8)
    for n in range(5):
        await inbox.put(asked(n))
    assert [len(await inbox.take(2)) for _ in range(3)] == [2, 2, 1]


async def test_whoever_brings_one_event_too_many_waits_for_room(clock: HandClock) -> None:
    inbox = Inbox(clock, 2)
    await inbox.put(asked(1))
    await inbox.put(asked(2))
    third = asyncio.ensure_future(inbox.put(asked(3)))
    await turns()
    assert not third.done()
    clock.now_s = 12.0
    assert len(await inbox.take(1)) == 1
    await third
    last = (await inbox.take(10))[-1].event
    assert last == replace(asked(3), at_s=12.0), "it is stamped when it enters, not when it comes"


async def test_one_tick_at_a_time_waits_however_full_it_is(clock: HandClock) -> None:
    inbox = Inbox(clock, 1)
    await inbox.put(asked(1))
    inbox.put_tick()
    inbox.put_tick()
    assert [type(item.event) for item in await inbox.take(10)] == [PauseAsked, Ticked]
    inbox.put_tick()
    assert [type(item.event) for item in await inbox.take(10)] == [Ticked]


async def test_the_last_word_of_a_stream_never_waits(clock: HandClock) -> None:
    inbox = Inbox(clock, 1)
    await inbox.put(asked(1))
    inbox.put_end(NodeGone(0.0, "n1", "why"))
    inbox.put_end(EngineGone(0.0, "e1", "i1", "why"))
    assert len(await inbox.take(10)) == 3


async def test_while_full_a_newer_report_takes_the_place_of_the_older_one(clock: HandClock) -> None:
    inbox = Inbox(clock, 2)
    first = replace(report(seq=1), answers=(GrantAnswer(Mark(1, 1), "", "applied"),))
    second = replace(report(seq=2), answers=(GrantAnswer(Mark(1, 2), "", "refused"),))
    await inbox.put_report(first)
    await inbox.put(asked(1))
    clock.now_s = 11.0
    await inbox.put_report(second)
    events = [item.event for item in await inbox.take(10)]
    assert events == [
        replace(asked(1), at_s=10.0),
        NodeHeard(11.0, replace(second, answers=(*first.answers, *second.answers))),
    ], "at the end, so that time does not go back, and with the answers of both"
    assert inbox.replaced == 1


async def test_a_report_of_another_node_waits_for_room(clock: HandClock) -> None:
    inbox = Inbox(clock, 1)
    await inbox.put_report(report("n1"))
    other = asyncio.ensure_future(inbox.put_report(report("n2")))
    await turns()
    assert not other.done()
    await inbox.take(1)
    await other


async def test_while_there_is_room_every_report_is_kept(clock: HandClock) -> None:
    inbox = Inbox(clock, 4)
    for seq in (1, 2, 3):
        await inbox.put_report(report(seq=seq))
    assert len(await inbox.take(10)) == 3
    assert inbox.replaced == 0


async def test_answers_of_another_life_are_not_joined_and_joined_ones_are_bounded(clock: HandClock) -> None:
    inbox = Inbox(clock, 1)
    many = tuple(GrantAnswer(Mark(1, n), "", "applied") for n in range(ANSWERS_MAX))
    await inbox.put_report(replace(report(seq=1), answers=many))
    await inbox.put_report(replace(report(seq=2), answers=many[:5]))
    (heard,) = await inbox.take(10)
    assert isinstance(heard.event, NodeHeard)
    assert heard.event.report.answers == (*many[5:], *many[:5])
    await inbox.put_report(replace(report(seq=1), answers=many))
    await inbox.put_report(report(seq=1, incarnation="2-b"))
    (heard,) = await inbox.take(10)
    assert isinstance(heard.event, NodeHeard)
    assert heard.event.report == report(seq=1, incarnation="2-b")


async def test_the_asker_gets_what_came_of_it(clock: HandClock) -> None:
    inbox = Inbox(clock, 2)
    asker = asyncio.ensure_future(inbox.ask(asked(1)))
    (item,) = await inbox.take(10)
    item.resolve([Notice("info", "x", "done")])
    assert await asker == [Notice("info", "x", "done")]


async def test_an_asker_who_has_given_up_is_not_missed(clock: HandClock) -> None:
    inbox = Inbox(clock, 2)
    asker = asyncio.ensure_future(inbox.ask(asked(1)))
    (item,) = await inbox.take(10)
    asker.cancel()
    await turns()
    item.resolve([])
    assert asker.cancelled()


async def test_when_it_closes_nobody_is_left_waiting(clock: HandClock) -> None:
    inbox = Inbox(clock, 4)
    taker = asyncio.ensure_future(inbox.take(10))
    await turns()
    inbox.close()
    assert await taker == []
    with pytest.raises(Unreachable, match="the controller stops"):
        await inbox.ask(asked(1))


async def test_an_asker_in_the_queue_is_told_when_it_closes(clock: HandClock) -> None:
    inbox = Inbox(clock, 4)
    asker = asyncio.ensure_future(inbox.ask(asked(1)))
    await turns()
    inbox.close()
    with pytest.raises(Unreachable, match="the controller stops"):
        await asker
    assert await inbox.take(10) == []
