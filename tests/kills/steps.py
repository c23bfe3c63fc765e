"""The steps of a daemon's life at which it is hit.

A step is a context: inside of it the daemon stands at that point, and after it whatever brought it there is over.
"""

import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from rapid.core.cluster import GpuHealth
from tests.kills.books import Above, above
from tests.kills.host import KillHost
from tests.kills.keeper import CEILING_MW, FALLBACK_MW, LEASE_S, Keeper
from tests.node.caller import DEADLINE_S
from tests.wait import wait_until

GRANTED_MW = 600_000
# Longer than it takes to see what is on record and to strike: before a daemon sets a limit on a GPU that is back, it
# asks the driver a dozen things.
SLOW_SET_MS, SLOW_CALL_MS = 500, 50


@dataclass(slots=True)
class Scene:
    """One host, its daemon of the moment, and the keeper of its books. `at_strike` is each GPU's (limit, held)."""

    host: KillHost
    keeper: Keeper
    daemon: subprocess.Popen[bytes]
    at_strike: list[tuple[int, int]] = field(default_factory=list)

    @property
    def first(self) -> dict[str, int]:
        """The limits wanted before the strike: the spare watts are with the first GPU."""
        return dict(zip(self.host.names, (GRANTED_MW, FALLBACK_MW), strict=True))

    @property
    def swapped(self) -> dict[str, int]:
        """And after it, so that one must come down before the other may rise."""
        return dict(zip(self.host.names, (FALLBACK_MW, GRANTED_MW), strict=True))

    def stretches(self) -> list[Above]:
        """Where a limit stood above what was held, so far."""
        return above(self.host.driver.record(), self.keeper.books, time.monotonic_ns())

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await wait_until(condition, DEADLINE_S, what)

    async def landed(self) -> None:
        """Ready, and the ledger holds no more than the fallbacks."""
        await self.host.ready(self.daemon)
        held_mw = self.keeper.held_mw
        await self.until(lambda: all(held_mw(gpu) <= FALLBACK_MW for gpu in self.host.names), "the landing, heard of")

    async def granted(self) -> None:
        """The first grant is in force, read back and paid for."""
        await self.landed()
        self.keeper.aim(self.first)
        await self.until(lambda: self.keeper.settled, "the first grant")


Step = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def start(scene: Scene) -> AsyncIterator[None]:
    """The first landing write is in force and has not come back, the others wait: the daemon is not ready."""
    gpu = scene.host.driver.gpus[0]
    gpu.set_delay_ms = SLOW_SET_MS
    await scene.until(lambda: scene.host.has_set(scene.daemon, gpu, 0, FALLBACK_MW), "the first write")
    yield
    gpu.set_delay_ms = 0


@asynccontextmanager
async def first_report(scene: Scene) -> AsyncIterator[None]:
    """Greeted and heard of; nothing is granted yet."""
    await scene.until(lambda: scene.keeper.reports, "the first report")
    yield


@asynccontextmanager
async def grant_received(scene: Scene) -> AsyncIterator[None]:
    """The daemon says that it has taken the grant, and the driver has not begun to set it."""
    await scene.landed()
    with scene.host.driver.frozen():
        scene.keeper.aim(scene.first)
        await scene.until(lambda: scene.keeper.report and scene.keeper.report.mark.seq > 0, "the grant taken")
        assert not scene.host.has_set(scene.daemon, scene.host.driver.gpus[0], GRANTED_MW, CEILING_MW)
        yield


@asynccontextmanager
async def limit_set(scene: Scene) -> AsyncIterator[None]:
    """The limit is in force and the driver's call has not come back."""
    await scene.landed()
    gpu = scene.host.driver.gpus[0]
    gpu.set_delay_ms = SLOW_SET_MS
    scene.keeper.aim(scene.first)
    await scene.until(lambda: scene.host.has_set(scene.daemon, gpu, GRANTED_MW, CEILING_MW), "the limit on record")
    yield
    gpu.set_delay_ms = 0


@asynccontextmanager
async def read_back(scene: Scene) -> AsyncIterator[None]:
    """The grant has been read back, and the ledger has heard of it."""
    await scene.granted()
    yield


@asynccontextmanager
async def lease_about_to_run_out(scene: Scene) -> AsyncIterator[None]:
    """The last tenth of a lease that was not renewed; from the strike on it is again."""
    await scene.granted()
    scene.keeper.renewing = False
    end_s = scene.keeper.lease_until_s
    await scene.until(lambda: time.monotonic() >= end_s - LEASE_S / 10, "the last tenth of the lease")
    scene.keeper.renewing = True
    yield


@asynccontextmanager
async def lease_over(scene: Scene) -> AsyncIterator[None]:
    """The node lands: its first write is in force and has not come back."""
    await scene.granted()
    gpu = scene.host.driver.gpus[0]
    gpu.set_delay_ms = SLOW_SET_MS
    scene.keeper.renewing = False
    await scene.until(lambda: gpu.requested_mw <= FALLBACK_MW, "the landing")
    scene.keeper.renewing = True
    yield
    gpu.set_delay_ms = 0


@asynccontextmanager
async def excursion(scene: Scene) -> AsyncIterator[None]:
    """A GPU draws more than its limit, and the daemon has cut the limits by itself."""
    await scene.granted()
    gpu = scene.host.driver.gpus[0]
    gpu.excess_mw = 300_000
    await scene.until(lambda: gpu.requested_mw < GRANTED_MW, "the cut")
    yield
    gpu.excess_mw = 0


@asynccontextmanager
async def driver_reload(scene: Scene) -> AsyncIterator[None]:
    """The driver was unloaded and is there again, and slow, with every limit at its default."""
    await scene.granted()
    driver = scene.host.driver
    driver.unload()
    await scene.until(lambda: scene.host.logged("gpu lost"), "the loss in the log")
    for gpu in driver.gpus:
        gpu.delay_ms = SLOW_CALL_MS
    driver.load()
    await scene.until(lambda: CEILING_MW in scene.host.limits_mw(), "the default")
    yield
    for gpu in driver.gpus:
        gpu.delay_ms = 0


@asynccontextmanager
async def gpu_lost(scene: Scene) -> AsyncIterator[None]:
    """A GPU has fallen off the bus, with the limit that it had; then it is back."""
    await scene.granted()
    gpu = scene.host.driver.gpus[0]
    gpu.lost = True

    def is_reported() -> bool:
        report = scene.keeper.report
        return report is not None and any(each.health is GpuHealth.LOST for each in report.gpus)

    await scene.until(is_reported, "the loss in a report")
    daemon = scene.daemon
    yield
    if scene.daemon is not daemon:
        await scene.host.ready(scene.daemon)  # a new one has to begin without it
    gpu.lost = False


STEPS: dict[str, Step] = {
    "start": start,
    "first report": first_report,
    "grant received": grant_received,
    "limit set": limit_set,
    "read back": read_back,
    "lease about to run out": lease_about_to_run_out,
    "lease over": lease_over,
    "excursion": excursion,
    "driver reload": driver_reload,
    "GPU lost": gpu_lost,
}
