"""What rapid-controller says of its command line and configuration, before it does anything."""

from pathlib import Path

import pytest

from rapidctl.controller.__main__ import main
from tests.controller.process import CONFIG, USUAL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controller.toml"


def ends(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    """The exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return caught.value.code, out.strip(), err.strip()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"more": "[controll]"}, "controll: is unknown; did you mean 'control'?"),
        ({"budget": "1200"}, "domain.host.budget: '1200' is not a power; write it as '1200W' or '1.2kW'"),
        ({"budget": "900W"}, "domain.host.budget: 900 W does not cover the fallbacks and reserved power below it"),
        ({"control": 'lease = "1s"'}, "control.lease: 1 s is shorter than tick + 2 * rpc_timeout + margin = 3 s"),
        ({"address": "0.0.0.0:0"}, "listen.address: other hosts can reach 0.0.0.0:0, so it needs TLS: set tls.ca"),
        ({"node_address": "10.0.0.1:1"}, "node.node-1.address: 10.0.0.1:1 is another host, so it needs TLS"),
        ({"more": "[policy.settings]\nspeed = 3"}, "policy.settings.speed: policy uniform has no such setting"),
        ({"journal": "keep_lives = 0"}, "journal.keep_lives: 0 is outside 1..10000"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_exit_2_naming_the_key(
    path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, str], problem: str
) -> None:
    path.write_text(CONFIG.format(**USUAL | values))
    code, out, err = ends(capsys, "--config", str(path), "--check-config")
    assert (code, out) == (2, "")
    assert err.startswith(f"rapid-controller: config key {problem}"), err
    assert "\n" not in err


def test_a_configuration_that_is_fine_is_said_to_be_and_nothing_is_touched(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(CONFIG.format(**USUAL))
    code, out, err = ends(capsys, "--config", str(path), "--check-config")
    assert (code, out, err) == (0, f"{path} is fine. domains: 1, nodes: 1, GPUs: 2, policy: uniform", "")
    assert [file.name for file in path.parent.iterdir()] == ["controller.toml"]


def test_a_configuration_that_is_not_there_is_exit_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(capsys, "--config", str(path)) == (
        2,
        "",
        f"rapid-controller: config file {path}: there is no such file",
    )


@pytest.mark.parametrize("arguments", [["--epoch-at-least", "0"], ["--what"], ["word"]])
def test_a_command_line_that_makes_no_sense_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(capsys, *arguments)[0] == 2


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ends(capsys, "--help")
    assert code == 0
    assert "Exit codes: 0 stopped in order; 1 refused" in out
