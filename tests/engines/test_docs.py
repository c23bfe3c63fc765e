"""The commands in docs/engines are commands: each has options that `rapidctl attach` knows, with values it takes."""

import re
import shlex
from pathlib import Path

import click
import pytest

from rapidctl.commands.attach import command
from rapidctl.engines.kinds import ENTRIES, load
from rapidctl.engines.options import made

PAGES = sorted((Path(__file__).parents[2] / "docs/engines").glob("*.md"))
_BLOCK = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMON = {"instance", "node", "gpus", "role", "load_socket", "only_check"}


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
        made(load(kind), {key: value for key, value in given.items() if key not in COMMON and not _is_global(key)})


def test_every_kind_has_its_page_with_a_command() -> None:
    assert {entry.kind for entry in ENTRIES} <= {page.stem for page in PAGES if commands(page)}


def _is_global(key: str) -> bool:
    return key in ("address", "tls_ca", "tls_cert", "tls_key", "timeout_s", "as_json")
