"""LoadService over a real Unix socket: what engines push, what they are told, and who gets in."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from rapid.core.cluster import Histogram, PhaseLoad, Role
from rapid.core.errors import ConfigInvalid
from rapid.rpc import open_channel
from rapid.v1 import load_pb2, load_pb2_grpc
from rapid.wire.common import encode_push
from rapidd.load.push import LoadService, LoadTable, serving_load
from tests.node.caller import DEADLINE_S
from tests.wait import wait_until

pytestmark = pytest.mark.timeout(60)
KEY = "listen.load_socket"


@dataclass
class Rig:
    table: LoadTable
    service: LoadService
    channel: grpc.aio.Channel

    async def push(self, *requests: load_pb2.PushRequest) -> tuple[grpc.StatusCode, str, int]:
        """Code, details, and how many were taken."""
        stub: Any = load_pb2_grpc.LoadServiceStub(self.channel)
        try:
            return grpc.StatusCode.OK, "", (await stub.Push(iter(requests), timeout=DEADLINE_S)).taken
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or "", 0


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Rig]:
    table = LoadTable(2)
    service = LoadService(table, time.monotonic, scraped=["read here"])
    async with (
        serving_load(service, folder / "load.sock", KEY) as server,
        open_channel(server.addresses[KEY]) as channel,
    ):
        yield Rig(table, service, channel)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path / "run") as rig:
        yield rig


def load(instance: str = "i0", *, ahead_s: float = 0.0) -> PhaseLoad:
    ttft = Histogram((0.1, 1.0), (3, 2, 1))
    return PhaseLoad(instance, Role.PREFILL, time.monotonic() + ahead_s, waiting_requests=3, arrived=9, ttft=ttft)


async def test_what_is_pushed_is_what_the_report_carries_also_after_the_stream_has_ended(rig: Rig) -> None:
    one, two = load("a"), load("b")
    assert await rig.push(encode_push(one), encode_push(two)) == (grpc.StatusCode.OK, "", 2)
    assert rig.table.fresh(time.monotonic()) == (one, two)


async def test_a_load_is_there_while_its_stream_goes_on(rig: Rig) -> None:
    stub: Any = load_pb2_grpc.LoadServiceStub(rig.channel)
    call = stub.Push(timeout=DEADLINE_S)
    await call.write(encode_push(load()))
    await wait_until(lambda: rig.table.fresh(time.monotonic()), DEADLINE_S, "the load")
    await call.done_writing()
    assert (await call).taken == 1


def broken() -> Iterator[tuple[load_pb2.PushRequest, str]]:
    yield load_pb2.PushRequest(), "message field load: missing"
    nameless = encode_push(load())
    nameless.load.instance = ""
    yield nameless, "message field load.instance: missing"
    roleless = encode_push(load())
    roleless.load.ClearField("role")
    yield roleless, "message field load.role: missing"
    uneven = encode_push(load())
    uneven.load.ttft.counts.append(1)
    yield uneven, "message field load.ttft.counts: 4 entries, must be 3"


@pytest.mark.parametrize(("request_", "text"), list(broken()))
async def test_what_cannot_be_used_names_the_field(rig: Rig, request_: load_pb2.PushRequest, text: str) -> None:
    code, details, _ = await rig.push(request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(text)
    assert rig.table.fresh(time.monotonic()) == ()


async def test_a_load_from_the_future_is_refused(rig: Rig) -> None:
    code, details, _ = await rig.push(encode_push(load(ahead_s=1000.0)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("message field load.at_s: ")
    assert "ahead of this host's CLOCK_MONOTONIC" in details


async def test_one_instance_too_many_is_told_which_setting_to_raise(rig: Rig) -> None:
    code, details, _ = await rig.push(*(encode_push(load(name)) for name in ("a", "b", "c")))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "instance c: this host carries the load of 2 instances already; raise load.max_instances" in details
    assert [each.instance for each in rig.table.fresh(time.monotonic())] == ["a", "b"]


async def test_who_is_scraped_may_not_push_too(rig: Rig) -> None:
    code, details, _ = await rig.push(encode_push(load("a")), encode_push(load("read here")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details == "instance read here: its metrics are read here ([[engine]]); push or be read, not both"
    assert [each.instance for each in rig.table.fresh(time.monotonic())] == ["a"]


async def test_a_stopping_daemon_ends_the_streams(rig: Rig) -> None:
    async def forever() -> AsyncIterator[load_pb2.PushRequest]:
        yield encode_push(load())
        await asyncio.Event().wait()

    stub: Any = load_pb2_grpc.LoadServiceStub(rig.channel)
    call = stub.Push(forever(), timeout=DEADLINE_S)
    await wait_until(lambda: rig.table.fresh(time.monotonic()), DEADLINE_S, "the load")
    rig.service.stop()
    assert (await call.code(), await call.details()) == (grpc.StatusCode.UNAVAILABLE, "the daemon stops")


async def test_the_folder_of_the_socket_is_closed_to_others(tmp_path: Path) -> None:
    async with serving(tmp_path / "run"):
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750


async def test_an_open_folder_is_refused_with_the_mode_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(ConfigInvalid) as caught:
        async with serving(tmp_path / "open"):
            pass
    assert str(caught.value) == (
        f"config key {KEY}: folder {tmp_path}/open has mode 755, so every user could push load; "
        "use a folder of mode 750"
    )


async def test_a_socket_that_another_daemon_serves_is_left_alone(tmp_path: Path) -> None:
    async with serving(tmp_path / "run") as rig:
        with pytest.raises(ConfigInvalid, match="another process serves it"):
            async with serving(tmp_path / "run"):
                pass
        assert (await rig.push(encode_push(load())))[2] == 1


async def test_the_socket_of_a_daemon_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o750)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "run" / "load.sock"))
    async with serving(tmp_path / "run") as rig:
        assert (await rig.push(encode_push(load())))[2] == 1
