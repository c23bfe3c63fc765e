"""Log lines that would repeat for ever are said once in a while."""

import structlog
from structlog.testing import CapturingLogger

from rapidd.talk import REPEAT_S, Talk


class Rig:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.lines = CapturingLogger()
        log = structlog.wrap_logger(self.lines, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
        self.talk = Talk(log, lambda: self.now_s)

    def said(self) -> list[tuple[str, str]]:
        return [(call.method_name, call.kwargs["detail"]) for call in self.lines.calls]


def test_the_same_line_is_said_once_and_again_after_the_pause() -> None:
    rig = Rig()
    for rig.now_s in (0.0, 0.5, REPEAT_S - 0.5, REPEAT_S):
        rig.talk.say("error", "limit not in force", "GPU-a", "no permission")
    assert rig.said() == [("error", "no permission")] * 2


def test_what_has_changed_is_said_at_once() -> None:
    rig = Rig()
    rig.talk.say("warning", "limit moved", "GPU-a", "from 400 W to 500 W")
    rig.talk.say("warning", "limit moved", "GPU-a", "from 500 W to 600 W")
    rig.talk.say("warning", "limit moved", "GPU-b", "from 500 W to 600 W")
    assert [detail for _, detail in rig.said()] == ["from 400 W to 500 W", "from 500 W to 600 W", "from 500 W to 600 W"]


def test_what_is_remembered_is_bounded() -> None:
    rig = Rig()
    for number in range(5000):
        rig.talk.say("info", "gpu ok", f"GPU-{number}", "")
    assert len(rig.said()) == 5000
    assert len(rig.talk._said) <= 1024
