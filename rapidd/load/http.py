"""One GET of a page of text, handed over piece by piece as it comes, until a hard deadline."""

import asyncio
import os
from collections.abc import Callable
from urllib.parse import SplitResult

import h11

from rapid import __version__
from rapid.core.errors import ScrapeFailed, ScrapeFault

PIECE_BYTES = 4 * 2**10  # taken at once, some milliseconds of work at worst; then the enforcement loop has its turn
HEAD_MAX_BYTES = 16 * 2**10
RAW_MAX_BYTES = 16 * 2**20  # of everything that comes, heads and chunk sizes too; the page has a bound of its own
INTERIM_MAX = 8  # of 100 Continue and the like
TYPES = ("text/plain",)  # what we ask for; protobuf and OpenMetrics are not read
SHOWN = 60  # characters of what a peer says, in a message


async def fetch(url: SplitResult, take: Callable[[bytes], None], deadline_s: float) -> None:
    """Give `take` the body of what an address of this host answers. Raises ScrapeFailed, and what `take` raises."""
    # A name would be looked up on a thread that nobody could call back.
    host = "127.0.0.1" if url.hostname == "localhost" else url.hostname
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, url.port)
            try:
                await _talk(url, reader, writer, take)
            finally:
                writer.transport.abort()  # to close would be to wait for a peer that does not read
    except TimeoutError:
        raise ScrapeFailed(f"gave no whole page within {deadline_s:g} s", ScrapeFault.SILENT) from None
    except OSError as error:
        # asyncio puts words of its own in place of the system's.
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ScrapeFailed(f"cannot be reached: {why.lower()}", ScrapeFault.UNREACHABLE) from error
    except h11.RemoteProtocolError as error:
        raise _not_so(f"does not speak HTTP as it should: {str(error)[:SHOWN]}") from error


async def _talk(
    url: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, take: Callable[[bytes], None]
) -> None:
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
    writer.write(peer.send(_request(url)) or b"")
    writer.write(peer.send(h11.EndOfMessage()) or b"")
    left, interim = RAW_MAX_BYTES, 0
    while not isinstance(event := peer.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            data = await reader.read(PIECE_BYTES)
            await asyncio.sleep(0)  # a peer that is always ready must not keep the loop to itself
            left -= len(data)
            if left < 0:
                raise _not_so(f"sent more than {RAW_MAX_BYTES // 2**20} MiB, the most that is read")
            peer.receive_data(data)
        elif isinstance(event, h11.Response):
            _check(event)
        elif isinstance(event, h11.Data):
            take(bytes(event.data))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > INTERIM_MAX:
                raise _not_so(f"sent more than {INTERIM_MAX} answers that are none")
        elif isinstance(event, h11.ConnectionClosed):
            raise _not_so("hung up without an answer")


def _request(url: SplitResult) -> h11.Request:
    headers = [
        ("Host", url.netloc),
        ("User-Agent", f"rapidd/{__version__}"),
        ("Accept", "text/plain;version=0.0.4"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    return h11.Request(method="GET", target=f"{url.path or '/'}{'?' if url.query else ''}{url.query}", headers=headers)


def _check(response: h11.Response) -> None:
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    status = response.status_code
    if 300 <= status < 400:
        raise _not_so(f"answered {status}: set its url to where it points, {said.get('location', '')[:SHOWN]!r}")
    if status != 200:
        raise _not_so(f"answered {status}, must be 200")
    kind = said.get("content-type", "")
    if kind.partition(";")[0].strip().lower() not in TYPES:
        raise _not_so(f"answered {kind[:SHOWN]!r}, must be {TYPES[0]}: no metrics are at this url")
    if (coding := said.get("content-encoding", "identity")) != "identity":
        raise _not_so(f"answered with encoding {coding[:SHOWN]!r}, must be none")


def _not_so(problem: str) -> ScrapeFailed:
    return ScrapeFailed(problem, ScrapeFault.ANSWER)
