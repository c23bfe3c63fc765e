"""The handover from worker threads to the event loop: nothing is lost, and waking is rare."""

import asyncio
import threading

from rapidd.inbox import Inbox
from rapidd.worker import Event, Sampled, WriteDone
from tests.node.caller import DEADLINE_S


def sample(gpu: str) -> Sampled:
    return Sampled(gpu, None, None, None, 0.0, 0.0)


def write(gpu: str) -> WriteDone:
    return WriteDone(gpu, 1, None, None, 0.0)


async def woken(inbox: Inbox) -> bool:
    """Whether the loop is woken without waiting for time to pass."""
    await asyncio.sleep(0)  # what threads have asked of the loop is done now
    waiting = asyncio.create_task(inbox.wait(DEADLINE_S))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    return done


async def test_events_come_out_in_the_order_in_which_they_went_in_and_once() -> None:
    inbox = Inbox(2)
    events: list[Event] = [sample("a"), write("a"), sample("b")]
    for event in events:
        inbox.deliver(event)
    assert inbox.take() == events
    assert inbox.take() == []


async def test_a_write_wakes_the_loop_at_once() -> None:
    inbox = Inbox(8)
    inbox.eager = False
    inbox.deliver(write("a"))
    assert await woken(inbox)


async def test_samples_wake_the_loop_when_every_gpu_has_one() -> None:
    inbox = Inbox(2)
    inbox.deliver(sample("a"))
    assert not await woken(inbox)
    inbox.deliver(sample("b"))
    assert await woken(inbox)


async def test_samples_wait_for_the_next_turn_when_nothing_hangs_on_them() -> None:
    inbox = Inbox(2)
    inbox.eager = False
    inbox.deliver(sample("a"))
    inbox.deliver(sample("b"))
    assert not await woken(inbox)
    assert len(inbox.take()) == 2


async def test_a_wait_ends_when_its_time_is_up() -> None:
    async with asyncio.timeout(DEADLINE_S):
        await Inbox(1).wait(0.0)


async def test_a_wake_between_two_waits_ends_the_next_one() -> None:
    inbox = Inbox(1)
    inbox.wake()
    assert await woken(inbox)
    assert not await woken(inbox)


async def test_threads_lose_nothing() -> None:
    inbox, each = Inbox(4), 500

    def deliver_all(gpu: str) -> None:
        for _ in range(each):
            inbox.deliver(write(gpu))

    threads = [threading.Thread(target=deliver_all, args=(gpu,)) for gpu in "abcd"]
    for thread in threads:
        thread.start()
    taken = 0
    async with asyncio.timeout(DEADLINE_S):
        while taken < 4 * each:
            await inbox.wait(DEADLINE_S)
            taken += len(inbox.take())
    assert taken == 4 * each
    for thread in threads:
        thread.join()


def test_a_worker_that_outlives_the_loop_does_no_harm() -> None:
    async def make() -> Inbox:
        return Inbox(1)

    inbox = asyncio.run(make())
    inbox.deliver(write("a"))
    assert len(inbox.take()) == 1
