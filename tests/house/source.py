"""Python files as the checks see them: parsed, never imported, so that a tree with a planted bug can be judged too."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.tables import FOLDERS, GENERATED


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: the root of its tree, its path below it, its text, its syntax tree."""

    root: Path
    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        return self.module if self.path.endswith("/__init__.py") else self.module.rpartition(".")[0]

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")


def sources(root: Path) -> Iterator[Source]:
    """The Python files that people write; generated ones keep to the rules of their generator."""
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            if not path.startswith(GENERATED):
                text = file.read_text()
                yield Source(root, path, text, ast.parse(text, path))


def within(module: str, packages: str | Iterable[str]) -> bool:
    """Whether the module is one of the packages or lies below one."""
    names = (packages,) if isinstance(packages, str) else packages
    return any(module == name or module.startswith(name + ".") for name in names)


def imports(source: Source, below: Iterable[ast.AST] | None = None) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that the file imports, at any depth or in the nodes given."""
    for node in ast.walk(source.tree) if below is None else below:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(source, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if is_module(source.root, full) else base


def absolute(source: Source, node: ast.ImportFrom) -> str:
    """The package that `from ... import` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = source.package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def is_module(root: Path, name: str) -> bool:
    """Whether `from package import name` means a module rather than something inside the package."""
    path = root / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists() or name in ("unittest.mock", "numpy.random")


def runs_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below the node but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from runs_at_import(child)


def calls(source: Source) -> Iterator[tuple[int, str, ast.Call]]:
    """Line, full dotted name and node of every call, with the file's own import names undone."""
    names: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names.update((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            names.update((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            first, dot, rest = name.partition(".")
            yield node.lineno, names.get(first, first) + dot + rest, node


def dotted(node: ast.expr) -> str:
    """`a.b().c` as written, without arguments; the empty string for anything but names, dots and calls."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := dotted(node.value)):
        return f"{value}.{node.attr}"
    if isinstance(node, ast.Call) and (called := dotted(node.func)):
        return f"{called}()"
    return ""
