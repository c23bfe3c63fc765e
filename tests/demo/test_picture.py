"""The series behind the picture, and that it can be drawn."""

from pathlib import Path

import numpy as np
import pytest

from rapid.core.cluster import Role
from rapid.sim.world.checkers import LimitHistory
from rapidctl.demo.picture import HostStory, Story, attainment, draw, limits_w, roles_at
from rapidctl.demo.router import Door
from tests.demo.story import BUDGET_MW, SECONDS, finding, front_end

AXIS = np.array([0.0, 1.0, 2.0, 3.0])


def test_limit_is_the_last_one_set_and_the_factory_one_before() -> None:
    history = LimitHistory("g0", 750_000, ((101.0, 600_000), (102.5, 650_000)))
    assert limits_w(history, 100.0, AXIS).tolist() == [750, 600, 600, 650]


def test_role_is_that_of_the_last_door() -> None:
    doors = [
        Door(99.0, "e0", Role.PREFILL),
        Door(99.5, "e1", Role.DECODE),
        Door(100.5, "e0", None),
        Door(102.0, "e0", Role.DECODE),
    ]
    assert roles_at(doors, "e0", 100.0, AXIS) == [Role.PREFILL, None, Role.DECODE, Role.DECODE]
    assert roles_at(doors, "e7", 100.0, AXIS) == [None] * 4


def test_attainment_is_of_the_requests_that_arrived_lately() -> None:
    record = front_end("h", met=10, missed=10).record  # met before 5 s, missed from then on
    share = attainment(record, 0.0, np.array([0.5, 4.9, 7.0, 9.9, 99.0]))
    assert np.isnan(share[0])  # too few to tell
    assert share[1] == 1.0
    assert share[2] == pytest.approx(0.5)
    assert share[3] == 0.0
    assert np.isnan(share[4])


def test_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    doors = (Door(-1.0, "e0", Role.PREFILL), Door(-1.0, "e1", Role.DECODE), Door(3.0, "e1", None))
    hosts = tuple(
        HostStory(name, front_end(name, met=12, missed=8).record, finding().histories, ("e0", "e1"), doors)
        for name in ("uniform", "rapid")
    )
    path = tmp_path / "out" / "run.png"
    draw(Story("a run", hosts, BUDGET_MW, 400_000, 750_000, 0.0, SECONDS), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
