"""How an operator words an engine that must be started anew, and whether it makes sense."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Meta, Struct

from rapid.config.units import Seconds
from rapid.core.cluster import Role
from rapid.core.errors import ConfigInvalid
from rapid.core.restarts import MOST
from rapidctl.engines.ask import Question, command_of, question_of
from rapidctl.engines.base import Place


class Options(Struct, frozen=True, kw_only=True):
    """How the operator words it."""

    run: Annotated[
        tuple[str, ...],
        Meta(description="Command line that starts it; {role} stands for the role. Or one per role: 'decode=CMD ...'."),
    ]
    ready_url: Annotated[str, Meta(description="It would serve a request when this answers 200.")] = ""
    ready_command: Annotated[str, Meta(description="The same by a command: it is ready when this exits with 0.")] = ""
    left_url: Annotated[str, Meta(description="Says how many requests it holds, as a number or as metrics.")] = ""
    left_metric: Annotated[tuple[str, ...], Meta(description="Of the metrics at left-url: those to add up.")] = ()
    left_command: Annotated[str, Meta(description="The same by a command, which prints the number.")] = ""
    close_command: Annotated[str, Meta(description="Has the router send it no more requests.")] = ""
    open_command: Annotated[str, Meta(description="Has the router send it requests, in its role.")] = ""
    ready_within_s: Annotated[Seconds, Meta(description="From its start until it is ready.")] = msgspec.field(
        name="ready_within", default=Seconds(300)
    )
    stop_within_s: Annotated[Seconds, Meta(description="From SIGTERM until it is killed.")] = msgspec.field(
        name="stop_within", default=Seconds(60)
    )
    restart_s: Annotated[Seconds, Meta(description="How long ending and starting takes; policies weigh it.")] = (
        msgspec.field(name="restart", default=Seconds(30))
    )
    restarts: Annotated[int, Meta(description="Deaths in a row after which it is given up.")] = MOST
    engine_log: Annotated[Path | None, Meta(description="What it writes goes here, not to where this writes.")] = None
    state_dir: Annotated[Path | None, Meta(description="Where its process is on record; must outlive this.")] = None


@dataclass(frozen=True, slots=True)
class Wording:
    """The same, in parts that can be used. `left` None: the drain begins with SIGTERM, and is over when it exits."""

    run: Mapping[Role, tuple[str, ...]]
    ready: Question
    left: Question | None
    close: tuple[str, ...]
    open: tuple[str, ...]
    record: Path


def worded(options: Options, place: Place, session: aiohttp.ClientSession) -> Wording:
    """Raises ConfigInvalid for what can never work."""
    ready = question_of("ready", options.ready_url, options.ready_command, session)
    left = question_of("left", options.left_url, options.left_command, session, metrics=options.left_metric)
    close = command_of("close_command", options.close_command)
    open_ = command_of("open_command", options.open_command)
    run = _commands(options.run)
    if ready is None:
        todo = "so nobody could say when it serves; give this, or ready_command"
        raise ConfigInvalid("ready_url", f"is missing, {todo}")
    if left is not None and not close:
        todo = "without it requests go on coming, and the drain never ends; or leave left_url and left_command out"
        raise ConfigInvalid("close_command", f"is missing: {todo}")
    if bool(close) is not bool(open_):
        missing, there = ("open", "close") if close else ("close", "open")
        raise ConfigInvalid(f"{missing}_command", f"is missing, with a {there}_command; say both or neither")
    if options.left_metric and not options.left_url:
        raise ConfigInvalid("left_metric", "is of no use without left_url")
    if place.role not in (None, *run):
        can = ", ".join(role.value for role in run)
        raise ConfigInvalid("role", f"is one that no command line of run starts; they start: {can}")
    for key, number in (("restarts", options.restarts), ("restart", options.restart_s)):
        if number < 0:
            raise ConfigInvalid(key, f"is {number:g}, must be 0 or more")
    record = _state_dir(options.state_dir) / f"{quote(place.instance, safe='')}.engine"
    return Wording(run, ready, left, close, open_, record)


def _commands(lines: Sequence[str]) -> dict[Role, tuple[str, ...]]:
    """The words of the command line of each role. Raises ConfigInvalid."""
    found: dict[Role, tuple[str, ...]] = {}
    for line in lines:
        name, equals, rest = line.partition("=")
        named = [Role(name)] if equals and name in {role.value for role in Role} else []
        for role in named or (Role.PREFILL, Role.DECODE):
            if role in found:
                raise ConfigInvalid("run", f"has two command lines for {role.value}")
            found[role] = command_of("run", rest if named else line)
    if not found:
        raise ConfigInvalid("run", "is missing: the command line that starts the engine")
    for role, command in found.items():
        if shutil.which(command[0]) is None:
            raise ConfigInvalid("run", f"{command[0]!r}, which starts it as {role.value}, is no program on this host")
    return found


def _state_dir(given: Path | None) -> Path:
    """As given, or what the service manager has made for us, or of this user alone; emptied when the host starts."""
    if given is not None:
        return given
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if folder := os.environ.get(name):
            return Path(folder.partition(":")[0]) / "rapid"
    return Path(f"/run/user/{os.getuid()}/rapid") if os.getuid() else Path("/run/rapid")
