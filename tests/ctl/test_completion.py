"""Shell completion: the scripts parse, and the shell is told what there is."""

import json
import os
import subprocess
import sys

import pytest

from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(ctl: Ctl, shell: str) -> None:
    result = ctl("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_RAPIDCTL_COMPLETE={shell}_complete" in result.stdout
    assert json.loads(ctl("completion", shell, "--json").stdout) == {"shell": shell, "script": result.stdout.strip()}


def test_bash_can_read_its_script(ctl: Ctl) -> None:
    script = ctl("completion", "bash").stdout
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rapidctl st", {"status"}),
        ("rapidctl role set p0 ", {"prefill", "decode", "mixed", "parked", "auto"}),
        ("rapidctl budget ", {"get", "set", "schedule"}),
        ("rapidctl status --tls-c", {"--tls-ca", "--tls-cert"}),
        ("rapidctl budget schedule ", {"add", "list", "remove"}),
        ("rapidctl d", {"decisions", "demo", "doctor"}),
    ],
)
def test_bash_is_told_what_can_follow(typed: str, offered: set[str]) -> None:
    assert complete(typed) == offered


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rapidctl budget set r", {"rack1"}),
        ("rapidctl role set ", {"p0", "d0", "d1"}),
        ("rapidctl node release ", {"h1", "h2"}),
        ("rapidctl why h1", {"h1/0", "h1/1"}),
        ("rapidctl decisions --about d", {"d0", "d1"}),
    ],
)
def test_names_come_from_the_controller(controller: FakeController, typed: str, offered: set[str]) -> None:
    assert complete(typed, RAPID_ADDRESS=controller.address) == offered
    given = typed.replace("rapidctl", f"rapidctl --address {controller.address}")
    assert complete(given, RAPID_ADDRESS="127.0.0.1:1") == offered


def test_without_a_controller_no_name_is_offered_and_nothing_said(controller: FakeController) -> None:
    controller.stop()
    assert complete("rapidctl role set ", RAPID_ADDRESS=controller.address) == set()
    assert complete("rapidctl role set ", RAPID_ADDRESS="nonsense") == set()


def complete(typed: str, **environment: str) -> set[str]:
    """What bash is offered after these words; the last is the one being written."""
    asked = {"_RAPIDCTL_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "rapidctl"],
        env={**os.environ, **asked, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return {row.split(",", 1)[1] for row in done.stdout.splitlines() if row}
