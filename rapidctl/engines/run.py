"""`rapidctl attach`: an adapter as a process beside its engine, until SIGTERM or Ctrl-C."""

import asyncio
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from rapid.core.cluster import Role
from rapid.core.errors import RapidError
from rapid.engine import SwitchFailed, attach
from rapid.engine.link import FIRST_PAUSE_S, LONGEST_PAUSE_S
from rapid.streams import first_of
from rapid.tls import TlsConfig
from rapidctl.engines.base import Adapter, Kind, Parent, Place, Say, SeesEnd

SWITCH_WITHIN_S = 120.0  # of an engine that switches live; SGLang captures its decode graphs in it (assumed)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What `rapidctl attach` is told, whatever the kind."""

    kind: Kind
    options: Struct
    place: Place
    address: str  # the controller's
    tls: TlsConfig | None  # for the controller
    load_socket: Path | None  # rapidd's, to push the load to; None: rapidd reads the engine's metrics itself


async def run(sidecar: Sidecar, say: Say) -> None:
    """Keep the engine under RAPID's care until told to stop. The engine serves on, before, during and after, unless
    the adapter is its parent.

    Raises ConfigInvalid for options, addresses and TLS files that can never work, and SwitchFailed for an engine that
    its parent has given up.
    """
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with sidecar.kind.open(sidecar.place, sidecar.options, say) as adapter:
        while not stopping.is_set():
            if (role := await _unless(stopping, _begun(adapter, sidecar.place, say))) is not None:
                say(f"serves {role.value}: {adapter.product}")
                await _serve(sidecar, adapter, role, say, stopping)


async def _serve(sidecar: Sidecar, adapter: Adapter, role: Role, say: Say, stopping: asyncio.Event) -> None:
    """Attached, until told to stop, or until the engine has ended."""
    place = sidecar.place
    parent = adapter if isinstance(adapter, Parent) else None
    sees_end = adapter if isinstance(adapter, SeesEnd) else None
    attached = attach(
        adapter,
        instance=place.instance,
        node=place.node,
        gpus=place.gpus,
        role=role,
        roles=adapter.roles,
        address=sidecar.address,
        tls=sidecar.tls,
        load_address=f"unix:{sidecar.load_socket}" if sidecar.load_socket else "",
        switch_s=adapter.switch_s,
        switch_within_s=parent.switch_within_s if parent else SWITCH_WITHIN_S,
        product=adapter.product,
        say=say,
    )
    async with attached as now:
        if (how := await _unless(stopping, sees_end.ended() if sees_end else stopping.wait())) and sees_end:
            now.parting = f"its engine has ended: {how}"
            say(now.parting)
        else:
            rest = "and its engine with it" if parent else f"the engine goes on as {now.role.value}, {now.phase.value}"
            say(f"stops; {rest}")


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What comes of the work; None: told to stop first."""
    done: list[T] = []

    async def finish() -> None:
        done.append(await work)

    await first_of(finish(), stopping.wait())
    return done[0] if done and not stopping.is_set() else None


async def _begun(adapter: Adapter, place: Place, say: Say) -> Role:
    """The role that the engine has. Its adapter may be up before it is, so that is waited for."""
    pause_s, told = FIRST_PAUSE_S, ""
    while True:
        try:
            role = await adapter.begin()
        except SwitchFailed:
            raise
        except RapidError as error:
            if str(error) != told:
                told = str(error)
                say(f"cannot begin yet, tries again: {told}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            continue
        if role not in adapter.roles:
            can = ", ".join(each.value for each in adapter.roles)
            raise RapidError(f"{place.instance}: begin: it has role {role.value}, and can take {can} alone")
        if place.role not in (None, role):
            assert place.role is not None
            say(f"it has role {role.value}, not {place.role.value} as configured; what it has counts")
        return role
