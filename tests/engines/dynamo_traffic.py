"""Streaming OpenAI traffic against a Dynamo frontend, on a thread of its own, and what became of each request."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from tests.engines.dynamo_cluster import MODEL, WORDS

REQUEST_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent at_s after the start."""

    at_s: float
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one. ttft_s counts from when it was due, not from when we came to send it."""

    ask: Ask
    got_tokens: int
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    error: str = ""

    @property
    def complete(self) -> bool:
        return not self.error and self.got_tokens == self.ask.answer_tokens


def steady(rate_rps: float, prompt_tokens: int, answer_tokens: int, *, seed: str = "steady") -> Iterator[Ask]:
    """For ever, at exponential gaps."""
    dice, at_s = random.Random(seed), 0.0
    while True:
        at_s += dice.expovariate(rate_rps)
        yield Ask(at_s, prompt_tokens, answer_tokens)


class Traffic:
    """Sends each request when it is due, for as long as the block lasts; then waits for what is under way."""

    def __init__(self, url: str, asks: Iterable[Ask], *, seed: str = "words") -> None:
        self._url, self._asks, self._dice = url, iter(asks), random.Random(seed)
        self.served: list[Served] = []
        self.sent = 0
        self.began_s = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._all_sent = threading.Event()
        self._thread = threading.Thread(target=self._work, name="traffic")

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Send no more, and wait for the answers."""
        with contextlib.suppress(RuntimeError):  # it has sent everything, and is over
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * REQUEST_WITHIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    @property
    def all_sent(self) -> bool:
        return self._all_sent.is_set()

    @property
    def at_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began_s

    @property
    def lost(self) -> list[Served]:
        return [one for one in self.served if not one.complete]

    # ---- inside ----

    def _work(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._run())

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_WITHIN_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session,
            asyncio.TaskGroup() as tasks,
        ):
            self.began_s = time.monotonic()
            for ask in self._asks:
                if not await self._due(self.began_s + ask.at_s):
                    break
                self.sent += 1
                tasks.create_task(self._send(session, ask))
            self._all_sent.set()

    async def _due(self, at_s: float) -> bool:
        """Wait until then; False: told to stop before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, at_s - time.monotonic())):
                await self._stopping.wait()
        return not self._stopping.is_set()

    async def _send(self, session: aiohttp.ClientSession, ask: Ask) -> None:
        due_s, times_s = self.began_s + ask.at_s, []
        error = "the stream ended before its end"
        body = {
            "model": MODEL,
            "stream": True,
            "max_tokens": ask.answer_tokens,
            "messages": [{"role": "user", "content": self._prompt(ask.prompt_tokens)}],
        }
        tokens = 0
        try:
            async with session.post(f"{self._url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    error = f"{answer.status}: {(await answer.text())[:200]}"
                async for line in answer.content:
                    if line.strip() == b"data: [DONE]":
                        error = ""
                    elif line.startswith(b"data: ") and (words := _words(line)):
                        tokens += words
                        times_s.append(time.monotonic())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as broken:
            error = f"{type(broken).__name__}: {broken}"
        first_s, last_s = (times_s[0], times_s[-1]) if times_s else (due_s, due_s)
        tpot_s = (last_s - first_s) / (tokens - 1) if tokens > 1 else 0.0
        self.served.append(Served(ask, tokens, first_s - due_s, tpot_s, error))

    def _prompt(self, tokens: int) -> str:
        """Different words each time, so that no prefix cache has seen them."""
        return " ".join(f"w{number}" for number in self._dice.choices(range(3, WORDS), k=tokens))


def _words(line: bytes) -> int:
    """How many words a chunk brings; a word is a token."""
    chunk = json.loads(line[6:])
    if "error" in chunk:
        raise ValueError(str(chunk["error"])[:200])
    return sum(len((choice["delta"].get("content") or "").split()) for choice in chunk.get("choices", ()))
