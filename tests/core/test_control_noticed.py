"""What an engine has noticed outside of any order: a change by another hand, a router that forgot, an engine that was
lost. The controller learns it, and an operator finds it among the decisions.
"""

import pytest

from rapid.core.cluster import Phase, Role, RoleProgress
from rapid.core.events import EngineMoved
from tests.core.site import Site, paper_site, with_engines

PREFILL, DECODE = Role.PREFILL, Role.DECODE
BY_HAND = "another hand has made it decode"


@pytest.fixture
def site() -> Site:
    return with_engines(paper_site("uniform"))


def says(site: Site, phase: Phase, role: Role, *, noticed: str = "", error: str = "", life: str = "") -> list[str]:
    said = site.engines["e0"].said
    mark = site.control.roles.instances["e0"].mark
    incarnation = life or said.incarnation
    return site.step(EngineMoved(site.now, RoleProgress("e0", incarnation, mark, phase, role, 0, error, noticed)))


def stands(site: Site) -> tuple[Phase, Role, str]:
    one = site.control.roles.instances["e0"]
    return one.phase, one.role, one.problem


def test_a_role_that_another_hand_has_changed_is_learnt_and_kept_among_the_decisions(site: Site) -> None:
    said = says(site, Phase.WARMING, DECODE, noticed=BY_HAND)
    said += says(site, Phase.SERVING, DECODE)

    assert stands(site) == (Phase.SERVING, DECODE, "")
    assert f"warning e0: {BY_HAND}" in said
    assert "warning e0: serves decode now, though nobody has ordered it" in said
    decision = site.control.last_decision
    assert decision is not None
    assert (decision.by, decision.reason) == ("engine e0", BY_HAND)
    assert decision.changes == (("e0", "prefill", "decode"),)


def test_what_was_put_right_is_kept_among_the_decisions(site: Site) -> None:
    says(site, Phase.SERVING, PREFILL, noticed="the router did not list it; that was put right")

    decision = site.control.last_decision
    assert decision is not None
    assert decision.changes == (("e0", "prefill", "prefill again"),)
    assert stands(site) == (Phase.SERVING, PREFILL, "")


def test_what_cannot_be_put_right_is_the_problem_of_the_instance_for_as_long_as_it_is_said(site: Site) -> None:
    assert says(site, Phase.SERVING, PREFILL, error="the router is away") == ["warning e0: the router is away"]
    assert stands(site) == (Phase.SERVING, PREFILL, "the router is away")
    assert says(site, Phase.SERVING, PREFILL, error="the router is away") == [], "once"
    assert says(site, Phase.SERVING, PREFILL) == []
    assert stands(site) == (Phase.SERVING, PREFILL, "")


def test_an_engine_that_is_lost_serves_nobody_until_it_is_back(site: Site) -> None:
    said = says(site, Phase.FAILED, PREFILL, error="it is lost: connection refused")
    assert said == ["error e0: is out of service: it is lost: connection refused"]
    assert site.control.roles.serving(PREFILL) == 3

    says(site, Phase.WARMING, PREFILL, noticed="it is there again, as prefill")
    assert site.control.roles.serving(PREFILL) == 3, "not before it serves"
    assert says(site, Phase.SERVING, PREFILL) == ["info e0: serves prefill again"]
    assert site.control.roles.serving(PREFILL) == 4


def test_what_another_life_of_the_engine_noticed_is_not_heard(site: Site) -> None:
    before = site.control.last_decision
    assert says(site, Phase.SERVING, DECODE, noticed=BY_HAND, life="another") == []
    assert stands(site) == (Phase.SERVING, PREFILL, "")
    assert site.control.last_decision is before
