"""Help: quick, with an example for every verb and every JSON key written down."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from rapid import __version__
from rapidctl import commands
from rapidctl.__main__ import cli
from rapidctl.commands import SECTIONS, Entry
from rapidctl.commands._verb import Verb
from tests.ctl.cluster import broken
from tests.ctl.conftest import Ctl
from tests.ctl.fake_controller import FakeController

ELSEWHERE = ("attach", "demo", "sim", "sim-engine", "sim-gpus")  # have tests of their own
JSON_CALLS = [
    ("status",),
    ("watch", "--count", "1"),
    ("decisions",),
    ("plan",),
    ("why", "d7"),
    ("doctor",),
    ("budget", "get"),
    ("budget", "set", "rack1", "2500W"),
    ("budget", "schedule", "add", "s", "rack1", "2kW", "--days", "daily", "--from", "1:00", "--to", "2:00"),
    ("budget", "schedule", "list"),
    ("budget", "schedule", "remove", "night", "--yes"),
    ("role", "set", "d0", "mixed"),
    ("pause",),
    ("resume",),
    ("node", "release", "h2", "--yes"),
    ("completion", "bash"),
]


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb that does something, by its words."""
    context = click.Context(cli)
    for _, entries in SECTIONS:
        for entry in entries:
            command = cli.get_command(context, entry.verb)
            assert command is not None
            yield from leaves_of((entry.verb,), command)


def leaves_of(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves_of((*words, name), inner)


def leaf_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """The verb that a command line begins with."""
    return next(words[:count] for count in (3, 2, 1) if words[:count] in LEAVES)


LEAVES = dict(leaves())
OURS = [words for words in LEAVES if words[0] not in ELSEWHERE]


def test_help_lists_every_verb_and_the_exit_codes() -> None:
    text = CliRunner().invoke(cli, ["--help"], prog_name="rapidctl").stdout
    for _, entries in SECTIONS:
        for entry in entries:
            assert re.search(rf"^  {entry.verb} +{re.escape(entry.help.split(';')[0][:30])}", text, re.MULTILINE)
    assert "0 done; 1 refused" in text
    assert all(f"RAPID_{name}" in text for name in ("ADDRESS", "TLS_CA", "TLS_CERT", "TLS_KEY", "TIMEOUT"))


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_every_verb_has_an_example_and_fits_80_columns(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="rapidctl", terminal_width=80)
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:\n")[2].partition("\n\n")[0]
    assert f"  rapidctl {' '.join(words)}" in examples
    assert "With --json" in result.stdout
    assert [row for row in result.stdout.splitlines() if len(row) > 80] == []


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_every_example_is_a_command_line_that_parses(words: tuple[str, ...]) -> None:
    command = LEAVES[words]
    assert isinstance(command, Verb)
    for row in command.examples.splitlines():
        found = re.search(rf"rapidctl {' '.join(words)}( [^|#>&)]*)?", row)
        if found:
            command.make_context(" ".join(words), (found[1] or "").split())


@pytest.mark.parametrize("words", JSON_CALLS, ids=" ".join)
def test_json_of_every_verb_parses_and_every_key_is_in_its_help(
    ctl: Ctl, controller: FakeController, words: tuple[str, ...]
) -> None:
    controller.status = broken()
    (document,) = [json.loads(row) for row in ctl(*words, "--json").stdout.splitlines()]
    name = leaf_of(words)
    command, status, why = LEAVES[name], LEAVES["status",], LEAVES["why",]
    assert isinstance(command, Verb)
    assert isinstance(status, Verb)
    assert isinstance(why, Verb)
    documented = set(re.findall(r"\w+", command.shape + (why.shape if "rapidctl why" in command.shape else "")))
    if "rapidctl status --json" in command.shape:
        documented |= set(re.findall(r"\w+", status.shape + why.shape))
    assert set(keys(document)) - documented == set()
    assert {leaf_of(words) for words in JSON_CALLS} == set(OURS)


def keys(value: Any) -> Iterator[str]:
    """Every key at any depth; the names of a decision's inputs are its policy's own."""
    for child in value if isinstance(value, list) else ():
        yield from keys(child)
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from () if key == "inputs" else keys(child)


def test_help_and_version_load_nothing_heavy() -> None:
    heavy = ("asyncio", "google", "grpc", "json", "msgspec", "numpy", "rich", "ssl", "structlog", "rapid.core.status")
    code = (
        "import sys; from rapidctl.__main__ import cli\n"
        "for words in (['--help'], ['--version']):\n"
        "    cli(words, prog_name='rapidctl', standalone_mode=False)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-2:] == [f"rapidctl, version {__version__}", "[]"]


def test_a_verb_whose_libraries_are_missing_says_which_and_breaks_no_other(ctl: Ctl) -> None:
    entry = Entry("forecast", "module_that_is_not_there", "What will be.")
    absent = commands.load(entry)
    result = CliRunner().invoke(absent, ["--any", "thing"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'forecast' needs the Python module 'rapidctl.commands.module_that_is_not_there'" in result.stderr
    assert absent.get_short_help_str() == "What will be."
