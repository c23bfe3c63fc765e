"""What an operator asks of the control loop: every request gets exactly one answer, in the same step."""

import pytest

from rapid.core.cluster import Phase, Role
from rapid.core.commands import Answer
from rapid.core.events import BudgetAsked, EngineGone, PauseAsked, ReleaseAsked, RoleAsked, Started
from tests.core.hosts import W
from tests.core.site import Site, paper_site, two_hosts, with_engines

PREFILL, DECODE = Role.PREFILL, Role.DECODE


def budget(site: Site, budget_w: float, *, domain: str = "", force: bool = False) -> list[str]:
    domain = domain or site.settings.domains[0].name
    return site.step(BudgetAsked(site.now, "r", domain, round(budget_w * W), force, "ann"))


def role(site: Site, instance: str, to: Role | None) -> list[str]:
    return site.step(RoleAsked(site.now, "r", instance, to, "ann"))


def pause(site: Site, paused: bool) -> list[str]:
    return site.step(PauseAsked(site.now, "r", paused, "ann"))


def release(site: Site, node: str) -> list[str]:
    return site.step(ReleaseAsked(site.now, "r", node, "ann"))


def settled(site: Site) -> Site:
    site.run(8.0)
    site.said.clear()
    return site


# ---- budgets ----


def test_a_budget_is_cut_in_the_same_step_and_said_once() -> None:
    site = settled(paper_site("uniform"))

    assert budget(site, 4_000) == [
        "D2 ann: set the budget of domain host",
        "D3 budget: limits fitted to what the budgets leave",
        "grant g0 500 W, g1 500 W, g2 500 W, g3 500 W, g4 500 W, g5 500 W, g6 500 W, g7 500 W",
        "error host: OVER BUDGET by 800 W: cuts are on their way",
        "answer r: domain host: budget 4800 W -> 4000 W",
    ]
    assert site.run(2.0) == ["info host: within its budget again"]
    assert site.limits_w() == [500.0] * 8
    assert site.run(10.0) == []


def test_a_budget_below_the_fallbacks_comes_with_a_warning() -> None:
    site = settled(paper_site("uniform"))

    assert budget(site, 3_600)[-1] == (
        "answer r: domain host: budget 4800 W -> 3600 W; a host that boots comes up at its fallbacks, "
        "which need 4000 W: lower them"
    )


def test_a_raised_budget_is_spent_by_the_policy() -> None:
    site = settled(paper_site("rapid"))

    assert budget(site, 5_600) == [
        "D2 ann: set the budget of domain host",
        "answer r: domain host: budget 4800 W -> 5600 W",
    ]
    assert site.run(2.0)[0] == "D3 rapid: 800 W of the budget are unused"
    assert site.limits_w() == [700.0] * 8


def test_a_budget_below_the_floors_is_refused_with_the_least_that_would_do() -> None:
    site = settled(paper_site("uniform"))

    text = (
        "answer r: BudgetRefused: domain host: budget 3000 W refused, the floors of its GPUs and reserved power need "
        "3200 W; ask for 3200 W or more, or force it (all go to their floors, and it stays over budget by 200 W)"
    )
    assert budget(site, 3_000) == [text]
    assert site.control.ledger.domains["host"].budget_mw == 4_800 * W
    assert site.run(2.0) == []


def test_a_budget_that_is_forced_below_the_floors_leaves_the_domain_over_it() -> None:
    site = settled(paper_site("uniform"))

    said = budget(site, 3_000, force=True)

    assert (
        said[-1] == "answer r: domain host: budget 4800 W -> 3000 W; OVER BUDGET by 200 W with every GPU at its floor"
    )
    assert said[-2] == ("error host: OVER BUDGET by 1800 W: its floors need 3200 W; raise the budget or take GPUs out")
    assert site.run(20.0) == [], "said once"
    assert site.limits_w() == [400.0] * 8
    assert budget(site, 3_200)[-2] == "info host: within its budget again"


def test_a_budget_cut_is_met_by_the_others_while_a_node_is_silent() -> None:
    site = settled(two_hosts())
    site.cut_off.add("n2")
    site.run(10.0)
    site.said.clear()

    said = budget(site, 1_600)

    assert said[2] == "grant g0 200 W, g1 200 W", "n2 keeps the 1,000 W that it may still take"
    assert said[3] == (
        "error room: OVER BUDGET by 600 W: not heard: n2; if one is off, release it (rapidctl node release)"
    )
    assert site.run(5.0) == ["info room: within its budget again"]


def test_an_unknown_domain_is_told_which_there_are() -> None:
    assert budget(settled(paper_site()), 4_800, domain="hall") == [
        "answer r: NotFound: no domain named 'hall' (known: host)"
    ]


# ---- pause ----


def test_paused_the_policy_rests_while_leases_and_budgets_hold() -> None:
    site = with_engines(paper_site("rapid"))
    assert pause(site, True) == [
        "D2 ann: paused policy rapid",
        "answer r: policy rapid paused; leases are kept and budgets hold",
    ]
    for index in range(4):
        site.loads[f"e{index}"] = {"waiting": 6, "oldest_wait_s": 1.5, "ttfts": {1.5: 10}}

    assert site.run(30.0) == []
    assert site.limits_w() == [600.0] * 8, "renewed all the while"
    assert budget(site, 4_000)[2].startswith("grant g0 500 W")
    site.run(2.0)
    assert pause(site, True) == ["answer r: policy rapid is paused already"]
    assert pause(site, False)[-1] == "answer r: policy rapid resumed; leases are kept and budgets hold"
    assert any("watts from decode" in word for word in site.run(1.0))


# ---- release ----


def test_a_silent_node_is_released_and_its_watts_go_to_the_others() -> None:
    site = settled(two_hosts())
    site.cut_off.add("n2")
    site.run(10.0)
    del site.hosts["n2"]  # it is off indeed
    site.said.clear()

    assert release(site, "n2") == [
        "D2 ann: says that node n2 is off",
        "answer r: node n2 released, 1000 W freed",
    ]
    site.run(2.0)
    assert site.limits_w() == [700.0, 700.0]
    assert site.said[2] == "info n2: node is released; was silent"


def test_what_is_freed_counts_gpus_that_were_never_seen() -> None:
    site = two_hosts()
    site.cut_off.update(("n1", "n2"))
    site.run(3.0)

    assert release(site, "n2")[-1] == "answer r: node n2 released, 1400 W freed"


def test_a_node_that_reports_is_not_released() -> None:
    site = settled(two_hosts())

    assert release(site, "n2") == ["answer r: Refused: node n2 reported 0.0 s ago; stop it before you release it"]
    assert release(site, "n9") == ["answer r: NotFound: no node named 'n9' (known: n1, n2)"]


def test_nothing_is_released_before_it_had_time_to_report() -> None:
    """Right after its start a controller has heard nobody; a node that lives must not be taken for silent."""
    site = settled(two_hosts())
    snapshot = site.control.snapshot()
    site.begin(epoch=2, snapshot=snapshot)

    site.now += 0.5
    text = "node n2 was not heard yet, but this controller began only 0.5 s ago; give it 2 s"
    assert release(site, "n2") == [f"answer r: Refused: {text}"]
    assert site.control.ledger.domain_held_mw("room") == 2_000 * W
    site.cut_off.add("n2")
    site.run(3.0)
    assert release(site, "n2")[-1] == "answer r: node n2 released, 1000 W freed"


def test_a_released_node_that_reports_gets_its_share_again() -> None:
    site = settled(two_hosts())
    site.cut_off.add("n2")
    site.run(10.0)
    release(site, "n2")

    site.connect("n2")
    site.run(5.0)

    assert site.limits_w() == [500.0] * 4


# ---- roles ----


def test_an_instance_is_moved_and_pinned() -> None:
    site = with_engines(paper_site("rapid"))

    assert role(site, "e4", PREFILL) == [
        "D2 ann: moves instance e4 and pins it",
        "order e4 to prefill (1.1)",
        "answer r: instance e4: told to change from decode to prefill, and pinned to it",
    ]
    assert role(site, "e4", DECODE) == [
        "answer r: RoleRefused: instance e4: is draining, not serving; wait until it serves"
    ]
    site.moved("e4", Phase.SERVING)
    assert role(site, "e4", PREFILL) == ["answer r: instance e4: serves prefill, and is pinned to it"]
    assert site.control.status(site.now).instances[4].pinned
    assert role(site, "e4", None) == ["answer r: instance e4: no longer pinned to a role"]
    assert not site.control.status(site.now).instances[4].pinned


def test_a_pinned_instance_is_not_moved_by_the_policy() -> None:
    site = with_engines(paper_site("roles"))
    for instance in ("e4", "e5"):
        role(site, instance, DECODE)
    for index in range(4):
        site.loads[f"e{index}"] = {"waiting": 6, "oldest_wait_s": 1.5, "ttfts": {1.5: 10}}

    assert "order e6 to prefill (1.1)" in site.run(1.0)


def test_a_role_that_cannot_be_taken_is_refused_and_pins_nothing() -> None:
    site = with_engines(paper_site("rapid"))
    for index in (5, 6, 7):
        site.step(EngineGone(site.now, f"e{index}", "first", "killed"))

    assert role(site, "e4", PREFILL) == [
        "answer r: RoleRefused: instance e4: is the last that serves decode; move another one in first"
    ]
    assert role(site, "e9", PREFILL) == [
        "answer r: NotFound: no instance named 'e9' (known: e0, e1, e2, e3, e4, e5, e6, e7)"
    ]
    assert not site.control.pins


def test_a_pin_can_be_taken_from_an_instance_that_never_came_back() -> None:
    """Pins outlive the controller; an engine may not."""
    site = with_engines(paper_site("rapid"))
    role(site, "e4", DECODE)
    site.engines.clear()
    site.begin(epoch=2, snapshot=site.control.snapshot())

    assert role(site, "e4", None) == ["answer r: instance e4: no longer pinned to a role"]
    assert not site.control.pins
    assert role(site, "e4", None) == ["answer r: NotFound: no instance named 'e4'"]


# ---- every request is answered ----


def test_every_request_gets_exactly_one_answer() -> None:
    site = with_engines(paper_site("rapid"))
    at_s = site.now
    asked: list[BudgetAsked | RoleAsked | PauseAsked | ReleaseAsked] = [
        BudgetAsked(at_s, "1", "host", 4_000 * W, False, "ann"),
        BudgetAsked(at_s, "2", "host", 1, False, "ann"),
        BudgetAsked(at_s, "3", "host", 1, True, "ann"),
        BudgetAsked(at_s, "4", "nowhere", 4_000 * W, True, "ann"),
        RoleAsked(at_s, "5", "e4", PREFILL, "ann"),
        RoleAsked(at_s, "6", "e4", PREFILL, "ann"),
        RoleAsked(at_s, "7", "e9", None, "ann"),
        PauseAsked(at_s, "8", True, "ann"),
        PauseAsked(at_s, "9", True, "ann"),
        ReleaseAsked(at_s, "10", "n1", "ann"),
        ReleaseAsked(at_s, "11", "n9", "ann"),
    ]
    for event in asked:
        site.step(event)
        answers = [command for command in site.commands[-1] if isinstance(command, Answer)]
        assert [answer.request for answer in answers] == [event.request]
        assert isinstance(site.commands[-1][-1], Answer), "last, when all else is said"
        assert bool(answers[0].text) != bool(answers[0].error)
        assert bool(answers[0].error) == bool(answers[0].kind)


def test_only_the_first_event_starts_a_life_and_time_goes_forward() -> None:
    site = paper_site()
    with pytest.raises(AssertionError, match="only that, is Started"):
        site.control.step(Started(site.now, 0.0, 2, "c"))
    with pytest.raises(AssertionError, match="time went back"):
        site.control.step(PauseAsked(site.now - 1.0, "r", True, "ann"))
