"""The pinned requirements are whole: everything pyproject.toml names, every line with a hash, no registry named."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(name: str) -> dict[str, Requirement]:
    """The pinned packages of one file; fails on a line that is not `name==version` with a hash."""
    found: dict[str, Requirement] = {}
    for block in (ROOT / "requirements" / name).read_text().replace("\\\n", " ").splitlines():
        if not block.startswith("#"):
            requirement, *hashes = block.split(" --hash=sha256:")
            assert hashes, block
            pin = Requirement(requirement)
            assert [clause.operator for clause in pin.specifier] == ["=="], block
            found[canonicalize_name(pin.name)] = pin
    return found


@pytest.mark.parametrize(("file", "extras"), [("run.txt", ["plot"]), ("dev.txt", ["plot", "dev"])])
def test_every_dependency_is_pinned_to_a_version_it_allows(file: str, extras: list[str]) -> None:
    wanted = [
        Requirement(line) for line in PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    ]
    pinned = pins(file)

    for requirement in [*wanted, Requirement("setuptools")]:
        pin = pinned[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(clause.version) for clause in pin.specifier), (requirement, pin)


def test_development_runs_what_users_run() -> None:
    run, dev = pins("run.txt"), pins("dev.txt")

    assert {name: str(pin) for name, pin in run.items()} == {name: str(dev[name]) for name in run}


def test_dynamo_is_pinned_without_what_nothing_of_it_needs() -> None:
    left_out = {line.split()[0] for line in (ROOT / "requirements/dynamo.leave").read_text().splitlines()[1:]}

    pinned = pins("dynamo.txt")

    assert {"ai-dynamo", "ai-dynamo-runtime"} <= pinned.keys()
    assert not left_out & pinned.keys()


@pytest.mark.parametrize("name", ["sglang-router", "smg"])
def test_each_router_is_pinned_for_an_environment_of_its_own(name: str) -> None:
    wanted = Requirement((ROOT / f"requirements/{name}.in").read_text().splitlines()[-1])

    assert pins(f"{name}.txt")[canonicalize_name(name)].specifier == wanted.specifier


@pytest.mark.parametrize("file", ["run.txt", "dev.txt", "dynamo.txt", "sglang-router.txt", "smg.txt"])
def test_no_registry_is_named(file: str) -> None:
    text = (ROOT / "requirements" / file).read_text()

    assert "://" not in text
    assert "--find" not in text
    assert "--index" not in text
