"""Seconds over the leave, by energy counter; what is stale or missing counts against us; and when a limit binds."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import Slowdown
from rapid.core.compliance import WINDOW_S, Compliance, Reading

W = 1_000
LEAVE = 400 * W

Draw = Callable[[float], float]


def reading(energy_mj: float | None = None, **more: object) -> Reading:
    given = {"draw_mw": None, "limit_mw": LEAVE} | more
    return Reading(None if energy_mj is None else int(energy_mj), **given)  # type: ignore[arg-type]


def watched(
    draw_mw: Draw | float,
    seconds: float,
    *,
    every_s: float = 0.1,
    silent: Callable[[float], bool] = lambda at_s: False,
    hard_mw: int | None = None,
    gpus: int = 1,
) -> Compliance:
    """Some GPUs that draw alike, read every so often unless the counter is silent."""
    names = [f"g{number}" for number in range(gpus)]
    compliance = Compliance(names)
    energy_mj = 0.0
    for step in range(round(seconds / every_s) + 1):
        at_s = step * every_s
        power_mw = draw_mw if isinstance(draw_mw, float | int) else draw_mw(at_s)
        energy_mj += power_mw * every_s if step else 0.0
        for name in names:
            if not silent(at_s):
                compliance.read(name, reading(energy_mj), LEAVE, at_s)
        compliance.judge(at_s, hard_mw)
    return compliance


def test_within_its_leave_every_second_is_kept() -> None:
    found = watched(LEAVE, 10.0).node
    assert (found.watched_s, found.over_s, found.unmeasured_s) == (pytest.approx(10.0, abs=0.2), 0.0, 0.0)


def test_above_its_leave_every_second_is_over() -> None:
    found = watched(LEAVE * 1.1, 10.0)
    assert found.node.over_s == found.of("g0").over_s == found.node.watched_s > 9.0


def test_short_peaks_that_the_mean_makes_up_for_are_within() -> None:
    assert watched(lambda at_s: LEAVE * (1.8 if int(at_s * 10) % 10 == 0 else 0.8), 10.0).node.over_s == 0.0


def test_a_counter_that_is_missing_counts_as_unmeasured() -> None:
    found = watched(LEAVE, 10.0, silent=lambda at_s: True)
    assert found.node.unmeasured_s == found.of("g0").unmeasured_s == found.node.watched_s > 9.0
    assert found.node.over_s == 0.0


def test_one_silent_gpu_makes_the_whole_node_unmeasured() -> None:
    compliance = Compliance(["g0", "g1"])
    for step in range(60):
        compliance.read("g0", reading(LEAVE * step / 10), LEAVE, step / 10)
        compliance.judge(step / 10)
    assert compliance.node.unmeasured_s == compliance.node.watched_s > 0
    assert compliance.of("g0").unmeasured_s == 0
    assert compliance.of("g1").unmeasured_s > 0


def test_seconds_in_which_a_counter_fell_silent_count_against_us() -> None:
    found = watched(LEAVE, 40.0, silent=lambda at_s: 10 <= at_s < 20).node
    assert 9.0 <= found.unmeasured_s <= 10.0 + WINDOW_S
    assert found.over_s == 0.0


def test_a_daemon_that_was_stopped_for_a_while_has_not_measured() -> None:
    compliance = Compliance(["g0"])
    for at_s in (0.0, 0.1, 0.2, 30.2, 30.3):
        compliance.read("g0", reading(LEAVE * at_s), LEAVE, at_s)
        compliance.judge(at_s)
    assert compliance.node.unmeasured_s == pytest.approx(30.2)


def test_a_counter_that_begins_anew_is_no_negative_energy() -> None:
    found = watched(LEAVE, 4.0)
    for step in range(41, 120):
        found.read("g0", reading(LEAVE * (step - 41) / 10), LEAVE, step / 10)
        found.judge(step / 10)
    assert (found.node.over_s, found.node.unmeasured_s) == (0.0, 0.0)


def test_the_hosts_own_bound_is_met_without_tolerance() -> None:
    assert watched(LEAVE, 10.0, gpus=2, hard_mw=2 * LEAVE).node.over_s == 0.0
    assert watched(LEAVE * 1.01, 10.0, gpus=2, hard_mw=2 * LEAVE).node.over_s > 9.0
    assert watched(LEAVE * 1.01, 10.0, gpus=2).node.over_s == 0.0


def test_a_leave_that_comes_down_counts_from_then_on() -> None:
    compliance, energy_mj = Compliance(["g0"]), 0.0
    for step in range(101):
        leave_mw = LEAVE if step <= 50 else LEAVE // 2
        energy_mj += LEAVE * 0.1
        compliance.read("g0", reading(energy_mj), leave_mw, step / 10)
        compliance.judge(step / 10)
    assert 4.0 <= compliance.node.over_s <= 6.1


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.none() | st.integers(0, 2_000 * W), st.booleans()), max_size=80),
)
def test_every_second_is_judged_once(steps: list[tuple[float, int | None, bool]]) -> None:
    compliance, now_s, energy_mj = Compliance(["g0"]), 0.0, 0.0
    compliance.judge(now_s)
    for pause_s, power_mw, reset in steps:
        now_s += pause_s
        energy_mj = 0.0 if reset else energy_mj + (power_mw or 0) * pause_s
        compliance.read("g0", reading(None if power_mw is None else energy_mj), LEAVE, now_s)
        compliance.judge(now_s)
    for found in (compliance.node, compliance.of("g0")):
        assert 0 <= found.over_s + found.unmeasured_s <= found.watched_s + 1e-6
        assert now_s - WINDOW_S <= found.watched_s <= now_s + 1e-6


@given(st.floats(0.2, 2.0), st.floats(0.02, 0.5))
def test_over_or_within_is_what_the_energy_says_at_any_pace(share: float, every_s: float) -> None:
    found = watched(LEAVE * share, 12.0, every_s=every_s).node
    if share < 1.04:
        assert found.over_s == 0
    if share > 1.06:
        assert found.over_s == found.watched_s


# ---- whether a limit binds ----


@pytest.mark.parametrize(
    ("draw_w", "clock_mhz", "slowdown", "bound"),
    [
        (400, 1_500, None, True),
        (388, 1_500, None, True),  # 97 % of the limit
        (387, 1_500, None, False),
        (400, 1_980, None, False),  # at its limit, and as fast as ever
        (400, 1_950, None, False),  # within 2 % of it
        (200, 1_500, Slowdown.POWER_CAP, False),  # the bit alone says nothing
        (400, 1_980, Slowdown.POWER_CAP, False),
        (400, 1_500, Slowdown.POWER_CAP, True),
        (400, 1_500, Slowdown.THERMAL | Slowdown.POWER_CAP, False),  # it is the heat
        (400, 1_500, Slowdown.POWER_BRAKE, False),
        (None, 1_500, None, None),
        (400, None, None, None),
    ],
)
def test_a_limit_binds_at_97_percent_with_the_clock_down(
    draw_w: int | None, clock_mhz: int | None, slowdown: Slowdown | None, bound: bool | None
) -> None:
    one = reading(draw_mw=None if draw_w is None else draw_w * W, clock_mhz=clock_mhz, slowdown=slowdown)
    assert one.is_cap_bound(peak_mhz=1_980) is bound


def clocked(compliance: Compliance, seconds: tuple[float, float], clock_mhz: int | None, draw_w: int) -> None:
    for step in range(round(seconds[0] * 10), round(seconds[1] * 10)):
        compliance.read("g0", reading(draw_mw=draw_w * W, clock_mhz=clock_mhz), LEAVE, step / 10)
        compliance.judge(step / 10)


def test_the_share_is_that_of_the_last_ten_seconds() -> None:
    compliance = Compliance(["g0"])
    clocked(compliance, (0, 10.1), 1_980, 300)
    assert compliance.of("g0").cap_bound == 0.0
    clocked(compliance, (10.1, 15.1), 1_500, 400)
    assert compliance.of("g0").cap_bound == pytest.approx(0.5, abs=0.15)
    clocked(compliance, (15.1, 26.1), 1_500, 400)
    assert compliance.of("g0").cap_bound == 1.0


def test_a_clock_read_once_a_second_speaks_for_the_time_between() -> None:
    compliance = Compliance(["g0"])
    for step in range(260):
        clock_mhz = None if step % 10 else 1_980 if step < 160 else 1_500
        compliance.read("g0", reading(draw_mw=400 * W, clock_mhz=clock_mhz), LEAVE, step / 10)
        compliance.judge(step / 10)
        if step == 159:
            assert compliance.of("g0").cap_bound == 0.0
    assert compliance.of("g0").cap_bound == pytest.approx(0.9, abs=0.15)


def test_a_clock_that_comes_too_seldom_tells_nothing() -> None:
    compliance = Compliance(["g0"])
    for step in range(260):
        clock_mhz = None if step % 30 else 1_500
        compliance.read("g0", reading(draw_mw=400 * W, clock_mhz=clock_mhz), LEAVE, step / 10)
        compliance.judge(step / 10)
    assert compliance.of("g0").cap_bound is None


def test_a_device_without_a_clock_tells_nothing() -> None:
    compliance = Compliance(["g0"])
    clocked(compliance, (0, 10.1), None, 400)
    assert compliance.of("g0").cap_bound is None
