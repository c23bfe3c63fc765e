"""The guard at the very edge of its bounds: of range, of time, of the hard budget."""

from rapid.core.cluster import Mark
from tests.core.hosts import Host, W, greeted


def test_the_floor_and_the_ceiling_are_granted() -> None:
    host = greeted()

    host.grant(1, {"g0": 100 * W, "g1": 700 * W})
    host.settle()

    assert [host.limit_mw("g0"), host.limit_mw("g1")] == [100 * W, 700 * W]


def test_a_grant_that_arrives_at_the_very_end_of_its_time_is_late() -> None:
    host = greeted()

    host.grant(1, {"g0": 600 * W}, lease_s=0.0)

    assert host.answers() == ["1.1 all refused: arrived 0.000 s after its time had passed"]


def test_a_renewal_at_the_very_end_of_the_lease_is_late() -> None:
    host = greeted()
    host.grant(1, {"g0": 600 * W}, lease_s=2.0)
    host.settle()
    host.now = host.guard.next_deadline_s() or 0.0

    host.renew()

    assert "warning: landed n1: the lease ran out" in host.wait(0.0)


def test_what_is_in_force_already_may_be_granted_above_the_hard_budget() -> None:
    host = greeted(hard_budget_mw=500 * W)

    host.grant(1, {"g0": 400 * W, "g1": 400 * W})

    assert host.answers() == ["1.1 g0 applied", "1.1 g1 applied"]


def test_of_two_raises_the_smaller_comes_first() -> None:
    host = greeted(hard_budget_mw=700 * W)
    host.grant(1, {"g0": 100 * W, "g1": 400 * W})
    host.settle()
    host.answers()

    host.grant(2, {"g0": 300 * W, "g1": 450 * W})
    host.settle()

    assert host.answers() == [
        "1.2 g0 refused: gpu g0: limit 300 W would pass the host's hard budget by 50 W",
        "1.2 g1 applied",
    ]


def test_a_report_covers_the_greeting_that_was_taken() -> None:
    host = greeted()
    host.grant(7, {"g0": 300 * W})
    assert host.report().mark == Mark(1, 7)

    host.greet(epoch=2)

    assert host.report().mark == Mark(2, 0), "what was sent in epoch 1 is refused from now on"


def test_a_device_that_could_not_be_read_and_stands_where_it_should_is_well_again() -> None:
    host = greeted()
    host.devices["g0"].mute = True
    host.grant(1, {"g0": 300 * W})
    host.finish()
    host.devices["g0"].mute = False

    host.sample("g0")

    assert host.shown() == "300 W of 300 W"


def test_a_node_that_has_come_up_has_no_cut_to_report() -> None:
    host = Host({"g0": 400 * W})
    host.finish()

    assert host.sample() == []
