"""SIGKILL to any program in the middle of the demo: the budget holds and the loop comes back by itself."""

from functools import partial

import pytest

from tests.e2e.demo import RunningDemo, kill, running_demo
from tests.wait import wait_for

SOON_S = 30.0

pytestmark = pytest.mark.timeout(240)


def _lives_again(demo: RunningDemo, victim: str, killed: int) -> bool:
    return demo.programs().get(victim, killed) != killed


@pytest.mark.parametrize("victim", ["rapid/rapidd", "rapid/controller", "rapid/e1", "rapid/e6"])
def test_killed_program_comes_back_and_the_budget_holds(victim: str) -> None:
    with running_demo("--seconds", "12", "--rate-scale", "12", "--json") as demo:
        demo.wait_ready()
        for _ in range(2):
            pid = demo.programs()[victim]
            kill(pid)
            wait_for(partial(_lives_again, demo, victim, pid), SOON_S, f"{victim} lives again")
        assert demo.wait_end() == 0, demo.talk
        document = demo.document()
        assert document["over_budget_s"] == 0
        assert document["restarts"] == 2
        host = document["hosts"]["rapid"]
        assert host["requests"] == document["hosts"]["uniform"]["requests"]
        assert host["unfinished"] == 0  # an engine's requests went to others; nobody else has any
        if "/e" in victim:
            assert host["dispatched_again"] > 0
        assert demo.talk.count(f"{victim} was killed by SIGKILL; starting it again") == 2
        assert demo.left_behind() == []


def test_everything_killed_at_once_comes_back_within_the_budget() -> None:
    with running_demo("--seconds", "15", "--rate-scale", "8", "--json") as demo:
        demo.wait_ready()
        before = demo.programs()
        for pid in before.values():
            kill(pid)
        wait_for(
            lambda: len(demo.programs()) == 20 and not set(demo.programs().values()) & set(before.values()),
            SOON_S,
            "every program lives again",
        )
        assert demo.wait_end() == 0, demo.talk
        assert demo.document()["over_budget_s"] == 0
        assert demo.document()["restarts"] == 20
        assert demo.left_behind() == []
