"""The commands in docs/engines are commands: each has options that `rapidctl attach` knows, with values it takes."""

import re
import shlex
from pathlib import Path

import click
import pytest

from rapidctl.commands.attach import command
from rapidctl.engines.kinds import ENTRIES, load
from rapidctl.engines.options import made, wanted

PAGES = sorted((Path(__file__).parents[2] / "docs/engines").glob("*.md"))
_BLOCK = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every `rapidctl attach KIND ...` on a page, on one line."""
    blocks = _BLOCK.findall(page.read_text())
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("rapidctl attach ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one(page: Path) -> None:
    for line in commands(page):
        kind, *words = shlex.split(line)[2:]
        assert isinstance(command, click.Group)
        with click.Context(command) as ctx:
            verb = command.get_command(ctx, kind)
        assert verb is not None, line
        given = verb.make_context(kind, words, parent=ctx).params
        of_kind = load(kind)
        made(of_kind, {one.key: given[one.key] for one in wanted(of_kind.options)})


def test_every_kind_has_its_page_with_a_command() -> None:
    assert {entry.kind for entry in ENTRIES} <= {page.stem for page in PAGES if commands(page)}
