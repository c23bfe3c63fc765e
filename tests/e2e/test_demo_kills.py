"""SIGKILL to any program in the middle of the demo: the budget holds and the loop comes back by itself."""

from functools import partial
from pathlib import Path

import pytest

from tests.e2e.demo import RunningDemo, kill, running_demo, steady_trace
from tests.wait import wait_for

SOON_S = 30.0
SECONDS = 12

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    trace = steady_trace(tmp_path, SECONDS)
    return ("--workload", str(trace), "--rate-scale", "1", "--seconds", str(SECONDS), "--json")


def _lives_again(demo: RunningDemo, victim: str, killed: int) -> bool:
    return demo.programs().get(victim, killed) != killed


@pytest.mark.parametrize(
    "victim", ["predictive/rapidd", "predictive/controller", "predictive/e1", "rapid/e1", "rapid/e6"]
)
def test_killed_program_comes_back_and_the_budget_holds(words: tuple[str, ...], victim: str) -> None:
    policy = victim.split("/")[0]
    with running_demo(*words, "--policy", policy) as demo:
        demo.wait_ready()
        demo.wait_traffic()
        for _ in range(2):
            pid = demo.programs()[victim]
            kill(pid)
            wait_for(partial(_lives_again, demo, victim, pid), SOON_S, f"{victim} lives again")
        assert demo.wait_end() == 0, demo.talk
        document = demo.document()
        assert document["over_budget_s"] == 0
        assert document["restarts"] == 2
        host = document["hosts"][policy]
        assert host["requests"] == document["hosts"]["uniform"]["requests"]
        assert host["unfinished"] == 0  # an engine's requests went to others; nobody else has any
        assert host["attainment"] > 0.5
        if victim == "rapid/e6":  # a decode engine, which this policy leaves one here, always has some
            assert host["dispatched_again"] > 0
        assert demo.talk.count(f"{victim} was killed by SIGKILL; starting it again") == 2
        assert demo.left_behind() == []


def test_everything_killed_at_once_comes_back_within_the_budget(words: tuple[str, ...]) -> None:
    with running_demo(*words) as demo:
        demo.wait_ready()
        demo.wait_traffic()
        before = demo.programs()
        assert len(before) == 20
        for pid in before.values():
            kill(pid)
        wait_for(
            lambda: len(demo.programs()) == 20 and not set(demo.programs().values()) & set(before.values()),
            SOON_S,
            "every program lives again",
        )
        assert demo.wait_end() == 0, demo.talk
        document = demo.document()
        assert document["over_budget_s"] == 0
        assert document["restarts"] == 20
        assert document["hosts"]["predictive"]["unfinished"] == 0  # so the loop serves again
        assert demo.left_behind() == []
