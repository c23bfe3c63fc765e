"""RapidError to gRPC status and back: the same class with the same text on both sides.

The class travels as google.rpc.ErrorInfo in the standard status details, so that clients in other languages can read
it too. A status without it (another server, a proxy, gRPC itself) becomes the class that fits its code.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # ships no annotations
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no annotations

from rapid.core import errors
from rapid.core.errors import RapidError, Refused, Unreachable
from rapid.wire.fields import printable

DOMAIN = "rapid.v1"  # ErrorInfo.domain: whose class names these are
DETAILS_KEY = "grpc-status-details-bin"
# A status travels twice in the trailers, once escaped to three bytes a byte; gRPC drops trailers above 8 KiB.
MESSAGE_MAX_BYTES = 1024
_CARRIED = ("key", "gpu", "field", "problem")
_CARRIED_MAX_BYTES = 256

# The first class that fits decides; the codes are those of the tables in proto/rapid/v1.
_CODES: tuple[tuple[type[RapidError], grpc.StatusCode], ...] = (
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.LimitRefused, grpc.StatusCode.OUT_OF_RANGE),
    (errors.EngineTaken, grpc.StatusCode.ALREADY_EXISTS),
    (errors.Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WireInvalid, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.TraceInvalid, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ConfigInvalid, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.DeviceDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.JournalCorrupt, grpc.StatusCode.DATA_LOSS),
    (errors.Unreachable, grpc.StatusCode.UNAVAILABLE),
    (RapidError, grpc.StatusCode.INTERNAL),
)
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# What gRPC writes when a connection cannot be made, and what it means; the first that fits decides.
_SIGNS = (
    ("Connection refused", "nobody listens there"),
    ("No such file", "nobody listens there"),
    ("address lookup failed", "no host has that name"),
    ("Hostname Verification", "its certificate names another host"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by the authority in tls.ca"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: set tls.ca, tls.cert and tls.key there, or take them away here"),
    (
        "error: UNAVAILABLE: ",
        "it hung up at once: it may ask for TLS, with a certificate that its own tls.ca has signed",
    ),
    ("andshake", "the TLS handshake failed: check tls.ca, tls.cert and tls.key on both sides"),
)
_NUMBERS: dict[grpc.StatusCode, int] = {code: code.value[0] for code in grpc.StatusCode}


class RpcFailure(Protocol):
    """What grpc.aio.AioRpcError and the errors of synchronous calls have in common."""

    def code(self) -> grpc.StatusCode | None: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def debug_error_string(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """What to abort a call with: `context.abort(code, message, trailers)`."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]


def status_of(error: RapidError, code: grpc.StatusCode | None = None) -> RpcStatus:
    """The status that says this error; `code` replaces the usual one of its class where an RPC's table says so."""
    if code is None:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
    message = _cut(str(error), MESSAGE_MAX_BYTES)
    info = ErrorInfo(reason=type(error).__name__, domain=DOMAIN)
    for name in _CARRIED:
        if isinstance(value := getattr(error, name, None), str):
            info.metadata[name] = _cut(value, _CARRIED_MAX_BYTES)
    detail = Any()
    detail.Pack(info)
    details = Status(code=_NUMBERS[code], message=message, details=[detail]).SerializeToString()
    return RpcStatus(code, message, ((DETAILS_KEY, details),))


def error_of(failure: RpcFailure, *, address: str) -> RapidError:
    """The error that the server at `address` raised, or what the failed call means without one.

    Unreachable for UNAVAILABLE and DEADLINE_EXCEEDED, naming the address; Refused for the codes that say no; otherwise
    RapidError.
    """
    text = printable(failure.details() or "")
    info = _info(failure)
    if info is not None and info.reason in (kinds := classes()):
        return _build(kinds[info.reason], text, dict(info.metadata))
    code = failure.code() or grpc.StatusCode.UNKNOWN
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable(f"{address} did not answer in time")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"cannot reach {address}: {_why(failure, text)}")
    if code in _REFUSALS:
        return Refused(f"{address} refused: {text or code.name}")
    return RapidError(f"{address} failed with {code.name}: {text or 'no reason given'}")


def error_named(kind: str, text: str) -> RapidError:
    """The error of class name `kind` (Refused for an unknown one) with exactly this text: what commands.Answer says."""
    return _build(classes().get(kind, Refused), text, {})


def classes() -> dict[str, type[RapidError]]:
    """Every class of the tree in rapid.core.errors by its name."""
    return {kind.__name__: kind for kind in _tree(RapidError) if kind.__module__ == errors.__name__}


def _tree(kind: type[RapidError]) -> Iterator[type[RapidError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def _build(kind: type[RapidError], text: str, carried: dict[str, str]) -> RapidError:
    # The classes put their texts together from parts, which are not sent; __new__ alone keeps the text as it is.
    error = kind.__new__(kind, text)
    error.__dict__.update({name: carried[name] for name in _CARRIED if name in carried})
    return error


def _info(failure: RpcFailure) -> ErrorInfo | None:
    """The ErrorInfo of the failure; None if it has none of ours, or one that cannot be read."""
    for key, value in failure.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        try:
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info
        except DecodeError:
            return None
    return None


def _why(failure: RpcFailure, text: str) -> str:
    """What stands behind UNAVAILABLE, in words for an operator."""
    whole = f"{text} {failure.debug_error_string() or ''}"
    for sign, meaning in _SIGNS:
        if sign in whole:
            return meaning
    return text or "no reason given"


def _cut(text: str, most_bytes: int) -> str:
    """The text as one line of UTF-8 no longer than most_bytes."""
    text = printable(text)
    data = text.encode()
    return text if len(data) <= most_bytes else data[: most_bytes - 3].decode(errors="ignore") + "..."
