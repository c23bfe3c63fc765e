"""What `rapidd --check` prints: findings, what happens when the controller is lost, and the count of each colour."""

import json
import os
import shutil
import sys
from collections.abc import Sequence

from rapid.core.errors import watts
from rapid.core.findings.base import GRADE_COLUMNS, Grade, documents, is_red, laid_out, summary
from rapidd.check import Report

_COLOURS = {Grade.GREEN: "\x1b[32m", Grade.YELLOW: "\x1b[33m", Grade.RED: "\x1b[1;31m"}
_PLAIN = "\x1b[0m"


def show(report: Report, *, as_json: bool) -> int:
    """Print the report on stdout; the exit code: 1 if anything is red."""
    if as_json:
        text = json.dumps({"ok": not is_red(report.findings), "findings": documents(report.findings), **_loss(report)})
        sys.stdout.write(f"{text}\n")
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else None
        coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        sys.stdout.write("\n".join(page(report, width, coloured=coloured)) + "\n")
    return 1 if is_red(report.findings) else 0


def page(report: Report, width: int | None, *, coloured: bool) -> list[str]:
    """The report as a person reads it."""
    lines = []
    for row in laid_out(report.findings, width):
        word = (row.grade.value if row.grade else "").ljust(GRADE_COLUMNS)
        lines.append((f"{_COLOURS[row.grade]}{word}{_PLAIN}" if coloured and row.grade else word) + row.text)
    return [*lines, *_table(report), "", summary(report.findings)]


def _table(report: Report) -> list[str]:
    """What would happen on controller loss, GPU by GPU."""
    if report.loss is None or not report.gpus:
        return []
    titles = ("GPU", "NOW W", "ON LOSS W", "FLOOR W", "CEILING W", "UUID")
    rows: list[Sequence[str]] = [titles]
    for gpu in report.gpus:
        now = _w(gpu.enforced_mw)
        rows.append((str(gpu.index), now, _w(gpu.landed_mw), _w(gpu.floor_mw), _w(gpu.ceiling_mw), gpu.gpu))
    known = [gpu.enforced_mw for gpu in report.gpus if gpu.enforced_mw is not None]
    now = _w(sum(known)) if len(known) == len(report.gpus) else "?"
    sums = [sum(gpu.landed_mw for gpu in report.gpus), sum(gpu.floor_mw for gpu in report.gpus)]
    ceilings_mw = sum(gpu.ceiling_mw for gpu in report.gpus)
    rows.append(("sum", now, *map(_w, sums), _w(ceilings_mw), ""))
    sizes = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(sizes[0]), *(row[i].rjust(sizes[i]) for i in range(1, 5)), row[5]]
        lines.append("  ".join(cells).rstrip())
    return ["", f"when the controller is lost, at the latest after {report.loss.lease_max_s:g} s:", *lines]


def _w(power_mw: int | None) -> str:
    return "?" if power_mw is None else watts(power_mw).removesuffix(" W")


def _loss(report: Report) -> dict[str, object]:
    """The same as JSON."""
    if report.loss is None:
        return {"on_loss": None}
    hard_mw = report.loss.hard_budget_mw
    return {
        "on_loss": {
            "within_s": report.loss.lease_max_s,
            "hard_budget_w": None if hard_mw is None else hard_mw / 1000,
            "sum_w": sum(gpu.landed_mw for gpu in report.gpus) / 1000,
            "gpus": [
                {
                    "gpu": gpu.gpu,
                    "index": gpu.index,
                    "limit_w": None if gpu.enforced_mw is None else gpu.enforced_mw / 1000,
                    "on_loss_w": gpu.landed_mw / 1000,
                    "floor_w": gpu.floor_mw / 1000,
                    "ceiling_w": gpu.ceiling_mw / 1000,
                    "managed": not gpu.unmanageable,
                }
                for gpu in report.gpus
            ],
        }
    }
