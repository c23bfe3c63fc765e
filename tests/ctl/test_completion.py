"""Shell completion: the scripts parse, and the shell is told what there is."""

import json
import os
import subprocess
import sys

import pytest

from tests.ctl.conftest import Ctl


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
        ("rapidctl role set p0 ", {"prefill", "decode", "mixed", "auto"}),
        ("rapidctl budget ", {"get", "set"}),
        ("rapidctl status --tls-c", {"--tls-ca", "--tls-cert"}),
        ("rapidctl d", {"decisions", "demo"}),
    ],
)
def test_bash_is_told_what_can_follow(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    environment = {
        **os.environ,
        "_RAPIDCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-m", "rapidctl"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert {row.split(",", 1)[1] for row in done.stdout.splitlines()} == offered
    assert done.stderr == ""
