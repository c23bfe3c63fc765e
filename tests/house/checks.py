"""One function per rule: a source file in, what breaks the rule out."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.house.source import Source, calls, imports, runs_at_import, sources, within
from tests.house.tables import (
    AREAS,
    CLOCK_CALLS,
    CORE_STDLIB,
    DEVICE_LIBRARIES,
    DICE,
    FILE_LINES,
    FUNCTION_LINES,
    PACKAGES,
    PURE_BANNED_CALLS,
    SEEDED_DICE,
    SIM_BANNED,
    UNFINISHED,
    WAITS,
)

Finding = tuple[int, str]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def violations(root: Path) -> list[str]:
    """Every breach of the house rules below root, each as `path:line: what is wrong`."""
    found = [f"{path}:1: {what}" for path, what in shadowing_packages(root)]
    for source in sources(root):
        found += [f"{source.path}:{line}: {what}" for check in CHECKS for line, what in check(source)]
    return found


def shadowing_packages(root: Path) -> Iterator[tuple[str, str]]:
    for name in ("packaging", "systemd"):
        if (root / name / "__init__.py").exists():
            yield f"{name}/__init__.py", f"as a package, {name}/ would shadow the real module of that name"


def imports_only_what_its_area_may(source: Source) -> Iterator[Finding]:
    if not within(source.module, PACKAGES):
        return
    area = max((area for area in AREAS if within(source.module, area.name)), key=lambda area: len(area.name))
    for line, target in imports(source):
        top = target.partition(".")[0]
        ours = target == "rapid" or within(target, (area.name, *area.ours))
        theirs = top in sys.stdlib_module_names or top in area.theirs
        if not (ours if top in PACKAGES else theirs):
            yield line, f"{area.name} may not import {target}"


def pure_code_has_no_way_out(source: Source) -> Iterator[Finding]:
    core = within(source.module, "rapid.core")
    if not core and not within(source.module, "rapid.sim"):
        return
    for line, target in imports(source):
        top = target.partition(".")[0]
        if top in sys.stdlib_module_names and (top not in CORE_STDLIB if core else top in SIM_BANNED):
            yield line, f"pure code may not import {target}"
    for line, name, call in calls(source):
        unseeded = within(name, DICE) and not (name in SEEDED_DICE and (call.args or call.keywords))
        if name in PURE_BANNED_CALLS or name in CLOCK_CALLS or unseeded:
            yield line, f"pure code may not call {name}()"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef):
            yield node.lineno, f"pure code may not be async: {node.name}()"


def device_libraries_load_late_and_in_one_place(source: Source) -> Iterator[Finding]:
    if not within(source.module, PACKAGES):
        return
    too_early = set(imports(source, runs_at_import(source.tree)))
    for line, target in imports(source):
        library = target.partition(".")[0]
        home = DEVICE_LIBRARIES.get(library, source.path)
        if source.path != home:
            yield line, f"{library} belongs in {home} alone"
        elif library in DEVICE_LIBRARIES and (line, target) in too_early:
            yield line, f"import {library} inside the constructor, so that the package loads on any machine"


def tasks_have_an_owner(source: Source) -> Iterator[Finding]:
    if not within(source.module, PACKAGES):
        return
    for line, name, _ in calls(source):
        owner, _, verb = name.rpartition(".")
        if verb in ("create_task", "ensure_future") and (owner == "asyncio" or "loop" in owner):
            yield line, f"{name}() makes a task that nobody owns; use the TaskGroup of the process"


def tests_do_not_patch(source: Source) -> Iterator[Finding]:
    if not source.is_test:
        return
    for line, target in imports(source):
        if within(target, ("unittest.mock", "mock", "pytest_mock")):
            yield line, f"tests use fakes that obey the protocol, not {target}"
    for line, name, _ in calls(source):
        if "patch" in name.split(".") or name.endswith(".setattr"):
            yield line, f"tests use fakes that obey the protocol, not {name}()"


def tests_neither_sleep_nor_read_the_clock(source: Source) -> Iterator[Finding]:
    if not source.is_test or source.path == WAITS:
        return
    for line, name, call in calls(source):
        lets_others_run = [ast.unparse(argument) for argument in call.args] == ["0"]
        if name == "time.sleep" or (name == "asyncio.sleep" and not lets_others_run):
            yield line, f"tests wait for a condition ({WAITS}), not with {name}()"
        elif name in CLOCK_CALLS:
            yield line, f"tests do not read the wall clock: {name}()"


def functions_and_files_stay_short(source: Source) -> Iterator[Finding]:
    lines = len(source.text.splitlines())
    if lines > FILE_LINES:
        yield 1, f"the file has {lines} lines, the house allows {FILE_LINES}"
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTIONS):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield node.lineno, f"{node.name}() has {length} lines, the house allows {FUNCTION_LINES}"


def nothing_is_left_for_later(source: Source) -> Iterator[Finding]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if word := UNFINISHED.search(line):
            yield number, f"{word[0]}: do it now, or plan it where work is planned"


CHECKS: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    imports_only_what_its_area_may,
    pure_code_has_no_way_out,
    device_libraries_load_late_and_in_one_place,
    tasks_have_an_owner,
    tests_do_not_patch,
    tests_neither_sleep_nor_read_the_clock,
    functions_and_files_stay_short,
    nothing_is_left_for_later,
)
