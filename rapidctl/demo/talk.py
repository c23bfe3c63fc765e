"""What engines and the demo's front end say to each other: one JSON object per line over a Unix socket.

Times are CLOCK_MONOTONIC of the host they share. A line is at most LINE_MAX bytes; a peer that lets more than
BACKLOG_MAX bytes pile up is cut off, which it survives by connecting again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

import msgspec

from rapid.core.cluster import Role
from rapid.core.errors import WireInvalid
from rapid.sim.model.requests import PrefillDone, Request

LINE_MAX = 65_536
BACKLOG_MAX = 4 * 1024 * 1024
BATCH_MAX = 200  # requests in one HandBack, which then fits a line


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """An engine introduces itself; the first message of a connection."""

    instance: str
    role: Role
    open: bool


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The engine takes requests in this role from now on."""

    role: Role


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The engine takes no more requests; what it has not begun follows in HandBack. The front end answers Quiet."""


class HandBack(msgspec.Struct, frozen=True, tag="hand_back"):
    """Requests that the engine had not begun, or that reached it after it had closed."""

    requests: tuple[Request, ...] = ()
    kvs: tuple[PrefillDone, ...] = ()


class Prefilled(msgspec.Struct, frozen=True, tag="prefilled"):
    """A prompt is processed and its first token exists."""

    done: PrefillDone


class Pulled(msgspec.Struct, frozen=True, tag="pulled"):
    """The engine has the KV cache that it was sent in Kv; it need not lie at its source any longer."""

    request_id: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last token exists. tpot_s is None for a request of one token."""

    request_id: int
    at_s: float
    ttft_s: float
    tpot_s: float | None


class Lag(msgspec.Struct, frozen=True, tag="lag"):
    """How late the engine has been with its model's events so far: the cost of sharing a small computer."""

    events: int
    sum_s: float
    max_s: float


class Prompt(msgspec.Struct, frozen=True, tag="prompt"):
    """Process this prompt."""

    request: Request


class Kv(msgspec.Struct, frozen=True, tag="kv"):
    """Decode this request; its KV cache is ready to be pulled."""

    done: PrefillDone


class Release(msgspec.Struct, frozen=True, tag="release"):
    """This KV cache, which the engine told of in Prefilled, is not needed here any longer."""

    done: PrefillDone


class Quiet(msgspec.Struct, frozen=True, tag="quiet"):
    """The answer to Closed: no request follows until Opened, so an engine that holds none has drained."""


FromEngine = Hello | Opened | Closed | HandBack | Prefilled | Pulled | Ended | Lag
ToEngine = Prompt | Kv | Release | Quiet

_ENCODER = msgspec.json.Encoder()
from_engine = msgspec.json.Decoder(FromEngine)
to_engine = msgspec.json.Decoder(ToEngine)


def line(message: FromEngine | ToEngine) -> bytes:
    """The message as one line."""
    return _ENCODER.encode(message) + b"\n"


def hand_backs(requests: Iterable[Request], kvs: Iterable[PrefillDone]) -> Iterator[HandBack]:
    """As many messages as it takes, none longer than a line may be."""
    prompts, caches = iter(requests), iter(kvs)
    while some := tuple(islice(prompts, BATCH_MAX)):
        yield HandBack(requests=some)
    while ready := tuple(islice(caches, BATCH_MAX)):
        yield HandBack(kvs=ready)


class Outlet:
    """The sending half of a connection. Never blocks; False says that the peer is gone or does not read."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def send(self, message: FromEngine | ToEngine) -> bool:
        transport = self._writer.transport
        if transport.is_closing():
            return False
        self._writer.write(line(message))
        if transport.get_write_buffer_size() <= BACKLOG_MAX:
            return True
        transport.abort()
        return False

    def close(self) -> None:
        self._writer.close()


async def heard(
    reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[FromEngine] | msgspec.json.Decoder[ToEngine]
) -> AsyncIterator[FromEngine | ToEngine]:
    """The messages that come in, until the peer is gone. Raises WireInvalid for one that cannot be understood."""
    while text := await _next_line(reader):
        try:
            yield decoder.decode(text)
        except msgspec.DecodeError as wrong:
            raise WireInvalid("line", str(wrong)) from wrong


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """One line; empty when the peer is gone, or went in the middle of a line."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    except asyncio.LimitOverrunError as wrong:
        raise WireInvalid("line", f"is longer than {LINE_MAX} bytes") from wrong
