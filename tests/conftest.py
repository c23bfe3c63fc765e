"""What holds for every test: marks by folder, repeatable dice, and no silent skips in CI."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import seen, skips
from tests.kills import table

TESTS = Path(__file__).parent
PROFILE = "ci" if os.environ.get("CI") == "true" else "dev"

# No deadline and no check for slowness: both read the wall clock, and a busy machine is not a bug.
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# In CI the dice follow from the tests' own code, so that the same commit gives the same result.
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, database=None)
settings.load_profile(PROFILE)

# A run in the background (`make test &`) ignores SIGINT, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (seen, skips, table):
        config.pluginmanager.register(plugin)


def pytest_report_header(config: pytest.Config) -> str:
    seed = config.getoption("--hypothesis-seed")
    dice = (
        "from each test's own code"
        if PROFILE == "ci"
        else seed or "new in every run; a failure prints how to repeat it"
    )
    return f"dice: profile {PROFILE}, seed {dice}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder says what a test needs, so that nobody forgets the mark; first, because -m selects by it."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in ("e2e", "gpu"):
            item.add_marker(folder)
