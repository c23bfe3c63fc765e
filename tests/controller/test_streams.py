"""An outbox is bounded, keeps the order, and ends with a reason; of several works the first to end decides."""

import asyncio

import pytest

from rapid.core.errors import Unreachable
from rapid.streams import Ended, first_of
from rapidctl.controller.outbox import Outbox


async def test_messages_come_out_in_order() -> None:
    outbox: Outbox[str] = Outbox(3)
    for word in "abc":
        outbox.put(word)
    assert [await outbox.take() for _ in range(3)] == ["a", "b", "c"]


async def test_a_message_of_which_only_the_newest_counts_replaces_its_own_kind_alone() -> None:
    outbox: Outbox[str] = Outbox(3)
    outbox.put("renew 1", newest_only=True)
    outbox.put("grant 1")
    outbox.put("renew 2", newest_only=True)
    outbox.put("grant 2")
    assert [await outbox.take() for _ in range(3)] == ["grant 1", "renew 2", "grant 2"]


async def test_the_last_message_that_fits_is_taken_and_one_more_ends_it() -> None:
    outbox: Outbox[int] = Outbox(2)
    outbox.put(1)
    outbox.put(2)
    assert await outbox.take() == 1
    outbox.put(3)
    outbox.put(4)
    with pytest.raises(Ended, match="2 messages wait to be sent"):
        await outbox.take()


async def test_who_waits_for_a_message_hears_of_the_end_and_the_first_reason_counts() -> None:
    outbox: Outbox[int] = Outbox(2)
    waiting = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.end(Unreachable("first"))
    outbox.end(Unreachable("second"))
    with pytest.raises(Unreachable, match="first"):
        await waiting


async def test_who_waits_gets_the_message_that_comes() -> None:
    outbox: Outbox[int] = Outbox(2)
    waiting = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.put(7)
    assert await waiting == 7


async def never() -> None:
    await asyncio.Event().wait()


async def test_the_first_to_return_ends_the_others() -> None:
    cancelled = asyncio.Event()

    async def other() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    async def soon() -> None:
        await asyncio.sleep(0)

    await first_of(other(), soon())
    assert cancelled.is_set()


async def test_the_first_to_raise_ends_the_others_with_its_error() -> None:
    async def fails() -> None:
        raise Unreachable("why")

    with pytest.raises(Unreachable, match="why"):
        await first_of(never(), fails())
