"""`status` and `watch`: what an operator sees, and when it is red."""

import json
from dataclasses import replace

import pytest

from rapid.core.cluster import GpuHealth, NodeHealth, Phase, Role
from rapid.core.status import Status
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from rapidctl.commands._health import troubles
from rapidctl.commands._page import GPUS_SHOWN, status_blocks
from rapidctl.output import render
from tests.ctl.cluster import broken, gpu, instance, node, picture
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController

IN_ORDER = """\
policy rapid  epoch 3  2 nodes, 4 GPUs, 3 instances  12:00:00
d7  12 s ago by rapid: TTFT p90 1.40 s is above 1.00 s and TPOT has room: 50 W from decode to prefill

SLO   TARGET  ATTAINED     NOW
TTFT  1.00 s    97.2 %  1.40 s
TPOT   40 ms   100.0 %   31 ms

DOMAIN   BUDGET W  RESERVED W  HELD W  FREE W  DRAW W  STATE
site         9000         500    2400    6100    2234  ok
  rack1      2600           0    2400     200    2234  ok

NODE  DOMAIN  GPUS  HELD W  DRAW W  STATE
h1    rack1      2    1250    1167  reporting
h2    rack1      2    1150    1067  reporting

GPU   INSTANCE  ROLE     LIMIT W  DRAW W  WAIT  RUN  STATE
h1/0  p0        prefill      650     608    12    3  serving
h1/1  d0        decode       600     558     0   41  serving
h2/0  d1        decode       550     508     0   38  serving
h2/1  -         -            600     558     -    -  no engine
"""
RED = """\
red: domain rack1: over budget, held 2750 W + reserved 0 W > 2600 W: 2750 W would do
red: node h2: silent for 63 s, still booked for 1150 W
red: node h3: never heard, booked at its ceilings
red: gpu h1/1 GPU-aa01: not managed, booked at 750 W, mismatch: reads back 700 W
red: instance p0: failed: out of memory
"""


def test_status_in_order_is_a_page_and_exit_0(ctl: Ctl) -> None:
    result = ctl("status")
    assert (result.stdout, result.stderr, result.exit_code) == (IN_ORDER, "", 0)


def test_status_names_every_red_thing_on_stderr_and_exits_1(ctl: Ctl, controller: FakeController) -> None:
    controller.status = broken()
    result = ctl("status")
    assert (result.stderr, result.exit_code) == (RED, 1)
    assert "h1/1  d0        decode       600     558     0   41  not managed, mismatch: reads" in result.stdout
    assert "h2    rack1      2    1150    1067  silent for 63 s\n" in result.stdout
    assert "  rack1      2600           0    2750    -150    2234  over budget: 2750 W would do\n" in result.stdout


def test_json_says_the_same_and_exits_the_same(ctl: Ctl, controller: FakeController) -> None:
    controller.status = broken()
    result = ctl("status", "--json")
    document = json.loads(result.stdout)
    assert (document["ok"], result.exit_code, result.stderr) == (False, 1, RED)
    assert [f"red: {trouble}" for trouble in document["troubles"]] == RED.splitlines()
    assert document["nodes"][0]["gpus"][0]["limit_w"] == 650.0
    assert document["nodes"][2]["age_s"] is None
    assert document["instances"][2]["load"] is None


def test_each_red_thing_alone_is_enough() -> None:
    good = picture()
    h1, h2 = good.nodes
    reds: list[Status] = [
        replace(good, domains=(replace(good.domains[0], over_budget=True), good.domains[1])),
        *(replace(good, nodes=(h1, replace(h2, health=h))) for h in (NodeHealth.SILENT, NodeHealth.NEVER_HEARD)),
        replace(good, nodes=(replace(h1, gpus=(replace(h1.gpus[0], managed=False),)), h2)),
        *(
            replace(good, nodes=(replace(h1, gpus=(replace(h1.gpus[0], health=health),)), h2))
            for health in (GpuHealth.DENIED, GpuHealth.LOST, GpuHealth.MISMATCH)
        ),
        *(
            replace(good, instances=(replace(good.instances[0], phase=phase),))
            for phase in (Phase.FAILED, Phase.UNCERTAIN)
        ),
    ]
    assert [len(troubles(red)) for red in reds] == [1] * len(reds)


def test_what_an_operator_chose_or_saw_leave_is_not_red() -> None:
    good = picture()
    off = replace(good.nodes[1], health=NodeHealth.RELEASED, gpus=(replace(good.nodes[1].gpus[0], managed=False),))
    left = tuple(replace(good.instances[0], phase=phase) for phase in (Phase.GONE, Phase.PARKED))
    calm = replace(good, nodes=(good.nodes[0], off), instances=left, paused=True)
    assert troubles(calm) == []


def test_a_role_change_a_pin_and_a_pause_can_be_seen(ctl: Ctl, controller: FakeController) -> None:
    good = picture()
    moving = replace(good.instances[1], phase=Phase.DRAINING, target_role=Role.PREFILL, pinned=True)
    controller.status = replace(good, paused=True, instances=(good.instances[0], moving, good.instances[2]))
    text = ctl("status").stdout
    assert "policy rapid  paused  epoch 3" in text
    assert "h1/1  d0        decode       600     558     0   41  draining for prefill, pinned\n" in text


@pytest.mark.parametrize(
    ("phase", "words"),
    [(Phase.PARKED, "parked"), (Phase.DRAINING, "draining"), (Phase.UNCERTAIN, "uncertain: no answer")],
)
def test_an_instance_that_is_parked_or_about_to_be_or_does_not_know_its_role_can_be_seen(
    ctl: Ctl, controller: FakeController, phase: Phase, words: str
) -> None:
    good = picture()
    problem = "no answer" if phase is Phase.UNCERTAIN else ""
    one = replace(good.instances[1], phase=phase, problem=problem)
    controller.status = replace(good, instances=(good.instances[0], one, good.instances[2]))
    assert f"h1/1  d0        decode       600     558     0   41  {words}\n" in ctl("status").stdout


def test_what_is_not_measured_is_not_shown_as_a_number(ctl: Ctl, controller: FakeController) -> None:
    good = picture()
    blind = replace(good.nodes[0].gpus[0], draw_mw=None, limit_mw=0, target_mw=0)
    h1 = replace(good.nodes[0], gpus=(blind, good.nodes[0].gpus[1]))
    rack = replace(good.domains[1], draw_mw=None)
    slo = replace(good.slo, ttft_attainment=None, ttft_window_s=None)
    controller.status = replace(good, nodes=(h1, good.nodes[1]), domains=(good.domains[0], rack), slo=slo)
    text = ctl("status").stdout
    assert "  rack1      2600           0    2400     200       ?  ok\n" in text
    assert "h1    rack1      2    1250       ?  reporting\n" in text
    assert "h1/0  p0        prefill        ?       ?    12    3  serving\n" in text
    assert "TTFT  1.00 s         -      -\n" in text


def test_a_share_of_100_percent_means_all() -> None:
    good = picture()
    nearly = replace(good, slo=replace(good.slo, ttft_attainment=0.99999))
    assert "TTFT  1.00 s    99.9 %  1.40 s" in render(status_blocks(nearly, every_gpu=False), width=None, colour=False)


def test_an_instance_with_two_gpus_counts_its_requests_once(ctl: Ctl, controller: FakeController) -> None:
    h1 = node("h1", gpu("GPU-a", 0, instance="p0"), gpu("GPU-b", 1, instance="p0"))
    both = instance("p0", "h1", Role.PREFILL, "GPU-a", "GPU-b", waiting=5, running=7)
    controller.status = replace(picture(), nodes=(h1,), instances=(both,))
    text = ctl("status").stdout
    assert "h1/0  p0        prefill      600     558     5    7  serving\n" in text
    assert "h1/1  p0        prefill      600     558     -    -  serving\n" in text


def test_an_instance_on_gpus_that_nobody_reports_has_a_row_of_its_own(ctl: Ctl, controller: FakeController) -> None:
    lone = instance("x9", "h9", Role.MIXED, "GPU-z", waiting=1)
    controller.status = replace(picture(), instances=(*picture().instances, lone))
    assert "-     x9        mixed          -       -     1    0  serving\n" in ctl("status").stdout


def test_a_large_cluster_shows_the_gpus_that_need_a_look_and_says_how_many_more() -> None:
    many = tuple(node(f"n{i}", *(gpu(f"GPU-{i}-{j}", j) for j in range(8))) for i in range(9))
    sick = replace(many[8], gpus=(*many[8].gpus[:7], replace(many[8].gpus[7], managed=False)))
    status = replace(picture(), nodes=(*many[:8], sick), instances=())
    short, whole = (render(status_blocks(status, every_gpu=every), width=None, colour=False) for every in (False, True))
    assert [row.split()[0] for row in short if row.startswith("n8/")] == ["n8/7"]
    assert short[-1] == "71 GPUs in order and not shown; --all shows them"
    assert len([row for row in whole if row[:1] == "n" and "/" in row]) == 72 > GPUS_SHOWN


def test_a_limit_on_its_way_shows_where_to(ctl: Ctl, controller: FakeController) -> None:
    good = picture()
    moving = replace(good.nodes[0].gpus[1], target_mw=562_500)
    controller.status = replace(good, nodes=(replace(good.nodes[0], gpus=(moving,)), good.nodes[1]))
    assert "h1/1  d0        decode   600 > 562.5     558     0   41  serving\n" in ctl("status").stdout


def test_the_page_fits_80_columns() -> None:
    rows = render(status_blocks(broken(), every_gpu=False), width=80, colour=False)
    assert [row for row in rows if len(row) > 80] == []
    assert rows[1:3] == [
        "d7  12 s ago by rapid: TTFT p90 1.40 s is above 1.00 s and TPOT has room: 50 W",
        "  from decode to prefill",
    ]


def test_watch_prints_a_line_per_picture(ctl: Ctl, controller: FakeController) -> None:
    controller.status = broken()
    result = ctl("watch", "--count", "2", "--interval", "0.1")
    first, second = result.stdout.splitlines()
    assert first.startswith(
        "12:00:00 | site held 2400 W of 9000 W, draw 2234 W | 1 decode 1 prefill | 12 waiting | "
        "TTFT 1.40 s TPOT 31 ms | d7: TTFT p90"
    )
    assert "| RED: domain rack1: over budget" in second
    assert (result.exit_code, result.stderr) == (0, "")


def test_watch_prints_json_lines(ctl: Ctl) -> None:
    result = ctl("--json", "watch", "--count", "3", "--interval", "0.1")
    documents = [json.loads(row) for row in result.stdout.splitlines()]
    assert [document["epoch"] for document in documents] == [3, 3, 3]
    assert documents[0] == json.loads(ctl("status", "--json").stdout)


# ---- what nodes notice ----

WATCHED = NodeWatch(watched_s=1_000.0, over_s=4.0, unmeasured_s=16.0, excursions=2)
MEDDLED = GpuWatch(
    moves=((Mover.PROCESS, 3), (Mover.OUTSIDE, 1)),
    last_move="another process: 600 W to 700 W; 600 W is ours",
    repairs=3,
    xids=2,
    xid=79,
    cap_bound=0.5,
)


def noticed() -> Status:
    """A cluster in order whose first node has noticed things."""
    good = picture()
    h1, h2 = good.nodes
    h1 = replace(h1, watch=WATCHED, gpus=(h1.gpus[0], replace(h1.gpus[1], watch=MEDDLED)))
    p0, d0, d1 = (replace(one, cap_bound=bound) for one, bound in zip(good.instances, (0.9, 0.25, 0.75), strict=True))
    return replace(good, nodes=(h1, h2), instances=(p0, d0, d1))


def test_what_nodes_notice_is_on_the_page_and_no_fault_by_itself(ctl: Ctl, controller: FakeController) -> None:
    controller.status = noticed()
    result = ctl("status")
    assert result.exit_code == 0
    assert "NODE  DOMAIN  GPUS  HELD W  DRAW W    KEPT  STATE" in result.stdout
    assert "h1    rack1      2    1250    1167  98.0 %  reporting" in result.stdout
    assert "h2    rack1      2    1150    1067       -  reporting" in result.stdout
    assert "slowed by their limits: decode 50.0 %, prefill 90.0 %" in result.stdout
    told = "serving; limit moved 4 times, last another process: 600 W to 700 W; 600 W is ours; 2 driver errors, last"
    assert told[:60] in result.stdout


def test_an_excursion_that_goes_on_is_red(ctl: Ctl, controller: FakeController) -> None:
    good = noticed()
    on = replace(WATCHED, excursion="draws 1300 W, may draw 1250 W: limits cut to 92 %")
    controller.status = replace(good, nodes=(replace(good.nodes[0], watch=on), good.nodes[1]))
    result = ctl("status")
    assert result.exit_code == 1
    assert result.stderr == "red: node h1: excursion: draws 1300 W, may draw 1250 W: limits cut to 92 %\n"


def test_json_has_what_nodes_notice(ctl: Ctl, controller: FakeController) -> None:
    controller.status = noticed()
    document = json.loads(ctl("status", "--json").stdout)
    node = document["nodes"][0]
    assert node["watch"] == {
        "watched_s": 1000.0,
        "over_s": 4.0,
        "unmeasured_s": 16.0,
        "excursions": 2,
        "excursion": "",
    }
    watch = node["gpus"][1]["watch"]
    assert watch["moves"] == {"another process": 3, "out of band": 1}
    assert (watch["xid"], watch["cap_bound"], watch["repairs"]) == (79, 0.5, 3)
    assert document["instances"][0]["cap_bound"] == 0.9
