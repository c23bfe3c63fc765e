"""Errors: one line on stderr, nothing on stdout, and the exit code that says what kind it is."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rapid.core import errors
from rapidctl.__main__ import cli, exit_code
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController

CALLS = [
    ("status",),
    ("watch",),
    ("budget", "get"),
    ("budget", "set", "rack1", "3kW", "--yes"),
    ("role", "set", "p0", "auto"),
    ("pause",),
    ("resume",),
    ("decisions",),
    ("plan",),
    ("why", "d7"),
    ("node", "release", "h2", "--yes"),
]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="rapidctl")


@pytest.mark.parametrize("arguments", CALLS, ids=lambda arguments: " ".join(arguments[:2]))
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_an_absent_controller_is_exit_3_and_says_what_to_do(
    controller: FakeController, arguments: tuple[str, ...], json: tuple[str, ...]
) -> None:
    controller.stop()
    result = run("--address", controller.address, *arguments, *json)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"rapidctl: cannot reach the controller at {controller.address}: nobody listens there; "
        "is rapid-controller running? set --address or RAPID_ADDRESS\n"
    )


@pytest.mark.parametrize("arguments", [("status",), ("watch", "--interval", "0.1")])
def test_a_controller_that_does_not_answer_is_exit_3_within_the_timeout(
    ctl: Ctl, controller: FakeController, arguments: tuple[str, ...]
) -> None:
    controller.be_deaf()
    result = ctl(*arguments, "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"rapidctl: the controller at {controller.address} did not answer within 0." in result.stderr
    assert result.stderr.endswith(" s; --timeout waits longer\n")


def test_a_change_without_an_answer_may_yet_be_done_and_says_so(ctl: Ctl, controller: FakeController) -> None:
    controller.be_deaf()
    result = ctl("pause", "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.endswith("0.2 s; --timeout waits longer; it may still do as asked: look at its status\n")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("h1", "'h1' is no address: write it as 'host:port' or 'unix:/path'"),
        ("127.0.0.1:76000", "'127.0.0.1:76000' is no address: write it as 'host:port' or 'unix:/path'"),
        ("", "'' is no address: write it as 'host:port' or 'unix:/path'"),
        ("h1:7600", "h1:7600 is another host, so it needs TLS: set --tls-ca, --tls-cert and --tls-key"),
    ],
)
def test_an_address_that_cannot_be_used_is_exit_2(address: str, text: str) -> None:
    result = run("status", "--address", address)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"rapidctl: {text}\n")


def test_a_socket_that_nobody_serves_is_exit_3(tmp_path: Path) -> None:
    result = run("status", "--address", f"unix:{tmp_path}/x.sock")
    assert result.exit_code == 3
    assert "nobody listens there" in result.stderr


def test_half_of_tls_is_exit_2(tmp_path: Path) -> None:
    for given in (("--tls-ca",), ("--tls-cert", "--tls-key")):
        result = run("status", *(word for name in given for word in (name, str(tmp_path / "x.pem"))))
        assert result.exit_code == 2
        assert result.stderr == "rapidctl: TLS needs all three of --tls-ca, --tls-cert and --tls-key\n"
    every = [word for name in ("ca", "cert", "key") for word in (f"--tls-{name}", str(tmp_path / f"{name}.pem"))]
    result = run("status", *every)
    assert (result.exit_code, result.stderr) == (2, f"rapidctl: --tls-ca: there is no file {tmp_path}/ca.pem\n")


@pytest.mark.parametrize(
    "arguments",
    [(), ("stats",), ("status", "extra"), ("budget", "set", "rack1"), ("watch", "--interval", "0"), ("why",)],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_a_command_line_that_makes_no_sense_is_exit_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: rapidctl" in result.stderr


def test_a_misspelt_verb_is_answered_with_the_right_one() -> None:
    assert "No such command 'stats'. Did you mean 'status'?" in run("stats").stderr


def test_every_kind_of_error_has_an_exit_code() -> None:
    codes = {
        errors.ConfigInvalid("a.b", "is wrong"): 2,
        errors.UsageError("no"): 2,
        errors.Unreachable("gone"): 3,
        errors.BudgetRefused("no"): 1,
        errors.NotFound("gpu", "x"): 1,
        errors.DeviceLost("g", "off the bus"): 1,
        errors.RapidError("broken"): 1,
    }
    assert {type(error): exit_code(error) for error in codes} == {type(error): code for error, code in codes.items()}


def test_global_options_stand_before_or_after_the_verb_and_after_counts(controller: FakeController) -> None:
    here, nowhere = controller.address, "127.0.0.1:1"
    assert run("--address", here, "status").exit_code == 0
    assert run("status", "--address", here).exit_code == 0
    assert run("--address", nowhere, "status", "--address", here).exit_code == 0
    assert run("--address", here, "status", "--address", nowhere).exit_code == 3
    assert run("--json", "budget", "get", "--address", here).stdout.startswith('{"domains"')


def test_an_option_counts_more_than_the_environment(controller: FakeController) -> None:
    environment = {"RAPID_ADDRESS": "127.0.0.1:1"}
    assert CliRunner().invoke(cli, ["status"], env=environment).exit_code == 3
    assert CliRunner().invoke(cli, ["status", "--address", controller.address], env=environment).exit_code == 0
    assert CliRunner().invoke(cli, ["status"], env={"RAPID_ADDRESS": controller.address}).exit_code == 0
    wrong = CliRunner().invoke(cli, ["status"], env={"RAPID_TIMEOUT": "never"})
    assert wrong.exit_code == 2
    assert "'RAPID_TIMEOUT'" in wrong.stderr or "--timeout" in wrong.stderr


def test_a_proxy_for_the_web_is_not_asked(controller: FakeController) -> None:
    environment = {"http_proxy": "http://127.0.0.1:1", "grpc_proxy": "http://127.0.0.1:1"}
    result = CliRunner().invoke(cli, ["status", "--address", controller.address], env=environment)
    assert result.exit_code == 0
