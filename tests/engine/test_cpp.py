"""The example in C++, built from the .proto files alone, against a real controller."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapid.core.cluster import Phase, Role
from tests.controller.process import DEADLINE_S, ROOT
from tests.engine.site import EngineSite
from tests.wait import wait_for

PREFILL, DECODE, MIXED = Role.PREFILL, Role.DECODE, Role.MIXED
TOOLS = ("g++", "make", "pkg-config", "protoc", "grpc_cpp_plugin")
LIBRARIES = ("grpc++", "protobuf")
BUILT_WITHIN_S = 300.0


def lacks() -> str:
    """What the machine has not; empty: it has all."""
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    if tools:
        return ", ".join(tools)
    wanted = subprocess.run(["pkg-config", "--print-errors", "--exists", *LIBRARIES], capture_output=True, check=False)
    return wanted.stderr.decode().strip()


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(lacks()), reason=f"needs the Debian packages of scripts/debian_packages.sh: {lacks()}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cpp")
    command = ["make", "-s", "-C", str(ROOT / "examples/cpp"), f"OUT={out}", "CXXFLAGS=-std=c++17 -O0 -Wall -Werror"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=BUILT_WITHIN_S, check=False)
    assert built.returncode == 0, built.stderr
    return out / "engine"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSite]:
    with EngineSite(tmp_path_factory.mktemp("s")) as site:
        site.held("e1", MIXED, name_of_folder="e1")
        site.becomes("e1", Phase.SERVING, MIXED)
        yield site


class CppEngine:
    """e0 as a process, which is told on stdin how many requests it has."""

    def __init__(self, program: Path, site: EngineSite) -> None:
        reading, self._stdin = os.pipe()
        self.log = site.folder / "cpp.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(program), *site.words("e0", PREFILL)], stdin=reading, stdout=out, stderr=out
            )
        os.close(reading)
        site.becomes("e0", Phase.SERVING, PREFILL)

    def has(self, requests: int) -> None:
        os.write(self._stdin, f"{requests}\n".encode())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._stdin)


@pytest.fixture
def engine(program: Path, site: EngineSite) -> Iterator[CppEngine]:
    engine = CppEngine(program, site)
    yield engine
    engine.end()


def test_it_changes_role_when_its_requests_have_ended_and_back_again(site: EngineSite, engine: CppEngine) -> None:
    engine.has(3)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.DRAINING)
    assert "SWITCHING" not in engine.log.read_text()
    engine.has(0)
    site.becomes("e0", Phase.SERVING, DECODE)
    site.set_role("e0", PREFILL)
    site.becomes("e0", Phase.SERVING, PREFILL)

    assert engine.stop() == 0
    one = site.becomes("e0", Phase.GONE)
    assert one.engine == "toy engine in C++"
    wait_for(lambda: "it said goodbye: stopped" in site.home.log.read_text(), DEADLINE_S, "its goodbye in the log")


def test_it_is_found_in_the_middle_of_a_change_by_the_next_life_of_the_controller(
    site: EngineSite, engine: CppEngine
) -> None:
    engine.has(1)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.DRAINING)

    site.restart_controller()

    assert site.becomes("e0", Phase.DRAINING, PREFILL).target_role is DECODE
    engine.has(0)
    site.becomes("e0", Phase.SERVING, DECODE)


def test_it_rolls_back_a_drain_that_takes_too_long_and_is_parked(site: EngineSite, engine: CppEngine) -> None:
    engine.has(2)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.DRAINING)
    assert site.becomes("e0", Phase.SERVING, PREFILL).problem == "the drain took too long, 2 requests left"

    engine.has(0)
    site.set_role("e0", None, park=True)
    site.becomes("e0", Phase.PARKED, PREFILL)
    site.set_role("e0", DECODE)
    site.becomes("e0", Phase.SERVING, DECODE)
