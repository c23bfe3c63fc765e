"""The same seed gives the same bytes, in any process, whatever its hash seed."""

import os
import subprocess
import sys
from pathlib import Path

from tests.sim.short_run import digest, site_digest

ROOT = Path(__file__).parents[2]


def elsewhere(call: str, hash_seed: str) -> str:
    """What the call says in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", f"from tests.sim.short_run import *; print({call})"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def test_two_processes_with_different_hash_seeds_agree() -> None:
    assert elsewhere("digest(9)", "1") == elsewhere("digest(9)", "2") == digest(9)


def test_so_do_two_runs_of_a_whole_site() -> None:
    assert elsewhere("site_digest(3)", "1") == elsewhere("site_digest(3)", "2") == site_digest(3)
    assert site_digest(3) != site_digest(4)


def test_a_run_that_goes_through_a_set_is_caught() -> None:
    assert elsewhere("planted(9)", "1") != elsewhere("planted(9)", "2")


def test_another_seed_gives_another_run() -> None:
    assert digest(9) != digest(10)
