"""Whatever hits rapidd and whenever: the driver's record never shows a limit that the ledger did not hold."""

from collections.abc import Callable

import pytest

from tests.kills.books import breaches, unwritten_s
from tests.kills.faults import FAULTS, play
from tests.kills.host import KillHost
from tests.kills.keeper import Keeper
from tests.kills.steps import STEPS, Scene
from tests.kills.table import CELL, Row


def test_the_matrix_is_whole() -> None:
    assert (len(FAULTS), len(STEPS)) == (5, 10)


@pytest.mark.e2e
@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_limit_is_ever_above_what_is_held(
    host: KillHost, fault: str, step: str, record_property: Callable[[str, object], None]
) -> None:
    keeper = Keeper(host.address, host.names)
    host.boot()
    scene = Scene(host, keeper, host.begin())
    try:
        async with keeper.at_work():
            await play(scene, step, fault)
    finally:
        stretches = scene.stretches()
        found = breaches(stretches)
        number = list(FAULTS).index(fault) * len(STEPS) + list(STEPS).index(step)
        writes = len(host.driver.record()) - len(host.names)
        row = Row(number, fault, step, scene.at_strike, writes, len(found), unwritten_s(stretches))
        record_property(CELL, row.to_plain())
    assert found == []
