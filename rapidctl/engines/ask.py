"""Questions to an engine that the operator has put into words: a command, or a URL to look at."""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import aiohttp

from rapid.core.errors import ConfigInvalid, RapidError, ScrapeFailed
from rapid.pages.page import Page, Picker
from rapidctl.engines.http import Endpoint, Peer, check_url

OUTPUT_MAX_BYTES = 64 * 2**10  # of what a command says
END_WITHIN_S = 1.0  # for what was killed to let go of its pipes; what has left its group may not
SHOWN = 200  # characters of that in a message


class CommandFailed(RapidError):
    """A command of the operator's that did not end with 0 in time; the message quotes its last words."""


Question = Callable[[Mapping[str, str], float], Awaitable[str]]  # environment, seconds for the answer


def command_of(key: str, line: str) -> tuple[str, ...]:
    """The words of a command line; none of an empty one. Raises ConfigInvalid."""
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise ConfigInvalid(key, f"{line[:SHOWN]!r} is no command line: {str(error).lower()}") from error


def question_of(
    name: str, url: str, command: str, session: aiohttp.ClientSession, *, metrics: Sequence[str] = ()
) -> Question | None:
    """What NAME_url or NAME_command asks; None: neither is given. The answer is what is said, or the sum of `metrics`.

    Raises ConfigInvalid.
    """
    if url and command:
        raise ConfigInvalid(f"{name}_url", f"is given, and {name}_command too; leave one of them out")
    if command:
        line = command_of(f"{name}_command", command)
        return lambda environment, within_s: run(line, environment, within_s)
    if not url:
        return None
    check_url(url, f"{name}_url")
    return partial(_get, name, url, tuple(metrics), session)


async def _get(
    name: str,
    url: str,
    metrics: tuple[str, ...],
    session: aiohttp.ClientSession,
    _: Mapping[str, str],
    within_s: float,
) -> str:
    """Raises CallFailed and ScrapeFailed."""
    answer = await Peer(name, Endpoint(name, url), session).get("look", "", within_s=within_s)
    if not metrics:
        return answer.body[:OUTPUT_MAX_BYTES].decode(errors="replace")
    page = Page(Picker(metrics))
    page.feed(answer.body)
    page.end()
    if missing := [metric for metric in metrics if not page.has(metric)]:
        raise ScrapeFailed(f"{url} has no metric {missing[0]}")
    return str(sum(page.requests(metric) for metric in metrics))


async def run(command: Sequence[str], environment: Mapping[str, str], within_s: float) -> str:
    """What it writes to stdout. No shell is between; say `sh -c '...'` for one. Raises CommandFailed."""
    shown = shlex.join(command)[:SHOWN]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"`{shown}` cannot be run: {(error.strerror or str(error)).lower()}") from error
    try:
        async with asyncio.timeout(within_s):
            async with asyncio.TaskGroup() as tasks:
                reading = [tasks.create_task(_read(stream)) for stream in (process.stdout, process.stderr)]
            out, err = (each.result() for each in reading)
            code = await process.wait()
    except ExceptionGroup:  # of the two that read, for this one reason
        raise CommandFailed(f"`{shown}` wrote more than {OUTPUT_MAX_BYTES // 2**10} KiB") from None
    except TimeoutError:
        raise CommandFailed(f"`{shown}` did not end within {within_s:g} s") from None
    finally:
        await _end(process)
    if code:
        said = (err or out).decode(errors="replace").strip().splitlines()
        how = f"exited with {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        raise CommandFailed(f"`{shown}` {how}{': ' + said[-1][:SHOWN] if said else ''}")
    return out.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Also of what it has started and left behind, and also when we are told to stop."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_WITHIN_S):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(4096):
                    pass  # what nobody reads would keep the pipe open
            await process.wait()


class _TooMuch(Exception):
    """More than anybody would read."""


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None, "both are pipes"
    data = b""
    while piece := await stream.read(4096):
        data += piece
        if len(data) > OUTPUT_MAX_BYTES:
            raise _TooMuch
    return data
