"""What judges the kill matrix can fail: daemons with a bug, and a stranger who sets a limit, are found out."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.kills.books import Above, Held, above, breaches, unwritten_s
from tests.kills.host import KillHost
from tests.kills.keeper import CEILING_MW, FALLBACK_MW, Keeper
from tests.kills.rogue import BUGS
from tests.kills.steps import GRANTED_MW, Scene
from tools.fake_gpu import Record

STRANGER = """
import pynvml, sys
pynvml.nvmlInit()
pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0), int(sys.argv[1]))
"""


# ---- the real thing, with a bug ----


async def at_the_end_of_the_lease(scene: Scene) -> None:
    await scene.granted()
    scene.keeper.renewing = False
    await scene.until(lambda: breaches(scene.stretches()), "a limit that nobody held")


async def after_the_lease(scene: Scene) -> None:
    await scene.granted()
    scene.keeper.aim({})  # renewals and nothing else
    scene.keeper.renewing = False
    held_mw = scene.keeper.held_mw
    await scene.until(lambda: held_mw(scene.host.names[0]) <= FALLBACK_MW, "the landing, heard of")
    scene.keeper.renewing = True
    await scene.until(lambda: breaches(scene.stretches()), "a limit that nobody held")


async def while_a_cut_waits(scene: Scene) -> None:
    for gpu in scene.host.driver.gpus:
        gpu.demand_mw = 0  # or the ledger would see by the draw that the cut is not in force
    await scene.granted()

    def is_sampled() -> bool:
        report = scene.keeper.report
        return report is not None and all(gpu.draw_at_s > gpu.limit_since_s for gpu in report.gpus)

    await scene.until(is_sampled, "a draw since the limit was read back")
    with scene.host.driver.frozen():
        scene.keeper.aim(scene.swapped)
        await scene.until(lambda: breaches(scene.stretches()), "a limit that is not held any more")


SCENES = {
    "FreesItsGpus": (at_the_end_of_the_lease, CEILING_MW),
    "LetsARenewalRevive": (after_the_lease, GRANTED_MW),
    "ReportsBeforeItObeys": (while_a_cut_waits, GRANTED_MW),
}


@pytest.mark.e2e
@pytest.mark.timeout(120)
@pytest.mark.parametrize("bug", BUGS)
async def test_a_daemon_with_a_bug_is_found_out(host: KillHost, bug: str) -> None:
    play: Callable[[Scene], Awaitable[None]]
    play, limit_mw = SCENES[bug]
    keeper = Keeper(host.address, host.names)
    host.boot()
    scene = Scene(host, keeper, host.begin(program=("tests.kills.rogue", bug)))
    async with keeper.at_work():
        await play(scene)
    found = breaches(scene.stretches())[0]
    assert (found.pid, found.limit_mw, found.held_mw) == (scene.daemon.pid, limit_mw, FALLBACK_MW)


def set_limit(host: KillHost, limit_mw: int) -> subprocess.Popen[bytes]:
    """As another program does, on the first GPU."""
    return subprocess.Popen([sys.executable, "-c", STRANGER, str(limit_mw)], env={**os.environ, **host.env})


@pytest.mark.e2e
@pytest.mark.timeout(120)
async def test_a_stranger_who_raises_a_limit_is_found_out(host: KillHost) -> None:
    keeper = Keeper(host.address, host.names)
    host.boot()
    scene = Scene(host, keeper, host.begin())
    async with keeper.at_work():
        await scene.granted()
        stranger = set_limit(host, 650_000)
        await scene.until(lambda: stranger.poll() is not None, "the stranger's end")
        await scene.until(lambda: host.limits_mw() == (GRANTED_MW, FALLBACK_MW), "the repair")
    (found,) = breaches(scene.stretches())
    assert (found.pid, found.limit_mw, found.held_mw) == (stranger.pid, 650_000, GRANTED_MW)


# ---- the books, by hand ----


def limit(at_ns: int, limit_mw: int, pid: int = 7, gpu: str = "a", enforced_mw: int | None = None) -> Record:
    return Record(at_ns, gpu, limit_mw, limit_mw if enforced_mw is None else enforced_mw, pid)


def stretch(from_ns: int, to_ns: int, limit_mw: int, held_mw: int, pid: int = 7, gpu: str = "a") -> Above:
    return Above(gpu, from_ns, to_ns, limit_mw, held_mw, pid)


@pytest.mark.parametrize(
    ("record", "books", "found"),
    [
        ([limit(2, 500)], [Held(1, "a", 500)], []),
        ([limit(2, 501)], [Held(1, "a", 500)], [stretch(2, 9, 501, 500)]),
        ([limit(2, 600), limit(5, 400)], [Held(1, "a", 600), Held(6, "a", 400)], []),
        ([limit(2, 600), limit(5, 400)], [Held(1, "a", 600), Held(4, "a", 400)], [stretch(4, 5, 600, 400)]),
        ([limit(2, 600)], [Held(1, "a", 500), Held(3, "a", 600)], [stretch(2, 3, 600, 500)]),
        ([limit(2, 600)], [Held(1, "b", 600)], [stretch(2, 9, 600, 0)]),
        ([limit(2, 600, enforced_mw=400)], [Held(1, "a", 500)], [stretch(2, 9, 600, 500)]),
        ([limit(2, 600, pid=0), limit(4, 500)], [Held(1, "a", 500)], [stretch(2, 4, 600, 500, pid=0)]),
    ],
)
def test_every_instant_is_looked_at(record: list[Record], books: list[Held], found: list[Above]) -> None:
    assert above(record, books, 9) == found


def test_what_no_process_has_set_is_measured_and_no_breach() -> None:
    both = [stretch(0, 2_500_000_000, 600, 500, pid=0), stretch(3, 4, 600, 500)]
    assert breaches(both) == both[1:]
    assert unwritten_s(both) == 2.5
    assert str(both[0]) == "a: 600 mW set by the driver itself, 500 mW held, for 2500.0 ms"
