"""The agent brings the guard what devices, controller and clock say, and performs its duties in order."""

import asyncio
import errno

import pytest

from rapid.core.cluster import GpuHealth, PhaseLoad, Role
from rapid.core.errors import DeviceDenied, DeviceLost, Stale
from rapid.core.guard import GuardMemory
from rapidd.agent import LAND_S, SHOW_S, SOON_S, STUCK_S, TURN_S, first_limits
from rapidd.worker import WriteDone
from tests.node.rig import CEILING_MW, FALLBACK_MW, Rig

FULL = OSError(errno.ENOSPC, "No space left on device")


# ---- start ----


async def test_first_limits_are_those_in_force_before_anything_is_written() -> None:
    rig = Rig()
    rig.workers["GPU-b"].error = DeviceLost("GPU-b", "gone")
    rig.sample()
    assert await first_limits(list(rig.workers.values()), rig.inbox) == {"GPU-a": CEILING_MW, "GPU-b": None}
    assert all(worker.writes == [] for worker in rig.workers.values())


async def test_every_gpu_goes_to_its_fallback_before_the_node_is_ready() -> None:
    rig = Rig()
    rig.workers["GPU-b"].held = True
    agent = rig.begin()
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, CEILING_MW)
    assert not agent.ready.is_set()
    rig.workers["GPU-b"].finish_write()
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert agent.ready.is_set()


async def test_a_gpu_that_may_not_be_set_keeps_the_node_from_being_ready_and_says_why_once() -> None:
    rig = Rig()
    rig.workers["GPU-b"].error = DeviceDenied("GPU-b", "no permission")
    agent = rig.begin()
    for _ in range(50):
        rig.turn(0.1)
    assert not agent.ready.is_set()
    assert len(rig.workers["GPU-b"].writes) >= 8  # it is tried again and again
    assert rig.logged("limit not in force") == ["gpu GPU-b: no permission"]
    assert (rig.gpu(1).health, rig.gpu(1).problem) == (GpuHealth.DENIED, "gpu GPU-b: no permission")
    rig.workers["GPU-b"].error = None
    for _ in range(10):
        rig.turn(0.1)
    assert agent.ready.is_set()


# ---- grants and leases ----


async def test_a_grant_is_in_force_after_one_turn_and_answered() -> None:
    rig = Rig()
    agent = rig.begin()
    await rig.lead()
    rig.grant(1, 600_000)
    assert rig.limits_mw() == (600_000, 600_000)
    report = agent.report()
    assert [(answer.gpu, answer.verdict) for answer in report.answers] == [("GPU-a", "applied"), ("GPU-b", "applied")]
    assert [gpu.limit_mw for gpu in report.gpus] == [600_000, 600_000]


async def test_the_loop_sleeps_no_longer_than_a_turn_and_wakes_when_the_lease_ends() -> None:
    rig = Rig()
    rig.begin()
    await rig.lead()
    rig.grant(1, 600_000, lease_s=5.0)
    assert rig.turn(0.01) == pytest.approx(SOON_S), "samples after a write may show that a cut was obeyed"
    assert rig.turn(1.99) == pytest.approx(TURN_S)
    assert rig.turn(2.97) == pytest.approx(0.03)
    assert rig.limits_mw() == (600_000, 600_000)
    rig.turn(0.03)
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert rig.gpu().void


async def test_a_renewal_keeps_the_grant_beyond_its_lease() -> None:
    rig = Rig()
    rig.begin()
    await rig.lead()
    rig.grant(1, 600_000, lease_s=1.0)
    rig.turn(0.9)
    rig.renew(lease_s=1.0)
    rig.turn(0.9)
    assert rig.limits_mw() == (600_000, 600_000)
    rig.turn(0.2)
    assert rig.gpu().void


async def test_news_reach_every_listener_and_only_while_it_listens() -> None:
    rig = Rig()
    agent = rig.begin()
    with agent.listening() as news:
        await rig.lead()
        news.clear()
        rig.grant(1, 600_000)
        assert news.is_set()
    news.clear()
    rig.grant(2, 500_000)
    assert not news.is_set()


# ---- the memory ----


async def test_an_epoch_counts_only_when_it_is_on_disk() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.memory.error = FULL
    with pytest.raises(OSError, match="No space left on device"):
        await rig.lead()
    rig.grant(1, 600_000)
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert [answer.verdict for answer in agent.report().answers] == ["refused"]


async def test_a_full_disk_lets_the_lease_of_the_controller_before_run_out() -> None:
    rig = Rig()
    rig.begin()
    await rig.lead()
    rig.grant(1, 600_000, lease_s=1.0)
    rig.memory.error = FULL
    with pytest.raises(OSError, match="No space left on device"):
        await rig.lead(epoch=2)
    rig.grant(2, 650_000, epoch=2)
    assert rig.limits_mw() == (600_000, 600_000)
    rig.turn(1.0)
    rig.turn()
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)


async def test_an_epoch_that_could_not_be_kept_is_kept_when_it_is_greeted_again() -> None:
    rig = Rig()
    rig.begin()
    rig.memory.error = FULL
    with pytest.raises(OSError, match="No space left on device"):
        await rig.lead()
    rig.memory.error = None
    await rig.lead()
    assert rig.memory.kept == [GuardMemory(1, "controller-a", starts=1)]
    rig.grant(1, 600_000)
    assert rig.limits_mw() == (600_000, 600_000)


async def test_a_stale_greeting_is_refused_with_the_epoch_seen_and_nothing_is_written() -> None:
    rig = Rig(GuardMemory(7, "controller-b"))
    rig.begin()
    with pytest.raises(Stale, match="epoch 6 is lower than epoch 7"):
        await rig.lead(epoch=6)
    with pytest.raises(Stale, match="epoch 7 belongs to controller controller-b, not to controller-a"):
        await rig.lead(epoch=7)
    assert rig.memory.kept == []


# ---- samples ----


async def test_a_lost_gpu_is_reported_and_logged_once_and_so_is_its_return() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.turn()
    with agent.listening() as news:
        rig.workers["GPU-a"].error = DeviceLost("GPU-a", "has fallen off the bus")
        for _ in range(3):
            rig.turn(0.1)
        assert news.is_set()
    assert (rig.gpu().health, rig.gpu().draw_mw) == (GpuHealth.LOST, None)
    assert rig.gpu(1).health is GpuHealth.OK
    assert rig.logged("gpu lost") == ["gpu GPU-a: has fallen off the bus"]
    rig.workers["GPU-a"].error = None
    for _ in range(2):
        rig.turn(0.1)
    assert (rig.gpu().health, rig.gpu().draw_mw) == (GpuHealth.OK, 90_000)
    assert len(rig.logged("gpu ok")) == 1


async def test_a_driver_call_that_hangs_is_that_gpus_problem_and_nobody_elses() -> None:
    rig = Rig()
    rig.begin()
    rig.turn()
    worker = rig.workers["GPU-a"]
    worker.held, worker.busy_since_s = True, rig.now_s
    rig.turn(STUCK_S - 0.1)
    assert rig.gpu().health is GpuHealth.OK
    rig.turn(0.2)
    gpu = rig.gpu()
    assert (gpu.health, gpu.draw_mw, gpu.problem) == (
        GpuHealth.LOST,
        None,
        "gpu GPU-a: the driver has not answered for 2 s",
    )
    await rig.lead()
    rig.grant(1, 600_000)
    assert rig.limits_mw() == (FALLBACK_MW, 600_000)


async def test_a_limit_that_someone_else_moves_is_put_back() -> None:
    rig = Rig()
    rig.begin()
    await rig.lead()
    rig.grant(1, 600_000, lease_s=60.0)
    rig.workers["GPU-a"].limit_mw = CEILING_MW
    rig.turn(0.1)
    rig.turn()
    rig.turn()
    assert rig.limits_mw() == (600_000, 600_000)
    assert rig.logged("limit moved") == ["another process: 600 W to 700 W; 600 W is ours"]


# ---- reports ----


async def test_answers_that_came_while_a_snapshot_was_taken_are_in_the_next_report() -> None:
    rig = Rig()
    agent = rig.begin()
    await rig.lead()
    rig.grant(1, 600_000, lease_s=30.0)
    rig.turn(SHOW_S)
    rig.turn(SHOW_S)
    assert [answer.verdict for answer in agent.report().answers] == ["applied", "applied"]
    assert agent.report().answers == ()


async def test_a_report_carries_the_fresh_load_and_grows_in_number() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.loads.take(PhaseLoad("i0", Role.DECODE, rig.now_s, running_requests=3), rig.now_s)
    first, second = agent.report(), agent.report()
    assert [load.instance for load in first.loads] == ["i0"]
    assert second.report_seq > first.report_seq
    rig.now_s += 10.0
    assert agent.report().loads == ()


async def test_the_snapshot_is_fresh_without_a_controller_and_counts_what_was_done() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.turn()
    rig.workers["GPU-a"].error = DeviceDenied("GPU-a", "no permission")
    await rig.lead()
    rig.grant(1, 600_000, lease_s=30.0)
    before = agent.snapshot
    rig.turn(SHOW_S)
    after = agent.snapshot
    assert after is not before
    assert after.report.node_time_s == rig.now_s
    assert (after.counts["GPU-b"].writes, after.counts["GPU-b"].failures) == (2, 0)
    assert after.counts["GPU-a"].failures >= 1
    assert after.ready


# ---- the end ----


async def test_stop_lands_and_run_ends_when_it_is_read_back() -> None:
    rig = Rig()
    agent = rig.begin()
    await rig.lead()
    rig.grant(1, 600_000)
    pets: list[float] = []
    async with asyncio.timeout(10.0):
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(agent.run(lambda: pets.append(rig.now_s)))
            await asyncio.sleep(0)
            agent.stop()
        assert running.result() is True
    assert rig.limits_mw() == (FALLBACK_MW, FALLBACK_MW)
    assert pets
    assert agent.report().lease_left_s == 0


async def test_stop_waits_no_longer_than_its_bound_for_a_gpu_that_does_not_land() -> None:
    rig = Rig()
    agent = rig.begin()
    await rig.lead()
    rig.grant(1, 600_000)
    rig.workers["GPU-a"].held = True
    agent.stop()
    rig.now_s += LAND_S
    async with asyncio.timeout(10.0):
        assert await agent.run(lambda: None) is False
    assert rig.limits_mw() == (600_000, FALLBACK_MW)


async def test_our_own_mistake_ends_the_loop() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.turn()
    rig.inbox.deliver(WriteDone("GPU-a", 123, None, None, rig.now_s))
    with pytest.raises(AssertionError, match="never begun"):
        await agent.run(lambda: None)


async def test_our_own_mistake_in_a_call_of_the_controller_ends_the_loop_too() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.turn()
    async with asyncio.timeout(10.0):
        with pytest.raises(AttributeError):
            agent.grant(None)  # type: ignore[arg-type]
        with pytest.raises(AttributeError):
            await agent.run(lambda: None)


async def test_with_a_report_comes_a_turn_and_so_the_newest_samples() -> None:
    rig = Rig()
    agent = rig.begin()
    pets: list[float] = []
    async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(agent.run(lambda: pets.append(rig.now_s)))
        await asyncio.sleep(0)
        rig.workers["GPU-a"].draw_mw = 123_000
        rig.sample()
        before = len(pets)
        assert rig.gpu().draw_mw == 123_000
        assert len(pets) == before + 1
        agent.stop()
        await running


async def test_a_limit_that_moved_wakes_the_loop_though_it_may_sleep_for_long() -> None:
    rig = Rig()
    agent = rig.begin()
    rig.turn()
    for _ in range(30):
        rig.turn(0.1)
    assert not rig.inbox.eager
    async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(agent.run(lambda: None))
        await asyncio.sleep(0)
        writes = len(rig.workers["GPU-a"].writes)
        rig.workers["GPU-a"].limit_mw = CEILING_MW
        rig.sample()
        for _ in range(3):
            await asyncio.sleep(0)  # what was asked of the loop is done; no time passes
        assert len(rig.workers["GPU-a"].writes) == writes + 1
        agent.stop()
        await running
