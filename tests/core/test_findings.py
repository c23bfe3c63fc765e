"""Findings: every red and yellow one is planted and seen, with what it says and what to do; what is well is green."""

from dataclasses import replace

import pytest

from rapid.config.node import ENGINES
from rapid.core.errors import ScrapeFault
from rapid.core.findings.base import (
    Finding,
    Grade,
    documents,
    green,
    is_red,
    laid_out,
    merged,
    red,
    summary,
    wrapped,
    yellow,
)
from rapid.core.findings.engine import EngineFacts, engine_findings
from rapid.core.findings.files import (
    CertificateFacts,
    ClockFacts,
    FileFacts,
    certificate_finding,
    clock_finding,
    config_finding,
    disk_finding,
    key_finding,
    skew_finding,
)
from rapid.core.findings.host import (
    GpuFacts,
    HolderFacts,
    LossFacts,
    RightsFacts,
    daemon_finding,
    gpu_findings,
    loss_findings,
    rights_finding,
    writer_findings,
)
from rapid.core.watched import Mover

DAY_S = 86_400.0
CERTIFICATE = CertificateFacts("/t/h1.pem", ("h1", "10.0.0.1"), -DAY_S, 90 * DAY_S, "2027-02-20")
GPU = GpuFacts("GPU-0", 0, 100_000, 700_000, 400_000, 400_000, 400_000)
ROOT = RightsFacts("rapidd (pid 812)", "CAP_SYS_ADMIN", has=True, is_daemon=True)


def only(findings: list[Finding], grade: Grade) -> list[Finding]:
    return [finding for finding in findings if finding.grade is grade]


# ---- putting together ----


def test_what_says_the_same_of_several_is_said_once() -> None:
    first, second = green("gpu", "can be read", "gpu 0"), green("gpu", "can be read", "gpu 1")
    other = red("gpu", "is lost", "reset it", "gpu 2")
    assert merged([first, other, second]) == (replace(first, about=("gpu 0", "gpu 1")), other)


def test_one_red_is_enough_and_yellow_is_not() -> None:
    calm = [green("a", "b"), yellow("a", "b", "c")]
    assert not is_red(calm)
    assert is_red([*calm, red("a", "b", "c")])


def test_the_summary_counts_and_leaves_out_what_there_is_none_of() -> None:
    assert summary([green("a", "b"), green("a", "c"), red("a", "b", "c")]) == "1 red, 2 green"
    assert summary([]) == "nothing to look at"


def test_what_is_not_green_says_what_to_do_and_green_does_not() -> None:
    with pytest.raises(AssertionError):
        Finding(Grade.RED, "gpu", "is lost")
    with pytest.raises(AssertionError):
        Finding(Grade.GREEN, "gpu", "is fine", "nothing")


def test_the_layout_keeps_columns_and_width() -> None:
    findings = [
        red("permission", "rapidd lacks a capability that it cannot do without", "give it", "n1"),
        green("gpu", "ok"),
    ]
    rows = laid_out(findings, 62)
    assert [(row.grade, row.text) for row in rows] == [
        (Grade.RED, "permission  n1: rapidd lacks a capability that it"),
        (None, "            cannot do without"),
        (None, "            do: give it"),
        (Grade.GREEN, "gpu         ok"),
    ]
    assert next(row.text for row in laid_out(findings, None)).endswith("cannot do without")


def test_a_word_longer_than_the_line_stands_alone() -> None:
    assert wrapped("see /a/very/long/path now", 8) == ["see", "/a/very/long/path", "now"]


def test_many_things_are_counted_and_not_listed() -> None:
    (row,) = laid_out([green("nodes", "report", *(f"n{i}" for i in range(12)))], None)
    assert row.text == "nodes  n0, n1, n2, n3, n4, n5, n6, n7 and 4 more: report"


def test_nobody_writes_to_the_terminal_by_a_name() -> None:
    (row,) = laid_out([green("writers", "evil\x1b[2J\nname")], None)
    assert row.text == "writers  evil?[2J?name"


def test_json_has_every_field_and_all_names() -> None:
    names = [f"n{i}" for i in range(12)]
    assert documents([red("nodes", "silent", "look", *names)]) == [
        {"grade": "red", "topic": "nodes", "about": names, "what": "silent", "do": "look"}
    ]


# ---- files and clocks ----


@pytest.mark.parametrize(
    ("changes", "grade", "what", "todo"),
    [
        ({}, Grade.GREEN, "/t/h1.pem holds until 2027-02-20, names h1, 10.0.0.1", ""),
        ({"ends_in_s": 31 * DAY_S}, Grade.GREEN, "holds until", ""),
        ({"ends_in_s": 29 * DAY_S}, Grade.YELLOW, "/t/h1.pem ends in 29 days, on 2027-02-20", "signed anew"),
        ({"ends_in_s": -2 * DAY_S}, Grade.RED, "/t/h1.pem ended 2 days ago, on 2027-02-20", "then restart rapidd"),
        ({"begins_in_s": 7200.0}, Grade.RED, "/t/h1.pem begins in 2.0 h only", "set the clock right"),
        ({"untrusted": "self-signed"}, Grade.RED, "its authority does not vouch for it (self-signed)", "tls.ca"),
    ],
)
def test_certificates(changes: dict[str, float | str], grade: Grade, what: str, todo: str) -> None:
    found = certificate_finding(replace(CERTIFICATE, **changes), "rapidd")  # type: ignore[arg-type]
    assert found.grade is grade
    assert what in found.what
    assert todo in found.todo


@pytest.mark.parametrize(
    ("mode", "grade", "what"),
    [
        (0o600, Grade.GREEN, "is for its owner alone"),
        (0o400, Grade.GREEN, "is for its owner alone"),
        (0o640, Grade.YELLOW, "has mode 0640: its group may read it"),
        (0o620, Grade.RED, "has mode 0620: its group may change it"),
        (0o604, Grade.RED, "has mode 0604: every user may read or change it"),
        (0o602, Grade.RED, "has mode 0602: every user may read or change it"),
    ],
)
def test_keys_are_for_one_pair_of_eyes(mode: int, grade: Grade, what: str) -> None:
    found = key_finding(FileFacts("/t/h1.key", mode))
    assert (found.grade, found.what) == (grade, f"/t/h1.key {what}")
    assert grade is Grade.GREEN or "chmod 600 /t/h1.key" in found.todo


@pytest.mark.parametrize(
    ("mode", "grade"), [(0o644, Grade.GREEN), (0o664, Grade.YELLOW), (0o646, Grade.RED), (0o666, Grade.RED)]
)
def test_who_can_write_the_configuration_sets_the_power(mode: int, grade: Grade) -> None:
    found = config_finding(FileFacts("/e/rapidd.toml", mode))
    assert found.grade is grade
    assert grade is Grade.GREEN or f"mode {mode:04o}" in found.what


def test_a_full_disk_is_red_and_says_what_it_costs() -> None:
    found = disk_finding("/v", 2**20, lost="no epoch can be taken")
    assert (found.grade, found.what) == (Grade.RED, "/v has 1.0 MiB left: no epoch can be taken")
    assert disk_finding("/v", 2**30, lost="").grade is Grade.GREEN


def test_a_clock_that_nobody_sets_is_yellow() -> None:
    assert clock_finding(ClockFacts(True, 0.004)) == green("clock", "synchronised, within 4 ms")
    assert clock_finding(ClockFacts(False)).grade is Grade.YELLOW
    assert clock_finding(ClockFacts(None)).grade is Grade.YELLOW


@pytest.mark.parametrize(
    ("skew_s", "doubt_s", "grade"),
    [
        (0.2, 0.01, Grade.GREEN),
        (-0.9, 0.0, Grade.GREEN),
        (1.5, 0.1, Grade.YELLOW),
        (1.5, 0.6, Grade.GREEN),  # it may be less than a second: the answer took long
        (-90.0, 0.1, Grade.RED),
        (90.0, 31.0, Grade.YELLOW),
    ],
)
def test_skew_counts_as_far_as_it_is_certain(skew_s: float, doubt_s: float, grade: Grade) -> None:
    found = skew_finding("h1", skew_s, doubt_s)
    assert (found.grade, found.about) == (grade, ("h1",))
    if grade is not Grade.GREEN:
        assert f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the controller's" in found.what


# ---- a host ----


def test_a_host_in_order_is_green_all_over() -> None:
    found = [
        daemon_finding(812),
        rights_finding(ROOT),
        *gpu_findings([GPU, replace(GPU, index=1)], running=True),
        *loss_findings([GPU], LossFacts(60.0, 800_000)),
    ]
    assert {finding.grade for finding in found} == {Grade.GREEN}


def test_a_host_without_rapidd_is_yellow() -> None:
    found = daemon_finding(None)
    assert (found.grade, found.todo) == (Grade.YELLOW, "systemctl start rapidd")


@pytest.mark.parametrize(
    ("daemon", "todo"),
    [
        (True, "systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: --cap-add=SYS_ADMIN"),
        (False, "run this check as root; systemd: AmbientCapabilities=CAP_SYS_ADMIN; container: --cap-add=SYS_ADMIN"),
    ],
)
def test_no_permission_is_red(daemon: bool, todo: str) -> None:
    found = rights_finding(replace(ROOT, has=False, is_daemon=daemon))
    assert found == red("permission", "rapidd (pid 812) lacks CAP_SYS_ADMIN: no limit can be set", todo)


def test_amd_asks_for_root_itself() -> None:
    found = rights_finding(RightsFacts("rapidd (pid 812)", "root", has=False, is_daemon=True))
    assert (found.grade, found.what) == (Grade.RED, "rapidd (pid 812) is not root: no limit can be set")
    assert "User=root" in found.todo
    assert rights_finding(RightsFacts("rapidd (pid 812)", "root", has=True, is_daemon=True)).what.endswith(" is root")


def test_simulated_gpus_need_no_permission() -> None:
    assert rights_finding(replace(ROOT, needs="", has=False)).grade is Grade.GREEN


def test_who_else_could_set_limits_is_named_and_who_never_does_is_not() -> None:
    (found,) = writer_findings([replace(GPU, holders=HELD)], sees_all=True)
    assert (found.grade, found.about) == (Grade.YELLOW, ("gpu 0",))
    assert found.what == "nv-hostengine (pid 31, user root) could set its limit too"
    assert writer_findings([replace(GPU, holders=HELD[:1])], sees_all=True) == [
        green("writers", "nobody else who could set limits holds a GPU open now")
    ]


def test_limits_that_others_have_moved_are_told_and_a_driver_reload_is_nobody() -> None:
    moved = replace(GPU, moves=((Mover.PROCESS, 3), (Mover.RELOAD, 1)))
    (found,) = writer_findings([moved], sees_all=True)
    assert found.what == "since rapidd started, its limit was moved by others (3 by another process) and set back"
    assert writer_findings([replace(GPU, moves=((Mover.RELOAD, 1),))], sees_all=True)[0].grade is Grade.GREEN


def test_what_cannot_be_seen_is_not_called_fine() -> None:
    (found,) = writer_findings([GPU], sees_all=False)
    assert found == yellow("writers", "what other users run cannot be seen from here", "run this check as root")


HELD = (HolderFacts(7, "nvidia-persistenced", "root"), HolderFacts(31, "nv-hostengine", "root"))


@pytest.mark.parametrize(
    ("changes", "grade", "topic", "what"),
    [
        ({"fallback_mw": None, "enforced_mw": None}, Grade.RED, "range", "has no fallback: rapidd will not start"),
        ({"given_up": True}, Grade.RED, "gpu", "is not managed any more: others fight over its limit"),
        ({"problem": "GPU-0 is lost", "enforced_mw": None}, Grade.RED, "gpu", "cannot be read: GPU-0 is lost"),
        (
            {"fallback_mw": 90_000, "enforced_mw": None},
            Grade.RED,
            "range",
            "fallback 90 W is outside what it accepts, 100 W..700 W",
        ),
        ({"fallback_mw": 701_000}, Grade.RED, "range", "fallback 701 W is outside"),
        ({"floor_mw": 700_000, "fallback_mw": 700_000}, Grade.YELLOW, "range", "accepts 700 W and nothing else"),
        ({"unmanageable": "MIG is on"}, Grade.YELLOW, "gpu", "cannot be managed: MIG is on"),
        ({"enforced_mw": 700_000, "requested_mw": 700_000}, Grade.YELLOW, "limit", "above its fallback 400 W"),
        ({"enforced_mw": 300_000}, Grade.YELLOW, "limit", "enforces 300 W, though 400 W was asked for: a BMC"),
        ({"lacks": ("energy counter", "Xid events")}, Grade.YELLOW, "driver", "no energy counter, no Xid events"),
        ({"warnings": ("persistence mode is off",)}, Grade.YELLOW, "persistence", "persistence mode is off"),
        ({"warnings": ("driver 470 is old",)}, Grade.YELLOW, "driver", "driver 470 is old"),
    ],
)
def test_what_is_wrong_with_a_gpu_is_found(changes: dict[str, object], grade: Grade, topic: str, what: str) -> None:
    found = gpu_findings([replace(GPU, **changes)], running=False)  # type: ignore[arg-type]
    (wrong,) = [finding for finding in found if finding.grade is not Grade.GREEN]
    assert (wrong.grade, wrong.topic, wrong.about) == (grade, topic, ("gpu 0",))
    assert what in wrong.what
    assert wrong.todo


def test_a_limit_above_the_fallback_is_a_grant_while_rapidd_runs() -> None:
    granted = replace(GPU, enforced_mw=700_000, requested_mw=700_000)
    assert only(gpu_findings([granted], running=True), Grade.YELLOW) == []


def test_on_loss_every_gpu_counts_and_an_unmanageable_one_at_its_ceiling() -> None:
    stuck = replace(GPU, index=1, unmanageable="MIG is on")
    (calm,) = loss_findings([GPU, stuck], LossFacts(60.0, 1_100_000))
    assert calm == green(
        "on loss",
        "within 60 s 2 GPUs together may draw 1100 W at most (1 counted at the ceiling, as rapidd cannot bring it "
        "down); power.hard_budget is 1100 W",
    )
    (wrong,) = loss_findings([GPU, stuck], LossFacts(60.0, 1_000_000))
    assert wrong == red(
        "on loss",
        "within 60 s 2 GPUs together may draw 1100 W at most (1 counted at the ceiling, as rapidd cannot bring it "
        "down), above power.hard_budget, 1000 W",
        "lower power.fallback, or raise power.hard_budget",
    )


@pytest.mark.parametrize("changes", [{"unmanageable": "MIG is on"}, {"given_up": True}, {"problem": "is lost"}])
def test_on_loss_who_cannot_be_brought_down_counts_at_the_ceiling(changes: dict[str, object]) -> None:
    (found,) = loss_findings([replace(GPU, **changes)], LossFacts(60.0, None))  # type: ignore[arg-type]
    assert "1 GPU may draw 700 W at most (1 counted at the ceiling" in found.what


def test_on_loss_who_was_not_looked_at_is_not_called_fine() -> None:
    (found,) = loss_findings([GPU], LossFacts(60.0, None, uncounted=2))
    assert found.grade is Grade.YELLOW
    assert found.what.endswith("may draw 400 W at most; 2 more are not counted")


def test_on_loss_a_host_without_a_bound_of_its_own_says_so() -> None:
    (found,) = loss_findings([GPU], LossFacts(5.0, None))
    what = "within 5 s 1 GPU may draw 400 W at most; power.hard_budget sets no bound of this host's own"
    assert found == green("on loss", what)


# ---- the metrics of engines ----


@pytest.mark.parametrize(
    ("fault", "grade", "todo"),
    [
        (None, Grade.GREEN, ""),
        (ScrapeFault.UNREACHABLE, Grade.YELLOW, "start the engine; if it runs, put engine.i0.url right"),
        (ScrapeFault.SILENT, Grade.YELLOW, "whether the engine hangs"),
        (ScrapeFault.METRICS, Grade.YELLOW, "only after its first request"),
        (ScrapeFault.KIND, Grade.RED, "put engine.i0.kind or engine.i0.url right"),
        (ScrapeFault.ANSWER, Grade.RED, "SGLang shows them at /metrics when it is started with --enable-metrics"),
    ],
)
def test_an_engine_that_may_come_is_yellow_and_a_wrong_address_is_red(
    fault: ScrapeFault | None, grade: Grade, todo: str
) -> None:
    url = "http://127.0.0.1:30000/metrics"
    facts = EngineFacts("i0", "sglang", url, fault, "answered 404, must be 200" if fault else "")
    (found,) = engine_findings([facts])
    assert (found.grade, found.topic, found.about) == (grade, "engine", ("i0",))
    assert todo in found.todo
    if fault is not None:
        assert found.what == f"{url} answered 404, must be 200"


@pytest.mark.parametrize("fault", ScrapeFault)
@pytest.mark.parametrize("kind", ENGINES)
def test_for_every_kind_of_engine_and_fault_there_is_something_to_do(kind: str, fault: ScrapeFault) -> None:
    assert all(one.todo for one in engine_findings([EngineFacts("i0", kind, "http://[::1]:1/", fault, "is wrong")]))
