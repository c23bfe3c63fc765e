"""An engine that takes requests of its new role while those of the old one run on, over real gRPC."""

from pathlib import Path

from rapid.core.cluster import Phase
from tests.engine.bench import CHANGED, DECODE, PREFILL, Bench
from tests.engine.fakes import SOON_S, BusyEngine
from tests.wait import wait_until


async def test_an_engine_that_serves_on_is_neither_closed_nor_drained_for_another_role(tmp_path: Path) -> None:
    bench = Bench(BusyEngine(left=7))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE)
        await bench.settles(CHANGED)
    assert bench.engine.calls == ["switch decode", "open decode"]


async def test_to_be_parked_it_is_closed_and_drained_like_any_other(tmp_path: Path) -> None:
    """A parked instance serves nobody, so that its GPUs may go to their floors."""
    bench = Bench(BusyEngine(left=1))
    async with bench.attached(tmp_path):
        await bench.controller.order(PREFILL, park=True)
        await wait_until(lambda: bench.engine.calls == ["close"], SOON_S, "the close")
        assert bench.controller.phases == [Phase.DRAINING]
        bench.engine.left = 0
        await bench.reaches(Phase.PARKED)


async def test_an_order_to_park_that_comes_in_the_middle_of_a_change_closes_it(tmp_path: Path) -> None:
    bench = Bench(BusyEngine(left=1))
    async with bench.attached(tmp_path):
        await bench.controller.order(DECODE, quiet_s=2.0)
        await bench.reaches(Phase.DRAINING)
        assert bench.engine.calls == []
        await bench.controller.order(PREFILL, seq=2, park=True)
        await wait_until(lambda: bench.engine.calls == ["close"], SOON_S, "the close")
        bench.engine.left = 0
        await bench.reaches(Phase.PARKED)
    assert bench.engine.calls == ["close"]
