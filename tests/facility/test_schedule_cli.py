"""`rapidctl budget schedule` against a controller without a loop, and against a real one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rapid.core.facility.nouns import Schedule
from rapidctl.commands.budget_schedule import COLUMNS
from tests.controller.process import ROOT, Controllers
from tests.ctl.conftest import Ctl, _environment, controller, ctl
from tests.ctl.fake_controller import FakeController

__all__ = ["_environment", "controller", "ctl"]

DAILY = tuple(range(7))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ("evening", "rack1", "2kW", "--days", "mon-fri", "--from", "17:00", "--to", "21:30", "--ramp-down", "5min"),
            Schedule("evening", "rack1", 2_000_000, (0, 1, 2, 3, 4), 61_200.0, 16_200.0, 300.0),
        ),
        (
            ("n", "rack1", "2kW", "--days", "daily", "--from", "22:00", "--to", "6:00", "--ramp-up", "90s"),
            Schedule("n", "rack1", 2_000_000, DAILY, 79_200.0, 28_800.0, 0.0, 90.0),
        ),
        (
            ("w", "rack1", "2kW", "--days", "sat-mon,wed", "--from", "0:00", "--to", "0:00"),
            Schedule("w", "rack1", 2_000_000, (0, 2, 5, 6), 0.0, 86_400.0),
        ),
        (
            ("dr", "rack1", "2kW", "--from", "2027-01-12T17:00Z", "--to", "2027-01-12T20:00+01:00"),
            Schedule("dr", "rack1", 2_000_000, (), 1_799_773_200.0, 7_200.0),
        ),
    ],
)
def test_add_says_what_it_is_told(
    ctl: Ctl, controller: FakeController, words: tuple[str, ...], wanted: Schedule
) -> None:
    result = ctl("budget", "schedule", "add", *words)
    assert (result.exit_code, result.stdout) == (0, f"schedule {words[0]}: domain rack1 at 2000 W\n")
    assert controller.asked == [("schedule", wanted)]
    assert "@" in controller.by[0]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (("--days", "mon", "--from", "25:00", "--to", "6:00"), "--from: '25:00' is no time of day"),
        (("--days", "mon", "--from", "5", "--to", "6:00"), "--from: '5' is no time of day"),
        (("--days", "moon", "--from", "5:00", "--to", "6:00"), "--days: 'moon' names no days; write it as mon-fri"),
        (("--from", "5:00", "--to", "6:00"), "--from: '5:00' is no time with its zone; write it as 2027-01-12T17:00Z"),
        (("--from", "2027-01-12T17:00", "--to", "2027-01-12T18:00Z"), "is no time with its zone"),
        (("--from", "2027-01-12T17:00Z", "--to", "2027-01-12T17:00Z"), "is not after"),
    ],
)
def test_times_that_make_no_sense_are_explained(
    ctl: Ctl, controller: FakeController, times: tuple[str, ...], words: str
) -> None:
    result = ctl("budget", "schedule", "add", "s", "rack1", "2kW", *times)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert controller.asked == []


def test_a_schedule_that_raises_asks_first(ctl: Ctl, controller: FakeController) -> None:
    times = ("--days", "daily", "--from", "1:00", "--to", "2:00")
    result = ctl("budget", "schedule", "add", "s", "rack1", "9kW", *times)
    assert (result.exit_code, controller.asked) == (1, [])
    assert "not done without a yes: schedule 9000 W for rack1" in result.stderr
    assert ctl("budget", "schedule", "add", "s", "rack1", "9kW", *times, "--yes").exit_code == 0


def test_list_shows_them_in_utc(ctl: Ctl, controller: FakeController) -> None:
    lines = ctl("budget", "schedule", "list").stdout.splitlines()
    assert re.split(r"  +", lines[0]) == [column.title for column in COLUMNS]
    assert lines[1].split()[:6] == ["night", "rack1", "2,000", "mon-fri", "22:00", "06:00"]
    assert lines[2].split()[3] == "once"
    (document,) = [json.loads(row) for row in ctl("budget", "schedule", "list", "--json").stdout.splitlines()]
    assert document["schedules"][0]["days"] == ["mon", "tue", "wed", "thu", "fri"]
    controller.schedules = ()
    empty = ctl("budget", "schedule", "list")
    assert (empty.stdout, empty.stderr) == ("", "no schedule\n")


def test_remove_takes_one_away(ctl: Ctl, controller: FakeController) -> None:
    assert ctl("budget", "schedule", "remove", "night").stdout == "schedule night is removed\n"
    gone = ctl("budget", "schedule", "remove", "night")
    assert (gone.exit_code, "no schedule named 'night' (known: dr-42)" in gone.stderr) == (1, True)


@pytest.mark.e2e
def test_a_schedule_is_kept_over_a_restart(tmp_path: Path) -> None:
    with Controllers(tmp_path / "c") as home:

        def rapidctl(*words: str) -> str:
            command = [sys.executable, "-m", "rapidctl", "--address", life.address, "budget", *words]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
            return done.stdout

        life = home.start()
        rapidctl("schedule", "add", "now", "host", "1kW", "--days", "daily", "--from", "0:00", "--to", "0:00")
        life.kill()
        life = home.start()
        (found,) = json.loads(rapidctl("schedule", "list", "--json"))["schedules"]
        assert (found["name"], found["active"]) == ("now", True)
        (domain,) = json.loads(rapidctl("get", "--json"))["domains"]
        assert (domain["budget_w"], domain["standing_w"]) == (1000.0, 1200.0)
        assert domain["held_by"].startswith("schedule now: now@")
        assert "by order of schedule now" in rapidctl("get")
        rapidctl("schedule", "remove", "now", "--yes")
        assert json.loads(rapidctl("get", "--json"))["domains"][0]["budget_w"] == 1200.0
