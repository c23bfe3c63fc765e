"""What a guard does when the node draws more than it may, and what it says of how it kept to it.

Promises 1, 2 and 6: the budget holds, failing is downward, nothing unmeasured is called fine.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.drift import FenceSettings
from rapid.core.duties import GuardedGpu
from rapid.core.excursion import ExcursionSettings
from rapid.core.guarded import at_start
from rapid.core.vigil import Vigil
from tests.core.hosts import CEILING, FALLBACK, Host, W
from tests.core.watchers import fight, gpu, teller

HARD_MW = 1_000 * W


def watchful(hard_mw: int | None = HARD_MW, **options: object) -> Host:
    vigil = Vigil(ExcursionSettings(), hard_mw)
    host = teller(hard_budget_mw=hard_mw, vigil=vigil, **options)
    settle(host, 1.0)
    return host


def settle(host: Host, seconds: float) -> None:
    """Time in which all is sampled ten times a second, and written."""
    for _ in range(round(seconds * 10)):
        host.sample()
        host.finish()
        host.wait(0.1)
        host.renew(lease_s=60.0)


def greedy(host: Host, name: str, draw_mw: int) -> None:
    host.devices[name].greedy_mw = draw_mw
    host.devices[name].follow(host.now)


def drawn(host: Host) -> int:
    return sum(device.draw_mw for device in host.devices.values())


def test_at_its_hard_budget_a_node_is_left_alone() -> None:
    host = watchful()
    settle(host, 5.0)
    assert (drawn(host), host.report().watch.excursions) == (HARD_MW, 0)


def test_a_node_that_draws_more_than_it_may_cuts_within_two_samples() -> None:
    host = watchful()
    greedy(host, "g0", 600 * W)
    host.sample()
    assert not host.writes, "one sample may be a spike"
    said = host.sample()
    assert "error: excursion n1: draws 1100 W, may draw 1000 W: limits cut to 87 %" in said
    assert {write.limit_mw for write in host.writes.values()} == {436 * W}
    host.finish()
    settle(host, 0.5)
    assert drawn(host) <= HARD_MW * 1.04
    watch = host.report().watch
    assert (watch.excursions, watch.excursion) == (1, "draws 1100 W, may draw 1000 W: limits cut to 87 %")


def test_a_node_that_passes_its_bound_has_a_gpu_that_passes_its_alarm() -> None:
    """Promise 6: who brings samples may let those wait in which no GPU draws more than its alarm."""
    host = watchful()
    assert sum(host.guard.alarms_mw().values()) == HARD_MW
    greedy(host, "g0", 600 * W)
    assert host.devices["g0"].draw_mw > host.guard.alarms_mw()["g0"]


def test_without_a_hard_budget_the_alarms_allow_for_the_error_of_the_sensors() -> None:
    host = watchful(None)
    assert host.guard.alarms_mw() == {"g0": 525 * W, "g1": 525 * W}


def test_nobody_is_alarmed_where_nobody_cuts() -> None:
    host = teller(hard_budget_mw=HARD_MW, vigil=Vigil(ExcursionSettings(), HARD_MW, cuts=False))
    assert host.guard.alarms_mw() == {}
    assert teller().guard.alarms_mw() == {}


@given(
    leaves_mw=st.lists(st.integers(100 * W, 900 * W), min_size=1, max_size=8),
    shares=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    hard_mw=st.none() | st.integers(100 * W, 8_000 * W),
)
def test_draws_within_every_alarm_are_within_the_bound(
    leaves_mw: list[int], shares: list[float], hard_mw: int | None
) -> None:
    vigil = Vigil(ExcursionSettings(), hard_mw)
    specs = [GuardedGpu(f"g{i}", i, 100 * W, 900 * W, 100 * W, each_mw) for i, each_mw in enumerate(leaves_mw)]
    vigil.begin([at_start(spec, FenceSettings()) for spec in specs], 0.0)
    alarms_mw = vigil.alarms_mw()
    draws_mw = [int(alarm_mw * share) for alarm_mw, share in zip(alarms_mw.values(), shares, strict=False)]
    assert sum(draws_mw) <= vigil.bound.most_mw(ExcursionSettings().draw_tolerance)


def test_it_cuts_again_until_it_is_below_and_never_below_the_floor() -> None:
    host = watchful()
    greedy(host, "g0", 880 * W)
    settle(host, 10.0)
    assert drawn(host) <= HARD_MW
    assert host.limit_mw("g1") >= host.floor_mw


def test_while_it_is_cut_the_grant_stands_and_a_new_one_does_not_lift_the_cut() -> None:
    host = watchful()
    greedy(host, "g0", 600 * W)
    settle(host, 1.0)
    cut_mw = host.limit_mw("g1")
    assert cut_mw < 500 * W
    assert (gpu(host, "g1").grant_mw, gpu(host, "g1").void) == (500 * W, False), "the ledger must go on holding it"
    host.answers()
    host.grant(2, {"g1": 490 * W})
    settle(host, 0.3)
    assert host.limit_mw("g1") <= cut_mw
    assert host.answers() == [
        "1.2 g1 clamped: draws 1036 W, may draw 1000 W: limits cut to 93 %: device enforces 404 W"
    ]


def test_a_grant_below_the_cut_is_obeyed() -> None:
    host = watchful()
    greedy(host, "g0", 600 * W)
    settle(host, 1.0)
    host.grant(2, {"g1": 200 * W})
    settle(host, 1.0)
    assert host.limit_mw("g1") <= 200 * W


def test_when_it_is_over_it_goes_back_to_the_grant_and_not_above() -> None:
    host = watchful()
    greedy(host, "g0", 600 * W)
    settle(host, 2.0)
    greedy(host, "g0", 0)
    settle(host, 6.0)
    assert (host.limit_mw("g0"), host.limit_mw("g1")) == (500 * W, 500 * W)
    assert any(word.startswith("info: excursion over n1") for word in host.words)
    assert host.report().watch.excursion == ""


def test_a_landing_during_an_excursion_is_a_landing() -> None:
    host = watchful()
    greedy(host, "g0", 600 * W)
    settle(host, 1.0)
    cut_mw = host.limit_mw("g1")
    host.stop()
    greedy(host, "g0", 0)
    for _ in range(80):
        host.sample()
        host.finish()
        host.wait(0.1)
    assert host.limit_mw("g1") == min(cut_mw, FALLBACK), "a void grant never rises by itself"


def test_without_a_hard_budget_the_bound_is_what_the_grants_leave() -> None:
    host = watchful(hard_mw=None)
    greedy(host, "g0", 549 * W)
    settle(host, 3.0)
    assert host.report().watch.excursions == 0, "the sensors may be off by 5 %"
    greedy(host, "g0", 560 * W)
    settle(host, 1.0)
    assert host.report().watch.excursions == 1


def test_a_cut_grant_leaves_what_it_was_until_the_draw_has_followed() -> None:
    host = watchful(hard_mw=None)
    host.grant(2, {"g0": 300 * W, "g1": 300 * W})
    settle(host, 3.0)
    assert host.report().watch.excursions == 0, "a draw that follows a cut is no excursion"


def test_a_gpu_that_does_not_obey_its_cut_is_an_excursion_once_more_is_drawn_than_was_ever_granted() -> None:
    host = watchful(hard_mw=None)
    host.devices["g0"].denies = True
    host.grant(2, {"g0": 200 * W})
    settle(host, 3.0)
    assert host.report().watch.excursions == 0, "the ledger holds it at 500 W as long as it draws them"


def test_somebody_who_takes_watts_for_one_gpu_costs_the_others_theirs_at_once() -> None:
    host = watchful(hard_mw=None, fence=FenceSettings(repairs=100))
    for _ in range(20):
        host.devices["g0"].enforce(CEILING, host.now)
        host.sample()
        host.finish("g0") if "g0" in host.writes else None
        host.wait(0.1)
    assert host.report().watch.excursions == 1
    assert "g1" in host.writes or host.limit_mw("g1") < 500 * W


def test_a_fenced_gpu_has_leave_for_its_ceiling_and_the_hard_budget_holds_all_the_same() -> None:
    host = watchful(fence=FenceSettings(repairs=1))
    fight(host, 2)
    settle(host, 10.0)
    assert gpu(host).watch.unmanaged
    assert drawn(host) <= HARD_MW
    assert host.limit_mw("g1") <= 300 * W


def test_a_draw_that_cannot_be_read_counts_as_all_that_it_may_be() -> None:
    host = watchful()
    host.grant(2, {"g1": 400 * W})
    settle(host, 1.0)
    host.devices["g0"].mute = True
    assert host.guard.vigil is not None
    host.sample()
    assert host.guard.vigil.draw_mw(host.now) == 900 * W


def test_the_first_seconds_of_a_daemon_are_no_excursion() -> None:
    host = Host({"g0": CEILING, "g1": CEILING}, vigil=Vigil(ExcursionSettings(), HARD_MW), hard_budget_mw=HARD_MW)
    settle(host, 3.0)
    assert host.report().watch.excursions == 0
    assert host.shown() == "400 W of 400 W void"


def test_it_can_be_switched_off() -> None:
    host = watchful()
    host.guard.vigil = Vigil(ExcursionSettings(), HARD_MW, cuts=False)
    host.guard.vigil.begin(host.guard._gpus.values(), host.now)
    greedy(host, "g0", 700 * W)
    settle(host, 2.0)
    assert host.report().watch.excursions == 0


# ---- compliance ----


def test_what_was_kept_and_what_was_not_is_in_the_report() -> None:
    host = watchful()
    for device in host.devices.values():
        device.energy_mj, device.metered_s = 0.0, host.now
    settle(host, 20.0)
    before = host.report().watch
    greedy(host, "g0", 900 * W)
    settle(host, 20.0)
    after = host.report().watch
    assert before.over_s <= 2.1, "the window in which the counter began"
    assert after.over_s - before.over_s > 1.0
    assert after.watched_s - before.watched_s == pytest.approx(20.0, abs=2.5)
    assert gpu(host).watch.over_s > gpu(host, "g1").watch.over_s
