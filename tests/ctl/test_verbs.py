"""The verbs that change something, and those that explain: what they ask of the controller and what they say."""

import json
from dataclasses import replace

import pytest

from rapid.core.cluster import NodeHealth, Role
from tests.ctl.cluster import MOVE, OLDER, broken, picture
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController

WHY = """\
d7  TTFT p90 1.40 s is above 1.00 s and TPOT has room: 50 W from decode to prefill
12 s ago, 2026-11-17 11:59:48, by rapid

RESTED ON   VALUE
TTFT p90      1.4  s
TPOT p90       31  ms
donor      decode

CHANGED  BEFORE  AFTER    NOW      WHAT
p0       decode  prefill  prefill  instance on h1
h1/0     600 W   650 W    650 W    GPU-aa00, p0
h1/1     600 W   550 W    600 W    GPU-aa01, d0
"""
DECISIONS = """\
ID  WHEN                 BY                 CHANGES  REASON
d7  2026-11-17 11:59:48  rapid                    3  TTFT p90 1.40 s is above 1.00 s and TPOT has room: 50 W from \
decode to prefill
d6  2026-11-17 10:53:20  operator ann@ops1        1  budget of rack1 from 2500 W to 2400 W
"""


# ---- budget ----


def test_budget_get_shows_all_or_one(ctl: Ctl) -> None:
    head = "DOMAIN   BUDGET W  RESERVED W  HELD W  FREE W  DRAW W  STATE\n"
    site = "site         9000         500    2400    6100    2234  ok\n"
    assert ctl("budget", "get").stdout == f"{head}{site}  rack1      2600           0    2400     200    2234  ok\n"
    one = json.loads(ctl("budget", "get", "rack1", "--json").stdout)
    assert [(domain["domain"], domain["free_w"]) for domain in one["domains"]] == [("rack1", 200.0)]


def test_budget_of_an_unknown_domain_is_refused_with_those_that_exist(ctl: Ctl) -> None:
    for arguments in (("get", "rakc1"), ("set", "rakc1", "3kW")):
        result = ctl("budget", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "rapidctl: no domain named 'rakc1' (known: site, rack1)\n"


def test_a_lower_budget_is_set_without_a_question(ctl: Ctl, controller: FakeController) -> None:
    result = ctl("budget", "set", "rack1", "2.45kW")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "budget of rack1 is 2450 W\n", "")
    assert controller.asked == [("budget", "rack1", 2_450_000, False)]


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (("2700W",), "raise the budget of rack1 from 2600 W to 2700 W"),
        (("2000W", "--force"), "force the budget of rack1 from 2600 W to 2000 W, even if its floors do not fit"),
    ],
)
def test_a_raise_or_a_force_needs_a_yes(
    ctl: Ctl, controller: FakeController, arguments: tuple[str, ...], question: str
) -> None:
    result = ctl("budget", "set", "rack1", *arguments)
    assert (result.exit_code, result.stdout, controller.asked) == (1, "", [])
    assert result.stderr == f"rapidctl: not done without a yes: {question}; this is no terminal to ask on: add --yes\n"
    assert ctl("budget", "set", "rack1", *arguments, "--yes").exit_code == 0
    assert len(controller.asked) == 1


def test_a_budget_that_the_floors_do_not_fit_is_refused_with_the_smallest_that_would_do(
    ctl: Ctl, controller: FakeController
) -> None:
    result = ctl("budget", "set", "rack1", "1500W", "--json")
    assert (result.exit_code, result.stdout, controller.asked) == (1, "", [])
    assert result.stderr == (
        "rapidctl: budget of rack1: 1500 W is below what its floors need; the smallest that would do is 1600 W\n"
    )


def test_a_set_budget_is_told_to_machines(ctl: Ctl, controller: FakeController) -> None:
    result = ctl("budget", "set", "rack1", "1500W", "--force", "--yes", "--json")
    assert json.loads(result.stdout) == {
        "domain": "rack1",
        "budget_w": 1500.0,
        "before_w": 2600.0,
        "forced": True,
        "text": "budget of rack1 is 1500 W",
    }
    assert controller.asked == [("budget", "rack1", 1_500_000, True)]


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("4800", "'4800' is not a power; write it as '4800W' or '4.8kW'"),
        ("4800kWh", "'4800kWh' is not a power; write it as '4800W' or '4.8kW'"),
        ("4800mW", "'4800mW' is not a power; write it as '4800W' or '4.8kW'"),
        ("", "'' is not a power; write it as '600W' or '0.6kW'"),
        ("-5W", "'-5W' is not a power; write it as '600W' or '0.6kW'"),
        ("1e9W", "'1e9W' is not a power; write it as '600W' or '0.6kW'"),
        ("0W", "'0W' is no budget: it must be above 0 W"),
    ],
)
def test_a_budget_that_is_no_power_is_a_usage_error_that_says_what_to_write(
    ctl: Ctl, controller: FakeController, wrong: str, advice: str
) -> None:
    result = ctl("budget", "set", "rack1", "--", wrong)
    assert (result.exit_code, result.stdout, controller.asked) == (2, "", [])
    assert f"Error: Invalid value for 'BUDGET': {advice}\n" in result.stderr


# ---- role, pause, resume, node ----


@pytest.mark.parametrize(
    ("word", "role"), [*((role.value, role) for role in Role), ("parked", "parked"), ("auto", None)]
)
def test_role_set_orders_the_role_or_takes_the_pin_away(
    ctl: Ctl, controller: FakeController, word: str, role: Role | str | None
) -> None:
    result = ctl("role", "set", "d1", word, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["role"] == word
    assert controller.asked == [("role", "d1", role)]


def test_the_controllers_refusal_is_one_line_and_exit_1(ctl: Ctl, controller: FakeController) -> None:
    controller.last = {"p0"}
    result = ctl("role", "set", "p0", "decode")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rapidctl: instance p0: is the last that serves its role\n"
    assert ctl("role", "set", "p9", "decode").stderr == "rapidctl: no instance named 'p9' (known: p0, d0, d1)\n"


def test_an_unknown_role_is_a_usage_error(ctl: Ctl) -> None:
    result = ctl("role", "set", "p0", "both")
    assert result.exit_code == 2
    assert "'both' is not one of 'prefill', 'decode', 'mixed', 'parked', 'auto'" in result.stderr


def test_pause_and_resume(ctl: Ctl, controller: FakeController) -> None:
    assert json.loads(ctl("pause", "--json").stdout) == {"paused": True, "text": "the policy is paused"}
    assert controller.status.paused
    assert ctl("resume").stdout == "the policy runs\n"
    assert controller.asked == [("pause",), ("resume",)]


def test_the_controller_is_told_who_asks(ctl: Ctl, controller: FakeController) -> None:
    for arguments in (
        ("pause",),
        ("resume",),
        ("role", "set", "p0", "auto"),
        ("budget", "set", "site", "8kW"),
        ("node", "release", "h2", "--yes"),
    ):
        controller.status = replace(picture(), nodes=broken().nodes)
        assert ctl(*arguments).exit_code == 0
    users = {by.partition("@")[0] for by in controller.by}
    assert len(controller.by) == 5
    assert len(users) == 1
    assert users != {""}


def test_a_silent_node_is_released_only_with_a_yes(ctl: Ctl, controller: FakeController) -> None:
    controller.status = broken()
    result = ctl("node", "release", "h2")
    assert (result.exit_code, controller.asked) == (1, [])
    assert "free the 1150 W booked for node h2 (silent for 63 s), sure that it is off" in result.stderr
    done = json.loads(ctl("node", "release", "h2", "--yes", "--json").stdout)
    assert done == {"node": "h2", "booked_w": 1150.0, "text": "node h2 is released"}
    assert controller.asked == [("release", "h2")]
    assert json.loads(ctl("node", "release", "h3", "--yes", "--json").stdout)["booked_w"] is None


def test_a_node_that_reports_is_not_released_even_with_a_yes(ctl: Ctl, controller: FakeController) -> None:
    result = ctl("node", "release", "h1", "--yes")
    assert (result.exit_code, controller.asked) == (1, [])
    assert result.stderr == "rapidctl: node h1 reports (last 0.4 s ago): stop its rapidd before releasing it\n"
    assert "no node named 'h7' (known: h1, h2)" in ctl("node", "release", "h7", "--yes").stderr


def test_a_node_that_comes_back_while_the_operator_answers_is_refused_by_the_controller(
    ctl: Ctl, controller: FakeController
) -> None:
    controller.status = broken()
    silent = controller.status.nodes[1]

    def comes_back() -> None:
        back = replace(silent, health=NodeHealth.REPORTING)
        controller.status = replace(controller.status, nodes=(controller.status.nodes[0], back))

    controller.after_status = comes_back
    result = ctl("node", "release", "h2", "--yes")
    assert (result.exit_code, controller.asked) == (1, [])
    assert "node h2 still reports" in result.stderr


# ---- decisions, why ----


def test_decisions_are_listed_newest_first(ctl: Ctl) -> None:
    assert ctl("decisions").stdout == DECISIONS
    documents = json.loads(ctl("decisions", "--json").stdout)["decisions"]
    assert [document["id"] for document in documents] == [MOVE.id, OLDER.id]
    assert documents[0]["inputs"] == {"ttft_p90_s": 1.4, "tpot_p90_s": 0.031, "donor": "decode"}
    assert json.loads(ctl("decisions", "--json", "--limit", "1").stdout)["decisions"] == documents[:1]


def test_decisions_about_a_thing(ctl: Ctl, controller: FakeController) -> None:
    for name in ("h1/1", "GPU-aa01", "p0", "d7"):
        found = json.loads(ctl("decisions", "--json", "--about", name).stdout)["decisions"]
        assert [document["id"] for document in found] == ["d7"], name
    for name in ("h2/1", "site", "h2", "d1"):
        result = ctl("decisions", "--about", name)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"no decision about {name} yet\n")
    controller.decisions = ()
    assert ctl("decisions", "--json").stdout == '{"decisions": []}\n'


@pytest.mark.parametrize("name", ["d7", "h1/0", "GPU-aa00", "GPU-aa01", "p0", "h1/1"])
def test_why_explains_by_id_gpu_or_instance(ctl: Ctl, name: str) -> None:
    result = ctl("why", name)
    assert (result.stdout, result.stderr, result.exit_code) == (WHY, "", 0)


def test_why_finds_a_gpu_by_the_beginning_of_its_uuid(ctl: Ctl, controller: FakeController) -> None:
    changed = replace(MOVE, changes=(("GPU-b001", "600 W", "650 W"),))
    controller.decisions = (changed,)
    assert "h2/1     600 W   650 W  600 W  GPU-b001\n" in ctl("why", "GPU-b").stdout
    result = ctl("why", "GPU-aa")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rapidctl: gpu 'GPU-aa' fits 2 GPUs: GPU-aa00 (h1/0), GPU-aa01 (h1/1); write more of it\n"


def test_an_id_is_never_taken_for_the_beginning_of_a_uuid(ctl: Ctl, controller: FakeController) -> None:
    controller.decisions = (replace(OLDER, id="GPU-aa"),)
    assert ctl("why", "GPU-aa").stdout.startswith(
        "GPU-aa  budget of rack1 from 2500 W to 2400 W\n67 min ago, 2026-11-17 10:53:20, by operator ann@ops1\n"
    )


def test_why_says_what_it_does_not_know(ctl: Ctl, controller: FakeController) -> None:
    unknown = ctl("why", "nix")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr == (
        "rapidctl: no decision, GPU or instance named 'nix' (known: p0, d0, d1, h1/0, h1/1, h2/0, h2/1)\n"
    )
    undecided = ctl("why", "h2/1")
    assert undecided.stderr == "rapidctl: no decision about 'h2/1' among the last 10,000\n"
    controller.decisions = (replace(MOVE, changes=(("GPU-gone", "600 W", "650 W"),), inputs=()),)
    assert "GPU-gone  600 W   650 W  -    not known any more\n" in ctl("why", "d7").stdout


def test_why_is_told_to_machines(ctl: Ctl) -> None:
    document = json.loads(ctl("why", "d7", "--json").stdout)
    assert document["changes"][0] == {"subject": "GPU-aa00", "before": "600 W", "after": "650 W"}
    assert document["wall_s"] == MOVE.wall_s
    forecast = [document[key] for key in ("predicted", "held", "horizon_s", "candidates", "measured")]
    assert forecast == [None, None, None, [], None]
