"""`attach`: an engine is under RAPID's care for as long as a `with` block lasts."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rapid.core.cluster import EngineHello, Phase, Role
from rapid.core.role_change import RoleChange
from rapid.engine.author import Engine, ReadsRole
from rapid.engine.driver import Driver
from rapid.engine.link import ControllerLink, LoadLink, Mouth, Say, keep_connected
from rapid.tls import TlsConfig, check_dial

LOG: Say = logging.getLogger("rapid.engine").info
LEAVE_WITHIN_S = 1.0  # on the way out, for the goodbye to the controller


class Attached:
    """What the block is given: where the engine stands, as it would tell the controller."""

    def __init__(self, change: RoleChange) -> None:
        self._change = change
        self.parting = "stopped"  # what the controller is told at the end of the block

    @property
    def role(self) -> Role:
        """The role that it serves; from SWITCHING on, the one that it is to serve."""
        return self._change.role

    @property
    def phase(self) -> Phase:
        """SERVING, or where it is on its way."""
        return self._change.phase

    @property
    def incarnation(self) -> str:
        """Under which name the controller knows this process of the instance."""
        return self._change.incarnation


@asynccontextmanager
async def attach(
    engine: Engine,
    *,
    instance: str,
    node: str,
    gpus: Sequence[str],
    role: Role,
    address: str,
    roles: Sequence[Role] = (Role.PREFILL, Role.DECODE),
    tls: TlsConfig | None = None,
    load_address: str = "",
    switch_s: float = 1.0,
    switch_within_s: float = 120.0,
    product: str = "",
    say: Say = LOG,
) -> AsyncIterator[Attached]:
    """Attach an engine that serves `role` to the controller, and obey its role orders until the block ends.

    instance         its id, unique in the cluster
    node, gpus       the name of its host's rapidd, and the UUIDs of its GPUs
    roles            every role that it can take
    address, tls     the controller's, "host:port" or "unix:/path"; another host needs tls
    load_address     of rapidd ("unix:/run/rapid/load.sock"), to push its load there; empty: rapidd scrapes it
    switch_s         how long a switch takes, drain apart, as far as is known; policies weigh it
    switch_within_s  a switch that takes longer is taken for one of unknown outcome
    product          name and version, for people
    say              takes one line for the log per step of a change, and when a peer goes away

    It serves on while the controller is away, and finishes a change that is under way. Raises ConfigInvalid for an
    address that cannot be dialled like that, and for unusable TLS files.
    """
    _check(address, tls, load_address)
    reads_role, incarnation = isinstance(engine, ReadsRole), secrets.token_hex(8)
    change = RoleChange(instance=instance, incarnation=incarnation, role=role, roles=roles, reads_role=reads_role)
    about = _About(node, tuple(gpus), switch_s, product)
    stopping = asyncio.Event()
    mouth = Mouth(lambda: about.hello(change), change.progress, engine.load)
    link = ControllerLink(address, tls, mouth, lambda told: driver.hear(told), say, stopping)
    driver = Driver(engine, change, switch_within_s=switch_within_s, tell=link.tell, say=say)
    connections = {f"controller {address}": link.connect}
    if load_address:
        connections[f"rapidd {load_address}"] = LoadLink(load_address, engine.load, stopping).connect
    attached = Attached(change)
    raised: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        links = [tasks.create_task(keep_connected(peer, it, say, stopping)) for peer, it in connections.items()]
        driving = tasks.create_task(driver.run())
        try:
            yield attached
        except Exception as error:
            raised = error  # which a TaskGroup would hide in a group
        finally:
            driving.cancel()
            stopping.set()
            link.leave(attached.parting)
            for task in (await asyncio.wait(links, timeout=LEAVE_WITHIN_S))[1]:
                task.cancel()
    if raised is not None:
        raise raised


@dataclass(frozen=True, slots=True)
class _About:
    """What the engine says of itself, whatever its phase."""

    node: str
    gpus: tuple[str, ...]
    switch_s: float
    product: str

    def hello(self, change: RoleChange) -> EngineHello:
        return EngineHello(
            instance=change.instance,
            incarnation=change.incarnation,
            node=self.node,
            gpus=self.gpus,
            role=change.role,
            roles=change.roles,
            phase=change.phase,
            mark=change.mark,
            engine_time_s=time.monotonic(),
            switch_s=self.switch_s,
            engine=self.product,
            from_role=change.from_role,
            to_role=change.to_role,
            parks=True,
            reads_role=change.reads_role,
        )


def _check(address: str, tls: TlsConfig | None, load_address: str) -> None:
    """Once and at the start, so that what no retry can heal is not retried for ever."""
    check_dial(address, tls, "address")
    if tls is not None:
        tls.check()
    if load_address:
        check_dial(load_address, None, "load_address")
