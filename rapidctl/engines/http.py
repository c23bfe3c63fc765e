"""Calls to engines and routers over HTTP: each ends within its time, is read to a bound, and fails in one line.

That line names the instance, the step, the call, what came of it and what to do about it. The one thing that callers
must tell apart is whether the peer may have acted: `CallFailed.sent`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from rapid import __version__
from rapid.core.errors import ConfigInvalid, RapidError

WITHIN_S = 5.0  # for one call, answer included; a router answers in milliseconds
BODY_MAX_BYTES = 8 * 2**20  # a list of 10,000 workers has 5 MB
TOKEN_MAX_BYTES = 64 * 2**10
SHOWN = 120  # characters of what a peer says, in a message

T = TypeVar("T")


class CallFailed(RapidError):
    """A call that did not bring what it was made for.

    what    happened; todo: what to do about it (empty: that is not known)
    status  that the peer answered with; 0: there was no answer
    sent    the peer may have acted on it all the same
    """

    def __init__(self, what: str, todo: str = "", *, status: int = 0, sent: bool = True) -> None:
        super().__init__(f"{what}; {todo}" if todo else what)
        self.what, self.todo, self.status, self.sent = what, todo, status, sent


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is and how it is talked to.

    name        of the peer in messages and in the names of its options: "router" has router_url, router_token_file
                and router_ca
    token_file  holds the key that goes along as a bearer token; read for every call, so that it may be renewed
    ca          PEM file of the authority to trust instead of the host's own list
    """

    name: str
    url: str
    token_file: Path | None = None
    ca: Path | None = None

    def check(self) -> None:
        """Raise ConfigInvalid, naming the option's key, for what can never work."""
        check_url(self.url, f"{self.name}_url")
        if self.ca is not None and not self.url.startswith("https:"):
            raise ConfigInvalid(f"{self.name}_ca", f"is of no use with {self.url}, which is no https:// URL")
        self.tls()
        self.token("start")

    def tls(self) -> ssl.SSLContext | bool:
        """Whom to trust. Raises ConfigInvalid."""
        if self.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise ConfigInvalid(f"{self.name}_ca", f"{self.ca} holds no certificate in PEM form") from error
        except OSError as error:
            raise ConfigInvalid(f"{self.name}_ca", f"cannot read {self.ca}: {_system(error)}") from error

    def token(self, step: str) -> str:
        """The key; empty: none is needed. Raises ConfigInvalid."""
        if self.token_file is None:
            return ""
        key = f"{self.name}_token_file"
        try:
            with self.token_file.open("rb") as file:
                text = file.read(TOKEN_MAX_BYTES).decode("ascii").strip()
        except OSError as error:
            raise ConfigInvalid(key, f"cannot read {self.token_file}: {_system(error)}") from error
        except UnicodeDecodeError as error:
            raise ConfigInvalid(key, f"{self.token_file} holds more than a key's plain characters") from error
        if not text or not text.isprintable():
            raise ConfigInvalid(key, f"{self.token_file} must hold one key on one line")
        return text


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    body: bytes
    call: str  # instance, step, method and URL, for messages about what it says

    def read(self, shape: type[T]) -> T:
        """Its JSON as `shape`; what that does not name is passed over. Raises CallFailed."""
        try:
            return msgspec.json.decode(self.body, type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            text = f"{self.call}: the answer is not what it should be: {error}; it says {shown(self.body)!r}"
            raise CallFailed(text, "is this the right URL?", status=self.status) from error


class Peer:
    """An engine or a router at its endpoint, asked in the name of one instance."""

    def __init__(self, instance: str, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self.instance, self.endpoint = instance, endpoint
        self._session, self._tls = session, endpoint.tls()

    def at(self, url: str) -> "Peer":
        """Another of its kind, elsewhere, over the same connections. Who says where it is does not get our key."""
        return Peer(self.instance, replace(self.endpoint, url=url, token_file=None), self._session)

    async def get(self, step: str, path: str, *, missing: str = "", within_s: float = WITHIN_S) -> Answer:
        return await self.call(step, "GET", path, missing=missing, within_s=within_s)

    async def call(
        self,
        step: str,
        method: str,
        path: str,
        body: object = None,
        *,
        good: Collection[int] = (200,),
        missing: str = "",
        within_s: float = WITHIN_S,
    ) -> Answer:
        """One call. A POST is made once; the others do no harm when made twice, and aiohttp makes them once more when
        the connection breaks. Raises CallFailed unless the answer's status is a `good` one.

        step     what it is made for, in messages
        missing  what to do when there is no such route (404)
        """
        url = self.endpoint.url.rstrip("/") + path
        call = f"{self.instance}: {step}: {method} {url}"
        try:
            headers = self._headers(step, body)
        except ConfigInvalid as error:
            raise CallFailed(f"{self.instance}: {step}: {_option(error)}", sent=False) from error
        try:
            async with asyncio.timeout(within_s):
                answer = await self._exchange(call, method, url, headers, body)
        except TimeoutError as error:
            raise CallFailed(f"{call}: no answer within {within_s:g} s", "is it stuck, or overloaded?") from error
        except aiohttp.ClientError as error:
            raise self._broken(call, error) from error
        except OSError as error:
            raise CallFailed(f"{call}: {_system(error)}", "see that it runs") from error
        if answer.status not in good:
            raise self._refused(answer, missing)
        return answer

    # ---- inside ----

    def _headers(self, step: str, body: object) -> Mapping[str, str]:
        headers = {"User-Agent": f"rapidctl/{__version__}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token := self.endpoint.token(step):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def _exchange(self, call: str, method: str, url: str, headers: Mapping[str, str], body: object) -> Answer:
        data = None if body is None else msgspec.json.encode(body)
        asked = self._session.request(
            method, url, data=data, headers=headers, ssl=self._tls, allow_redirects=False, raise_for_status=False
        )
        async with asked as response:
            parts: list[bytes] = []
            left = BODY_MAX_BYTES
            async for part in response.content.iter_any():
                parts.append(part)
                left -= len(part)
                if left < 0:
                    response.close()
                    text = f"{call}: answered more than {BODY_MAX_BYTES // 2**20} MiB, the most that is read"
                    raise CallFailed(text, "is this the right URL?", status=response.status)
            return Answer(response.status, b"".join(parts), call)

    def _broken(self, call: str, error: aiohttp.ClientError) -> CallFailed:
        """There was no answer."""
        name = self.endpoint.name
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            todo = f"name the PEM file of its authority with {option(f'{name}_ca')}"
            if "mismatch" in why.lower():
                todo = f"have {option(f'{name}_url')} name the host that its certificate names"
            return CallFailed(f"{call}: TLS: its certificate is not accepted: {shown(why)}", todo, sent=False)
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            todo = f"if it serves plain HTTP, write {option(f'{name}_url')} with http://"
            return CallFailed(f"{call}: TLS: {shown(str(error))}", todo, sent=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            why = _system(error.os_error)
            todo = f"see that the {name} runs, and that {option(f'{name}_url')} is right"
            return CallFailed(f"{call}: {why}", todo, sent=False)
        why = str(error) or type(error).__name__
        todo = f"see that the {name} runs, and that {option(f'{name}_url')} is right (http or https?)"
        return CallFailed(f"{call}: {shown(why)}", todo)

    def _refused(self, answer: Answer, missing: str) -> CallFailed:
        """There was an answer, but not a good one."""
        endpoint, status, said = self.endpoint, answer.status, shown(answer.body)
        words = f"{status} {_phrase(status)}" + (f" ({said})" if said else "")
        url = option(f"{endpoint.name}_url")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            key = option(f"{endpoint.name}_token_file")
            todo = f"it does not accept the key in {endpoint.token_file}" if endpoint.token_file else "it wants a key"
            todo += f": give the right one with {key}"
        elif status == HTTPStatus.NOT_FOUND:
            todo = missing or f"it has no such route: see that {url} is right, and which version it is"
        elif 300 <= status < 400:
            todo = f"write {url} as the address that it points to"
        elif status >= 500:
            todo = f"look into the log of the {endpoint.name}"
        else:
            todo = f"see that {url} is right, and which version it is"
        return CallFailed(f"{answer.call}: {words}", todo, status=status, sent=status >= 500)


@asynccontextmanager
async def opened(instance: str, *endpoints: Endpoint) -> AsyncIterator[tuple[Peer, ...]]:
    """The peers at these endpoints. Raises ConfigInvalid for what can never work."""
    for endpoint in endpoints:
        endpoint.check()
    # A connection that is used again may be gone by then, which would look like an answer that got lost.
    connector = aiohttp.TCPConnector(force_close=True)
    # Without cookies and proxies: an adapter and its engine are two halves of one thing.
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, trust_env=False) as session:
        yield tuple(Peer(instance, endpoint, session) for endpoint in endpoints)


def check_url(url: str, key: str) -> None:
    """Raise ConfigInvalid unless it is the http or https URL of a host."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None or not url.isprintable() or " " in url:
        raise ConfigInvalid(key, f"{url[:SHOWN]!r} is no URL of a host; write it as 'http://127.0.0.1:30000'")


def option(key: str) -> str:
    """The key of a file as the option of the command line."""
    return f"--{key.replace('_', '-')}"


def shown(said: bytes | str) -> str:
    """What a peer says, on one line and short."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    words = " ".join(each for each in text.split() if each)
    plain = "".join(each if each.isprintable() else "?" for each in words)
    return plain if len(plain) <= SHOWN else f"{plain[: SHOWN - 3]}..."


def _option(error: ConfigInvalid) -> str:
    return f"{option(error.key)}: {str(error).partition(': ')[2]}"


def _system(error: OSError) -> str:
    import os

    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)).lower()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no known status)"
