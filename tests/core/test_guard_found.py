"""A GPU that was dead when rapidd started comes back: it goes to its floor first, and the host keeps to its own bound.

Promises 1, 2 and 6: the budget holds, failing is downward, nothing unmeasured is called fine.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.excursion import ExcursionSettings
from rapid.core.vigil import Vigil
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W, greeted
from tests.core.watchers import gpu


@pytest.mark.parametrize("limit_mw", [FLOOR, FALLBACK, 650 * W, CEILING])
def test_it_goes_to_its_floor_whatever_is_in_force_and_counts_at_its_ceiling_until_then(limit_mw: int) -> None:
    host = greeted()
    assert host.find("g2", limit_mw) == ["write g2 100 W", "report soon"]
    assert (gpu(host, "g2").limit_mw, gpu(host, "g2").void) == (CEILING, True)
    host.finish("g2")
    assert (gpu(host, "g2").limit_mw, gpu(host, "g2").grant_mw, gpu(host, "g2").void) == (FLOOR, FLOOR, True)
    assert host.limit_mw("g2") == FLOOR


def test_it_stays_there_until_it_is_granted_more_and_then_obeys_like_any_other() -> None:
    host = greeted()
    host.find("g2", CEILING)
    host.finish()
    host.renew(lease_s=60.0)
    host.wait(5.0)
    assert host.limit_mw("g2") == FLOOR
    host.grant(1, {"g2": 500 * W})
    host.finish()
    assert host.limit_mw("g2") == 500 * W
    host.wait(6.0)
    host.finish()
    assert host.limit_mw("g2") == FALLBACK


def test_the_node_is_not_ready_until_it_has_landed() -> None:
    host = greeted()
    assert host.guard.ready
    host.find("g2", CEILING)
    assert host.guard.unlanded == ("g2",)
    host.finish()
    assert host.guard.ready


def test_one_that_does_not_obey_is_tried_again_and_shown_at_its_ceiling() -> None:
    host = greeted()
    host.find("g2", CEILING)
    host.devices["g2"].denies = True
    host.finish()
    assert gpu(host, "g2").limit_mw == CEILING
    host.devices["g2"].denies = False
    host.wait(0.5)
    host.finish()
    assert (host.limit_mw("g2"), gpu(host, "g2").limit_mw) == (FLOOR, FLOOR)


def test_one_that_must_not_be_managed_is_shown_at_its_ceiling_and_never_written() -> None:
    host = greeted()
    host.find("g2", 300 * W, "MIG mode is on")
    assert host.writes == {}
    assert (gpu(host, "g2").limit_mw, gpu(host, "g2").watch.unmanaged) == (CEILING, "MIG mode is on")


def test_where_there_is_no_room_for_it_in_the_hosts_own_bound_everything_lands() -> None:
    host = greeted(hard_budget_mw=1_200 * W)
    host.grant(1, {"g0": 600 * W, "g1": 600 * W})
    host.finish()
    said = host.find("g2", CEILING)
    assert "warning: landed n1: gpu g2 was found, and there is no room for it" in said
    host.finish()
    assert [host.limit_mw(name) for name in ("g0", "g1", "g2")] == [FALLBACK, FALLBACK, FLOOR]
    assert all(each.void for each in host.report().gpus)


def test_where_there_is_room_nobody_else_is_touched() -> None:
    host = greeted(hard_budget_mw=1_300 * W)
    host.grant(1, {"g0": 600 * W, "g1": 600 * W})
    host.finish()
    host.find("g2", CEILING)
    assert set(host.writes) == {"g2"}
    assert not any(each.void for each in host.report().gpus if each.gpu != "g2")


def test_its_draw_is_watched_from_then_on() -> None:
    host = greeted(hard_budget_mw=1_300 * W, vigil=Vigil(ExcursionSettings(), 1_300 * W))
    host.find("g2", CEILING)
    host.finish()
    host.wait(1.0)
    host.devices["g2"].greedy_mw = 900 * W
    said: list[str] = []
    for _ in range(10):
        host.wait(0.1)
        said += host.sample()
        host.finish()
    assert [words for words in said if words.startswith("error: excursion")]
    assert "g2" in host.guard.alarms_mw()


def test_one_that_is_found_twice_is_our_own_mistake() -> None:
    host = greeted()
    with pytest.raises(AssertionError, match="g1 is here already"):
        host.find("g1", CEILING)


@given(
    hard_w=st.integers(900, 2_100),
    grants_w=st.lists(st.integers(100, 700), min_size=2, max_size=2),
    limit_w=st.integers(100, 700),
    steps=st.lists(st.sampled_from(["finish g0", "finish g1", "finish g2", "sample", "wait"]), max_size=12),
)
def test_the_hosts_own_bound_holds_at_every_step_once_it_has_obeyed(
    hard_w: int, grants_w: list[int], limit_w: int, steps: list[str]
) -> None:
    """Stopped after each step: no limit is raised by what comes, and when all writes are done the sum fits."""
    host = greeted(hard_budget_mw=hard_w * W)
    host.grant(1, {"g0": grants_w[0] * W, "g1": grants_w[1] * W}, lease_s=60.0)
    host.settle()
    before = {name: device.limit_mw for name, device in host.devices.items()} | {"g2": limit_w * W}
    host.find("g2", limit_w * W)
    for step in [*steps, *(f"finish g{number}" for number in (0, 1, 2))]:
        match step.split():
            case ["finish", name]:
                if name in host.writes:
                    host.finish(name)
            case ["sample"]:
                host.sample()
            case _:
                host.wait(0.1)
        assert all(device.limit_mw <= before[name] for name, device in host.devices.items())
    assert sum(device.limit_mw for device in host.devices.values()) <= hard_w * W
