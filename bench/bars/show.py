"""Tables in plain text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of the policy: the mean over all cells and the worst of them. sign: -1 if less is better."""

    what: str
    bar: float
    mean: float
    worst: float
    cells: int
    sign: int = 1

    @property
    def holds(self) -> str:
        if self.sign * (self.worst - self.bar) >= 0:
            return "yes"
        return "on average" if self.sign * (self.mean - self.bar) >= 0 else "NO"


def bar(what: str, level: float, values: Sequence[float | None], sign: int = 1) -> Bar:
    """Over the cells that have a value."""
    known = [value for value in values if value is not None]
    worst = min(known) if sign > 0 else max(known)
    return Bar(what, level, sum(known) / len(known), worst, len(known), sign)


def print_bars(title: str, bars: Sequence[Bar]) -> None:
    rows = [(each.what, each.bar, each.mean, each.worst, each.cells, each.holds) for each in bars]
    print_table(title, ("bar", "mean", "worst", "cells", "holds"), rows)


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The first column has no head."""
    lines = [("", *heads), *(tuple(_text(value) for value in row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    print(f"\n{title}\n")
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
    print(flush=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 3 else f"{round(value, 3) + 0.0:.3f}"  # no minus before 0
    return "-" if value is None else str(value)
