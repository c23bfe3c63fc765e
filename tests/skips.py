"""In CI a skipped test is a failure, because what never runs there is not tested; only tests/gpu may skip."""

import os

import pytest

ALLOWED = "tests/gpu/"


def unexcused(config: pytest.Config) -> list[str]:
    """The tests and files that were skipped and had to run. Workers of xdist report nothing, their controller does."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true":
        return []
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    return sorted(name for name in skipped if not name.startswith(ALLOWED))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and unexcused(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if names := unexcused(config):
        terminalreporter.section("skipped, which CI does not allow outside tests/gpu", red=True)
        for name in names:
            terminalreporter.line(name)
