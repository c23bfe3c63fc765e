"""The rule about skips, tried on small suites of their own in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

IN_A_TEST = "import pytest\ndef test_a(): pytest.skip('no compiler')\ndef test_b(): pass\n"
WHOLE_FILE = "import pytest\npytest.skip('no compiler', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False\n"


def run_suite(suite: Path, path: str, text: str, ci: bool, *options: str) -> subprocess.CompletedProcess[str]:
    file = suite / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "CI" and "PYTEST" not in name}
    environment |= {"PYTHONPATH": str(ROOT), **({"CI": "true"} if ci else {})}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.skips",
        "-p",
        "no:cacheprovider",
        "--rootdir=.",
        *options,
        "tests",
    ]
    return subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("text", [IN_A_TEST, WHOLE_FILE])
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_skip_fails_in_ci_and_is_named(tmp_path: Path, text: str, options: tuple[str, ...]) -> None:
    run = run_suite(tmp_path, "tests/node/test_x.py", text, True, *options)

    assert run.returncode == 1, run.stdout
    assert "which CI does not allow" in run.stdout
    assert "\ntests/node/test_x.py" in run.stdout


def test_a_skip_passes_outside_ci(tmp_path: Path) -> None:
    assert run_suite(tmp_path, "tests/node/test_x.py", IN_A_TEST, False).returncode == 0


@pytest.mark.parametrize(
    ("path", "text"), [("tests/gpu/test_x.py", IN_A_TEST), ("tests/node/test_x.py", EXPECTED_FAILURE)]
)
def test_ci_excuses_gpu_tests_and_expected_failures(tmp_path: Path, path: str, text: str) -> None:
    run = run_suite(tmp_path, path, text, True)

    assert run.returncode == 0, run.stdout
    assert "which CI does not allow" not in run.stdout
