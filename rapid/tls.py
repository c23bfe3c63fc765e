"""Mutual TLS for every gRPC endpoint, and the rule that nothing leaves the host without it.

gRPC is imported where credentials are made, so that reading a configuration stays light.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rapid.core.errors import ConfigInvalid

if TYPE_CHECKING:
    import grpc

UNIX = "unix:"
UNIX_PATH_MAX = 107  # bytes that sockaddr_un holds besides the final zero
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Three PEM files: the authority that signs everybody's certificate, and the certificate and key of this process.

    The same pair serves both directions: a server asks every client for a certificate of that authority.
    """

    ca: Path
    cert: Path
    key: Path

    def check(self) -> None:
        """Raise ConfigInvalid, naming the key, for a file that is missing, unreadable, or not what it should be."""
        read(self)


def handed_over(tls: TlsConfig, environ: Mapping[str, str] = os.environ) -> TlsConfig:
    """The files as this process can read them."""
    return TlsConfig(*(copy_of(path, environ) for path in (tls.ca, tls.cert, tls.key)))


def copy_of(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The copy that systemd has handed over, which stands in for the file; the file itself, if there is none.

    LoadCredential=tls:/etc/rapid/tls makes /etc/rapid/tls/h1.key, which is root's, $CREDENTIALS_DIRECTORY/tls_h1.key,
    which is the service's own. So the configuration names the same file for the service and for root's shell.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    copy = Path(folder, f"{path.parent.name}_{path.name}")
    return copy if folder and copy.is_file() else path


@dataclass(frozen=True, slots=True)
class Pem:
    """What the three files hold."""

    ca: bytes
    cert: bytes
    key: bytes


# ---- addresses ----


def check_address(address: str, key: str) -> None:
    """Raise ConfigInvalid unless the address is `unix:/path`, `host:port` or `[ipv6]:port`."""
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX)
        if not path.startswith("/") or not path.isprintable():
            raise ConfigInvalid(
                key, f"{address!r} is no address: write the socket's full path, as in 'unix:/run/x.sock'"
            )
        if len(path.encode()) > UNIX_PATH_MAX:
            raise ConfigInvalid(key, f"{path} has {len(path.encode())} bytes, a socket path may have {UNIX_PATH_MAX}")
        return
    if not (found := _HOST_PORT.fullmatch(address)) or int(found["port"]) > 65535:
        raise ConfigInvalid(key, f"{address!r} is no address: write it as 'host:port' or 'unix:/path'")


def is_local(address: str) -> bool:
    """Whether only this host can reach the address (a valid one): a Unix socket, or loopback."""
    if address.startswith(UNIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(address: str, tls: TlsConfig | None, key: str = "listen.address") -> None:
    """Raise ConfigInvalid for a bad address, or for one that other hosts reach while there is no TLS."""
    check_address(address, key)
    if tls is None and not is_local(address):
        raise ConfigInvalid(
            key,
            f"other hosts can reach {address}, so it needs TLS: set tls.ca, tls.cert and tls.key, "
            "or listen on 127.0.0.1 or on unix:/path",
        )


def check_dial(address: str, tls: TlsConfig | None, key: str) -> None:
    """Raise ConfigInvalid for a bad address, or for one on another host while there is no TLS."""
    check_address(address, key)
    if tls is None and not is_local(address):
        raise ConfigInvalid(key, f"{address} is another host, so it needs TLS: set tls.ca, tls.cert and tls.key")


# ---- credentials ----


def server_credentials(tls: TlsConfig) -> "grpc.ServerCredentials":
    """Credentials that ask every client for a certificate. Raises ConfigInvalid."""
    import grpc

    pem = read(tls)
    return grpc.ssl_server_credentials([(pem.key, pem.cert)], root_certificates=pem.ca, require_client_auth=True)


def channel_credentials(tls: TlsConfig) -> "grpc.ChannelCredentials":
    """Credentials that show the certificate, and accept a server whose certificate names the dialled host.

    Raises ConfigInvalid.
    """
    import grpc

    pem = read(tls)
    return grpc.ssl_channel_credentials(root_certificates=pem.ca, private_key=pem.key, certificate_chain=pem.cert)


def read(tls: TlsConfig) -> Pem:
    """The three files, found to be usable and to belong together. Raises ConfigInvalid, naming the key."""
    tls = handed_over(tls)
    pem = Pem(ca=_bytes(tls.ca, "tls.ca"), cert=_bytes(tls.cert, "tls.cert"), key=_bytes(tls.key, "tls.key"))
    _check_certificate(pem.ca, tls.ca, "tls.ca")
    _check_certificate(pem.cert, tls.cert, "tls.cert")
    _check_pair(tls)
    return pem


def _bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigInvalid(key, f"there is no file {path}") from None
    except OSError as error:
        raise ConfigInvalid(key, f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _check_certificate(data: bytes, path: Path, key: str) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigInvalid(key, f"{path} holds no certificate in PEM form") from error


def _check_pair(tls: TlsConfig) -> None:
    import ssl

    try:
        # Without a password of our own, an encrypted key would stop the start and ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigInvalid("tls.key", f"{tls.key} is not the key of the certificate in {tls.cert}") from error
        raise ConfigInvalid("tls.key", f"{tls.key} holds no unencrypted private key in PEM form") from error
