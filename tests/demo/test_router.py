"""The front end with engines that connect, close and die."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from rapid.core.cluster import Role, SloTargets
from rapid.sim.model.requests import PrefillDone, Request
from rapidctl.demo import talk
from rapidctl.demo.router import FrontEnd
from tests.wait import wait_until

SOON_S = 5.0


class FakeEngine:
    """An engine that answers only what the test makes it answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def join(cls, path: Path, name: str, role: Role, is_open: bool) -> "FakeEngine":
        engine = cls(*await asyncio.open_unix_connection(path))
        engine.say(talk.Hello(name, role, is_open))
        return engine

    def say(self, message: talk.FromEngine) -> None:
        self._writer.write(talk.line(message))

    def say_raw(self, text: bytes) -> None:
        self._writer.write(text)

    async def hears(self) -> talk.ToEngine:
        async with asyncio.timeout(SOON_S):
            message: talk.ToEngine = talk.to_engine.decode(await self._reader.readuntil(b"\n"))
            return message

    async def hears_prompt(self) -> Request:
        message = await self.hears()
        assert isinstance(message, talk.Prompt)
        return message.request

    async def hears_kv(self) -> PrefillDone:
        message = await self.hears()
        assert isinstance(message, talk.Kv)
        return message.done

    async def hears_release(self) -> PrefillDone:
        message = await self.hears()
        assert isinstance(message, talk.Release)
        return message.done

    async def is_cut_off(self) -> bool:
        async with asyncio.timeout(SOON_S):
            return await self._reader.read() == b""

    def die(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
def said() -> list[str]:
    return []


class Street:
    """A front end and the engines that connect to it."""

    def __init__(self, path: Path, front: FrontEnd) -> None:
        self._path, self.front = path, front
        self._engines: list[FakeEngine] = []

    async def join(self, name: str, *, is_open: bool = True) -> FakeEngine:
        """p... for prefill, d... for decode."""
        engine = await FakeEngine.join(self._path, name, Role.PREFILL if name[0] == "p" else Role.DECODE, is_open)
        self._engines.append(engine)
        return engine

    async def joined(self, *names: str) -> list[FakeEngine]:
        """One engine after the other, each known to the front end."""
        engines = []
        for count, name in enumerate(names, start=self.front.engines + 1):
            engines.append(await self.join(name))
            await wait_until(partial(self._has, count), SOON_S, f"{name} has joined")
        return engines

    def leave(self) -> None:
        for engine in self._engines:
            engine.die()

    def _has(self, engines: int) -> bool:
        return self.front.engines == engines


@pytest.fixture
async def street(tmp_path: Path, said: list[str]) -> AsyncIterator[Street]:
    async with AsyncExitStack() as stack:
        front = FrontEnd("h1", SloTargets(), said.append)
        await front.serve(tmp_path / "data.sock", stack)
        street = Street(tmp_path / "data.sock", front)
        yield street
        street.leave()


def request(number: int) -> Request:
    return Request(number, 10.0, 100, 5)


def done(asked: Request, source: str = "p0") -> PrefillDone:
    return PrefillDone(asked, 10.5, 0.5, source)


def ended(number: int, *, ttft_s: float = 0.5, tpot_s: float = 0.02) -> talk.Ended:
    return talk.Ended(number, 11.0, ttft_s, tpot_s)


async def test_request_goes_by_prefill_and_decode_to_its_record(street: Street) -> None:
    front = street.front
    p0, d0 = await street.joined("p0", "d0")
    front.arrive(request(1))
    p0.say(talk.Prefilled(done(await p0.hears_prompt())))
    assert (await d0.hears_kv()).request == request(1)
    d0.say(ended(1))
    await wait_until(lambda: 1 in front.record.finished, SOON_S, "the request has ended")
    shares = front.record.so_far(12.0)
    assert (shares.both, shares.ttft, shares.tpot, front.record.unfinished) == (1.0, 1.0, 1.0, 0)


async def test_dead_engine_gives_its_requests_to_another_with_their_arrival(street: Street) -> None:
    front = street.front
    p0, p1 = await street.joined("p0", "p1")
    front.arrive(request(1))
    assert await p0.hears_prompt() == request(1)
    p0.die()
    assert await p1.hears_prompt() == request(1)
    assert (front.dispatched_again, front.engines) == (1, 1)


async def test_request_of_a_dead_decode_engine_starts_again_from_prefill(street: Street) -> None:
    front = street.front
    p0, d0, d1 = await street.joined("p0", "d0", "d1")
    front.arrive(request(1))
    p0.say(talk.Prefilled(done(await p0.hears_prompt())))
    assert await d0.hears_kv() == done(request(1))
    d0.die()
    assert await p0.hears_release() == done(request(1))  # nobody will pull it any more
    again = await p0.hears_prompt()
    assert again == request(1)
    p0.say(talk.Prefilled(PrefillDone(again, 12.0, 2.0, "p0")))
    assert (await d1.hears_kv()).ttft_s == 2.0
    d1.say(ended(1, ttft_s=2.0))
    await wait_until(lambda: 1 in front.record.finished, SOON_S, "the request has ended")
    assert front.record.so_far(13.0).ttft == 0.0


async def test_source_may_release_a_cache_once_it_has_been_pulled(street: Street) -> None:
    p0, d0 = await street.joined("p0", "d0")
    for number in (1, 2):
        street.front.arrive(request(number))
        p0.say(talk.Prefilled(done(await p0.hears_prompt())))
        await d0.hears_kv()
    d0.say(talk.Pulled(2))
    assert await p0.hears_release() == done(request(2))
    d0.say(talk.Pulled(2))  # once said is enough
    d0.say(talk.Pulled(1))
    assert await p0.hears_release() == done(request(1))


async def test_cache_that_is_handed_back_stays_at_its_source_until_another_has_pulled_it(street: Street) -> None:
    p0, d0 = await street.joined("p0", "d0")
    street.front.arrive(request(1))
    p0.say(talk.Prefilled(done(await p0.hears_prompt())))
    cache = await d0.hears_kv()
    d0.say(talk.Closed())
    assert isinstance(await d0.hears(), talk.Quiet)
    for message in talk.hand_backs([], [cache]):
        d0.say(message)
    d0.say(talk.Pulled(1))  # it has not: the request is somebody else's now
    (d1,) = await street.joined("d1")
    assert await d1.hears_kv() == cache
    d1.say(talk.Pulled(1))
    assert await p0.hears_release() == cache
    street.front.arrive(request(2))
    assert await p0.hears_prompt() == request(2)  # and has heard of no other release


async def test_pull_from_an_engine_that_has_died_meanwhile_is_no_news(street: Street) -> None:
    p0, d0 = await street.joined("p0", "d0")
    street.front.arrive(request(1))
    p0.say(talk.Prefilled(done(await p0.hears_prompt())))
    await d0.hears_kv()
    p0.die()
    await wait_until(lambda: street.front.engines == 1, SOON_S, "p0 has left")
    (again,) = await street.joined("p0")
    d0.say(talk.Pulled(1))
    d0.say(ended(1))
    await wait_until(lambda: 1 in street.front.record.finished, SOON_S, "the request has ended")
    street.front.arrive(request(2))
    assert await again.hears_prompt() == request(2)  # the first thing that it hears


async def test_late_news_of_a_prompt_is_answered_with_a_release(street: Street) -> None:
    """An engine that lost its connection for a moment goes on with what it had, but the request is elsewhere."""
    p0, p1 = await street.joined("p0", "p1")
    street.front.arrive(request(1))
    asked = await p0.hears_prompt()
    p0.die()
    assert await p1.hears_prompt() == asked
    (back,) = await street.joined("p0")
    back.say(talk.Prefilled(done(asked)))
    assert await back.hears_release() == done(asked)


async def test_requests_wait_for_an_engine_that_comes_back(street: Street) -> None:
    front = street.front
    (p0,) = await street.joined("p0")
    front.arrive(request(1))
    await p0.hears_prompt()
    p0.die()
    await wait_until(lambda: front.waiting == 1, SOON_S, "the request waits")
    (again,) = await street.joined("p0")
    assert await again.hears_prompt() == request(1)


async def test_newer_connection_of_an_engine_takes_over(street: Street) -> None:
    front = street.front
    (old,) = await street.joined("p0")
    front.arrive(request(1))
    await old.hears_prompt()
    new = await street.join("p0")
    assert await new.hears_prompt() == request(1)
    old.say(talk.Prefilled(done(request(1))))  # late news of a life that is over
    old.die()
    new.say(talk.Prefilled(done(request(1))))
    await wait_until(lambda: front.waiting == 1, SOON_S, "the cache waits for a decode engine")
    assert front.engines == 1


async def test_closed_engine_is_told_when_nothing_more_can_come(street: Street) -> None:
    front = street.front
    p0, p1 = await street.joined("p0", "p1")
    p0.say(talk.Closed())
    assert isinstance(await p0.hears(), talk.Quiet)
    front.arrive(request(1))
    assert await p1.hears_prompt() == request(1)
    p0.say(talk.Opened(Role.DECODE))
    p1.say(talk.Prefilled(done(request(1))))
    assert (await p0.hears_kv()).request == request(1)


async def test_work_handed_back_goes_to_another_engine(street: Street) -> None:
    front = street.front
    p0, p1 = await street.joined("p0", "p1")
    front.arrive(request(1))
    asked = await p0.hears_prompt()
    p0.say(talk.Closed())
    for message in talk.hand_backs([asked], []):
        p0.say(message)
    assert await p1.hears_prompt() == asked


async def test_engine_that_joins_closed_gets_nothing_until_it_opens(street: Street) -> None:
    front = street.front
    front.arrive(request(1))
    p0 = await street.join("p0", is_open=False)
    await wait_until(lambda: front.engines == 1, SOON_S, "p0 has joined")
    assert front.waiting == 1
    p0.say(talk.Opened(Role.PREFILL))
    assert await p0.hears_prompt() == request(1)


@pytest.mark.parametrize(
    "text", [b"nonsense\n", b'{"type":"ended","request_id":"x"}\n', b"x" * (talk.LINE_MAX + 1)], ids=len
)
async def test_engine_that_breaks_the_protocol_is_cut_off(street: Street, said: list[str], text: bytes) -> None:
    front = street.front
    (p0,) = await street.joined("p0")
    p0.say_raw(text)
    assert await p0.is_cut_off()
    await wait_until(lambda: front.engines == 0, SOON_S, "p0 has left")
    assert "h1: engine p0 is cut off" in said[0]


def test_hand_back_of_many_fits_the_line() -> None:
    asked = [Request(10**9 + number, 1234567.123456789, 100_000, 10_000) for number in range(1000)]
    caches = [
        PrefillDone(each, 1234567.123456789, 1234567.123456789, "an-engine-with-a-rather-long-name-0123456789")
        for each in asked
    ]
    messages = list(talk.hand_backs(asked, caches))
    assert max(len(talk.line(message)) for message in messages) <= talk.LINE_MAX
    assert sum(len(message.requests) for message in messages) == 1000
    assert sum(len(message.kvs) for message in messages) == 1000
