"""docs/threat-model.md: every test that it calls a witness exists under that name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "threat-model.md"
WITNESS = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def missing(text: str) -> list[str]:
    """The witnesses that do not exist."""
    found = []
    for path, name in WITNESS.findall(text):
        file = ROOT / path
        tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        if not file.is_file() or (name and name not in names):
            found.append(f"{path}::{name}")
    return found


def test_every_witness_exists() -> None:
    text = PAGE.read_text()
    assert len(WITNESS.findall(text)) > 30
    assert missing(text) == []


@pytest.mark.parametrize("wrong", ["tests/test_tls.py::test_that_nobody_wrote", "tests/test_nothing.py::test_x"])
def test_a_witness_that_is_gone_is_missed(wrong: str) -> None:
    assert missing(f"`{wrong}` and `tests/test_tls.py::test_good_files_pass`") == [wrong]


def test_every_way_to_be_stopped_names_its_witness() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line.count("|") == 4]
    attacks = [row for row in rows if not row.startswith(("| tries to", "| asset")) and "::" not in row]
    # What is worth attacking has no witness; everything that is tried has one.
    assert all(row.split("|")[1].strip() in PAGE.read_text().partition("Two things decide")[0] for row in attacks)
