"""One engine from its metrics to the load that is reported, over HTTP on loopback and look by look."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
from structlog.testing import CapturingLogger

from rapid.config.node import EngineTable
from rapid.core.cluster import PhaseLoad, Role
from rapid.core.errors import ScrapeFault
from rapidd.load.owners import Owners, Pids
from rapidd.load.push import LoadTable, Looks
from rapidd.load.scrape import Scraper
from rapidd.talk import Talk
from tests.node.engines import Sglang, Vllm
from tests.node.metrics_server import Answer, MetricsServer, endless, hang, metrics_server, page, raw


async def nobody() -> Pids:
    return {}


class Rig:
    """An engine's metrics, who reads them, and what comes of it; a look takes no time on its clock."""

    def __init__(self, server: MetricsServer, kind: str, room: int) -> None:
        self.server, self.now_s = server, 1000.0
        self.loads, self.lines = LoadTable(room), CapturingLogger()
        log = structlog.wrap_logger(self.lines, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
        engine = EngineTable("i0", kind, server.url, ("GPU-0",))
        owners = Owners([engine], nobody)
        self.scraper = Scraper(engine, self.loads, owners, Talk(log, self.clock), self.clock)

    def clock(self) -> float:
        return self.now_s

    async def look(self, answer: Answer | None = None) -> PhaseLoad | None:
        """Look a second later; the load, if there is a new one."""
        if answer is not None:
            self.server.answer = answer
        self.now_s += 1.0
        await self.scraper.look()
        return next((load for load in self.loads.fresh(self.now_s) if load.at_s == self.now_s), None)

    @property
    def problem(self) -> str:
        return dict(self.loads.problems()).get("i0", "")

    def said(self) -> list[tuple[str, str, object]]:
        """What was logged since the last call: (level, event, detail)."""
        said = [(str(call.method_name), str(call.kwargs["event"]), call.kwargs["detail"]) for call in self.lines.calls]
        self.lines.calls.clear()
        return said


@asynccontextmanager
async def rigged(answer: Answer, kind: str = "vllm", room: int = 4) -> AsyncIterator[Rig]:
    async with metrics_server(answer) as server:
        yield Rig(server, kind, room)


async def test_what_an_engine_shows_becomes_its_load() -> None:
    engine = Vllm()
    async with rigged(page(engine.page)) as rig:
        await rig.look()
        engine.serve(10)
        engine.running[0].set(4)
        load = await rig.look()
        assert load is not None
        assert (load.instance, load.role, load.at_s, load.gpus) == ("i0", Role.MIXED, 1002.0, ("GPU-0",))
        assert (load.running_requests, load.finished, load.prompt_tokens, load.output_tokens) == (4, 10, 5_000, 900)
        assert (sum(load.ttft.counts), sum(load.tpot.counts)) == (10, 10)
        assert (rig.problem, rig.said()) == ("", [])


async def test_a_restart_is_said_once_and_the_load_goes_on() -> None:
    engine = Vllm(started_s=1.0)
    engine.serve(20)
    async with rigged(page(engine.page)) as rig:
        await rig.look()
        engine.serve(10)
        await rig.look()
        restarted = Vllm(started_s=2.0)
        restarted.serve(5)
        load = await rig.look(page(restarted.page))
        await rig.look()
        assert load is not None
        assert load.finished == 15
        assert rig.problem == ""
        assert rig.said() == [("info", "engine restarted", "it counts from zero again, and the load goes on")]


def troubles() -> Iterator[tuple[Answer, str]]:
    """What the answer is, and what is said of it; {url} stands for the engine's."""
    yield raw(b"HTTP/1.1 404 Not Found\r\n\r\n"), "{url} answered 404, must be 200"
    yield (
        page(lambda: b"<html>", "text/html"),
        "{url} answered 'text/html', must be text/plain: no metrics are at this url",
    )
    yield endless(), "{url} its page is longer than 8 MiB, the most that is read"
    yield (
        page(lambda: b'vllm:num_requests_waiting{engine="\xff"} 1\n'),
        "{url} its page is not UTF-8 text",
    )
    yield (
        page(lambda: b"vllm:num_requests_waiting NaN\nvllm:num_requests_running 1\n"),
        "{url} vllm:num_requests_waiting is nan, outside 0..10000000",
    )
    yield page(lambda: b"vllm:num_requests_running 1\n"), "{url} its page has no vllm:num_requests_waiting"
    yield (
        page(lambda: b"sglang:num_queue_reqs 1\n"),
        "{url} its page has no vllm:num_requests_waiting; these are metrics of SGLang, kind is vllm",
    )
    yield page(lambda: b"vllm:num_requests_running 1\n" * 2), "{url} vllm:num_requests_running is there twice"


@pytest.mark.parametrize(("answer", "text"), list(troubles()), ids=[text for _, text in troubles()])
async def test_trouble_is_said_once_shown_while_it_lasts_and_over_when_it_is(answer: Answer, text: str) -> None:
    engine = Vllm()
    async with rigged(page(engine.page)) as rig:
        before = await rig.look()
        assert await rig.look(answer) is None
        assert await rig.look() is None
        assert rig.problem.startswith(text.format(url=rig.server.url))
        assert rig.loads.fresh(rig.now_s) == (before,)  # the last that was heard, until it is too old
        engine.serve(3)
        load = await rig.look(page(engine.page))
        assert load is not None
        assert load.finished == 3
        assert rig.problem == ""
        warned, well = rig.said()
        assert warned[:2] == ("warning", "load missing")
        assert str(warned[2]).startswith(text.format(url=rig.server.url))
        assert well == ("info", "load is well", "")


async def test_a_counter_that_goes_back_costs_one_look() -> None:
    engine, other = Vllm(started_s=1.0), Vllm(started_s=1.0)
    engine.serve(20)
    other.serve(19)
    async with rigged(page(engine.page)) as rig:
        await rig.look()
        assert await rig.look(page(other.page)) is None
        assert rig.problem == (
            f"{rig.server.url} requests finished went back from 20 to 19, and the engine did not restart; "
            "its load is left out once"
        )
        other.serve(10)
        load = await rig.look()
        assert load is not None
        assert (load.finished, rig.problem) == (9, "")


async def test_a_latency_that_is_not_measured_is_shown_beside_the_load() -> None:
    engine = Sglang("decode")
    engine.show("num_running_reqs", 1)
    engine.show("num_queue_reqs", 0)
    engine.serve(9, prefills=False)

    def old() -> bytes:
        return engine.page().replace(b"sglang:request_time_per_output_token_seconds", b"sglang:other")

    async with rigged(page(old), "sglang") as rig:
        assert await rig.look() is not None
        assert rig.problem == "its metrics have no histogram of TPOT, so as decode its TPOT is not measured"
        assert rig.said()[0][:2] == ("warning", "load not the whole truth")


async def test_no_room_in_the_report_is_said() -> None:
    async with rigged(page(Vllm().page), room=1) as rig:
        rig.loads.take(PhaseLoad("pushed", Role.MIXED, 1000.5), 1000.5)
        assert await rig.look() is None
        assert "this host carries the load of 1 instances already; raise load.max_instances" in rig.problem


async def test_looks_that_fail_become_rarer_until_one_succeeds() -> None:
    async with rigged(raw()) as rig:
        pauses_s = []
        for _ in range(6):
            pauses_s.append(rig.scraper.pause_s)
            await rig.look()
        assert pauses_s == [1, 2, 4, 8, 8, 8]
        await rig.look(page(Vllm().page))
        assert rig.scraper.pause_s == 1


async def test_how_looks_went_is_counted_by_what_went_wrong() -> None:
    body = Vllm().page()
    async with rigged(page(lambda: body)) as rig:
        assert rig.loads.looks() == {}
        await rig.look()
        good = Looks(count=1, read_bytes=len(body), good_at_s=1001.0)
        assert rig.loads.looks() == {"i0": good}
        await rig.look(raw(b"HTTP/1.1 404 Not Found\r\n\r\n"))
        await rig.look(page(lambda: b"sglang:num_queue_reqs 1\n"))
        await rig.look()
        await rig.look(page(lambda: b"node_load1 1\n"))
        looks = rig.loads.looks()["i0"]
        assert looks.failures == {ScrapeFault.ANSWER: 1, ScrapeFault.KIND: 2, ScrapeFault.METRICS: 1}
        assert (looks.count, looks.good_at_s) == (5, 1001.0)
        assert looks.read_bytes == len(body) + 2 * len(b"sglang:num_queue_reqs 1\n") + len(b"node_load1 1\n")
    await rig.scraper.look()
    assert rig.loads.looks()["i0"].failures[ScrapeFault.UNREACHABLE] == 1
    assert good == Looks(count=1, read_bytes=len(body), good_at_s=1001.0), "who shows it may be on another thread"


async def test_an_engine_that_says_nothing_is_a_silent_one() -> None:
    async with rigged(hang) as rig:
        await rig.look()
        assert rig.loads.looks()["i0"] == Looks(1, 0, None, {ScrapeFault.SILENT: 1})
