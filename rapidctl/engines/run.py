"""`rapidctl attach`: an adapter as a process beside its engine, until SIGTERM or Ctrl-C."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from rapid.core.cluster import Role
from rapid.core.errors import RapidError
from rapid.engine import attach
from rapid.engine.link import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause
from rapid.tls import TlsConfig
from rapidctl.engines.base import Adapter, Kind, Place, Say


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
    """Keep the engine under RAPID's care until told to stop. The engine serves on, before, during and after.

    Raises ConfigInvalid for options, addresses and TLS files that can never work.
    """
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    place = sidecar.place
    async with AsyncExitStack() as held:
        adapter = await held.enter_async_context(sidecar.kind.open(place, sidecar.options, say))
        role = await _begun(adapter, place, say, stopping)
        if role is None:
            return
        say(f"serves {role.value}: {adapter.product}")
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
            product=adapter.product,
            say=say,
        )
        now = await held.enter_async_context(attached)
        await stopping.wait()
        say(f"stops; the engine goes on as {now.role.value}, {now.phase.value}")


async def _begun(adapter: Adapter, place: Place, say: Say, stopping: asyncio.Event) -> Role | None:
    """The role that the engine has. Its adapter may be up before it is, so that is waited for; None: told to stop."""
    pause_s, told = FIRST_PAUSE_S, ""
    while not stopping.is_set():
        try:
            role = await adapter.begin()
        except RapidError as error:
            if str(error) != told:
                told = str(error)
                say(f"cannot begin yet, tries again: {told}")
            await pause(stopping, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            continue
        if role not in adapter.roles:
            can = ", ".join(each.value for each in adapter.roles)
            raise RapidError(f"{place.instance}: begin: it has role {role.value}, and can take {can} alone")
        if place.role not in (None, role):
            assert place.role is not None
            say(f"it has role {role.value}, not {place.role.value} as configured; what it has counts")
        return role
    return None
