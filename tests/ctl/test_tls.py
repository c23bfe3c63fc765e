"""rapidctl over mutual TLS, and what it says when the two sides do not fit. As processes: gRPC logs on their stderr."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from tests.ctl.fake_controller import FakeController

CTL = [sys.executable, "-m", "rapidctl"]


def write(folder: Path, authority: trustme.CA, name: str) -> tuple[Path, Path, Path]:
    """The three PEM files of one who is called `name`."""
    folder.mkdir()
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    issued = authority.issue_cert(name)
    authority.cert_pem.write_to_path(ca)
    issued.private_key_pem.write_to_path(key)
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(cert, append=index > 0)
    return ca, cert, key


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(tmp_path: Path, authority: trustme.CA) -> Iterator[FakeController]:
    """A controller that asks for a certificate of the authority."""
    ca, cert, key = (path.read_bytes() for path in write(tmp_path / "controller", authority, "127.0.0.1"))
    fake = FakeController()
    fake.start(credentials=grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True))
    yield fake
    fake.stop()


def run(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*CTL, "--address", address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def flags(ca: Path, cert: Path, key: Path) -> list[str]:
    return ["--tls-ca", str(ca), "--tls-cert", str(cert), "--tls-key", str(key)]


def test_both_sides_show_a_certificate_of_the_authority(
    secured: FakeController, authority: trustme.CA, tmp_path: Path
) -> None:
    done = run(secured.address, "budget", "get", *flags(*write(tmp_path / "ops", authority, "ops")))
    assert (done.returncode, done.stderr) == (0, "")
    assert "rack1" in done.stdout


def test_a_certificate_of_somebody_else_is_exit_3_and_one_line(secured: FakeController, tmp_path: Path) -> None:
    done = run(secured.address, "status", *flags(*write(tmp_path / "ops", trustme.CA(), "ops")))
    assert (done.returncode, done.stdout) == (3, "")
    told = "its certificate is not signed by the authority in tls.ca"
    assert done.stderr == f"rapidctl: cannot reach the controller at {secured.address}: {told}\n"


def test_no_tls_against_tls_is_exit_3_and_one_line(secured: FakeController) -> None:
    done = run(secured.address, "status")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"rapidctl: cannot reach the controller at {secured.address}: ")
    assert done.stderr.count("\n") == 1


def test_tls_against_no_tls_is_exit_3_and_one_line(
    controller: FakeController, authority: trustme.CA, tmp_path: Path
) -> None:
    done = run(controller.address, "status", *flags(*write(tmp_path / "ops", authority, "ops")))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"rapidctl: cannot reach the controller at {controller.address}: ")
    assert done.stderr.count("\n") == 1


def test_a_key_that_is_not_the_certificates_is_exit_2(
    secured: FakeController, authority: trustme.CA, tmp_path: Path
) -> None:
    ca, cert, _ = write(tmp_path / "ops", authority, "ops")
    _, _, other = write(tmp_path / "other", authority, "other")
    done = run(secured.address, "status", *flags(ca, cert, other))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"rapidctl: --tls-key: {other} is not the key of the certificate in {cert}\n"
