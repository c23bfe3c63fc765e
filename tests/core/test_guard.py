"""The guard's life: it comes up low, takes one controller, lands when the lease is over, and goes down when it stops.

Promise 2: failing is downward. Nothing here rises without a grant that is newer than all before it.
"""

import pytest

from rapid.core.cluster import GpuHealth, Greeting
from rapid.core.errors import Stale
from rapid.core.guard import GuardMemory
from tests.core.hosts import CEILING, FALLBACK, Host, W, greeted, landed

# ---- start ----


def test_at_start_every_gpu_goes_to_its_fallback_and_one_below_it_stays_there() -> None:
    host = Host({"high": CEILING, "low": 300 * W})

    assert host.begun == ["write high 400 W", "write low 300 W"]


def test_a_limit_that_cannot_be_read_at_start_is_shown_at_its_ceiling_and_goes_to_its_floor() -> None:
    """The controller may have booked less than the fallback, so going there could be a raise that nobody granted."""
    host = Host({"g0": 150 * W})

    assert host.boot(unread=["g0"]) == ["write g0 100 W"]
    assert host.shown() == "700 W of 100 W void"


def test_a_node_is_ready_when_every_gpu_has_been_read_back_at_its_fallback() -> None:
    host = Host({"g0": CEILING, "g1": FALLBACK})

    assert not host.guard.ready, "a limit that was read before the first write proves nothing"
    host.finish("g1")
    assert not host.guard.ready
    host.finish("g0")
    assert host.guard.ready


def test_a_gpu_that_cannot_be_read_back_keeps_its_node_from_being_ready_and_is_tried_again() -> None:
    host = Host({"g0": CEILING})
    host.devices["g0"].mute = True

    assert host.finish() == ["error: limit not in force g0: gpu g0: does not answer", "report soon"]
    assert not host.guard.ready
    assert host.shown() == "700 W of 400 W void, lost: gpu g0: does not answer", "unread: the worst it could be"
    assert host.wait(0.4) == []
    assert host.wait(0.2) == ["write g0 400 W"], "every retry_s"

    host.devices["g0"].mute = False
    host.finish()
    assert host.guard.ready
    assert host.shown() == "400 W of 400 W void"


def test_that_a_write_is_denied_is_found_out_at_start_and_stays_known() -> None:
    """The limit is right already, so nothing but the write shows that no emergency could ever lower it."""
    host = Host({"g0": FALLBACK})
    host.devices["g0"].denies = True
    host.finish()

    host.sample()

    assert host.shown() == "400 W of 400 W void, denied: gpu g0: no permission to set a limit"


def test_a_write_that_was_denied_is_tried_until_it_works() -> None:
    host = Host({"g0": FALLBACK})
    host.devices["g0"].denies = True
    host.finish()
    for _ in range(3):
        assert host.wait(0.4) == []
        assert host.wait(0.2) == ["write g0 400 W"]
        host.finish()
        host.sample()

    host.devices["g0"].denies = False
    host.wait(0.6)
    host.finish()

    assert host.shown() == "400 W of 400 W void"
    assert host.wait(0.6) == [], "all is well: nothing is written any more"


def test_each_start_of_the_daemon_is_a_later_life() -> None:
    host = landed(disk=GuardMemory(starts=6))
    assert host.guard.incarnation == "7-life"
    assert host.greet() == ["persist epoch 1 of c, start 7", "report soon"]

    host.boot()

    assert host.guard.incarnation == "8-life"


# ---- the controller's first word ----


def test_a_node_takes_the_first_controller_that_greets_it() -> None:
    host = landed()

    assert host.greet(epoch=3) == ["persist epoch 3 of c, start 1", "report soon"]
    assert host.greet(epoch=3) == ["report soon"], "on disk already"
    assert host.greet(epoch=4, controller_id="d") == ["persist epoch 4 of d, start 1", "report soon"]


def test_a_lower_epoch_is_refused_and_the_node_says_which_it_has_seen() -> None:
    host = landed()
    host.greet(epoch=7)

    with pytest.raises(Stale, match=r"^node n1: epoch 6 is lower than epoch 7, which it has seen$"):
        host.greet(epoch=6)


def test_a_second_controller_in_the_same_epoch_is_refused() -> None:
    host = landed()
    host.greet(epoch=7, controller_id="c")

    with pytest.raises(Stale, match=r"^node n1: epoch 7 belongs to controller c, not to d$"):
        host.greet(epoch=7, controller_id="d")
    assert host.guard.memory.controller_id == "c"


def test_what_a_node_has_seen_outlives_it() -> None:
    host = landed()
    host.greet(epoch=7)
    host.boot()

    with pytest.raises(Stale, match="epoch 6 is lower than epoch 7"):
        host.greet(epoch=6)
    with pytest.raises(Stale, match="belongs to controller c"):
        host.greet(epoch=7, controller_id="d")


def test_an_epoch_counts_only_when_it_is_on_disk() -> None:
    """If the node died before, it would let an older controller in again, which knows nothing of these grants."""
    host = landed()
    host.guard.greet(Greeting(5, "c"), host.now)  # the disk is slow: nobody says persisted

    host.grant(1, {"g0": 600 * W}, epoch=5)
    assert host.answers() == ["5.1 all refused: epoch 5 is not on disk yet"]

    host.greet(epoch=5)
    host.grant(1, {"g0": 600 * W}, epoch=5)
    host.finish()
    assert host.answers() == ["5.1 g0 applied"]


def test_the_disk_confirms_only_what_it_was_given_last() -> None:
    host = landed()
    host.guard.greet(Greeting(5, "c"), host.now)
    first = host.guard.memory
    host.guard.greet(Greeting(6, "c"), host.now)

    host.guard.persisted(first)

    host.grant(1, {"g0": 600 * W}, epoch=6)
    assert host.answers() == ["6.1 all refused: epoch 6 is not on disk yet"]


def test_a_greeting_changes_no_limit_and_keeps_grants_and_lease() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})
    host.settle()

    host.greet(epoch=2, controller_id="d")

    assert host.shown() == "600 W of 600 W"
    assert host.wait(4.0) == []
    assert "warning: landed n1: the lease ran out" in host.wait(1.0), "the new controller has to grant anew"


# ---- the lease ----


def test_when_the_lease_runs_out_every_gpu_lands_and_its_grant_is_void() -> None:
    host = greeted(limits_mw={"g0": FALLBACK, "g1": FALLBACK, "g2": FALLBACK})
    host.grant(1, {"g0": 600 * W, "g1": 300 * W}, lease_s=5.0)
    host.settle()
    deadline_s = host.guard.next_deadline_s()
    assert deadline_s is not None

    assert host.wait(deadline_s - host.now - 0.001) == []
    assert host.wait(0.001) == ["write g0 400 W", "warning: landed n1: the lease ran out", "report soon"]
    host.settle()

    assert [host.shown(gpu) for gpu in host.devices] == [
        "400 W of 400 W void",
        "300 W of 300 W void",
        "400 W of 400 W void",
    ]
    assert host.guard.next_deadline_s() is None
    assert host.report().lease_left_s == 0.0


def test_after_landing_nothing_rises_until_a_new_grant() -> None:
    host = greeted()
    host.grant(1, {"g0": 300 * W})
    host.settle()
    host.wait(6.0)

    host.renew()
    host.devices["g0"].enforce(200 * W, host.now)
    host.sample()
    host.wait(6.0)
    host.settle()
    assert host.shown() == "200 W of 200 W void", "somebody lowered it, and what was given up is not taken back"

    host.grant(2, {"g0": 600 * W})
    host.finish()
    assert host.shown() == "600 W of 600 W"


def test_landing_keeps_trying_while_it_fails() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})
    host.settle()
    host.devices["g0"].denies = True

    host.wait(5.0)
    host.finish()
    assert host.shown() == "600 W of 400 W void, denied: gpu g0: no permission to set a limit"
    for _ in range(3):
        assert host.wait(0.5) == ["write g0 400 W"]
        host.finish()
    host.devices["g0"].denies = False
    host.wait(0.5)
    host.finish()

    assert host.shown() == "400 W of 400 W void"


def test_a_raise_that_is_being_written_when_the_lease_ends_is_taken_back_at_once() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W}, lease_s=1.0)

    assert host.wait(1.0) == ["warning: landed n1: the lease ran out", "report soon"], "one write at a time"
    assert host.shown() == "600 W of 400 W void", "it may come into force any moment"
    assert host.finish() == ["write g0 400 W", "report soon"]
    host.finish()

    assert host.shown() == "400 W of 400 W void"
    assert host.wait(60.0) == []


def test_a_raise_that_waits_for_a_write_is_not_begun_after_the_lease() -> None:
    """The worker was busy all the while; the daemon hears of the write before it looks at its clock."""
    host = greeted()
    host.grant(1, {"g0": 300 * W}, lease_s=1.0)
    host.grant(2, {"g0": 600 * W}, lease_s=1.0)
    host.now += 1.5

    said = host.finish("g0")

    assert "write g0 600 W" not in said
    assert "warning: landed n1: the lease ran out" in said
    assert host.shown() == "300 W of 300 W void"


def test_a_grant_that_comes_when_the_lease_is_over_revives_no_other() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W, "g1": 600 * W}, lease_s=1.0)
    host.settle()
    host.now += 1.0

    host.grant(2, {"g0": 500 * W})
    host.settle()

    assert [host.shown("g0"), host.shown("g1")] == ["500 W of 500 W", "400 W of 400 W void"]


def test_a_renewal_lets_the_grants_hold_longer() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W}, lease_s=2.0)
    host.settle()
    for _ in range(10):
        host.wait(1.0)
        assert host.renew(lease_s=2.0) == []

    assert host.shown() == "600 W of 600 W"
    assert host.report().lease_left_s == pytest.approx(2.0)


def test_a_renewal_that_comes_late_revives_nothing() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W}, lease_s=2.0)
    host.settle()
    host.now += 2.0  # the daemon has not looked at its clock yet

    assert host.renew(lease_s=5.0) == []

    assert "warning: landed n1: the lease ran out" in host.wait(0.0)
    host.renew(lease_s=5.0)
    host.settle()
    assert host.shown() == "400 W of 400 W void"


def test_a_renewal_of_another_controller_or_life_is_refused() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W}, lease_s=2.0)
    left_s = host.report().lease_left_s

    assert host.renew(epoch=2) == ["warning: renewal refused n1: epoch 2 of c is not epoch 1 of c"]
    assert host.renew(by="d") == ["warning: renewal refused n1: epoch 1 of d is not epoch 1 of c"]
    assert host.report().lease_left_s == left_s


def test_no_message_makes_a_lease_longer_than_the_node_allows_or_shorter_than_it_was() -> None:
    host = greeted()

    host.grant(1, {"g0": 600 * W}, lease_s=1e6)
    assert host.report().lease_left_s == pytest.approx(60.0), "lease_max_s"
    host.renew(lease_s=1.0)
    assert host.report().lease_left_s == pytest.approx(60.0)


# ---- stop ----


def test_on_the_way_out_power_goes_down_or_stays() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W, "g1": 300 * W})
    host.settle()

    assert host.stop() == ["write g0 400 W", "warning: landed n1: the daemon stops", "report soon"]
    host.settle()

    assert [host.limit_mw("g0"), host.limit_mw("g1")] == [400 * W, 300 * W]


def test_a_daemon_that_stops_takes_no_more_grants() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W})
    host.settle()
    host.stop()

    host.grant(2, {"g0": 700 * W})
    host.renew()
    host.settle()

    assert host.shown() == "400 W of 400 W void"
    assert host.answers() == ["1.1 g0 applied", "1.2 all refused: the daemon stops"]


# ---- the report ----


def test_a_report_shows_the_greater_of_the_limit_read_and_the_limit_being_written() -> None:
    host = greeted()

    host.grant(1, {"g0": 600 * W})
    assert host.shown() == "600 W of 600 W", "a raise may be in force before it is read back"
    host.finish()
    host.grant(2, {"g0": 300 * W})
    assert host.shown() == "600 W of 300 W", "a cut is not in force before it is read back"
    host.finish()
    assert host.shown() == "300 W of 300 W"


def test_a_report_says_since_when_a_limit_is_in_force() -> None:
    host = greeted()
    host.grant(1, {"g0": 300 * W})
    host.wait(0.3)
    host.finish()
    read_back_s = host.now
    host.wait(2.0)
    host.sample()

    one = host.report().gpus[0]

    assert one.limit_since_s == read_back_s
    assert one.draw_at_s > read_back_s
    assert one.draw_mw == 300 * W


def test_a_draw_that_cannot_be_read_is_none_and_never_an_old_value() -> None:
    host = greeted()
    host.devices["g0"].mute = True
    host.sample()

    one = host.report().gpus[0]

    assert one.draw_mw is None
    assert (one.health, one.problem) == (GpuHealth.LOST, "gpu g0: does not answer")
