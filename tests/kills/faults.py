"""What hits a daemon, and what must have come of it."""

import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.kills.keeper import FALLBACK_MW, LEASE_S
from tests.kills.steps import STEPS, Scene


@dataclass(frozen=True, slots=True)
class Fault:
    """What hits the daemon, and what must have come of it when the step is over as well."""

    strike: Callable[[Scene], Awaitable[None]]
    aftermath: Callable[[Scene], Awaitable[None]]


async def kill(scene: Scene) -> None:
    scene.daemon.kill()
    await scene.until(lambda: scene.daemon.poll() is not None, "the end")


async def stays_dead(scene: Scene) -> None:
    """Until any lease would be over."""
    end_s = max(scene.keeper.lease_until_s, time.monotonic())
    await scene.until(lambda: time.monotonic() > end_s, "the end of the lease")


async def terminate(scene: Scene) -> None:
    scene.daemon.send_signal(signal.SIGTERM)


async def ends_in_order(scene: Scene) -> None:
    """Landed, or it says that it could not."""
    await scene.until(lambda: scene.daemon.poll() is not None, "the end")
    landed = max(scene.host.limits_mw()) <= FALLBACK_MW
    told = f"exit {scene.daemon.returncode}, limits {scene.host.limits_mw()}\n{scene.host.log.read_text()}"
    lost = any(gpu.lost for gpu in scene.host.driver.gpus)  # then nobody can know, and it may not say that all is well
    assert scene.daemon.returncode in ((0,) if landed and not lost else (1,)), told


async def stop(scene: Scene) -> None:
    scene.daemon.send_signal(signal.SIGSTOP)


async def goes_on_after_the_lease(scene: Scene) -> None:
    end_s = max(scene.keeper.lease_until_s, time.monotonic() + LEASE_S)
    await scene.until(lambda: time.monotonic() > end_s, "the end of the lease")
    scene.daemon.send_signal(signal.SIGCONT)
    await settles(scene)


async def restart(scene: Scene) -> None:
    await kill(scene)
    scene.daemon = scene.host.begin()


async def settles(scene: Scene) -> None:
    """A daemon lives, so everything comes to be as it is wanted."""
    heard = scene.keeper.reports
    keeper = scene.keeper
    await scene.until(lambda: keeper.reports > heard and (keeper.settled or keeper.stuck), "what is wanted, in force")


async def fill_disk(scene: Scene) -> None:
    """And have the controller start anew, for that is when a node has to remember something."""
    scene.host.fill_disk()
    scene.keeper.live_again()


async def lands_until_there_is_room(scene: Scene) -> None:
    def is_refused() -> bool:
        return any("cannot be kept in the state folder: No space left" in why for why in scene.keeper.refusals)

    await scene.until(is_refused, "the refused epoch")
    await scene.until(lambda: max(scene.host.limits_mw()) <= FALLBACK_MW, "the landing")
    assert scene.daemon.poll() is None
    scene.host.free_disk()
    await settles(scene)


FAULTS = {
    "SIGKILL": Fault(kill, stays_dead),
    "SIGTERM": Fault(terminate, ends_in_order),
    "SIGSTOP": Fault(stop, goes_on_after_the_lease),
    "restart": Fault(restart, settles),
    "full disk": Fault(fill_disk, lands_until_there_is_room),
}


async def play(scene: Scene, step: str, fault: str) -> None:
    """Bring the daemon to the step, strike, want other limits, and see it through."""
    async with STEPS[step](scene):
        held_mw = [scene.keeper.held_mw(gpu) for gpu in scene.host.names]
        scene.at_strike = list(zip(scene.host.limits_mw(), held_mw, strict=True))
        await FAULTS[fault].strike(scene)
        scene.keeper.aim(scene.swapped)
    await FAULTS[fault].aftermath(scene)
