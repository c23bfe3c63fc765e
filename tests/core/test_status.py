"""What an operator sees of the cluster in each situation, and what was decided about what."""

from dataclasses import replace

import pytest

from rapid.core.cluster import GpuHealth, NodeHealth, Phase, Role
from rapid.core.events import BudgetAsked, EngineGone, NodeHeard, ReleaseAsked, RoleAsked
from rapid.core.facility.nouns import DomainTruth
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, Status
from rapid.core.watched import GpuWatch, NodeWatch
from tests.core.engines import load
from tests.core.hosts import W
from tests.core.site import Site, paper_site, two_hosts, with_engines

PREFILL, DECODE = Role.PREFILL, Role.DECODE


def status(site: Site) -> Status:
    return site.control.status(site.now)


def node(site: Site, name: str = "n1") -> NodeStatus:
    return next(each for each in status(site).nodes if each.node == name)


def gpu(site: Site, name: str = "g0") -> GpuStatus:
    return next(each for one in status(site).nodes for each in one.gpus if each.gpu == name)


def domain(site: Site) -> DomainStatus:
    """Its books; tests/facility has what is true of it besides."""
    return replace(status(site).domains[0], truth=DomainTruth())


def instance(site: Site, name: str) -> InstanceStatus:
    return next(each for each in status(site).instances if each.instance == name)


# ---- before and after the first report ----


def test_before_anything_was_heard_ceilings_are_booked_and_nothing_is_known() -> None:
    site = two_hosts()

    assert domain(site) == DomainStatus(
        "room",
        "",
        2_200 * W,
        200 * W,
        2_800 * W,
        None,
        True,
        "not heard: n1, n2; if one is off, release it (rapidctl node release)",
    )
    assert node(site) == NodeStatus("n1", "room", NodeHealth.NEVER_HEARD, float("inf"), "", ())
    assert status(site).last_decision is None
    assert status(site).slo.ttft_attainment is None


def test_when_all_is_well() -> None:
    site = two_hosts()
    site.run(5.0)

    assert domain(site) == DomainStatus("room", "", 2_200 * W, 200 * W, 2_000 * W, 2_000 * W, False, "")
    assert node(site).health is NodeHealth.REPORTING
    assert node(site).age_s == pytest.approx(0.0)
    assert gpu(site) == GpuStatus(
        "g0", 0, 100 * W, 700 * W, 400 * W, 500 * W, 500 * W, 500 * W, 500 * W, True, GpuHealth.OK, "", ""
    )
    seen = status(site)
    assert (seen.epoch, seen.controller_id, seen.policy, seen.paused) == (1, "c", "uniform", False)
    assert seen.wall_s == pytest.approx(1.75e9 + 5.0)
    assert seen.last_decision is not None
    assert seen.last_decision.reason == "equal shares of the budget"
    assert seen.watts_moved_mw == 0, "a first target is no move"


# ---- trouble ----


def test_a_silent_node_has_an_age_and_no_draw_and_so_has_its_domain() -> None:
    site = two_hosts()
    site.run(5.0)
    site.cut_off.add("n2")
    site.run(4.0)

    assert node(site, "n2").health is NodeHealth.SILENT
    assert node(site, "n2").age_s == pytest.approx(4.0)
    assert gpu(site, "h0").draw_mw is None
    assert (gpu(site, "h0").limit_mw, gpu(site, "h0").held_mw) == (500 * W, 500 * W), "the last that is known"
    assert (domain(site).draw_mw, domain(site).held_mw) == (None, 2_000 * W)


def test_a_released_node_counts_for_nothing() -> None:
    site = two_hosts()
    site.run(5.0)
    site.cut_off.add("n2")
    site.run(3.0)
    del site.hosts["n2"]
    site.step(ReleaseAsked(site.now, "r", "n2", "ann"))

    assert node(site, "n2") == NodeStatus("n2", "room", NodeHealth.RELEASED, pytest.approx(3.0), "", ())  # type: ignore[arg-type]
    assert domain(site).draw_mw == 1_000 * W


def test_an_unmanaged_gpu_says_what_is_wrong_with_it() -> None:
    site = two_hosts()
    site.run(5.0)
    site.hosts["n1"].devices["g0"].denies = True
    site.step(BudgetAsked(site.now, "r", "room", 2_000 * W, False, "ann"))
    site.run(5.0)

    seen = gpu(site)
    assert (seen.managed, seen.health) == (False, GpuHealth.DENIED)
    assert seen.problem == "gpu g0: no permission to set a limit"
    assert (seen.limit_mw, seen.held_mw) == (500 * W, 700 * W)
    assert domain(site).over_budget is False, "the others make room"


def test_a_domain_over_its_budget_says_what_would_help() -> None:
    site = two_hosts()
    site.run(5.0)
    site.step(BudgetAsked(site.now, "r", "room", 500 * W, True, "ann"))
    site.run(3.0)

    assert domain(site).over_budget
    assert domain(site).advice == "its floors need 600 W; raise the budget or take GPUs out"


# ---- instances ----


def test_an_instance_in_the_middle_of_a_change_shows_where_it_stands() -> None:
    site = with_engines(paper_site("rapid"))
    site.step(RoleAsked(site.now, "r", "e4", PREFILL, "ann"))
    site.moved("e4", Phase.WARMING)

    seen = instance(site, "e4")
    assert (seen.role, seen.phase, seen.target_role, seen.pinned) == (DECODE, Phase.WARMING, PREFILL, True)
    assert seen.gpus == ("g4",)
    assert gpu(site, "g4").instance == "e4"
    assert seen.load is not None


def test_an_instance_that_is_gone_stays_on_its_gpu_until_another_takes_it() -> None:
    site = with_engines(paper_site("rapid"))
    site.step(EngineGone(site.now, "e4", "first", "killed"))

    assert instance(site, "e4").phase is Phase.GONE
    assert gpu(site, "g4").instance == "e4"


def test_a_load_that_speaks_of_another_role_is_shown_as_a_problem() -> None:
    """The engine says one thing, its exporter another: somebody is misconfigured."""
    site = with_engines(paper_site("rapid"))
    site.engines["e0"].role = DECODE
    site.run(1.0)

    assert instance(site, "e0").problem == "its load says decode, the engine said prefill"
    assert instance(site, "e1").problem == ""


def test_a_node_that_finds_an_engine_on_other_gpus_is_heard() -> None:
    site = with_engines(paper_site("rapid"))
    site.run(1.0)
    host = site.hosts["n1"]
    for gpus, problem in ((("g1",), "its node finds it on g1, the engine said g0"), (("g0",), ""), ((), "")):
        said = replace(load("e0", PREFILL, at_s=host.now), gpus=gpus)
        site.step(NodeHeard(site.now, host.report((said,))))
        assert instance(site, "e0").problem == problem


def test_why_a_load_is_missing_is_said_once_and_shown_while_it_lasts() -> None:
    site = with_engines(paper_site("rapid"))
    site.run(1.0)
    host = site.hosts["n1"]

    def heard(*problems: tuple[str, str]) -> list[str]:
        return site.step(NodeHeard(site.now, replace(host.report(), load_problems=problems)))

    hangs = ("e0", "http://127.0.0.1:8000/metrics gave no whole page within 2 s")
    words = [each for each in heard(hangs) if "load:" in each]
    assert len(words) == 1
    assert "load: http://127.0.0.1:8000/metrics gave no whole page within 2 s" in words[0]
    assert instance(site, "e0").problem == f"load: {hangs[1]}"
    assert instance(site, "e1").problem == ""
    assert [each for each in heard(hangs) if "load:" in each] == []
    heard()
    assert instance(site, "e0").problem == ""


def test_attainment_and_quantiles_are_shown() -> None:
    site = with_engines(paper_site("rapid"))
    site.loads["e0"] = {"ttfts": {0.5: 30, 2.0: 10}, "tpots": {0.02: 40}}
    site.run(1.0)

    seen = status(site).slo
    assert (seen.ttft_attainment, seen.tpot_attainment, seen.finished) == (0.75, 1.0, 40)
    assert seen.ttft_window_s == pytest.approx(1.6)
    site.run(10.0)
    assert status(site).slo.ttft_window_s is None
    assert status(site).slo.ttft_attainment == 0.75


# ---- decisions ----


def test_a_decision_says_who_when_why_on_what_and_what_changed() -> None:
    site = with_engines(paper_site("rapid"))
    for index in range(4):
        site.loads[f"e{index}"] = {"waiting": 6, "oldest_wait_s": 1.5}
    site.run(0.5)

    decision = site.control.last_decision

    assert decision is not None
    assert (decision.id, decision.by, decision.at_s) == ("D2", "rapid", site.now)
    assert decision.wall_s == pytest.approx(1.75e9 + site.now - 1_000.0)
    assert decision.reason == "prefill is short: TTFT 1500 ms over 1000 ms, 6.0 waiting each; watts from decode"
    assert dict(decision.inputs)["decode_queue"] == 0.0
    assert decision.changes[0] == ("g4", "600 W", "575 W") or decision.changes[0] == ("g0", "600 W", "625 W")
    assert len(decision.changes) == 8


# ---- what nodes notice ----


def notice(site: Site, watch: NodeWatch, **of_gpus: GpuWatch) -> None:
    """The next report of n1 says this of the node, and of its GPUs by name."""
    report = site.hosts["n1"].report()
    gpus = tuple(replace(one, watch=of_gpus.get(one.gpu, one.watch)) for one in report.gpus)
    site.control.step(NodeHeard(site.now, replace(report, watch=watch, gpus=gpus)))


def test_what_a_node_notices_is_in_the_status() -> None:
    site = two_hosts()
    site.run(5.0)
    watch, of_gpu = NodeWatch(watched_s=60.0, over_s=2.0, excursions=1), GpuWatch(repairs=2, xids=1, xid=79)
    notice(site, watch, g0=of_gpu)
    assert node(site).watch == watch
    assert gpu(site).watch == of_gpu
    assert node(site, "n2").watch == NodeWatch()


def test_a_gpu_that_its_node_gave_up_is_red_and_left_out_at_once() -> None:
    site = two_hosts()
    site.run(5.0)
    notice(site, NodeWatch(), g0=GpuWatch(unmanaged="its limit was moved again"))
    assert (gpu(site).managed, gpu(site).problem) == (False, "its limit was moved again")
    assert gpu(site).held_mw == gpu(site).ceiling_mw


def test_how_much_an_instance_is_slowed_by_its_limits_is_the_mean_over_its_gpus() -> None:
    site = with_engines(paper_site("rapid"))
    name = next(iter(site.control.roles.instances))
    gpus = site.control.roles.instances[name].hello.gpus
    assert instance(site, name).cap_bound is None, "its node cannot tell"
    notice(site, NodeWatch(), **{one: GpuWatch(cap_bound=0.25) for one in gpus})
    assert instance(site, name).cap_bound == 0.25
    notice(site, NodeWatch(), **{one: GpuWatch() for one in gpus})
    assert instance(site, name).cap_bound is None
