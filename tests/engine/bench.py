"""One engine under the care of rapid.engine, and the controller that a test plays."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapid.core.cluster import Phase, Role, RoleProgress
from rapid.engine import Attached, Engine, attach
from tests.engine.fakes import SOON_S, FakeController, ScriptedEngine, served
from tests.wait import wait_until

PREFILL, DECODE = Role.PREFILL, Role.DECODE
CHANGED = [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.SERVING]
ROLLED_BACK = [Phase.DRAINING, Phase.ROLLING_BACK, Phase.SERVING]


@dataclass
class Bench:
    """One engine under care, and the controller that it talks to."""

    engine: ScriptedEngine
    controller: FakeController = field(default_factory=FakeController)
    log: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def attached(self, path: Path, **given: Any) -> AsyncIterator[Attached]:
        async with (
            served(path / "c.sock", self.controller) as address,
            care(self.engine, address, self.log, **given) as attached,
        ):
            await wait_until(lambda: self.controller.hellos, SOON_S, "a hello")
            yield attached

    async def settles(self, phases: list[Phase]) -> RoleProgress:
        """The last of exactly these phases."""
        await wait_until(lambda: self.controller.phases == phases, SOON_S, f"{phases}")
        return self.controller.progress[-1]

    async def reaches(self, phase: Phase) -> RoleProgress:
        await wait_until(lambda: self.controller.phases[-1:] == [phase], SOON_S, phase.value)
        return self.controller.progress[-1]


def care(
    engine: Engine, address: str, log: list[str] | None = None, **given: Any
) -> AbstractAsyncContextManager[Attached]:
    return attach(
        engine,
        instance="p0",
        node="h1",
        gpus=("GPU-1",),
        role=PREFILL,
        address=address,
        say=(log if log is not None else []).append,
        **given,
    )
