"""What is said between the adapter of a Dynamo worker and the wrapper that the worker runs under."""

import asyncio
import json
from pathlib import Path

import msgspec
from msgspec import Struct

from rapid.core.errors import RapidError
from rapidctl.engines.http import WITHIN_S

ANSWER_MAX_BYTES = 4096
START = "start it in Dynamo's environment: python -m rapidctl.engines.dynamo_worker --help"


class State(Struct, frozen=True):
    """What the wrapper says of its worker. `worker` is its id in Dynamo, another one after each switch."""

    role: str
    taking: bool
    left: int
    endpoint: str
    worker: str


class Refusal(Struct, frozen=True):
    """What it says when it has not done, or not wholly, what it was told."""

    error: str = ""
    refused: bool = False
    broken: bool = False


class _Number(Struct, frozen=True):
    n: int | None = None


class WorkerRefused(RapidError):
    """The worker is as it was."""


class WorkerBroken(RapidError):
    """The worker can serve neither role until it is started anew."""


class Wrapper:
    """The wrapper of one worker, over its Unix socket, from `connect` until it hangs up: that is the life of the
    worker's process. While we are connected, the worker leaves to us when it is to be in service."""

    def __init__(self, instance: str, path: Path, tasks: asyncio.TaskGroup) -> None:
        self._instance, self._path, self._tasks = instance, path, tasks
        self._writer: asyncio.StreamWriter | None = None  # None: not connected
        self._number = 0  # of the last order
        self._waiting: asyncio.Future[bytes] | None = None  # for the answer to that
        self._turn = asyncio.Lock()
        self.gone = asyncio.Event()

    async def connect(self, step: str) -> None:
        """Raises RapidError."""
        if self._writer is not None:
            return
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path, limit=ANSWER_MAX_BYTES)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise RapidError(f"{self._call(step)}: {why}; {START}") from error
        self.gone.clear()
        self._tasks.create_task(self._listen(reader, self._writer))

    async def tell(self, step: str, do: str, *, within_s: float = WITHIN_S, role: str = "") -> State:
        """One order, given once. Raises RapidError, in which case the worker may have obeyed; WorkerRefused if it has
        not; WorkerBroken."""
        call = self._call(step)
        async with self._turn:
            answer = _read(await self._exchange(call, do, role, within_s))
        if answer is None:
            raise RapidError(f"{call}: is no worker of RAPID; is --control right?")
        if isinstance(answer, State):
            return answer
        kind = WorkerRefused if answer.refused else WorkerBroken if answer.broken else RapidError
        raise kind(f"{call}: {answer.error}")

    def hang_up(self) -> None:
        """The wrapper then puts the worker back into service, if we had taken it out."""
        if self._writer is not None:
            self._writer.transport.abort()

    # ---- inside ----

    def _call(self, step: str) -> str:
        return f"{self._instance}: {step}: worker at {self._path}"

    async def _exchange(self, call: str, do: str, role: str, within_s: float) -> bytes:
        if self._writer is None:
            raise WorkerRefused(f"{call}: has ended; {START}")
        self._number += 1
        self._waiting = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"n": self._number, "do": do, "role": role}).encode() + b"\n")
        try:
            async with asyncio.timeout(within_s):
                line = await self._waiting
        except TimeoutError as error:
            raise RapidError(f"{call}: no answer within {within_s:g} s; is it stuck? See its log") from error
        if not line:
            raise RapidError(f"{call}: hung up without an answer; see its log")
        return line

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"-"
        while line:
            try:
                line = await reader.readline()
            except (OSError, ValueError):
                line = b""
            # An answer may come when nobody waits for it any more, and must not be taken for the next one's.
            if self._waiting is not None and not self._waiting.done() and _number(line) in (None, self._number):
                self._waiting.set_result(line)
        writer.transport.abort()
        self._writer = None
        self.gone.set()


def _read(line: bytes) -> State | Refusal | None:
    """What an answer says; None: nothing that we know."""
    try:
        refusal = msgspec.json.decode(line, type=Refusal)
        return refusal if refusal.error else msgspec.json.decode(line, type=State)
    except msgspec.DecodeError:
        return None


def _number(line: bytes) -> int | None:
    """Of the order that is answered; None: of whichever, as it is no answer at all."""
    try:
        return msgspec.json.decode(line, type=_Number).n
    except msgspec.DecodeError:
        return None
