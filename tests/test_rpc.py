"""Every server has health and reflection, tells its port, and passes errors on as what they are."""

import asyncio
import socket
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rapid import rpc
from rapid.core.errors import ConfigInvalid, NotFound, Refused, Unreachable
from rapid.rpc import Context, RpcServer, abort, open_channel, start_server
from rapid.v1 import load_pb2, load_pb2_grpc
from tests.calls import calling
from tests.certificates import issue

DEADLINE_S = 10.0
SERVICE = load_pb2.DESCRIPTOR.services_by_name["LoadService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Refusing(load_pb2_grpc.LoadServiceServicer):
    """Knows no instance."""

    async def Push(self, requests: AsyncIterable[load_pb2.PushRequest], context: Context) -> load_pb2.PushResponse:
        await abort(context, NotFound("instance", "i9", ("i1", "i2")))


@asynccontextmanager
async def serving(**ports: str) -> AsyncIterator[RpcServer]:
    add = lambda server: load_pb2_grpc.add_LoadServiceServicer_to_server(Refusing(), server)  # noqa: E731
    server = await start_server(ports or {"listen": "127.0.0.1:0"}, add, services=[SERVICE])
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(address)
    try:
        with calling(address):
            yield channel
    finally:
        await channel.close()


def checker(channel: grpc.aio.Channel) -> Any:
    """The stubs of this service do not name its calls."""
    return health_pb2_grpc.HealthStub(channel)


async def health(address: str, service: str = "") -> int:
    async with connected(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = (await checker(channel).Check(request, timeout=10)).status
        return status


async def test_a_server_serves_when_it_says_so() -> None:
    async with serving() as server:
        for service in ("", SERVICE):
            assert await health(server.addresses["listen"], service) == NOT_SERVING
        await server.set_serving(True)
        for service in ("", SERVICE):
            assert await health(server.addresses["listen"], service) == SERVING
        await server.set_serving(False)
        assert await health(server.addresses["listen"]) == NOT_SERVING


async def test_reflection_lists_the_services() -> None:
    async with serving() as server, connected(server.addresses["listen"]) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        untyped: Any = channel  # the stubs of this service know synchronous channels only
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
        answer = await anext(aiter(stub.ServerReflectionInfo(iter([request]), timeout=10)))
        names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_one_server_listens_on_several_addresses(tmp_path: Path) -> None:
    async with serving(tcp="127.0.0.1:0", socket=f"unix:{tmp_path}/x.sock") as server:
        assert not server.addresses["tcp"].endswith(":0")
        for address in server.addresses.values():
            assert await health(address) == NOT_SERVING


async def test_a_refusal_arrives_as_the_error_that_it_was() -> None:
    with pytest.raises(NotFound) as caught:
        async with serving() as server, connected(server.addresses["listen"]) as channel:
            await load_pb2_grpc.LoadServiceStub(channel).Push(iter([]), timeout=10)
    assert str(caught.value) == "no instance named 'i9' (known: i1, i2)"


async def test_an_address_that_is_taken_is_refused_by_key(tmp_path: Path) -> None:
    tls = issue(trustme.CA(), tmp_path / "tls", "h1.example")
    async with serving(tcp="127.0.0.1:0", socket=f"unix:{tmp_path}/x.sock") as server:
        tcp, unix = server.addresses.values()
        for key, address, problem in [
            ("listen.address", tcp, "another process serves it; stop that one, or choose another port"),
            ("listen.load_socket", unix, "another process serves it"),
            ("listen.load_socket", f"unix:{tmp_path}/none/x", f"there is no folder {tmp_path}/none"),
            ("listen.address", "192.0.2.1:0", "no permission, or not an address of this host"),
        ]:
            with pytest.raises(ConfigInvalid) as caught:
                await start_server({key: address}, lambda _: None, services=[], tls=tls)
            assert str(caught.value) == f"config key {key}: cannot listen on {address}: {problem}"


async def test_a_socket_file_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/x.sock")
    async with serving(socket=f"unix:{tmp_path}/x.sock") as server:
        assert await health(server.addresses["socket"]) == NOT_SERVING


async def test_an_open_address_without_tls_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"^config key listen: other hosts can reach 0\.0\.0\.0:0, so it needs TLS"):
        async with serving(listen="0.0.0.0:0"):
            pass


async def test_nobody_there_is_said_in_words(tmp_path: Path) -> None:
    async with serving() as server:
        address = server.addresses["listen"]
    for gone in (address, f"unix:{tmp_path}/none.sock"):
        with pytest.raises(Unreachable) as caught:
            await health(gone)
        assert str(caught.value) == f"cannot reach {gone}: nobody listens there"


async def test_a_call_that_is_not_answered_in_time_names_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            async with connected(address) as channel:
                await checker(channel).Check(health_pb2.HealthCheckRequest(), timeout=0.1)
        assert str(caught.value) == f"{address} did not answer in time"


async def test_a_message_at_the_bound_is_taken_and_a_larger_one_refused() -> None:
    request = health_pb2.HealthCheckRequest(service="x" * (rpc.MESSAGE_MAX_BYTES - 5))
    assert request.ByteSize() == rpc.MESSAGE_MAX_BYTES
    async with serving() as server:
        address = server.addresses["listen"]
        with pytest.raises(Refused, match=f"^{address} refused: NOT_FOUND$"):  # it was read: no such service
            await health(address, request.service)
        with pytest.raises(Refused, match=rf"^{address} refused: .*larger than max \({2**24 + 1} vs\. {2**24}\)"):
            await health(address, f"{request.service}x")


class Cable:
    """A TCP relay that can be cut without either end being told."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.whole = asyncio.Event()
        self.whole.set()
        self.tasks = asyncio.TaskGroup()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(*self.target.rsplit(":", 1))
        self.tasks.create_task(self.copy(reader, onward_writer))
        self.tasks.create_task(self.copy(onward_reader, writer))

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.whole.wait()
            writer.write(data)
        writer.close()


async def test_a_cut_cable_ends_a_stream_within_seconds() -> None:
    async with serving() as server, asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        cable = Cable(server.addresses["listen"])
        cable.tasks = tasks
        relay = await asyncio.start_server(cable.relay, "127.0.0.1", 0)
        address = f"127.0.0.1:{relay.sockets[0].getsockname()[1]}"
        channel = open_channel(address)
        stream = checker(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await stream.read()).status == NOT_SERVING
        cable.whole.clear()
        with pytest.raises(Unreachable, match=f"^cannot reach {address}: "), calling(address):
            async with asyncio.timeout(15):
                await stream.read()
        cable.whole.set()
        await channel.close()
        relay.close()


async def test_bytes_that_are_no_message_are_the_callers_fault() -> None:
    async with serving() as server, connected(server.addresses["listen"]) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(b"\xff\xff\xff", timeout=DEADLINE_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "what came is no message of this call"
        good = health_pb2.HealthCheckRequest().SerializeToString()
        assert health_pb2.HealthCheckResponse.FromString(await check(good, timeout=DEADLINE_S)).status == NOT_SERVING
