"""One GET within bounds: what comes is handed on, and all that can go wrong is one line and ends in time."""

import asyncio
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rapid.core.errors import ScrapeFailed
from rapidd.load.http import HEAD_MAX_BYTES, fetch
from tests.node.caller import DEADLINE_S
from tests.node.metrics_server import TEXT, Answer, chunked, endless, hang, metrics_server, page, raw

HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n".encode()


async def get(url: str, deadline_s: float = DEADLINE_S) -> bytes:
    body = bytearray()
    await fetch(urlsplit(url), body.extend, deadline_s)
    return bytes(body)


async def body_of(answer: Answer) -> bytes:
    async with metrics_server(answer) as server:
        return await get(server.url)


async def test_the_page_that_was_asked_for_comes_whole() -> None:
    async with metrics_server(page(lambda: b"a 1\n")) as server:
        assert await get(f"{server.url}/sub?name=a") == b"a 1\n"
        asked = server.requests[0].decode()
    assert asked.startswith("GET /metrics/sub?name=a HTTP/1.1\r\n")
    assert f"Host: {urlsplit(server.url).netloc}\r\n" in asked
    assert "Accept: text/plain;version=0.0.4\r\n" in asked
    assert "Accept-Encoding: identity\r\n" in asked
    assert "Connection: close\r\n" in asked


@pytest.mark.parametrize(
    "answer",
    [
        chunked(b"a 1\nb 2\n", 3),
        raw(HEAD, b"\r\n", b"a 1\n", b"b 2\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, b"Content-Length: 8\r\n\r\na 1\nb 2\n"),
        raw(b"HTTP/1.0 200 OK\r\ncontent-type: TEXT/PLAIN\r\n\r\na 1\nb 2\n"),
        raw(HEAD + b"Content-Length: 8\r\n\r\na 1\nb 2\nand what nobody asked for"),
    ],
    ids=["chunked", "to the end", "after a 100", "HTTP/1.0", "with more behind it"],
)
async def test_every_way_to_send_a_page_is_understood(answer: Answer) -> None:
    assert await body_of(answer) == b"a 1\nb 2\n"


async def test_localhost_is_loopback_and_no_name_to_look_up() -> None:
    async with metrics_server(page(lambda: b"a 1\n")) as server:
        assert await get(server.url.replace("127.0.0.1", "localhost")) == b"a 1\n"


def wrong() -> Iterator[tuple[Answer, str]]:
    yield (
        page(lambda: b"<html>", "text/html; charset=utf-8"),
        "answered 'text/html; charset=utf-8', must be text/plain: no metrics are at this url",
    )
    yield (
        page(lambda: b"# EOF\n", "application/openmetrics-text; version=1.0.0"),
        "answered 'application/openmetrics-text; version=1.0.0', must be text/plain: no metrics are at this url",
    )
    yield raw(b"HTTP/1.1 200 OK\r\n\r\na 1\n"), "answered '', must be text/plain: no metrics are at this url"
    yield raw(HEAD, b"Content-Encoding: gzip\r\n\r\n\x1f\x8b"), "answered with encoding 'gzip', must be none"
    yield raw(b"HTTP/1.1 404 Not Found\r\n\r\n"), "answered 404, must be 200"
    yield raw(b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\n\r\n"), "answered 503, must be 200"
    yield (
        raw(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /metrics/\r\n\r\n"),
        "answered 307: set its url to where it points, '/metrics/'",
    )
    yield raw(b"\x16\x03\x01\x00\x02 not http \r\n\r\n"), "does not speak HTTP as it should: "
    yield raw(b"SSH-2.0-OpenSSH_9\r\n"), "does not speak HTTP as it should: "
    yield raw(), "does not speak HTTP as it should: "
    yield raw(HEAD, b"Content-Length: 100\r\n\r\na 1\n"), "does not speak HTTP as it should: "
    yield raw(HEAD, b"X: " + b"x" * (HEAD_MAX_BYTES + 65536)), "does not speak HTTP as it should: "
    yield raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "sent more than 8 answers that are none"
    yield endless(), "sent more than 16 MiB, the most that is read"


@pytest.mark.parametrize(("answer", "text"), list(wrong()))
async def test_what_is_no_page_is_named(answer: Answer, text: str) -> None:
    with pytest.raises(ScrapeFailed) as caught:
        await body_of(answer)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 200


async def test_nobody_who_listens_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ScrapeFailed, match=r"^cannot be reached: connection refused$"):
            await get(f"http://127.0.0.1:{free.getsockname()[1]}/metrics")


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"\r\na 1\n"], ids=["silent", "in its head", "in its page"])
async def test_who_hangs_is_left_at_the_deadline(begun: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await hang(writer)

    async with metrics_server(answer) as server:
        with pytest.raises(ScrapeFailed) as caught:
            await get(server.url, 0.1)
    assert str(caught.value) == "gave no whole page within 0.1 s"


async def test_who_takes_the_page_may_have_had_enough() -> None:
    def refuse(data: bytes) -> None:
        raise ScrapeFailed("enough")

    async with metrics_server(endless()) as server:
        with pytest.raises(ScrapeFailed, match=r"^enough$"):
            await fetch(urlsplit(server.url), refuse, DEADLINE_S)
