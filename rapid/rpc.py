"""gRPC as every process here uses it: the same options, health, reflection and errors everywhere."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rapid import tls as tls_
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.tls import TlsConfig
from rapid.wire.errors import status_of

MESSAGE_MAX_BYTES = 16 * 2**20  # the picture of 10,000 GPUs has 2 MB
CALLS_MAX = 10_000  # calls and streams that one server carries at once; the next is refused
STREAMS_MAX = 1024  # of these, on one connection
STOP_GRACE_S = 1.0
NO_MESSAGE = "what came is no message of this call"
PROBE_S = 0.5  # how long a start may wait to learn whether somebody already listens

# Without the ping timeout a peer behind a cut cable is never noticed: keepalive alone waits for TCP to give up.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_MESSAGES = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    # Else windows grow to megabytes, and a reader that was busy for a minute first finds a minute of old reports.
    ("grpc.http2.bdp_probe", 0),
)
CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    *_KEEPALIVE,
    *_MESSAGES,
    # The default backs off to two minutes, in which a host would sit at its fallback for nothing.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A proxy for the web has no business between a controller and its nodes.
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS: tuple[tuple[str, int | str], ...] = (
    *_KEEPALIVE,
    *_MESSAGES,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    # With the default, a second daemon on the same port would start and take half of the calls.
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[Any, Any]


# ---- client ----


def open_channel(address: str, tls: TlsConfig | None = None, *, server_name: str = "") -> grpc.aio.Channel:
    """A channel that connects when first used, and again by itself. Raises ConfigInvalid for unusable TLS files.

    A Unix socket is dialled without TLS, as it is served. `server_name` replaces the host that the server's
    certificate must name.
    """
    if tls is None or address.startswith(tls_.UNIX):
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    return grpc.aio.secure_channel(address, tls_.channel_credentials(tls), options=(*CHANNEL_OPTIONS, *named))


# ---- server ----


@dataclass(frozen=True, slots=True)
class RpcServer:
    """A started server. `addresses` says for each config key where it listens, with the port that it got."""

    server: grpc.aio.Server
    addresses: Mapping[str, str]
    health: health.aio.HealthServicer
    services: tuple[str, ...]

    async def set_serving(self, serving: bool) -> None:
        """What gRPC health says of the process and of each service; not serving at first."""
        states = health_pb2.HealthCheckResponse
        for service in ("", *self.services):
            await self.health.set(service, states.SERVING if serving else states.NOT_SERVING)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Say that it no longer serves, take no new call, and end the old ones after grace_s."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


async def start_server(
    ports: Mapping[str, str],
    add: Callable[[grpc.aio.Server], None],
    *,
    services: Sequence[str],
    tls: TlsConfig | None = None,
) -> RpcServer:
    """Serve at each address of `ports` (by the config key that names it) what `add` adds, with health and reflection.

    `services` are full names, as in `DESCRIPTOR.services_by_name["NodeService"].full_name`. Unix sockets are served
    without TLS: the rights of their folder protect them. Raises ConfigInvalid for an address that cannot be used.
    """
    interceptors = [_Understanding()]
    server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX, interceptors=interceptors)
    add(server)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    addresses = {key: _add_port(server, address, tls, key) for key, address in ports.items()}
    started = RpcServer(server, addresses, checker, tuple(services))
    await started.set_serving(False)
    await server.start()
    return started


class _Understanding(grpc.aio.ServerInterceptor):
    """A call of one request and one response whose request is no message ends with INVALID_ARGUMENT; gRPC itself would
    say UNKNOWN, as if the fault were ours. Streams read their messages through rapid.streams, which says the same."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler

        def request(data: bytes) -> Any:
            try:
                return handler.request_deserializer(data)
            except DecodeError:
                return None

        async def answer(asked: Any, context: Context) -> Any:
            if asked is None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
            return await handler.unary_unary(asked, context)

        return grpc.unary_unary_rpc_method_handler(answer, request, handler.response_serializer)


def _add_port(server: grpc.aio.Server, address: str, tls: TlsConfig | None, key: str) -> str:
    """Listen there; the address with the port that was really bound."""
    tls_.check_listen(address, tls, key)
    if problem := _in_the_way(address):
        raise ConfigInvalid(key, f"cannot listen on {address}: {problem}")
    try:
        if tls is None or address.startswith(tls_.UNIX):
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls_.server_credentials(tls))
    except RuntimeError as error:
        raise ConfigInvalid(
            key, f"cannot listen on {address}: no permission, or not an address of this host"
        ) from error
    return address if address.startswith(tls_.UNIX) else f"{address.rpartition(':')[0]}:{port}"


def _in_the_way(address: str) -> str:
    """Why nobody could listen there, as far as one can tell beforehand; gRPC itself gives no reason.

    It would also take a Unix socket away from a process that still serves it, so that is asked for first.
    """
    if address.startswith(tls_.UNIX):
        path = Path(address.removeprefix(tls_.UNIX))
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        return "another process serves it" if _answers(socket.AF_UNIX, str(path)) else ""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    taken = port != "0" and _answers(family, (host.strip("[]"), int(port)))
    return "another process serves it; stop that one, or choose another port" if taken else ""


def _answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(address)
        except OSError:
            return False
        return True


async def abort(context: Context, error: RapidError, code: grpc.StatusCode | None = None) -> NoReturn:
    """End the call with the status of this error (see rapid.wire.errors)."""
    status = status_of(error, code)
    await context.abort(status.code, status.message, status.trailers)


@asynccontextmanager
async def answering(context: Context) -> AsyncIterator[None]:
    """Around the body of a handler: a RapidError ends the call with its status."""
    try:
        yield
    except RapidError as error:
        await abort(context, error)
