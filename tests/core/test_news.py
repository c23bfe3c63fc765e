"""What nodes notice is said once, when a report first shows it; and a GPU that its node gives up is booked at once.

Promise 6: nothing unmeasured is called fine.
"""

from dataclasses import replace

from rapid.core.cluster import Mark
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from tests.core.telling import Story

NOTHING, ALL_WELL = GpuWatch(), NodeWatch()
MOVED = GpuWatch(moves=((Mover.PROCESS, 1),), last_move="another process: 400 W to 700 W; 400 W is ours", repairs=1)
FENCED = GpuWatch(unmanaged="its limit was moved again after 5 repairs")


def hear(story: Story, watch: GpuWatch = NOTHING, node: NodeWatch = ALL_WELL, g0: str = "400 void") -> list[str]:
    """A report in which the node has noticed this of g0, and of itself."""
    report = story.tellers["n1"].report({"g0": g0, "g1": "400 void"}, mark=Mark(1, 0))
    first, *others = report.gpus
    return story.take(replace(report, gpus=(replace(first, watch=watch), *others), watch=node))


def test_a_limit_that_was_moved_is_said_once_with_who_it_was() -> None:
    story = Story()
    story.landed()
    line = "warning g0: its limit was moved by another process: 400 W to 700 W; 400 W is ours"
    assert hear(story, MOVED) == [line]
    assert hear(story, MOVED) == []
    thrice = replace(MOVED, moves=((Mover.PROCESS, 3), (Mover.OUTSIDE, 1)))
    assert hear(story, thrice) == [line.replace("moved by", "moved (3 times) by")]


def test_what_was_noticed_in_an_earlier_life_of_the_daemon_is_no_measure_for_this_one() -> None:
    story = Story()
    story.landed()
    hear(story, replace(MOVED, moves=((Mover.PROCESS, 5),)))
    story.tellers["n1"].restart()
    assert "warning g0: its limit was moved by another process: 400 W to 700 W; 400 W is ours" in hear(story, MOVED)


def test_errors_of_the_driver_and_losses_are_said_once() -> None:
    story = Story()
    story.landed()
    broken = GpuWatch(xids=1, xid=79, losses=1)
    assert hear(story, broken, g0="400 void ill=lost") == [
        "error g0: the driver reports Xid 79; see its log on the host",
        "error g0: stopped answering: gpu g0: lost",
    ]
    assert hear(story, broken) == []


def test_an_excursion_is_said_when_it_begins_and_when_it_is_over() -> None:
    story = Story()
    story.landed()
    on = NodeWatch(excursions=1, excursion="draws 1100 W, may draw 1000 W")
    assert hear(story, node=on) == ["error n1: cut its limits by itself: draws 1100 W, may draw 1000 W"]
    assert hear(story, node=on) == []
    assert hear(story, node=NodeWatch(excursions=1)) == ["info n1: draws less again, and is back at its grants"]
    assert hear(story, node=NodeWatch(excursions=2)) == [
        "error n1: cut its limits by itself: it drew more than it may, and is below that again"
    ]


# ---- a GPU that its node gives up ----


def test_a_fenced_gpu_is_unmanaged_at_once_and_booked_at_its_ceiling() -> None:
    story = Story()
    story.landed()
    assert hear(story, FENCED, g0="500 void") == [
        "error g0: unmanaged, booked at its ceiling 700 W: its limit was moved again after 5 repairs"
    ]
    assert story.held() == {"g0": 700.0, "g1": 400.0}
    assert story.movable() == ["g1"]
    assert hear(story, FENCED, g0="500 void") == []


def test_the_worst_that_was_seen_is_booked_even_above_the_ceiling() -> None:
    story = Story()
    story.landed()
    hear(story, FENCED, g0="750 void")
    assert story.held()["g0"] == 750.0


def test_a_fenced_gpu_stays_so_however_well_it_behaves() -> None:
    story = Story()
    story.landed()
    for _ in range(50):
        hear(story, FENCED)
    assert story.movable() == ["g1"]


def test_when_its_node_takes_it_back_it_has_to_obey_for_a_while() -> None:
    story = Story()
    story.landed()
    hear(story, FENCED)
    managed = [bool(hear(story)) or story.movable() == ["g0", "g1"] for _ in range(4)]
    assert managed == [False, False, False, True], "as many reports as any other that did not obey"
    assert story.held() == {"g0": 400.0, "g1": 400.0}


def test_a_gpu_that_nobody_can_manage_is_booked_at_its_ceiling_from_the_first_report() -> None:
    story = Story()
    hear(story, GpuWatch(unmanaged="MIG is on"), g0="700/0 void")
    assert story.held() == {"g0": 700.0, "g1": 400.0}


def test_the_next_controller_life_knows_that_it_is_fenced() -> None:
    story = Story()
    story.landed()
    hear(story, FENCED)
    story.begin(epoch=1, snapshot=story.ledger.snapshot())
    assert story.held()["g0"] == 700.0
    hear(story)
    assert story.movable() == ["g1"]
