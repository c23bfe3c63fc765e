"""What the documentation of rapid.engine shows is true: it runs, and it is as short as it says."""

import ast
import textwrap
from pathlib import Path
from typing import Any

import rapid.engine
from rapid.core.cluster import Phase, Role
from rapid.engine import Engine, PhaseLoad, ReadsRole, SeesOthers, attach
from tests.controller.process import ROOT
from tests.engine.fakes import SOON_S, FakeController, ReadableEngine, RoutedEngine, ScriptedEngine, served
from tests.wait import wait_until

EXAMPLE = ROOT / "examples/engine.py"
LINES_MAX = 100


def shown() -> dict[str, Any]:
    """The names that the example in the docstring makes."""
    documentation = rapid.engine.__doc__ or ""
    _, _, rest = documentation.partition("\n\n")
    block = rest[: rest.index("\nWhat each step")]
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(block), "rapid.engine", "exec"), names)
    return names


async def test_the_engine_in_the_docstring_changes_role(tmp_path: Path) -> None:
    class Whole(shown()["MyEngine"]):  # type: ignore[misc]
        async def rebuild(self, role: Role) -> None: ...

    engine, fake = Whole(), FakeController(load_interval_s=0.05)
    async with served(tmp_path / "c.sock", fake) as address:
        care = attach(engine, instance="p0", node="h1", gpus=("GPU-1",), role=Role.PREFILL, address=address)
        async with care:
            await wait_until(lambda: fake.loads, SOON_S, "a load")
            await fake.order(Role.DECODE)
            await wait_until(lambda: fake.phases[-1:] == [Phase.SERVING], SOON_S, "the commit")
    assert (engine.role, engine.taking) == (Role.DECODE, True)


def test_a_whole_engine_takes_a_hundred_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= LINES_MAX
    ast.parse(EXAMPLE.read_text())


def test_what_an_engine_can_do_is_seen_from_its_methods() -> None:
    plain: Engine = ScriptedEngine()
    assert isinstance(ReadableEngine(), ReadsRole)
    assert isinstance(RoutedEngine(), SeesOthers)
    assert not isinstance(plain, ReadsRole | SeesOthers)
    assert isinstance(plain.load(), PhaseLoad)
