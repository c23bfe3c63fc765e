"""Nothing leaves the host without TLS, and with it only those whom the authority has signed get through."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rapid.core.errors import ConfigInvalid, Unreachable
from rapid.rpc import open_channel, start_server
from rapid.tls import TlsConfig, check_address, check_dial, check_listen, handed_over, is_local
from tests.calls import calling
from tests.certificates import issue

TLS = TlsConfig(Path("ca"), Path("cert"), Path("key"))  # these checks only ask whether there is one

LOCAL = ["127.0.0.1:7601", "127.8.8.8:1", "localhost:0", "[::1]:7601", "unix:/run/x.sock"]
REMOTE = ["0.0.0.0:7601", "10.0.0.7:7601", "[::]:7601", "[fe80::1]:1", "h1.example:7601", "localhost.evil.example:1"]
NONE = [
    "",
    "h1",
    "7601",
    ":7601",
    "h1:",
    "h1:99999",
    "::1:7601",
    "unix:x.sock",
    "unix:",
    "dns:///h1:1",
    "h1:1/x",
    "a b:1",
    "h1:\u0663",  # a digit, but none that gRPC knows
    "unix:/run/x\0.sock",  # gRPC would listen on /run/x
]


def refused(check: Callable[..., None], *arguments: object) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        check(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("address", LOCAL)
def test_this_host_alone_needs_no_tls(address: str) -> None:
    assert is_local(address)
    check_listen(address, None)
    check_dial(address, None, "node.h1.address")


@pytest.mark.parametrize("address", REMOTE)
def test_what_other_hosts_reach_needs_tls(address: str) -> None:
    assert not is_local(address)
    assert refused(check_listen, address, None) == (
        f"config key listen.address: other hosts can reach {address}, so it needs TLS: set tls.ca, tls.cert and "
        "tls.key, or listen on 127.0.0.1 or on unix:/path"
    )
    assert refused(check_dial, address, None, "node.h1.address") == (
        f"config key node.h1.address: {address} is another host, so it needs TLS: set tls.ca, tls.cert and tls.key"
    )
    check_listen(address, TLS)
    check_dial(address, TLS, "node.h1.address")


@pytest.mark.parametrize("address", NONE)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert refused(check_address, address, "listen.address").startswith(f"config key listen.address: {address!r} is no")


def test_a_socket_path_has_room_for_107_bytes() -> None:
    check_address(f"unix:/{'x' * 106}", "listen.address")
    assert "has 108 bytes, a socket path may have 107" in refused(check_address, f"unix:/{'x' * 107}", "listen.address")


# ---- files ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def node(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return issue(authority, tmp_path_factory.mktemp("tls") / "node", "127.0.0.1")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    return issue(trustme.CA(), tmp_path_factory.mktemp("tls") / "stranger", "127.0.0.1")


def test_good_files_pass(node: TlsConfig) -> None:
    node.check()


def test_a_bad_file_is_named_by_its_key(node: TlsConfig, stranger: TlsConfig, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    bad = [
        (replace(node, ca=tmp_path / "none"), f"tls.ca: there is no file {tmp_path}/none"),
        (replace(node, ca=tmp_path), f"tls.ca: cannot read {tmp_path}: is a directory"),
        (replace(node, ca=empty), f"tls.ca: {empty} holds no certificate in PEM form"),
        (replace(node, ca=node.key), f"tls.ca: {node.key} holds no certificate in PEM form"),
        (replace(node, cert=empty), f"tls.cert: {empty} holds no certificate in PEM form"),
        (replace(node, key=empty), f"tls.key: {empty} holds no unencrypted private key in PEM form"),
        (replace(node, key=node.cert), f"tls.key: {node.cert} holds no unencrypted private key in PEM form"),
        (replace(node, key=stranger.key), f"tls.key: {stranger.key} is not the key of the certificate in {node.cert}"),
    ]
    for tls, problem in bad:
        assert refused(tls.check) == f"config key {problem}"


# ---- over the wire ----


@pytest.fixture
async def address(node: TlsConfig) -> AsyncIterator[str]:
    server = await start_server({"listen.address": "127.0.0.1:0"}, lambda _: None, services=[], tls=node)
    yield server.addresses["listen.address"]
    await server.stop(0)


async def ask(address: str, tls: TlsConfig | None, server_name: str = "") -> str:
    """Ask for the health of the server; empty when it answered, otherwise the one line for the operator."""
    channel = open_channel(address, tls, server_name=server_name)
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        with calling(address):
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    except Unreachable as error:
        return str(error)
    finally:
        await channel.close()
    return ""


async def test_who_has_a_certificate_of_the_authority_gets_through(
    address: str, authority: trustme.CA, tmp_path: Path
) -> None:
    assert await ask(address, issue(authority, tmp_path / "controller", "controller.example")) == ""


async def test_who_has_no_certificate_is_refused(address: str) -> None:
    assert await ask(address, None) == (
        f"cannot reach {address}: it hung up at once: it may ask for TLS, with a certificate that its own tls.ca "
        "has signed"
    )


async def test_who_has_a_certificate_of_another_authority_is_refused(
    address: str, node: TlsConfig, stranger: TlsConfig
) -> None:
    impostor = replace(stranger, ca=node.ca)  # trusts the server, but is not trusted by it
    assert await ask(address, impostor) == (
        f"cannot reach {address}: it hung up at once: it may ask for TLS, with a certificate that its own tls.ca "
        "has signed"
    )


async def test_a_server_of_another_authority_is_refused(address: str, stranger: TlsConfig) -> None:
    assert await ask(address, stranger) == (
        f"cannot reach {address}: its certificate is not signed by the authority in tls.ca"
    )


async def test_a_server_that_has_another_name_is_refused(address: str, node: TlsConfig) -> None:
    assert await ask(address, node, "h2.example") == f"cannot reach {address}: its certificate names another host"


async def test_a_server_may_be_known_by_another_name(authority: trustme.CA, tmp_path: Path) -> None:
    named = issue(authority, tmp_path / "named", "h2.example")
    server = await start_server({"listen.address": "127.0.0.1:0"}, lambda _: None, services=[], tls=named)
    address = server.addresses["listen.address"]
    assert await ask(address, named) == f"cannot reach {address}: its certificate names another host"
    assert await ask(address, named, "h2.example") == ""
    await server.stop(0)


async def test_a_server_without_tls_is_not_taken_for_one_with_it(node: TlsConfig) -> None:
    server = await start_server({"listen.address": "127.0.0.1:0"}, lambda _: None, services=[])
    address = server.addresses["listen.address"]
    assert await ask(address, node) == (
        f"cannot reach {address}: it does not speak TLS: set tls.ca, tls.cert and tls.key there, or take them away here"
    )
    await server.stop(0)


async def test_a_unix_socket_is_served_without_tls(node: TlsConfig, tmp_path: Path) -> None:
    server = await start_server(
        {"listen.load_socket": f"unix:{tmp_path}/x.sock"}, lambda _: None, services=[], tls=node
    )
    assert server.addresses == {"listen.load_socket": f"unix:{tmp_path}/x.sock"}
    assert await ask(f"unix:{tmp_path}/x.sock", node) == ""
    await server.stop(0)


# ---- what systemd hands over ----


def test_a_copy_that_systemd_has_handed_over_stands_in_for_the_file(node: TlsConfig, tmp_path: Path) -> None:
    copies = tmp_path / "credentials"
    copies.mkdir()
    (copies / "tls_n1.key").write_bytes(node.key.read_bytes())
    named = TlsConfig(node.ca, node.cert, Path("/nowhere/tls/n1.key"))  # only root could read that one
    environ = {"CREDENTIALS_DIRECTORY": str(copies)}
    assert handed_over(named, environ) == TlsConfig(node.ca, node.cert, copies / "tls_n1.key")
    assert handed_over(named, {}) == named
    handed_over(named, environ).check()


def test_a_copy_of_another_folder_is_not_taken(node: TlsConfig, tmp_path: Path) -> None:
    (tmp_path / "controller-tls_key.pem").write_bytes(b"of the controller")
    assert handed_over(node, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == node
