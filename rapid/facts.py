"""What findings are made of, as far as both daemons' hosts have it: certificates, files, disks and the clock.

Reads only. What cannot be had is None or left out; the judging is done in rapid.core.findings.
"""

import ctypes
import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rapid.core.findings.files import CertificateFacts, ClockFacts, FileFacts
from rapid.tls import UNIX, TlsConfig, handed_over

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the module ssl has no name for
_ROUNDS = 4  # of messages, each way; a TLS handshake has two
_STA_UNSYNC = 0x0040  # timex.h
_TIMEX_BYTES = 208  # struct timex on 64-bit Linux
_LONGS = ctypes.c_long * 6


# ---- certificates ----


def certificates(tls: TlsConfig, wall_s: float) -> list[CertificateFacts]:
    """The certificate of this process and that of the authority; the files must be what `rapid.tls.read` accepts."""
    files = handed_over(tls)
    shown = _decoded(_shake_hands(files, trust=files.cert))
    untrusted = ""
    try:
        _shake_hands(files, trust=files.ca)
    except ssl.SSLCertVerificationError as error:
        untrusted = error.verify_message
    authority = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.load_verify_locations(files.ca)
    found = [_facts(str(tls.cert), shown, wall_s, untrusted)]
    return found + [_facts(str(tls.ca), _decoded(each), wall_s) for each in authority.get_ca_certs()]


def shown_certificate(address: str, tls: TlsConfig, wall_s: float, timeout_s: float) -> CertificateFacts | None:
    """The certificate that the server at the address shows; None if it shows none. Raises OSError, ssl.SSLError."""
    if address.startswith(UNIX):
        return None  # such a socket is served without TLS
    files = handed_over(tls)
    client = _client(files.ca)
    client.set_alpn_protocols(["h2"])
    client.load_cert_chain(files.cert, files.key)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout_s) as plain,
        client.wrap_socket(plain, server_hostname=host.strip("[]")) as secured,
    ):
        return _facts(address, _decoded(secured.getpeercert()), wall_s)


def _client(trust: Path) -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(trust)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)  # when it ends is a fact, and not a reason to see none
    return client


def _shake_hands(files: TlsConfig, *, trust: Path) -> Any:
    """What a client that trusts `trust` sees of the certificate, over a wire in memory: the one way that the standard
    library has to decode it. Raises SSLCertVerificationError if it is not vouched for."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.cert, files.key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        _client(trust).wrap_bio(back, there),
        server.wrap_bio(there, back, server_side=True),
    )
    for end in ends * _ROUNDS:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ends[0].getpeercert()


def _decoded(certificate: Any) -> dict[str, Any]:
    assert isinstance(certificate, dict), "only a certificate that was verified is decoded"
    return certificate


def _facts(where: str, certificate: dict[str, Any], wall_s: float, untrusted: str = "") -> CertificateFacts:
    begins_s = ssl.cert_time_to_seconds(certificate["notBefore"])
    ends_s = ssl.cert_time_to_seconds(certificate["notAfter"])
    names = tuple(value for _, value in certificate.get("subjectAltName", ()))
    ends_on = datetime.fromtimestamp(ends_s, UTC).strftime("%Y-%m-%d")
    return CertificateFacts(where, names, begins_s - wall_s, ends_s - wall_s, ends_on, untrusted)


# ---- files and disks ----


def file_facts(path: Path) -> FileFacts:
    """Raises OSError."""
    return FileFacts(str(path), path.stat().st_mode & 0o7777)


def free_bytes(folder: Path) -> int:
    """What others than root can still write there. Raises OSError."""
    return os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize


# ---- the clock ----


class _Timex(ctypes.Structure):
    """The beginning of struct timex; the kernel fills all of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * (_TIMEX_BYTES - ctypes.sizeof(_LONGS))),
    )


def clock_facts() -> ClockFacts:
    """What the kernel knows of its own clock: modes 0 only asks. Any time service, NTP or PTP, tells the kernel."""
    told = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(told))
    except (AttributeError, OSError):
        return ClockFacts(None)
    if state < 0:
        return ClockFacts(None)
    return ClockFacts(not told.status & _STA_UNSYNC, told.maxerror / 1e6)
