"""`exec`: an engine that is started anew, by the real steps of rapid.engine, with a real process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid, EngineTaken
from rapid.engine import NotSwitched, SwitchFailed
from rapidctl.engines.ask import CommandFailed
from rapidctl.engines.base import Parent, Place
from rapidctl.engines.exec import KIND, ExecAdapter, NotStarted
from rapidctl.engines.life import Life, read_record
from rapidctl.engines.options import made
from rapidctl.engines.wording import Options
from tests.engines.ports import free_port

PREFILL, DECODE = Role.PREFILL, Role.DECODE
TOY = Path(__file__).with_name("toy.py")


class Bench:
    """A toy engine under an adapter, and what the adapter has said."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.port, self.said = folder, free_port(), list[str]()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "engine.log"
        toy = f"{sys.executable} {TOY} --role {{role}} --port {self.port} --folder {folder}"
        usual = {
            "run": [toy],
            "ready_url": f"{self.url}/health",
            "ready_within": "20s",
            "stop_within": "10s",
            "engine_log": str(self.log),
            "state_dir": str(folder / "state"),
        }
        made_ = made(KIND, usual | options)
        assert isinstance(made_, Options)
        self.options = made_
        self.place = Place("e0", "h", ("GPU-0",), PREFILL)

    @asynccontextmanager
    async def adapter(self, place: Place | None = None) -> AsyncIterator[ExecAdapter]:
        async with KIND.open(place or self.place, self.options, self.said.append) as adapter:
            assert isinstance(adapter, ExecAdapter)
            yield adapter

    async def work(self, work_ms: int) -> str:
        """The role that has done it. Raises what the connection does."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/work?ms={work_ms}") as answer:
            return await answer.text()

    async def work_until_refused(self) -> None:
        """Until it has heard that it is to take no more."""
        while True:
            await self.work(1)

    async def begin_work(self, work_ms: int) -> "asyncio.Task[str]":
        """A request that has reached the engine."""
        working = asyncio.create_task(self.work(work_ms))
        async with aiohttp.ClientSession() as session:
            left = "0"
            while left == "0":
                async with session.get(f"{self.url}/left") as answer:
                    left = await answer.text()
        return working

    @property
    def pid(self) -> int:
        record = read_record(next((self.folder / "state").glob("*.engine")))
        assert record is not None
        return record.pid


async def drained(adapter: ExecAdapter) -> None:
    left = 1
    while left:
        left = await adapter.drained()
        await asyncio.sleep(0)


def stat_of_this_process() -> str:
    return Path("/proc/self/stat").read_text()


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


# ---- a change ----


async def test_sigterm_is_the_drain_and_what_runs_is_finished_first(tmp_path: Path) -> None:
    """Promise 4: no request is lost."""
    bench = Bench(tmp_path)
    async with bench.adapter() as adapter:
        assert isinstance(adapter, Parent)
        assert await adapter.begin() is PREFILL
        running = await bench.begin_work(400)

        await adapter.close()
        assert await adapter.drained() == 1
        with pytest.raises(aiohttp.ClientConnectorError):
            await bench.work_until_refused()
        await drained(adapter)
        assert await running == "prefill"
        await adapter.switch(DECODE)
        await adapter.open(DECODE)

        assert await adapter.live_role() is DECODE
        assert await bench.work(1) == "decode"
    assert not lives(bench.pid), "it ends with its adapter"


@pytest.mark.parametrize("ask", ["left_url", "left_metric", "left_command"])
async def test_with_a_question_for_what_is_left_the_engine_serves_until_that_is_nothing(
    tmp_path: Path, ask: str
) -> None:
    noted = tmp_path / "router"
    step = "sh -c 'echo {} $RAPID_INSTANCE $RAPID_ROLE >> " + str(noted) + "'"
    get = f"{sys.executable} -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())'"
    bench = Bench(tmp_path, close_command=step.replace("{}", "close"), open_command=step.replace("{}", "open {role}"))
    url = bench.url
    asks: dict[str, dict[str, Any]] = {
        "left_url": {"left_url": f"{url}/left"},
        "left_metric": {"left_url": f"{url}/metrics", "left_metric": ("toy:running", "toy:waiting")},
        "left_command": {"left_command": f"{get} {url}/left"},
    }
    bench.options = msgspec.structs.replace(bench.options, **asks[ask])
    async with bench.adapter() as adapter:
        await adapter.begin()
        running = await bench.begin_work(600)

        await adapter.close()
        assert await adapter.drained() == 1
        assert await bench.work(1) == "prefill", "what was on its way still finds it"
        await drained(adapter)
        assert running.done()
        await adapter.switch(DECODE)
        await adapter.open(DECODE)

        assert noted.read_text().splitlines() == [
            "open prefill e0 prefill",
            "close e0 prefill",
            "open decode e0 decode",
        ]


async def test_a_cancel_after_sigterm_has_it_finish_and_start_in_its_old_role(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.adapter() as adapter:
        await adapter.begin()
        running = await bench.begin_work(300)
        await adapter.close()
        await adapter.open(PREFILL)
        assert await running == "prefill"
        assert await bench.work(1) == "prefill"


async def test_an_engine_that_cannot_take_the_role_is_not_switched_and_serves_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "refuse").write_text("decode\n")
    async with bench.adapter() as adapter:
        await adapter.begin()
        await adapter.close()
        await drained(adapter)
        with pytest.raises(
            NotSwitched,
            match=r"e0: start as decode: process \d+ exited with code 3, its last words: cannot allocate the KV cache "
            "before it was ready",
        ):
            await adapter.switch(DECODE)
        await adapter.open(PREFILL)
        assert await bench.work(1) == "prefill"


async def test_an_engine_that_is_deaf_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    bench = Bench(tmp_path, stop_within="300ms")
    for trait in ("deaf", "brood"):
        (tmp_path / trait).touch()
    async with bench.adapter() as adapter:
        await adapter.begin()
        pid, child = bench.pid, int((tmp_path / "brood").read_text())
        assert lives(child)
        await adapter.switch(DECODE)
        assert not lives(pid)
        assert not lives(child), "it may hold the GPU"
        assert f"process {pid} did not end within 0.3 s of SIGTERM and was killed" in bench.said


async def test_an_engine_that_never_gets_ready_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ready_within="500ms", restarts=0)
    (tmp_path / "slow").write_text("60")
    async with bench.adapter() as adapter:
        with pytest.raises(SwitchFailed, match=r"not ready after 0.5 s: .*/health: 503 Service Unavailable"):
            await adapter.begin()
        assert not lives(bench.pid)


# ---- death ----


async def test_an_engine_that_dies_by_itself_is_told_and_started_again_in_its_role(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.adapter() as adapter:
        await adapter.begin()
        await adapter.switch(DECODE)
        await adapter.open(DECODE)
        ended = asyncio.create_task(adapter.ended())
        pid = bench.pid
        os.kill(pid, signal.SIGKILL)
        assert await ended == f"process {pid} was killed by SIGKILL, its last words: serves decode"
        assert await adapter.begin() is DECODE
        assert bench.pid != pid
        assert await bench.work(1) == "decode"
        assert "starts it again in 0.5 s" in bench.said


async def test_an_engine_that_is_ended_on_purpose_is_not_told_as_dead(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.adapter() as adapter:
        await adapter.begin()
        ended = asyncio.create_task(adapter.ended())
        await adapter.close()
        await drained(adapter)
        await adapter.switch(DECODE)
        await adapter.open(DECODE)
        done, _ = await asyncio.wait([ended], timeout=0.3)
        assert not done
        ended.cancel()


async def test_an_engine_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, restarts=1)
    (tmp_path / "refuse").write_text("prefill\n")
    async with bench.adapter() as adapter:
        with pytest.raises(NotStarted):
            await adapter.begin()
        with pytest.raises(SwitchFailed, match=r"given up after 2 deaths in a row, the last: e0: start as prefill"):
            await adapter.begin()


# ---- the adapter itself dies ----


async def test_the_next_adapter_goes_on_with_the_engine_of_the_one_before(tmp_path: Path) -> None:
    """Its adapter killed, an engine serves on, and no second one is started beside it."""
    bench = Bench(tmp_path)
    async with bench.adapter() as first:
        await first.begin()
        await first.switch(DECODE)
        pid = bench.pid
        first._life, first._lock = None, first._lock.close() if first._lock else None  # as SIGKILL leaves it
        async with bench.adapter() as second:
            assert await second.begin() is DECODE, "whatever role it is configured with"
            assert bench.pid == pid
            assert f"found process {pid}, decode, which an earlier adapter has started" in bench.said
            await second.close()
            await drained(second)
            await second.switch(PREFILL)
            await second.open(PREFILL)
            assert await bench.work(1) == "prefill"
            assert not lives(pid)


async def test_a_process_that_has_come_by_the_number_on_record_is_not_taken_for_the_engine(tmp_path: Path) -> None:
    record = tmp_path / "e0.engine"
    stat = stat_of_this_process()
    record.write_text(f"prefill {stat}")
    found = Life.find(record)
    assert found is not None, "this process is the one on record"
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    fields[19] = str(int(fields[19]) - 1)
    record.write_text(f"prefill {head}) {' '.join(fields)}")
    assert Life.find(record) is None


@pytest.mark.parametrize(
    "text", ["", "prefill", "prefill x y", "king 1 (a) S 1", "prefill 999999999 (a) S " + "1 " * 30]
)
async def test_a_record_that_cannot_be_right_names_no_engine(tmp_path: Path, text: str) -> None:
    record = tmp_path / "e0.engine"
    record.write_text(text)
    assert Life.find(record) is None
    assert Life.find(tmp_path / "none") is None


async def test_a_second_adapter_of_the_same_instance_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.adapter() as first, bench.adapter() as second:
        await first.begin()
        with pytest.raises(EngineTaken, match="e0: begin: another adapter of it runs on this host; stop that one"):
            await second.begin()
        await first.end()
        assert await second.begin() is PREFILL


async def test_looking_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.adapter() as adapter:
        assert [finding.grade.value for finding in await adapter.findings()] == ["yellow"]
        await adapter.begin()
        async with bench.adapter() as looking:
            found = await looking.findings()
        assert [(finding.grade.value, finding.topic) for finding in found] == [("green", "engine"), ("green", "ready")]
        assert await bench.work(1) == "prefill", "which it does still"


# ---- wording ----

BAD: list[tuple[dict[str, Any], str]] = [
    ({"run": []}, "run: is missing"),
    ({"run": ["decode=true x", "decode=true y"]}, "run: has two command lines for decode"),
    ({"run": ["true 'x"]}, 'run: "true \'x" is no command line: no closing quotation'),
    ({"run": ["/no/such/engine --x"]}, "run: '/no/such/engine', which starts it as prefill, is no program"),
    ({"run": ["decode=true"]}, "role: is one that no command line of run starts; they start: decode"),
    ({"ready_url": ""}, "ready_url: is missing"),
    ({"ready_url": "ftp://x"}, "ready_url: 'ftp://x' is no URL"),
    ({"ready_command": "true"}, "ready_url: is given, and ready_command too"),
    ({"left_command": "true"}, "close_command: is missing: without it requests go on coming"),
    ({"close_command": "true"}, "open_command: is missing, with a close_command"),
    ({"open_command": "true"}, "close_command: is missing, with a open_command"),
    ({"left_metric": ["x"]}, "left_metric: is of no use without left_url"),
    ({"restarts": -1}, "restarts: is -1, must be 0 or more"),
]


@pytest.mark.parametrize(("options", "says"), BAD)
async def test_what_can_never_work_is_refused_at_once(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigInvalid, match="config key") as raised:
        async with Bench(tmp_path, **options).adapter():
            pass
    assert says in str(raised.value)


@pytest.mark.parametrize("said", ["", "many", "-1", "1.5", "nan", "1e300"])
async def test_an_answer_that_is_no_number_of_requests_is_refused(tmp_path: Path, said: str) -> None:
    bench = Bench(tmp_path, left_command=f"printf %s '{said}'", close_command="true", open_command="true")
    async with bench.adapter() as adapter:
        await adapter.begin()
        with pytest.raises(CommandFailed, match="must say how many requests are left, said "):
            await adapter.drained()
        assert await adapter.drained() == 1, "until it is asked again"
