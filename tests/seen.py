"""What tests have counted, at the end of a run, also with -q and with xdist: `record_property(SEEN, "one line")`."""

import pytest

SEEN = "seen"


def lines(terminal: pytest.TerminalReporter) -> list[str]:
    """In the order of the tests' names."""
    reports = [report for kind in ("passed", "failed") for report in terminal.stats.get(kind, [])]
    told = sorted(report.nodeid for report in reports)
    by_name = {report.nodeid: report for report in reports}
    return [text for name in told for key, text in by_name[name].user_properties if key == SEEN]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if found := lines(terminalreporter):
        terminalreporter.section("seen")
        for line in found:
            terminalreporter.line(line)
