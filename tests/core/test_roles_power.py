"""Power and role together: what a GPU on its way to another role does not need serves the others, and comes back in
order. Whatever a policy asks for, a raise waits until the cut that pays for it is confirmed; the site checks the budget
after every step.
"""

from dataclasses import dataclass

import pytest

from rapid.core.cluster import Phase, Role, Targets, View
from rapid.core.control import Control
from rapid.core.events import EngineGone, PauseAsked, RoleAsked
from rapid.core.fit import fair
from rapid.core.policy import Policy
from tests.core.hosts import W
from tests.core.site import Site, paper_site

PREFILL, DECODE = Role.PREFILL, Role.DECODE
FLOOR_W, SHARE_W, LENT_W = 400, 600, 628  # of 4,800 W: an eighth, and a seventh of what a GPU at its floor leaves


@dataclass(frozen=True)
class Lender:
    """Who serves gets an equal share; a GPU on its way to another role gets its floor."""

    name: str = "lender"

    def decide(self, view: View) -> Targets:
        away = {gpu for one in view.instances if one.phase is not Phase.SERVING for gpu in one.gpus}
        stay = [gpu for gpu in view.gpus if gpu.gpu not in away]
        idle = {gpu.gpu: gpu.floor_mw for gpu in view.gpus if gpu.gpu in away}
        rooms = {name: room_mw - sum(idle.values()) for name, room_mw in view.rooms_mw.items()}
        shares = {gpu: limit_mw // W * W for gpu, limit_mw in fair(stay, rooms, view.chains).items()}
        before = {gpu.gpu: gpu.limit_mw for gpu in view.gpus}
        return Targets({gpu: mw for gpu, mw in (idle | shares).items() if before[gpu] != mw}, {}, "lends")


class LendingControl(Control):
    def make_policy(self) -> Policy:
        return Lender()


def lending_site() -> Site:
    """e0 to e3 serve prefill, e4 to e7 decode, each at its share."""
    return peopled(paper_site("uniform", control=LendingControl))


def peopled(site: Site) -> Site:
    site.run(1.0)
    for index in range(8):
        site.attach(f"e{index}", PREFILL if index < 4 else DECODE, parks=True)
        site.loads[f"e{index}"] = {}
    site.run(6.0)
    assert site.limits_w() == [SHARE_W] * 8
    site.said.clear()
    return site


def asks(site: Site, instance: str, role: Role | None, *, park: bool = False) -> None:
    site.step(RoleAsked(site.now, f"r{len(site.events)}", instance, role, "me", park))


def grants(site: Site) -> list[str]:
    """What was granted, in the order in which it was."""
    said, site.said = [word for word in site.said if word.startswith("grant")], []
    return said


def test_watts_of_a_draining_gpu_are_lent_out_as_soon_as_its_cut_is_confirmed() -> None:
    site = lending_site()
    asks(site, "e0", DECODE)

    site.run(0.5)
    assert grants(site) == ["grant g0 400 W"], "the cut alone: nobody may have its watts yet"
    site.run(1.0)

    others = ", ".join(f"g{index} {LENT_W} W" for index in range(1, 8))
    assert grants(site) == [f"grant {others}"]
    site.run(1.0)
    assert site.limits_w() == [FLOOR_W, *[LENT_W] * 7]


def test_raises_wait_for_a_donor_that_is_slow_to_obey() -> None:
    site = lending_site()
    site.hosts["n1"].devices["g0"].greedy_mw = SHARE_W * W  # it draws on, whatever its limit says
    asks(site, "e0", DECODE)

    site.run(1.5)
    assert site.limits_w() == [FLOOR_W, *[SHARE_W] * 7], "its limit is down, its draw is not"
    site.hosts["n1"].devices["g0"].greedy_mw = 0
    site.run(2.0)

    assert site.limits_w() == [FLOOR_W, *[LENT_W] * 7]


def test_the_newcomers_limit_rises_only_after_the_cuts_that_pay_for_it_are_confirmed() -> None:
    site = lending_site()
    asks(site, "e0", DECODE)
    site.run(3.0)
    for phase in (Phase.SWITCHING, Phase.WARMING):
        site.moved("e0", phase)
        site.run(1.0)
        assert site.limits_w()[0] == FLOOR_W, f"lent out while it is {phase.value}"
    grants(site)

    site.moved("e0", Phase.SERVING)
    site.run(0.5)
    others = ", ".join(f"g{index} {SHARE_W} W" for index in range(1, 8))
    assert grants(site) == [f"grant {others}"], "cuts first"
    site.run(2.0)

    assert grants(site) == ["grant g0 600 W"]
    assert site.limits_w() == [SHARE_W] * 8


@pytest.mark.parametrize("at", [Phase.DRAINING, Phase.SWITCHING, Phase.WARMING, Phase.UNCERTAIN])
def test_a_change_that_does_not_work_out_gives_everything_back_in_order(at: Phase) -> None:
    site = lending_site()
    asks(site, "e0", DECODE)
    site.run(3.0)
    site.moved("e0", at)
    site.run(1.0)
    assert site.limits_w() == [FLOOR_W, *[LENT_W] * 7]
    grants(site)

    site.moved("e0", Phase.SERVING, error="not idle")
    site.run(3.0)

    others = ", ".join(f"g{index} {SHARE_W} W" for index in range(1, 8))
    assert grants(site) == [f"grant {others}", "grant g0 600 W"]
    assert site.control.roles.instances["e0"].role is PREFILL


def test_an_engine_that_fails_leaves_its_watts_to_the_others() -> None:
    site = lending_site()
    asks(site, "e0", DECODE)
    site.run(3.0)
    site.moved("e0", Phase.SWITCHING)
    site.moved("e0", Phase.FAILED, error="out of memory")
    site.run(5.0)

    assert site.limits_w() == [FLOOR_W, *[LENT_W] * 7]


def test_an_engine_that_goes_in_the_middle_of_a_change_breaks_no_budget_when_it_comes_back() -> None:
    """The site checks that after every step of it."""
    site = lending_site()
    asks(site, "e0", DECODE)
    site.run(3.0)
    site.moved("e0", Phase.SWITCHING)
    site.step(EngineGone(site.now, "e0", "first", "killed"))
    site.run(2.0)
    site.attach("e0", DECODE, parks=True)
    site.run(3.0)

    assert site.limits_w() == [SHARE_W] * 8


# ---- parked, whatever the policy ----


def test_a_parked_instance_goes_to_its_floor_and_its_watts_serve_the_others() -> None:
    site = peopled(paper_site("uniform"))
    asks(site, "e0", None, park=True)
    site.moved("e0", Phase.DRAINING)
    site.run(1.0)
    assert site.limits_w() == [SHARE_W] * 8, "it still has requests to finish"
    site.moved("e0", Phase.PARKED)
    site.said.clear()

    said = site.run(3.0)

    assert said[:2] == ["D3 budget: GPUs of parked instances go to their floors", "grant g0 400 W"]
    assert [round(limit_w) for limit_w in site.limits_w()] == [FLOOR_W, *[629] * 7]
    assert not any("g0" in word for word in said[2:]), said


@pytest.mark.parametrize(("role", "served"), [(None, PREFILL), (PREFILL, PREFILL), (DECODE, DECODE)])
def test_an_instance_that_serves_again_gets_its_watts_back_in_order(role: Role | None, served: Role) -> None:
    site = peopled(paper_site("uniform"))
    asks(site, "e0", None, park=True)
    site.moved("e0", Phase.PARKED)
    site.run(4.0)
    asks(site, "e0", role)
    order = site.engines["e0"].order
    assert order is not None
    assert (order.role, order.park) == (served, False)
    grants(site)

    site.moved("e0", Phase.SERVING)
    site.run(4.0)

    first, *_, last = grants(site)
    assert "g0" not in first
    assert last == "grant g0 600 W"
    assert site.limits_w() == [SHARE_W] * 8


def test_while_paused_a_parked_instance_keeps_its_limit() -> None:
    site = peopled(paper_site("uniform"))
    site.step(PauseAsked(site.now, "r1", True, "me"))
    asks(site, "e0", None, park=True)
    site.moved("e0", Phase.PARKED)
    site.run(3.0)

    assert site.limits_w() == [SHARE_W] * 8


@pytest.mark.parametrize("policy", ["uniform", "static", "rapid", "power", "roles", "predictive"])
def test_every_policy_lives_with_a_parked_instance(policy: str) -> None:
    site = paper_site(policy)
    site.run(1.0)
    for index in range(8):
        site.attach(f"e{index}", PREFILL if index < 4 else DECODE, parks=True)
        site.loads[f"e{index}"] = {}
    site.step(PauseAsked(site.now, "r1", True, "me"))
    asks(site, "e0", None, park=True)
    site.moved("e0", Phase.PARKED)
    site.step(PauseAsked(site.now, "r2", False, "me"))

    site.run(6.0)

    assert site.limits_w()[0] == FLOOR_W
    assert sum(site.limits_w()[1:]) > 4_000, "the others go on"
    assert site.control.plan().id == "plan"


def test_all_gpus_that_are_heard_may_be_parked() -> None:
    site = peopled(paper_site("uniform"))
    for index in range(8):
        site.control.roles.instances[f"e{index}"].phase = Phase.PARKED

    site.run(3.0)

    assert site.limits_w() == [FLOOR_W] * 8
    assert site.control.plan().reason.startswith("no GPU can be moved")
