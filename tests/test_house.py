"""The house keeps its own rules, and every rule catches a planted bug."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import violations
from tests.house.tables import AREAS, FILE_LINES, FUNCTION_LINES

ROOT = Path(__file__).parent.parent
WORD = "TO" + "DO"

# Where the bug is planted, the bug, and what the finding must say.
PLANTED = [
    ("rapid/core/a.py", "import rapid.wire", "rapid.core may not import rapid.wire"),
    ("rapid/core/a.py", "def f():\n    import numpy", "rapid.core may not import numpy"),
    ("rapid/core/a.py", "import time", "pure code may not import time"),
    ("rapid/core/a.py", "from random import Random", "pure code may not import random"),
    ("rapid/core/a.py", "import asyncio", "pure code may not import asyncio"),
    ("rapid/core/a.py", "import logging", "pure code may not import logging"),
    ("rapid/core/a.py", "import os", "pure code may not import os"),
    ("rapid/core/a.py", "import socket", "pure code may not import socket"),
    ("rapid/core/policy/a.py", "from datetime import datetime", "pure code may not import datetime"),
    ("rapid/core/a.py", "print('x')", "pure code may not call print()"),
    ("rapid/core/a.py", "open('x')", "pure code may not call open()"),
    ("rapid/core/a.py", "async def f(): ...", "pure code may not be async: f()"),
    ("rapid/sim/a.py", "import rapid.simgpu", "rapid.sim may not import rapid.simgpu"),
    ("rapid/sim/a.py", "import time", "pure code may not import time"),
    ("rapid/sim/a.py", "import threading", "pure code may not import threading"),
    ("rapid/sim/a.py", "import datetime as d\nd.datetime.now()", "pure code may not call datetime.datetime.now()"),
    ("rapid/sim/a.py", "import random\nrandom.random()", "pure code may not call random.random()"),
    ("rapid/sim/a.py", "from random import gauss\ngauss(0, 1)", "pure code may not call random.gauss()"),
    ("rapid/sim/a.py", "from random import Random\nRandom()", "pure code may not call random.Random()"),
    ("rapid/sim/a.py", "import numpy as np\nnp.random.normal()", "pure code may not call numpy.random.normal()"),
    (
        "rapid/sim/a.py",
        "import numpy as np\nnp.random.default_rng()",
        "pure code may not call numpy.random.default_rng",
    ),
    ("rapidd/a.py", "from rapid.core import ledger", "rapidd may not import rapid.core.ledger"),
    ("rapidd/a.py", "import rapidctl.client", "rapidd may not import rapidctl.client"),
    ("rapidd/load/a.py", "from ..device import base\nfrom rapid.sim import x", "rapidd.load may not import rapid.sim"),
    ("rapidd/device/nvml.py", "import rapid.simgpu", "rapidd.device may not import rapid.simgpu"),
    ("rapidctl/a.py", "import rapidd", "rapidctl may not import rapidd"),
    (
        "rapidctl/controller/loop.py",
        "import rapid.sim.traces.reading",
        "rapidctl.controller may not import rapid.sim.traces.reading",
    ),
    ("rapidctl/controller/loop.py", "import rapid.simgpu", "rapidctl.controller may not import rapid.simgpu"),
    ("rapidctl/engines/a.py", "import rapid.core.control", "rapidctl.engines may not import rapid.core.control"),
    ("rapidctl/commands/status.py", "import rapid.sim", "rapidctl.commands may not import rapid.sim"),
    ("rapidctl/demo/a.py", "from ..controller import loop", "rapidctl.demo may not import rapidctl.controller"),
    ("rapidd/a.py", "def f():\n    import pynvml", "pynvml belongs in rapidd/device/nvml.py alone"),
    ("rapidd/device/nvml.py", "import pynvml", "import pynvml inside the constructor"),
    ("rapidd/device/nvml.py", "try:\n    import pynvml\nfinally:\n    pass", "import pynvml inside the constructor"),
    ("rapidd/device/nvml.py", "def f():\n    import amdsmi", "amdsmi belongs in rapidd/device/amdsmi.py alone"),
    ("rapidd/a.py", "import asyncio\nasyncio.create_task(f())", "asyncio.create_task() makes a task that nobody owns"),
    ("rapidd/a.py", "import asyncio as a\na.get_running_loop().create_task(f())", "makes a task that nobody owns"),
    ("tests/a.py", "from unittest import mock", "not unittest.mock"),
    ("tests/a.py", "import unittest.mock as m", "not unittest.mock"),
    ("tests/a.py", "def test(mocker):\n    mocker.patch.object(x, 'y')", "not mocker.patch.object()"),
    ("tests/a.py", "def test(monkeypatch):\n    monkeypatch.setattr(x, 'y', 1)", "not monkeypatch.setattr()"),
    ("tests/e2e/a.py", "import time\ntime.sleep(1)", "not with time.sleep()"),
    ("tests/a.py", "from asyncio import sleep\nsleep(0.1)", "not with asyncio.sleep()"),
    ("tests/a.py", "import time\ntime.time()", "tests do not read the wall clock: time.time()"),
    ("tests/a.py", "from datetime import datetime\ndatetime.now()", "tests do not read the wall clock"),
    ("packaging/__init__.py", "", "would shadow the real module"),
    ("systemd/__init__.py", "", "would shadow the real module"),
    ("bench/a.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES, f"f() has {FUNCTION_LINES + 1} lines"),
    ("scripts/a.py", "x = 1\n" * (FILE_LINES + 1), f"the file has {FILE_LINES + 1} lines"),
    ("rapidctl/a.py", f"x = 1  # {WORD} later", f"{WORD}: do it now"),
]

# Each stands close to a rule without breaking it.
KEPT = [
    (
        "rapid/core/a.py",
        "from rapid.core.policy import x\nfrom . import y\nimport math\nfrom collections.abc import Mapping",
    ),
    ("rapid/sim/a.py", "import random\nimport numpy as np\nrandom.Random(1)\nnp.random.default_rng(seed=1)"),
    ("rapid/v1/a_pb2.py", "import time\nimport rapidctl\n" + "x = 1\n" * FILE_LINES),
    ("rapidd/a.py", "from rapid import __version__\nfrom rapid.core.guard import Guard\nimport grpc"),
    ("rapidd/a.py", "async def f(group):\n    group.create_task(g())"),
    ("rapidd/device/nvml.py", "class A:\n    def __init__(self):\n        import pynvml"),
    ("rapidd/device/sim.py", "from rapid.simgpu import State\nfrom rapidd.device.base import Device"),
    ("rapidctl/controller/loop.py", "from rapid.core.control import Control\nfrom .journal import Journal"),
    ("rapidctl/commands/demo.py", "import rapid.sim\nfrom rapidctl.demo import run"),
    ("tests/a.py", "import asyncio\nasyncio.sleep(0)\n\ndef test(monkeypatch):\n    monkeypatch.setenv('A', 'b')"),
    ("bench/a.py", "import time\ntime.sleep(1)\ndef f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)),
    ("scripts/a.py", "x = 1\n" * FILE_LINES),
    ("packaging/etc/a.py", ""),
]


def plant(root: Path, path: str, text: str) -> None:
    """A small tree with the packages that the bugs speak of, and one file more."""
    for area in AREAS:
        folder = root / area.name.replace(".", "/")
        folder.mkdir(parents=True, exist_ok=True)
    for module in ("rapid/core/ledger.py", "rapid/core/policy/__init__.py", path):
        file = root / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if module == path else "")


def test_the_house_keeps_its_rules() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(("path", "bug", "finding"), PLANTED)
def test_a_planted_bug_is_found(tmp_path: Path, path: str, bug: str, finding: str) -> None:
    plant(tmp_path, path, bug)

    found = violations(tmp_path)

    assert any(line.startswith(f"{path}:") and finding in line for line in found), found


@pytest.mark.parametrize(("path", "text"), KEPT)
def test_what_keeps_the_rules_is_let_be(tmp_path: Path, path: str, text: str) -> None:
    plant(tmp_path, path, text)

    assert violations(tmp_path) == []


@pytest.mark.parametrize("area", [area.name for area in AREAS])
def test_no_area_may_import_a_stranger(tmp_path: Path, area: str) -> None:
    path = f"{area.replace('.', '/')}/planted.py"
    plant(tmp_path, path, "import torch")

    assert any("may not import torch" in line for line in violations(tmp_path))


def test_the_stubs_are_what_the_proto_files_say(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "generate_stubs.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=100)

    fresh = {path.name: path.read_bytes() for path in (tmp_path / "rapid/v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "rapid/v1").glob("*_pb2*")}

    assert fresh
    different = sorted(name for name in fresh | committed if fresh.get(name) != committed.get(name))
    assert different == [], "rapid/v1 is not what proto/ says: run make proto"
