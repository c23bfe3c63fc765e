"""The kill matrix as a table at the end of a run: every cell, also with -q and with xdist."""

from dataclasses import astuple, dataclass
from typing import Any

import pytest

CELL = "kill cell"  # the property of a test's report that carries its row
HEAD = ("fault", "step", "in force / held at the strike", "set", "above held", "driver's own")


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the matrix, by its number there.

    at_strike  (limit, held) of each GPU, in milliwatts
    writes     limits that took effect
    breaches   those of them that a process set above what was held
    own_s      how long a limit that no process had set, such as a fresh driver's, stood above what was held
    """

    number: int
    fault: str
    step: str
    at_strike: list[tuple[int, int]]
    writes: int
    breaches: int
    own_s: float

    def to_plain(self) -> list[Any]:
        """What a report may carry from one process to another."""
        return list(astuple(self))

    def words(self) -> tuple[str, ...]:
        gpus = ", ".join(f"{limit_mw // 1000} / {held_mw // 1000} W" for limit_mw, held_mw in self.at_strike)
        own = f"{self.own_s:.2f} s" if self.own_s else "-"
        return (self.fault, self.step, gpus, str(self.writes), str(self.breaches), own)


def rows(terminal: pytest.TerminalReporter) -> list[Row]:
    """The cells of this run, in the order of the matrix."""
    reports = [report for kind in ("passed", "failed") for report in terminal.stats.get(kind, [])]
    plain = [value for report in reports for name, value in report.user_properties if name == CELL]
    return sorted((Row(*cell) for cell in plain), key=lambda row: row.number)


def lines(cells: list[Row]) -> list[str]:
    """The table: a head, and one line per cell."""
    words = [HEAD, *(cell.words() for cell in cells)]
    widths = [max(map(len, column)) for column in zip(*words, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in words]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (cells := rows(terminalreporter)):
        return
    terminalreporter.section(f"kill matrix: {len(cells)} cells, {sum(cell.breaches for cell in cells)} breaches")
    for line in lines(cells):
        terminalreporter.line(line)
