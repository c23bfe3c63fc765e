"""The Unix socket over which the worker is told what to do."""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rapidctl.engines.dynamo_worker.half import Broken, Refused
from rapidctl.engines.dynamo_worker.worker import Worker

LINE_MAX_BYTES = 4096
MOST_CALLERS = 8

LOG = logging.getLogger("rapid.dynamo")


class Control:
    """The Unix socket over which the worker is told what to do. Anybody may ask; one at a time may command."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._owner: object | None = None  # the connection that commands
        self._callers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Raises OSError; one that another worker serves is left alone."""
        _clear(path)
        umask = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._hear, path, limit=LINE_MAX_BYTES)
        finally:
            os.umask(umask)
        try:
            yield
        finally:
            server.close()
            for caller in self._callers:
                caller.transport.abort()
            _clear(path)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers.add(writer)
        try:
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                while len(self._callers) <= MOST_CALLERS and (line := await _read(reader)):
                    writer.write(json.dumps(await self._answer(line, writer)).encode() + b"\n")
                    await writer.drain()
        finally:
            self._callers.discard(writer)
            if self._owner is writer:
                self._owner = None
                await self._serve_on()

    async def _answer(self, line: bytes, caller: object) -> dict[str, Any]:
        """What to say. `n`, which is anything, comes back, so that a caller knows a late answer for what it is."""
        order: Any = {}
        try:
            order = json.loads(line)
            do, role = str(order.get("do")), str(order.get("role", ""))
            await self._do(do, role, caller)
            return {"n": order.get("n"), **await self._worker.state()}
        except (Refused, ValueError, AttributeError) as error:
            problem = {"error": str(error), "refused": True}
        except Broken as error:
            LOG.error("%s", error)
            problem = {"error": str(error), "broken": True}
        except Exception as error:  # whatever Dynamo raises; its bindings know one class
            LOG.exception("cannot do %s", line[:80])
            problem = {"error": f"{type(error).__name__}: {error}"}
        return {"n": order.get("n") if isinstance(order, dict) else None, **problem}

    async def _do(self, do: str, role: str, caller: object) -> None:
        if do == "state":
            return
        worker = self._worker
        steps = {
            "close": worker.close,
            "delist": worker.delist,
            "switch": lambda: worker.switch(role),
            "open": worker.open,
            "renew": worker.renew,
        }
        if do not in steps:
            raise Refused(f"knows no {do[:40]!r}, but state, {', '.join(steps)}")
        if self._owner not in (None, caller):
            raise Refused("another adapter drives this worker; stop that one")
        self._owner = caller
        LOG.info("is told: %s %s", do, role)
        await steps[do]()

    async def _serve_on(self) -> None:
        """Its adapter has gone. If that had taken it out of service, nobody else would ever open it."""
        if self._worker.leaving:
            return
        LOG.warning("its adapter has gone; it serves on as %s", self._worker.role)
        if self._worker.taking:
            return
        try:
            await self._worker.open()
        except Exception:
            LOG.exception("cannot serve again")
            self._worker.ended.set()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty: the caller has gone, or sends what is no order."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


def _clear(path: Path) -> None:
    """Away with the socket that a killed worker has left, or we ourselves. Raises OSError if somebody serves it."""
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(f"{path} is served by another worker")
