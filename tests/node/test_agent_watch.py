"""The agent brings the guard what drivers tell and who holds a device, and performs what comes of it."""

from rapid.core.cluster import EventKind
from rapid.core.excursion import ExcursionSettings
from rapid.core.vigil import Vigil
from rapid.core.watched import Mover
from rapidd.device.base import DeviceEvent, Holder
from rapidd.worker import Sampled
from tests.node.rig import CEILING_MW, FALLBACK_MW, Rig


async def granted(limit_mw: int = 600_000, *, vigil: Vigil | None = None, hard_mw: int | None = None) -> Rig:
    rig = Rig(hard_budget_mw=hard_mw, vigil=vigil)
    rig.begin()
    await rig.lead()
    rig.grant(1, limit_mw, lease_s=600.0)
    assert rig.limits_mw() == (limit_mw, limit_mw)
    return rig


async def test_who_holds_the_device_is_asked_and_told() -> None:
    rig = await granted()
    rig.workers["GPU-a"].holders = (Holder(7, "dcgmi", "root"), Holder(8, "python", ""))
    rig.workers["GPU-a"].limit_mw = CEILING_MW
    for _ in range(3):
        rig.turn(0.1)
    told = "another process: 600 W to 700 W; 600 W is ours (who holds the device: dcgmi (pid 7, root), python (pid 8))"
    assert rig.gpu().watch.last_move == told
    assert rig.logged("who may have moved it") == [told]


async def test_what_the_driver_tells_reaches_the_log_and_the_report_and_wakes_the_controller() -> None:
    rig = await granted()
    with rig.agent.listening() as news:
        rig.inbox.deliver(DeviceEvent("GPU-a", EventKind.XID, 79, "GPU has fallen off the bus"))
        rig.turn()
        assert news.is_set()
    assert rig.logged("gpu xid") == ["GPU has fallen off the bus"]
    assert (rig.gpu().watch.xids, rig.gpu().watch.xid) == (1, 79)


async def test_a_driver_that_was_loaded_anew_is_written_in_the_same_turn() -> None:
    rig = await granted()
    writes = len(rig.workers["GPU-a"].writes)
    rig.workers["GPU-a"].limit_mw = CEILING_MW
    rig.inbox.deliver(DeviceEvent("GPU-a", EventKind.RELOADED))
    rig.turn()
    assert rig.limits_mw() == (600_000, 600_000)
    assert len(rig.workers["GPU-a"].writes) == writes + 1
    assert dict(rig.gpu().watch.moves) == {Mover.RELOAD: 1}


async def test_an_event_of_a_gpu_that_is_left_alone_is_logged_and_no_more() -> None:
    rig = await granted()
    rig.inbox.deliver(DeviceEvent("GPU-other", EventKind.LOST, detail="off the bus"))
    rig.turn()
    assert rig.logged("gpu lost") == ["off the bus"]


async def test_a_fight_ends_at_the_fence_and_begins_anew_when_an_operator_says_so() -> None:
    rig = await granted()
    for _ in range(20):
        rig.workers["GPU-a"].limit_mw = CEILING_MW
        rig.turn(0.1)
        rig.turn()
    assert rig.gpu().watch.repairs == 5
    assert len(rig.logged("gpu fenced")) == 1
    assert rig.limits_mw() == (CEILING_MW, 600_000)
    rig.agent.unfence()
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, 600_000)
    assert rig.gpu().watch.unmanaged == ""


async def test_a_fenced_gpu_keeps_nobody_from_an_orderly_stop() -> None:
    rig = await granted()
    for _ in range(20):
        rig.workers["GPU-a"].limit_mw = CEILING_MW
        rig.turn(0.1)
        rig.turn()
    rig.agent.stop()
    assert await rig.agent.run(lambda: None)
    assert rig.limits_mw() == (CEILING_MW, FALLBACK_MW)


async def test_an_excursion_is_cut_in_the_turn_that_sees_it() -> None:
    rig = await granted(vigil=Vigil(ExcursionSettings(), 1_200_000), hard_mw=1_200_000)
    rig.workers["GPU-a"].draw_mw = 900_000
    rig.workers["GPU-b"].draw_mw = 500_000
    for _ in range(10):
        rig.turn(0.1)
    assert rig.logged("excursion")[0] == "draws 1400 W, may draw 1200 W: limits cut to 82 %"
    assert max(rig.limits_mw()) < 600_000
    assert rig.agent.snapshot.report.watch.excursions == 1
    assert rig.gpu().grant_mw == 600_000


async def test_an_event_before_the_first_limits_is_no_mistake() -> None:
    rig = Rig()
    rig.inbox.deliver(DeviceEvent("GPU-a", EventKind.XID, 13))
    rig.begin()
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_a_limit_that_cannot_be_read_makes_no_node_ready() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.inbox.take()
    at_s = rig.now_s
    rig.inbox.deliver(Sampled("GPU-a", None, None, None, at_s, at_s))
    rig.turn()
    assert not agent.ready.is_set()
    assert agent.unlanded == ("GPU-a", "GPU-b")
