"""Every command has one effect: something is sent, a line is logged, or the controller steps down."""

from typing import get_args

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rapid.core.cluster import Decision
from rapid.core.commands import Announce, Answer, Command, Notice, RefuseEngine, StepDown
from rapidctl.controller.engines import EngineService
from rapidctl.controller.hands import CHANGES_MAX, Hands
from rapidctl.controller.inbox import Inbox
from rapidctl.controller.nodes import Nodes, SteppedDown
from tests.controller.fakes import HandClock
from tests.controller.strategies import values_of


@pytest.fixture
def hands() -> Hands:
    inbox = Inbox(HandClock(), 4)
    engines = EngineService(inbox, lambda: 3, rpc_timeout_s=1.0, load_interval_s=0.0)
    return Hands(Nodes({}), engines, structlog.get_logger())


def test_a_decision_is_one_line_with_its_id_and_reason(hands: Hands) -> None:
    changes = tuple((f"g{n}", "1 W", "2 W") for n in range(CHANGES_MAX + 3))
    with capture_logs() as lines:
        hands.perform(Announce(Decision("d1", 1.0, 2.0, "rapid", "why", (), changes)))
    (line,) = lines
    assert (line["event"], line["id"], line["by"], line["reason"]) == ("decision", "d1", "rapid", "why")
    assert line["changes"].startswith("g0: 1 W -> 2 W, g1: ")
    assert line["changes"].endswith("and 3 more")


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_notice_is_logged_at_its_level(hands: Hands, level: str) -> None:
    with capture_logs() as lines:
        hands.perform(Notice(level, "n1", "text"))
    assert lines == [{"event": "text", "about": "n1", "log_level": level}]


def test_stepping_down_ends_everything(hands: Hands) -> None:
    with pytest.raises(SteppedDown, match="another one leads"):
        hands.perform(StepDown("another one leads"))


def test_answers_and_refusals_are_found_by_who_waits_for_them(hands: Hands) -> None:
    with capture_logs() as lines:
        hands.perform(Answer("r1", "text"))
        hands.perform(RefuseEngine("e1", "i1", "no", "EngineRefused"))
    assert lines == []


@pytest.mark.parametrize("kind", [kind for kind in get_args(Command) if kind is not StepDown])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5)
@given(data=st.data())
def test_every_command_can_be_performed_with_nobody_connected(
    hands: Hands, kind: type[Command], data: st.DataObject
) -> None:
    command = Notice("info", "a", "b") if kind is Notice else data.draw(values_of(kind))
    with capture_logs():
        hands.perform(command)
