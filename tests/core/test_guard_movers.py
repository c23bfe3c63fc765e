"""A guard and those who move its limits, GPUs that nobody can manage, and what drivers tell.

Promises 1, 2 and 6: the budget holds, failing is downward, nothing unmeasured is called fine.
"""

import pytest

from rapid.core.cluster import EventKind
from rapid.core.drift import FenceSettings
from rapid.core.watched import Mover
from tests.core.hosts import CEILING, Host, W, landed
from tests.core.watchers import fight, gpu, moves, teller

# ---- who moved it ----


def test_another_process_is_written_over_at_once_and_asked_for() -> None:
    host = teller()
    host.devices["g0"].enforce(700 * W, host.now)
    assert host.sample("g0") == [
        "warning: limit moved g0: another process: 500 W to 700 W; 500 W is ours",
        "who holds g0",
        "write g0 500 W",
        "report soon",
    ]
    host.finish()
    assert (host.limit_mw(), moves(host), gpu(host).watch.repairs) == (500 * W, {Mover.PROCESS: 1}, 1)


def test_the_candidates_are_in_the_report() -> None:
    host = teller()
    host.devices["g0"].enforce(700 * W, host.now)
    host.sample("g0")
    said = host.do(host.guard.suspects("g0", ["dcgmi (pid 7, root)"]))
    assert said[-1] == "report soon"
    assert "who holds the device: dcgmi (pid 7, root)" in gpu(host).watch.last_move
    assert host.do(host.guard.suspects("g0", [])) == []


def test_more_asked_for_behind_a_bmc_is_another_process_all_the_same() -> None:
    host = teller()
    device = host.devices["g0"]
    device.hold(450 * W, host.now)
    host.settle()
    device.enforce(700 * W, host.now)
    assert "write g0 500 W" in host.sample("g0")
    assert host.shown() == "700 W of 500 W", "it would rise by itself when the BMC lets go"


def test_a_bmc_that_holds_the_device_down_is_noticed_and_not_fought() -> None:
    host = teller(fence=FenceSettings(repairs=2))
    for outside in (450, 400, 350, 300, 350, 400, 450):
        host.devices["g0"].hold(outside * W, host.now)
        assert not any(word.startswith("write") for word in host.sample("g0")), "there is nothing to write"
    assert moves(host) == {Mover.OUTSIDE: 7}
    assert gpu(host).watch.unmanaged == ""
    host.devices["g0"].hold(700 * W, host.now)
    host.sample("g0")
    assert host.shown() == "500 W of 500 W"


def test_a_driver_that_was_loaded_anew_is_written_at_once_even_if_its_limit_looks_right() -> None:
    host = teller()
    host.devices["g0"].energy_mj = 1e9
    host.sample("g0")
    host.devices["g0"].reload(500 * W, host.now)
    assert host.sample("g0")[:2] == [
        "warning: limit moved g0: driver reload: the energy counter began anew",
        "write g0 500 W",
    ]
    host.finish()
    assert moves(host) == {Mover.RELOAD: 1}


def test_a_reload_that_lifts_the_limit_is_no_foreign_process() -> None:
    host = teller()
    host.devices["g0"].energy_mj = 1e9
    host.sample("g0")
    host.devices["g0"].reload(CEILING, host.now)
    host.sample("g0")
    host.finish()
    assert (host.limit_mw(), moves(host)) == (500 * W, {Mover.RELOAD: 1})


def test_a_reload_during_a_write_has_it_written_again() -> None:
    host = teller()
    host.devices["g0"].energy_mj = 1e9
    host.sample("g0")
    host.grant(2, {"g0": 550 * W})
    host.devices["g0"].energy_mj = 0.0
    write = host.writes.pop("g0")
    host.sample("g0")
    host.writes["g0"] = write
    host.finish("g0")
    assert "g0" in host.writes, "the first write may have been for the driver that is gone"
    host.finish()
    assert host.limit_mw() == 550 * W


def test_a_landing_is_not_over_while_a_reload_may_have_undone_it() -> None:
    """Promise 3: what was read back before the driver began anew says nothing of what is in force now."""
    host = teller()
    host.grant(2, {"g0": 550 * W})
    host.finish()
    host.do(host.guard.stop(host.now))
    happens(host, EventKind.RELOADED)
    host.finish("g0")
    assert "g0" in host.guard.aloft, "the write that has ended may have been for the driver that is gone"
    host.finish()
    assert not host.guard.aloft
    assert host.limit_mw() <= 400 * W


def test_a_gpu_that_does_not_answer_has_not_landed() -> None:
    """Promise 6: it was at its fallback when it was last heard, and the driver may begin anew at any moment."""
    host = landed()
    host.do(host.guard.stop(host.now))
    assert not host.guard.aloft
    happens(host, EventKind.LOST, detail="Driver Not Loaded")
    assert "g0" in host.guard.aloft
    host.sample("g0")
    host.finish()
    assert not host.guard.aloft, "it answers, and was written once more"


def test_one_who_asks_for_less_right_after_us_is_not_taken_for_a_driver_that_rounds() -> None:
    host = teller()
    host.grant(2, {"g0": 600 * W})
    host.devices["g0"].outside_mw = 300 * W
    host.devices["g0"].tells = False
    write = host.writes["g0"]
    # Between our write and our read-back somebody asks for 300 W.
    del host.writes["g0"]
    host.do(host.guard.wrote("g0", write.limit_mw, 300 * W, "", gpu(host).health, host.now, requested_mw=300 * W))
    host.devices["g0"].outside_mw = CEILING
    assert "write g0 600 W" in host.wait(0.6)


def test_a_driver_that_rounds_is_asked_twice_and_then_believed() -> None:
    host = teller()
    host.devices["g0"].step_mw = 25 * W
    host.grant(2, {"g0": 610 * W})
    writes = 0
    for _ in range(20):
        host.finish()
        host.sample("g0")
        writes += sum(word.startswith("write g0") for word in host.wait(0.6))
    assert writes == 1
    assert host.shown() == "600 W of 610 W"


# ---- the fence ----


def test_one_who_fights_back_gets_the_gpu_and_the_operator_is_told() -> None:
    host = teller(fence=FenceSettings(repairs=3))
    fight(host, 4)
    assert not host.writes
    shown = gpu(host)
    assert shown.watch.unmanaged.startswith("its limit was moved again after 3 repairs within 60 s (another process:")
    assert (shown.void, shown.limit_mw, shown.watch.repairs) == (True, 700 * W, 3)
    assert shown.problem == shown.watch.unmanaged
    assert any(word.startswith("error: gpu fenced g0") for word in host.words)


def test_a_fenced_gpu_is_never_written_and_takes_no_grant() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    fight(host, 2)
    words = len(host.words)
    host.answers()
    host.grant(2, {"g0": 600 * W})
    host.sample()
    host.wait(70.0)
    host.stop()
    assert not any(word.startswith("write g0") for word in host.words[words:])
    assert host.answers()[0].startswith("1.2 g0 refused: gpu g0 is not managed: its limit was moved again")


def test_the_worst_that_was_seen_of_a_fenced_gpu_is_reported_for_good() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    fight(host, 2, 600 * W)
    for limit in (650, 300, 500):
        host.devices["g0"].enforce(limit * W, host.now)
        host.sample("g0")
    assert gpu(host).limit_mw == 650 * W


def test_a_grant_that_was_owed_when_the_fence_came_is_answered() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    host.devices["g0"].denies = True
    fight(host, 1)
    host.grant(2, {"g0": 550 * W})
    host.devices["g0"].denies = False
    fight(host, 3)
    assert gpu(host).watch.unmanaged
    assert any(answer.startswith("1.2 g0 ") for answer in host.answers())


def test_one_gpu_that_is_fenced_takes_nothing_from_the_others() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    fight(host, 2)
    host.grant(2, {"g1": 300 * W})
    host.settle()
    assert host.limit_mw("g1") == 300 * W
    assert gpu(host, "g1").watch.unmanaged == ""


def test_the_hosts_hard_budget_counts_a_fenced_gpu_at_its_ceiling() -> None:
    host = teller(fence=FenceSettings(repairs=1), hard_budget_mw=1_100 * W)
    fight(host, 2, 550 * W)
    host.answers()
    host.grant(2, {"g1": 510 * W})
    assert host.answers() == ["1.2 g1 refused: gpu g1: limit 510 W would pass the host's hard budget by 110 W"]


def test_after_a_reload_of_the_daemon_it_is_managed_again_from_its_fallback() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    fight(host, 2)
    said = host.do(host.guard.unfence(host.now))
    assert said[:2] == ["info: gpu managed again g0: ", "write g0 400 W"]
    host.settle()
    assert host.shown() == "400 W of 400 W void"


def test_taken_back_it_does_not_rise_above_what_the_other_left_it() -> None:
    host = teller(fence=FenceSettings(repairs=1))
    fight(host, 2)
    host.devices["g0"].enforce(200 * W, host.now)
    host.sample("g0")
    host.do(host.guard.unfence(host.now))
    host.settle()
    assert host.shown() == "200 W of 200 W void"


# ---- GPUs that nobody can manage ----


def test_an_unmanageable_gpu_is_never_written_and_shown_at_its_ceiling() -> None:
    host = Host(unmanageable={"g0": "MIG is on"})
    assert host.begun == ["write g1 400 W"]
    host.settle()
    shown = gpu(host)
    assert (shown.limit_mw, shown.grant_mw, shown.void, shown.watch.unmanaged) == (CEILING, 0, True, "MIG is on")
    host.greet()
    host.grant(1, {"g0": 300 * W})
    assert host.answers() == ["1.1 g0 refused: gpu g0 is not managed: MIG is on"]
    assert host.do(host.guard.unfence(host.now)) == [], "no operator can make it manageable here"


def test_a_node_is_ready_without_the_gpus_that_nobody_can_manage() -> None:
    host = Host(unmanageable={"g0": "MIG is on"})
    assert (host.guard.ready, host.guard.unlanded) == (False, ("g1",))
    host.settle()
    assert host.guard.ready


def test_a_limit_that_cannot_be_read_back_does_not_make_a_node_ready() -> None:
    host = Host(limits_mw={"g0": 300 * W})
    host.devices["g0"].mute = True
    host.finish()
    assert not host.guard.ready, "it was at 300 W, but nobody has read that back"


# ---- what the driver tells ----


def happens(host: Host, kind: EventKind, code: int = 0, detail: str = "", name: str = "g0") -> list[str]:
    return host.do(host.guard.happened(name, kind, code, detail, host.now))


def test_errors_of_the_driver_are_counted_and_told() -> None:
    host = teller()
    assert happens(host, EventKind.XID, 79, "GPU has fallen off the bus") == [
        "error: gpu xid g0: GPU has fallen off the bus",
        "report soon",
    ]
    happens(host, EventKind.XID, 31)
    assert (gpu(host).watch.xids, gpu(host).watch.xid) == (2, 31)


@pytest.mark.parametrize("kind", [EventKind.RELOADED, EventKind.BACK])
def test_until_it_is_read_back_anything_may_be_in_force_after_a_reload(kind: EventKind) -> None:
    host = teller()
    assert "write g0 500 W" in happens(host, kind)
    assert host.shown() == "700 W of 500 W"
    host.devices["g0"].reload(CEILING, host.now)
    host.finish()
    assert host.shown() == "500 W of 500 W"
    assert moves(host) == ({Mover.RELOAD: 1} if kind is EventKind.RELOADED else {})


def test_a_gpu_that_is_lost_is_said_to_be_so_and_counted_once() -> None:
    host = teller()
    happens(host, EventKind.LOST, detail="off the bus")
    host.devices["g0"].mute = True
    host.sample("g0")
    assert host.shown().endswith("lost: gpu g0: does not answer")
    host.devices["g0"].mute = False
    assert "write g0 500 W" in host.sample("g0"), "whatever it says, it may have forgotten"
    assert gpu(host).watch.losses == 1


def test_an_event_of_a_gpu_that_is_left_alone_is_only_told() -> None:
    host = teller()
    assert happens(host, EventKind.XID, 13, name="GPU-other") == ["error: gpu xid GPU-other: number 13"]


def test_a_reload_never_raises_a_void_grant() -> None:
    host = landed()
    host.devices["g0"].enforce(300 * W, host.now)
    host.sample("g0")
    happens(host, EventKind.RELOADED)
    host.devices["g0"].reload(CEILING, host.now)
    host.finish()
    assert host.limit_mw() == 300 * W
