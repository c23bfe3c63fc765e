"""rapidd with mutual TLS: whoever has no certificate of the authority gets nothing, on loopback too."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from rapid.rpc import open_channel
from rapid.tls import TlsConfig
from tests.certificates import issue
from tests.node.caller import DEADLINE_S, end_of, grants, greet, next_report
from tests.node.daemon import FALLBACK_MW, Host
from tests.wait import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def host(tmp_path: Path, authority: trustme.CA) -> Iterator[Host]:
    with Host(tmp_path) as host:
        tls = issue(authority, tmp_path / "node", "127.0.0.1")
        host.configure(more=f'[tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"')
        yield host


async def test_a_controller_with_a_certificate_leads(host: Host, authority: trustme.CA) -> None:
    daemon = host.start()
    tls = issue(authority, host.folder / "controller", "controller.example")
    async with open_channel(daemon.endpoints.address, tls) as channel:
        call = await greet(channel)
        await call.write(grants(1, 700_000, incarnation=daemon.incarnation, gpus=host.names))
        await wait_until(lambda: host.limits_mw() == (700_000, 700_000), DEADLINE_S, "granted limits")
        await next_report(call)
        call.cancel()


@pytest.mark.parametrize("who", ["nobody", "stranger"])
async def test_anybody_else_is_not_heard(host: Host, authority: trustme.CA, who: str) -> None:
    daemon = host.start()
    tls: TlsConfig | None = None
    if who == "stranger":
        theirs = issue(trustme.CA(), host.folder / "stranger", "controller.example")
        # The stranger trusts the node, so it is the node that turns it away.
        tls = TlsConfig(ca=host.folder / "node" / "ca.pem", cert=theirs.cert, key=theirs.key)
    async with open_channel(daemon.endpoints.address, tls) as channel:
        try:
            call = await greet(channel)
            code, _ = await end_of(call)
        except grpc.aio.AioRpcError as error:
            code = error.code()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert host.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_a_key_that_systemd_hands_over_need_not_be_readable_where_it_is(
    host: Host, authority: trustme.CA
) -> None:
    handed = host.folder / "credentials"
    handed.mkdir()
    (host.folder / "node" / "key.pem").rename(handed / "node_key.pem")
    daemon = host.start(env={"CREDENTIALS_DIRECTORY": str(handed)})
    async with open_channel(daemon.endpoints.address, issue(authority, host.folder / "c", "c.example")) as channel:
        await next_report(await greet(channel))


def test_a_missing_key_file_is_named_before_anything_is_touched(host: Host) -> None:
    (host.folder / "node" / "key.pem").unlink()
    code, line = host.refused()
    assert code == 2
    assert line.startswith("rapidd: config key tls.key: there is no file ")
