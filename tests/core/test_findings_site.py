"""Findings of a controller and its nodes: each red and yellow one is planted in a cluster that is in order."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rapid.core.cluster import GpuHealth, NodeHealth, Phase
from rapid.core.findings.base import Finding, Grade
from rapid.core.findings.files import CertificateFacts
from rapid.core.findings.site import (
    NodeFacts,
    asked_findings,
    domain_findings,
    gpu_findings,
    node_findings,
    policy_findings,
    version_findings,
    watch_findings,
)
from rapid.core.status import GpuStatus, NodeStatus, Status
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from tests.ctl.cluster import picture

DAY_S = 86_400.0


def everything(status: Status) -> list[Finding]:
    return [
        *node_findings(status.nodes),
        *gpu_findings(status.nodes),
        *watch_findings(status.nodes),
        *domain_findings(status),
        *policy_findings(status),
    ]


def with_node(change: Callable[[NodeStatus], NodeStatus]) -> Status:
    """The cluster with its first node changed."""
    good = picture()
    return replace(good, nodes=(change(good.nodes[0]), *good.nodes[1:]))


METER = (
    "there: rapidd --check; if only its meter reads high, raise ledger.draw_tolerance; "
    "it is managed again when it obeys"
)


def with_gpu(**changes: object) -> Status:
    """The cluster with its first GPU changed."""

    def change(node: NodeStatus) -> NodeStatus:
        changed: GpuStatus = replace(node.gpus[0], **changes)  # type: ignore[arg-type]
        return replace(node, gpus=(changed, *node.gpus[1:]))

    return with_node(change)


def with_rack(**changes: object) -> Status:
    good = picture()
    return replace(good, domains=(good.domains[0], replace(good.domains[1], **changes)))  # type: ignore[arg-type]


def failing(status: Status, phase: Phase = Phase.FAILED) -> Status:
    first, *others = status.instances
    return replace(status, instances=(replace(first, phase=phase, problem="no memory"), *others))


def wrong(status: Status) -> Finding:
    """The one finding that is not green."""
    (found,) = [finding for finding in everything(status) if finding.grade is not Grade.GREEN]
    return found


def test_a_cluster_in_order_is_green_all_over() -> None:
    found = everything(picture())
    assert {finding.grade for finding in found} == {Grade.GREEN}
    assert {finding.topic for finding in found} == {"node", "gpu", "on loss", "policy", "engine"}


@pytest.mark.parametrize(
    ("status", "topic", "about", "what", "todo"),
    [
        (
            with_node(lambda node: replace(node, health=NodeHealth.SILENT, age_s=63.0, problem="connection refused")),
            "node",
            "h1",
            "has been silent for 63 s and is still booked for 1250 W: connection refused",
            "there: systemctl status rapidd, rapidd --check; if it has no power: rapidctl node release NODE",
        ),
        (
            with_node(lambda node: replace(node, health=NodeHealth.NEVER_HEARD, age_s=float("inf"))),
            "node",
            "h1",
            "was never heard and is booked at its ceilings",
            "there: systemctl status rapidd, rapidd --check",
        ),
        (
            with_gpu(managed=False, problem="reads back 700 W"),
            "gpu",
            "h1/0",
            "is not managed, and booked at 650 W: reads back 700 W",
            METER,
        ),
        (
            with_gpu(managed=False, watch=GpuWatch(unmanaged="fenced: another process fights over its limit")),
            "gpu",
            "h1/0",
            "is not managed, and booked at 650 W: fenced: another process fights over its limit",
            "put that right, then there: systemctl reload rapidd",
        ),
        (
            with_gpu(health=GpuHealth.DENIED, problem="no permission"),
            "gpu",
            "h1/0",
            "denied: no permission",
            "there: rapidd --check; give rapidd CAP_SYS_ADMIN",
        ),
        (
            with_node(lambda node: replace(node, watch=NodeWatch(excursions=1, excursion="draws 1300 W of 1250 W"))),
            "excursion",
            "h1",
            "draws 1300 W of 1250 W",
            "wait: the node cuts by itself; if it stays, find the GPU that draws above its limit",
        ),
        (
            with_rack(over_budget=True, advice="2750 W would do"),
            "budget",
            "rack1",
            "over budget: 2400 W held or reserved, above 2600 W",
            "2750 W would do",
        ),
        (
            with_rack(budget_mw=1_900_000, reserved_mw=0),
            "on loss",
            "rack1",
            "when the controller is lost, 2000 W may be drawn, above its budget 1900 W",
            "lower power.fallback on its nodes, or: rapidctl budget set rack1 2000W",
        ),
        (
            failing(picture()),
            "engine",
            "p0",
            "failed: no memory",
            "look at its log on h1, then start it again",
        ),
        (
            failing(picture(), Phase.UNCERTAIN),
            "engine",
            "p0",
            "uncertain: no memory",
            "look at its log on h1, then start it again",
        ),
    ],
)
def test_what_is_red_is_found(status: Status, topic: str, about: str, what: str, todo: str) -> None:
    found = wrong(status)
    assert (found.grade, found.topic, found.about) == (Grade.RED, topic, (about,))
    assert (found.what, found.todo) == (what, todo)


def test_floors_that_do_not_fit_are_red_and_say_what_would_do() -> None:
    found = [f for f in domain_findings(with_rack(budget_mw=1_599_000)) if f.grade is Grade.RED]
    assert [(f.topic, f.what) for f in found] == [
        ("budget", "even all floors need 1600 W, above its budget 1599 W"),
        ("on loss", "when the controller is lost, 2000 W may be drawn, above its budget 1599 W"),
    ]
    assert found[0].todo == "rapidctl budget set rack1 1600W, or take GPUs out"


def test_who_is_not_heard_or_does_not_obey_keeps_what_it_holds_on_loss() -> None:
    silent = with_node(lambda node: replace(node, health=NodeHealth.SILENT))
    unmanaged = with_gpu(managed=False, held_mw=750_000)
    for status, most_w in ((picture(), 2000), (silent, 1250 + 1000), (unmanaged, 750 + 1500)):
        (rack,) = [f for f in domain_findings(status) if f.topic == "on loss" and f.about == ("rack1",)]
        assert f"{most_w} W may be drawn" in rack.what


def test_what_is_booked_for_gpus_that_nobody_has_seen_counts_on_loss() -> None:
    status = with_rack(held_mw=2_400_000 + 1_500_000, budget_mw=3_200_000)
    (rack,) = [f for f in domain_findings(status) if f.about == ("rack1",)]
    assert rack.what == "when the controller is lost, 3500 W may be drawn, above its budget 3200 W"


@pytest.mark.parametrize(
    ("status", "topic", "what"),
    [
        (replace(picture(), paused=True), "policy", "rapid is paused"),
        (replace(picture(), instances=()), "engine", "none is attached"),
        (failing(picture(), Phase.SERVING), "engine", "no memory"),
        (with_node(lambda node: replace(node, health=NodeHealth.RELEASED)), "node", "was released"),
        (with_gpu(watch=GpuWatch(xids=2, xid=79)), "xid", "has reported 2 errors, the last is Xid 79"),
        (
            with_gpu(
                watch=GpuWatch(moves=((Mover.PROCESS, 3), (Mover.RELOAD, 1)), repairs=3, last_move="600 to 700 W")
            ),
            "writers",
            "its limit was moved without us (3 by another process) and set back 3 times; the last: 600 to 700 W",
        ),
        (with_node(lambda node: replace(node, watch=NodeWatch(excursions=2))), "excursion", "by itself 2 times"),
        (
            with_node(lambda node: replace(node, watch=NodeWatch(watched_s=1000.0, over_s=4.0, unmeasured_s=7.0))),
            "compliance",
            "over its leave for 4 s, unmeasured for 7 s, of 1000 s",
        ),
    ],
)
def test_what_is_yellow_is_found(status: Status, topic: str, what: str) -> None:
    found = wrong(status)
    assert (found.grade, found.topic) == (Grade.YELLOW, topic)
    assert what in found.what


def test_a_driver_that_was_loaded_anew_is_no_writer() -> None:
    status = with_gpu(watch=GpuWatch(moves=((Mover.RELOAD, 2),), repairs=2))
    assert watch_findings(status.nodes) == []


# ---- what nodes say of themselves ----


def test_a_node_that_answers_in_order_is_green() -> None:
    certificate = CertificateFacts("h1:7601", ("h1",), -DAY_S, 90 * DAY_S, "2027-02-15")
    node = NodeFacts("h1", version="1.0", skew_s=0.1, certificate=certificate)
    assert {finding.grade for finding in asked_findings([node])} == {Grade.GREEN}


@pytest.mark.parametrize(
    ("facts", "grade", "topic", "what"),
    [
        (NodeFacts("h1", problem="nobody listens there"), Grade.YELLOW, "reach", "could not be asked: nobody listens"),
        (NodeFacts("h1", skew_s=-90.0), Grade.RED, "clock", "its clock is 90.0 s behind the controller's"),
        (NodeFacts("h1", unmanageable=(("h1/3", "MIG is on"),)), Grade.YELLOW, "gpu", "cannot be managed: MIG is on"),
        (NodeFacts("h1", warnings=(("h1/3", "persistence mode is off"),)), Grade.YELLOW, "driver", "persistence mode"),
        (
            NodeFacts("h1", certificate=CertificateFacts("h1:7601", (), -DAY_S, -3600.0, "2026-11-17")),
            Grade.RED,
            "certificate",
            "h1:7601 ended 0 days ago, on 2026-11-17",
        ),
    ],
)
def test_what_a_node_says_of_itself_is_judged(facts: NodeFacts, grade: Grade, topic: str, what: str) -> None:
    (found,) = [finding for finding in asked_findings([facts]) if finding.grade is not Grade.GREEN]
    assert (found.grade, found.topic) == (grade, topic)
    assert what in found.what


def test_versions_that_differ_are_yellow() -> None:
    nodes = [NodeFacts("h1", version="1.0"), NodeFacts("h2", version="1.1"), NodeFacts("h3", problem="is down")]
    (one,) = version_findings("1.1", "1.1", nodes)
    assert (one.grade, one.about, one.what) == (Grade.YELLOW, ("h1",), "rapidd is 1.0, the controller 1.1")
    (one,) = version_findings("1.2", "1.1", nodes[1:])
    assert (one.about, one.what) == ((), "rapidctl is 1.2, the controller 1.1")
    assert [f.grade for f in version_findings("1.1", "", nodes[1:])] == [Grade.GREEN]
    assert version_findings("1.1", "", nodes[2:]) == [], "nobody has told"
