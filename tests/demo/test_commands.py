"""The two verbs on the command line."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from rapidctl.__main__ import cli
from rapidctl.commands.demo import SHAPE
from rapidctl.demo.figures import to_document
from tests.demo.story import figures


def keys(document: dict[str, Any]) -> Iterator[str]:
    for key, value in document.items():
        yield key
        if isinstance(value, dict):
            yield from keys(value)


def test_help_documents_every_key_of_the_contract_and_no_other() -> None:
    shown = {key if key != "rapid" else "predictive" for key in keys(to_document(figures()))}
    assert set(re.findall(r'"(\w+)"', SHAPE)) == shown, "with the default policy as the second host"


@pytest.mark.parametrize("verb", ["demo", "sim-engine"])
def test_help_is_there(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--policy", "magic"], "'magic' is not one of 'uniform', 'static', 'power', 'roles', 'rapid'"),
        (["demo", "--seconds", "1"], "1.0 is not in the range 2<=x<=3600"),
        (["demo", "--rate-scale", "0"], "0.0 is not in the range 0<x<=1000"),
        (["sim-engine", "--role", "mixed"], "'mixed' is not one of 'prefill', 'decode'"),
        (["sim-engine", "--instance", "e0"], "Missing option"),
    ],
)
def test_wrong_words_are_refused_with_exit_code_2(words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert message in result.output
