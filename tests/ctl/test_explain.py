"""`rapidctl why` and `decisions` about a decision that predicts: what it expected, what came of it, what it weighed."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from rapid.core.cluster import Candidate, Decision, Phase, Role
from rapid.core.status import Status
from rapid.core.watched import GpuWatch, Mover
from rapidctl.commands._explain import explained
from rapidctl.commands._words import measure
from rapidctl.output import render
from tests.ctl.cluster import MOVE, NOON_S, gpu, instance, node, picture
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController

FLIP = Decision(
    id="D412",
    at_s=90.0,
    wall_s=NOON_S - 12.0,
    by="predictive",
    reason="one instance to prefill: the queue would grow for 6 s",
    inputs=(("offered_rps", 12.42), ("queued_tokens", 48_210.0), ("sure_share", 0.934), ("ttft_p90_s", 1.42)),
    changes=(
        *((f"GPU-{index}", "600 W", "690 W") for index in range(3)),
        ("GPU-3", "600 W", "400 W"),
        ("GPU-4", "600 W", "690 W"),
        ("e3", "decode", "prefill"),
    ),
    predicted=0.971,
    held=0.812,
    horizon_s=8.0,
    candidates=(Candidate("4P1D, 690 W / 450 W", 0.971, chosen=True), Candidate("3P2D, 750 W / 450 W", 0.883)),
    measured=0.952,
)
WHY = """\
D412  one instance to prefill: the queue would grow for 6 s
12 s ago, 2026-11-17 11:59:48, by predictive

expected  97.1 % SLO attainment over 8 s, 81.2 % if nothing were done
measured  95.2 %, 1.9 points less

RESTED ON   VALUE
offered     12.42  requests/s
queued     48,210  tokens
sure         93.4  %
TTFT p90     1.42  s

WEIGHED              EXPECTED
4P1D, 690 W / 450 W    97.1 %  chosen
3P2D, 750 W / 450 W    88.3 %

CHANGED   BEFORE  AFTER    NOW     WHAT
e3        decode  prefill  decode  instance on h1, draining to prefill
h1/0-2,4  600 W   690 W    690 W   4 GPUs
h1/3      600 W   400 W    600 W   GPU-3, e3
"""


def cluster() -> Status:
    """Five GPUs of one host, an instance each; e3 is on its way to prefill, and its limit on its way down."""
    gpus = [gpu(f"GPU-{at}", at, limit_mw=600_000 if at == 3 else 690_000, instance=f"e{at}") for at in range(5)]
    instances = [instance(f"e{at}", "h1", Role.PREFILL if at < 3 else Role.DECODE, f"GPU-{at}") for at in range(5)]
    instances[3] = replace(instances[3], phase=Phase.DRAINING, target_role=Role.PREFILL)
    return replace(picture(), nodes=(node("h1", *gpus),), instances=tuple(instances), last_decision=FLIP)


@pytest.fixture
def deciding(controller: FakeController) -> FakeController:
    controller.status, controller.decisions = cluster(), (FLIP,)
    return controller


@pytest.mark.usefixtures("deciding")
def test_why_says_what_was_expected_what_came_of_it_and_what_else_was_weighed(ctl: Ctl) -> None:
    result = ctl("why", "D412")
    assert (result.stdout, result.stderr, result.exit_code) == (WHY, "", 0)


@pytest.mark.parametrize("width", [80, 110])
def test_it_fits_a_terminal(width: int) -> None:
    lines = render(explained(FLIP, cluster()), width=width, colour=False)
    assert "\n".join(lines) + "\n" == WHY
    long = replace(FLIP, reason="word " * 60, candidates=(Candidate("many instances " * 20, 0.5),))
    assert max(map(len, render(explained(long, cluster()), width=width, colour=False))) <= width


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measured": 1.0}, "measured  100.0 %, 2.9 points more"),
        ({"measured": 0.971}, "measured  97.1 %, as expected"),
        ({"measured": None}, "measured  nothing: no request came to be measured in that time"),
        ({"measured": None, "wall_s": NOON_S - 3.0}, "measured  not yet, 5.0 s to go"),
        ({"held": None}, "expected  97.1 % SLO attainment over 8 s"),
    ],
)
def test_what_came_of_it_in_every_case(change: Mapping[str, object], said: str) -> None:
    lines = render(explained(replace(FLIP, **change), cluster()), width=None, colour=False)  # type: ignore[arg-type]
    assert said in lines


def test_a_decision_that_predicts_nothing_says_nothing_of_it() -> None:
    plain = replace(FLIP, predicted=None, held=None, horizon_s=0.0, candidates=(), measured=None)
    text = "\n".join(render(explained(plain, cluster()), width=None, colour=False))
    assert not [word for word in ("expected", "measured", "WEIGHED") if word in text]


def test_a_prediction_that_was_far_off_stands_out() -> None:
    near, far = (
        render(explained(replace(FLIP, measured=it), cluster()), width=None, colour=True) for it in (0.93, 0.9)
    )
    assert "\x1b[32m93.0 %\x1b[0m, 4.1 points less" in near[4]
    assert "\x1b[33m90.0 %\x1b[0m, 7.1 points less" in far[4]


def test_decisions_show_what_came_and_what_was_expected_where_any_predicts(ctl: Ctl, deciding: FakeController) -> None:
    budget = replace(FLIP, id="D413", by="budget", predicted=None, measured=None, changes=())
    deciding.decisions = (replace(FLIP, id="D414", measured=None), budget, FLIP)

    lines = ctl("decisions").stdout.splitlines()

    assert lines[0] == "ID    WHEN                 BY          CHANGES  ATTAINED  REASON"
    assert [line.split()[4:-11] for line in lines[1:]] == [["6", "-/97", "%"], ["0", "-"], ["6", "95/97", "%"]]
    deciding.decisions = (budget,)
    assert "ATTAINED" not in ctl("decisions").stdout


@pytest.mark.usefixtures("deciding")
def test_machines_get_all_of_it(ctl: Ctl) -> None:
    document = json.loads(ctl("why", "D412", "--json").stdout)
    assert [document[key] for key in ("predicted", "held", "horizon_s", "measured")] == [0.971, 0.812, 8.0, 0.952]
    assert document["candidates"][0] == {"words": "4P1D, 690 W / 450 W", "predicted": 0.971, "chosen": True}
    assert json.loads(ctl("decisions", "--json").stdout)["decisions"] == [document]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("tpot_s", 0.0312, ("TPOT", "31.2", "ms")),
        ("wait_s", 0.0, ("wait", "0", "ms")),
        ("wait_s", float("inf"), ("wait", "inf", "s")),
        ("wait_s", "none", ("wait", "none", "")),
        ("decode_tps", 12_345.6, ("decode", "12,346", "tokens/s")),
        ("step_mw", 612_500.0, ("step", "612.5", "W")),
        ("room_mw", 4_800_000.0, ("room", "4800", "W")),
        ("kv_fraction", 0.5, ("KV", "50.0", "%")),
        ("decoding", 312.0, ("decoding", "312", "")),
        ("headroom", -0.12345, ("headroom", "-0.1235", "")),
    ],
)
def test_an_input_is_told_with_the_unit_that_its_name_ends_in(
    name: str, value: float | str, shown: tuple[str, str, str]
) -> None:
    assert measure(name, value) == shown


# ---- plan ----

PLAN = WHY.replace(
    "D412  one instance to prefill: the queue would grow for 6 s\n12 s ago, 2026-11-17 11:59:48, by predictive\n",
    "would make 6 changes: one instance to prefill: the queue would grow for 6 s\npolicy predictive\n",
).replace("measured  95.2 %, 1.9 points less\n", "")
PLAN = (
    PLAN[: PLAN.index("CHANGED")]
    + """\
CHANGED   BEFORE  AFTER    WHAT
e3        decode  prefill  instance on h1, draining to prefill
h1/0-2,4  600 W   690 W    4 GPUs
h1/3      600 W   400 W    GPU-3, e3
"""
)


@pytest.mark.usefixtures("deciding")
def test_a_plan_says_what_would_be_done(ctl: Ctl) -> None:
    result = ctl("plan")
    assert (result.stdout, result.stderr, result.exit_code) == (PLAN, "", 0)


def test_a_plan_says_why_nothing_would_be_done(ctl: Ctl, deciding: FakeController) -> None:
    deciding.decisions = (replace(FLIP, reason="nothing wins enough", changes=(), candidates=(), inputs=()),)
    deciding.status = replace(deciding.status, paused=True)
    assert ctl("plan").stdout == (
        "would change nothing: nothing wins enough\npolicy predictive, paused: nothing of this will be done\n\n"
        "expected  97.1 % SLO attainment over 8 s, 81.2 % if nothing were done\n"
    )


@pytest.mark.usefixtures("deciding")
def test_a_plan_is_told_to_machines(ctl: Ctl) -> None:
    document = json.loads(ctl("plan", "--json").stdout)
    assert document["paused"] is False
    why = json.loads(ctl("why", "D412", "--json").stdout)
    assert {**document, "id": "D412", "measured": 0.952} == {"paused": False, **why}


def test_what_others_did_to_a_gpu_is_said_beside_what_was_decided_for_it() -> None:
    status = picture()
    h1, h2 = status.nodes
    moved = GpuWatch(moves=((Mover.PROCESS, 2),), last_move="another process: 650 W to 700 W; 650 W is ours")
    fenced = GpuWatch(unmanaged="its limit was moved again after 5 repairs")
    gpus = (replace(h1.gpus[0], watch=moved), replace(h1.gpus[1], watch=fenced))
    seen = explained(MOVE, replace(status, nodes=(replace(h1, gpus=gpus), h2)))
    text = "\n".join(render(seen, width=None, colour=False))
    assert "GPU-aa00, p0; limit moved 2 times, last another process: 650 W to 700 W; 650 W is ours" in text
    assert "GPU-aa01, d0; its limit was moved again after 5 repairs" in text
