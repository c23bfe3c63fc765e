"""What the screen and the plain lines say."""

from dataclasses import replace

from rich.console import Console

from rapid.core.cluster import Phase, Role
from rapidctl.demo.scene import Scene
from rapidctl.demo.view import DECISION_LINES, plain, render
from tests.demo.story import gpu, host_scene, scene


def shown(what: Scene, width: int) -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    with console.file:
        console.print(render(what, width))
    return console.export_text().splitlines()


def two_hosts() -> Scene:
    return scene(
        host_scene("uniform", *(gpu(index) for index in range(8))),
        host_scene("rapid", *(gpu(index, role=Role.DECODE, limit_w=475 + 50 * (index == 3)) for index in range(8))),
        notices=tuple(f"notice {number}" for number in range(9)),
    )


def test_plain_line_has_shares_roles_and_limits_of_every_host() -> None:
    assert plain(two_hosts()) == (
        " 23 s of 60: uniform SLO 57 %, TTFT 61 %, TPOT - %, roles PPPPPPPP, limits 600 W of 4,800; "
        "rapid SLO 57 %, TTFT 61 %, TPOT - %, roles DDDDDDDD, limits 475/525 W of 4,800"
    )


def test_plain_line_shows_changes_and_engines_that_are_away() -> None:
    line = plain(scene(host_scene("rapid", gpu(0, phase=Phase.SWITCHING), gpu(1, role=None, phase=Phase.GONE))))
    assert "roles ~~" in line


def test_plain_line_says_that_the_controller_is_away() -> None:
    assert plain(scene(host_scene("rapid", stale_s=3.0))).endswith("the controller is away")


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (80, 100, 133, 200):
        lines = shown(two_hosts(), width)
        assert max(map(len, lines)) <= width
        assert len(lines) < 40


def test_screen_shows_every_gpu_with_its_limit_draw_and_queue() -> None:
    lines = shown(two_hosts(), 100)
    rows = [line for line in lines if "550" in line]
    assert len(rows) == 8
    left, right = rows[3].split("││")
    assert left.split()[-3:] == ["600", "550", "12+3"]
    assert right.split()[-4:-1] == ["525", "550", "12+3"]
    assert right.split()[:2] == ["3", "D"]


def test_bar_is_draw_within_limit_within_ceiling() -> None:
    (row,) = (line for line in shown(scene(host_scene("rapid", gpu(0))), 80) if "550" in line)
    draw, allowed = row.count("█"), row.count("░")
    width = 80 - 4 - 4 - 19
    assert draw == round(width * 550 / 750)
    assert draw + allowed == round(width * 600 / 750)


def test_screen_shows_only_the_last_notices_and_cuts_a_long_decision() -> None:
    text = "\n".join(shown(two_hosts(), 80))
    assert "notice 8" in text
    assert "notice 5" not in text
    assert " ..." in text
    assert len([line for line in text.splitlines() if "on and on" in line or "reason" in line]) <= DECISION_LINES


def test_screen_says_what_is_wrong() -> None:
    text = "\n".join(shown(scene(host_scene("rapid", gpu(0), over=True, stale_s=9.0)), 100))
    assert "OVER BUDGET" in text
    assert "the controller is away" in text


def test_screen_can_be_shown_before_the_first_picture() -> None:
    assert "uniform" in "\n".join(shown(scene(host_scene("uniform"), host_scene("rapid")), 80))


def test_plain_line_says_when_only_the_last_requests_finish() -> None:
    late = replace(two_hosts(), now_s=65.0)
    assert plain(late).startswith(" 60 s of 60 and 5 s to let it finish: uniform SLO")
