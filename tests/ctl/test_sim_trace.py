"""`rapidctl sim trace`: statistics in text and JSON, and what is said of a trace that is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rapid.sim.traces.forms import Fault
from rapid.sim.traces.loader import SHIPPED
from rapidctl.__main__ import cli
from rapidctl.commands._verb import Verb
from rapidctl.sim.trace import command

LINES = [
    "arrival_s,input_tokens,output_tokens",
    "0,100,10",
    "60,200,10",
    "x,1,1",
    "61,9000,10",
    "50,1,1",
    "180,300,10",
    "240,400,30",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(LINES))
    return file


def trace(*words: object) -> Result:
    return CliRunner().invoke(cli, ["sim", "trace", *map(str, words)], prog_name="rapidctl")


def document(*words: object) -> Any:
    result = trace(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def keys(value: Any) -> set[str]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set()
    return own.union(*(keys(child) for child in children))


def test_the_statistics_of_a_file(path: Path) -> None:
    result = trace(path, "--skip-bad", "--max-input", 8192)
    assert result.exit_code == 0
    assert result.stderr == ""
    rows = result.stdout.splitlines()
    assert rows[:5] == [
        f"{path}: 4 requests in 240 s",
        "left out: 1 with prompts of more than 8,192 tokens",
        "skipped as bad: 1 (not a number)",
        "skipped as bad: 1 (unsorted)",
        "",
    ]
    assert [row.split()[:2] for row in rows[6:8]] == [["rate", "0.02"], ["gaps", "0.35"]]
    assert rows[-3:] == [
        "TOKENS   MEAN  P50  P95  P99  MAX",
        "prompts   250  250  385  397  400",
        "answers    15   10   27   29   30",
    ]


def test_json_has_every_number_and_its_help_every_key(path: Path) -> None:
    found = document(path, "--skip-bad", "--max-input", 8192, "--jitter", 0)
    assert isinstance(command, Verb)
    assert found["name"] == str(path)
    assert (found["requests"], found["duration_s"], found["rate_rps"]) == (4, 240, 4 / 240)
    assert found["peak_to_mean"] == pytest.approx(4 / 3)
    assert found["input"] == {"mean": 250, "p50": 250, "p95": 385, "p99": 397, "max": 400}
    assert (found["long_prompts"], found["skipped"]) == (1, {"not a number": 1, "unsorted": 1})
    assert all(f'"{key}"' in command.shape for key in keys(found) | {fault.value for fault in Fault})
    assert keys(document()) == {"traces", "name", "about"}


def test_without_a_trace_the_shipped_ones_are_listed() -> None:
    assert [entry["name"] for entry in document()["traces"]] == [shipped.name for shipped in SHIPPED]
    rows = [row.split(maxsplit=1) for row in trace().stdout.splitlines()]
    assert rows[1 : 1 + len(SHIPPED)] == [[shipped.name, shipped.about] for shipped in SHIPPED]


def test_every_line_about_a_shipped_trace_fits_its_terminal() -> None:
    assert [row for row in trace().stdout.splitlines() if len(row) > 100] == []


def test_a_shipped_trace_is_jittered_by_its_step_unless_told_otherwise() -> None:
    assert document("mooncake")["jitter_s"] == 3.0
    assert document("mooncake")["gap_cv"] == pytest.approx(1.0, abs=0.02)
    assert document("mooncake", "--jitter", 0)["gap_cv"] == pytest.approx(2.95, abs=0.01)
    assert "each arrival is put off by up to 3 s (--jitter)" in trace("mooncake").stdout


def test_less_than_two_minutes_have_no_busiest_one(path: Path) -> None:
    path.write_text("\n".join(LINES[:3]))
    assert document(path)["fano"] is None
    assert re.search(r"^busiest minute +-  ", trace(path).stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n".join(LINES), "line 4: arrival_s 'x' is not a number of seconds (--skip-bad leaves such lines out)"),
        ("", ": the file is empty"),
        (LINES[0], ": it has no request"),
        ("a,b\n1,2\n", "line 1: 'a,b' begins no trace"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(path: Path, content: str, words: str) -> None:
    path.write_text(content)
    for how in ((), ("--json",)):
        result = trace(path, *how)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"rapidctl: trace {path}")
        assert words in result.stderr


@pytest.mark.parametrize("words", [("--jitter", "-1"), ("--jitter", "nan"), ("--max-input", "0"), ("a", "b")])
def test_a_command_line_that_makes_no_sense_exits_2(words: tuple[str, ...]) -> None:
    assert trace("burst", *words).exit_code == 2


def test_every_example_is_a_command_line_that_parses() -> None:
    assert isinstance(command, Verb)
    rows = re.findall(r"rapidctl sim trace((?: \S+)*)", command.examples)
    assert len(rows) == 4
    for row in rows:
        command.make_context("trace", row.split())
