"""The handover from worker threads to the event loop: nothing is lost, and waking is rare."""

import asyncio
import threading

from rapidd.device.base import LimitReading, PowerReading
from rapidd.inbox import SAMPLES_MAX, Inbox
from rapidd.worker import Event, Sampled, WriteDone
from tests.node.caller import DEADLINE_S

AT_400 = LimitReading(400_000, 400_000)


def sample(gpu: str, draw_mw: int | None = 100_000, limit: LimitReading | None = AT_400) -> Sampled:
    return Sampled(gpu, limit, PowerReading(draw_mw, 1), None, 0.0, 0.0)


def write(gpu: str) -> WriteDone:
    return WriteDone(gpu, 1, None, None, 0.0)


class Woken:
    """An inbox of two GPUs whose limits are known, and how often it calls its taker."""

    def __init__(self, *, eager: bool = False) -> None:
        self.inbox, self.calls = Inbox(2), 0
        for gpu in "ab":
            self.inbox.deliver(sample(gpu))
        self.inbox.take()
        self.inbox.eager = eager
        self.inbox.call(self._count)

    async def by(self, *events: Event) -> int:
        """How many calls these make without waiting for time to pass."""
        await self._settle()
        before = self.calls
        for event in events:
            self.inbox.deliver(event)
        await self._settle()
        return self.calls - before

    async def _settle(self) -> None:
        for _ in range(2):
            await asyncio.sleep(0)  # what threads have asked of the loop is done then

    def _count(self) -> None:
        self.calls += 1


async def test_events_come_out_in_the_order_in_which_they_went_in_and_once() -> None:
    inbox = Inbox(2)
    events: list[Event] = [sample("a"), write("a"), sample("b")]
    for event in events:
        inbox.deliver(event)
    assert inbox.take() == events
    assert inbox.take() == []


async def test_a_write_wakes_the_loop_at_once() -> None:
    assert await Woken().by(write("a")) == 1


async def test_what_comes_before_the_loop_has_woken_wakes_it_no_second_time() -> None:
    woken = Woken()
    assert await woken.by(write("a"), write("b"), sample("a", limit=None)) == 1
    assert await woken.by(write("a")) == 1


async def test_samples_wake_an_eager_loop_when_every_gpu_has_one() -> None:
    woken = Woken(eager=True)
    assert await woken.by(sample("a")) == 0
    assert await woken.by(sample("b")) == 1


async def test_samples_wait_for_the_next_turn_when_nothing_hangs_on_them() -> None:
    woken = Woken()
    assert await woken.by(*(sample(gpu) for gpu in "abababab")) == 0
    assert len(woken.inbox.take()) == 8


async def test_a_limit_that_is_not_what_it_was_wakes_the_loop_at_once() -> None:
    """A limit that moves without us is noticed within a second, however long the loop sleeps."""
    woken, moved = Woken(), LimitReading(700_000, 400_000)
    assert await woken.by(sample("b", limit=moved)) == 1
    assert await woken.by(sample("b", limit=moved)) == 0
    assert await woken.by(sample("b")) == 1
    assert await woken.by(sample("b", limit=None)) == 1, "a GPU that does not answer"
    assert await woken.by(sample("b", limit=None)) == 0


async def test_a_draw_above_its_alarm_brings_its_round_at_once() -> None:
    """An excursion is cut after two samples, however long the loop sleeps."""
    woken = Woken()
    woken.inbox.alarms_mw = {"a": 300_000, "b": 300_000}
    assert await woken.by(sample("a", 300_000), sample("b", 300_000)) == 0
    assert await woken.by(sample("a", 300_001)) == 0, "the others of its round are under way"
    assert await woken.by(sample("b")) == 1
    woken.inbox.take()
    assert await woken.by(sample("a", None), sample("b")) == 0
    woken.inbox.alarms_mw = {"b": 300_000}
    assert await woken.by(sample("a", 900_000), sample("b")) == 0, "nobody has set an alarm for it"


async def test_a_wake_calls_the_taker() -> None:
    woken = Woken()
    assert await woken.by() == 0
    before = woken.calls
    woken.inbox.wake()
    assert await woken.by() == 0
    assert woken.calls == before + 1


async def test_of_a_loop_that_hangs_the_samples_are_bounded_and_nothing_else_is_dropped() -> None:
    inbox = Inbox(2)
    for _ in range(2 * SAMPLES_MAX):
        inbox.deliver(sample("a"))
        inbox.deliver(sample("b"))
    inbox.deliver(write("a"))
    events = inbox.take()
    assert len(events) == 2 * SAMPLES_MAX + 1
    assert isinstance(events[-1], WriteDone)
    inbox.deliver(sample("a"))
    assert len(inbox.take()) == 1


async def test_threads_lose_nothing() -> None:
    inbox, each, whole = Inbox(4), 500, asyncio.Event()
    taken: list[Event] = []

    def take() -> None:
        taken.extend(inbox.take())
        if len(taken) == 4 * each:
            whole.set()

    def deliver_all(gpu: str) -> None:
        for _ in range(each):
            inbox.deliver(write(gpu))

    inbox.call(take)
    threads = [threading.Thread(target=deliver_all, args=(gpu,)) for gpu in "abcd"]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(DEADLINE_S):
        await whole.wait()
    for thread in threads:
        thread.join()


def test_a_worker_that_outlives_the_loop_does_no_harm() -> None:
    async def make() -> Inbox:
        return Inbox(1)

    inbox = asyncio.run(make())
    inbox.deliver(write("a"))
    assert len(inbox.take()) == 1
