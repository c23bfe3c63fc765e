"""evaluation.md: template.md, filled in. Every number in it comes from the results."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from bench.evaluation import tables
from bench.evaluation.films import film_name
from bench.evaluation.grid import FLEETS, GPUS, LOAD_SHARE, Cell, Grid, budget_mw
from bench.evaluation.results import Results, check_budget
from bench.evaluation.rule import AIM, HIGH, LOW
from bench.evaluation.store import ROOT
from bench.evaluation.tables import gain, level, percent
from bench.evaluation.tasks import DRAIN_S
from bench.evaluation.tell import HARM, LEVEL, PLAIN, Record, Rows, lead, record, rows
from bench.evaluation.windows import CHANGES
from rapid.sim.world.scenario import ORACLE
from rapidctl.sim.words import duration, listed

TEMPLATE = Path(__file__).with_name("template.md")
WIDTH = 140  # of a line of text
FOLDER = "evaluation"  # of the figures, as seen from the document
TRIED = ROOT / "docs" / FOLDER / "tried.md"  # written by hand, and put at the end of the document
FOCUS = "rapid"  # the policy that the summary is about
SYNTHETIC = ("longbench", "sonnet", "burst")
GENERATED = ("servegen-mlarge", "servegen-r1")


def write(results: Results, path: Path) -> None:
    """The document. Raises OverBudget instead if a run was over its budget."""
    check_budget(results)
    table = rows(results)
    records = [record(table, policy) for policy in results.grid.policies]
    found = {
        **_summary(results, table, records),
        **_tables(results, table, records),
        **_method(results),
        **_caveats(results),
        "tried": TRIED.read_text().strip(),
    }
    text = TEMPLATE.read_text().format_map(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(_filled(block) for block in text.strip().split("\n\n")) + "\n")


def _summary(results: Results, table: Rows, records: Sequence[Record]) -> dict[str, str]:
    grid = results.grid
    mine = next(each for each in records if each.policy == FOCUS)
    highest = max(records, key=lambda each: each.attained.mean)
    foreseen = {cell: table[cell] for cell in grid.oracle_cells}
    leads = [f"{_plain(gain(lead(table, FOCUS, other)))} points against `{other}`" for other in PLAIN]
    errors = sum(each.errors_sum for each in results.everything)
    return {
        "cells": f"{len(grid.cells):,}",
        "traces": str(len(grid.traces)),
        "engines": str(len(grid.profiles)),
        "corners": str(len(grid.corners)),
        "budgets": str(len(grid.shares)),
        "least_budget": percent(min(grid.shares), 0),
        "greatest_budget": percent(max(grid.shares), 0),
        "seeds": str(grid.seeds),
        "folder": FOLDER,
        "focus": FOCUS,
        "focus_attained": level(mine.attained),
        "focus_leads": listed(leads),
        "focus_harm": percent(mine.harm, 0),
        "focus_worst": f"{percent(mine.greatest_harm_by)} points ({mine.greatest_harm.cell})",
        "focus_regret": level(lead(foreseen, ORACLE, FOCUS)),
        "harm": percent(HARM, 0),
        "near": percent(LEVEL),
        "plain": _coded(PLAIN),
        "highest": highest.policy,
        "highest_attained": level(highest.attained),
        "shares": listed([f"`{each.policy}` in {percent(each.best, 0)} %" for each in records]),
        "runs": f"{sum(len(each.attainment) for each in results.everything):,}",
        "errors": f"{errors:,} errors" if errors else "no error",
    }


def _tables(results: Results, table: Rows, records: Sequence[Record]) -> dict[str, str]:
    grid = results.grid
    shown = grid.shown(grid.traces[0])
    return {
        "overall": tables.overall(table, records),
        "by_budget": tables.by_budget(results, table),
        "by_trace": tables.by_trace(results, table),
        "by_engine": tables.by_engine(results, table),
        "by_corner": tables.by_corner(results, table),
        "harms": tables.harms(records),
        "rates": tables.rates(results),
        "effort": tables.effort(results, table),
        "regrets": tables.regrets(results, table),
        "loads": tables.loads(results),
        "shown_engine": shown.profile,
        "shown_corner": shown.corner.replace(",", ", "),
        "sweep_seeds": str(grid.sweep.seeds),
        "films": "\n\n".join(f"![{trace} over time]({FOLDER}/{film_name(trace)})" for trace in grid.films),
    }


def _method(results: Results) -> dict[str, str]:
    grid = results.grid
    off = sum(not each.load.by_rule for each in results.loads)
    raised = [str(cell) for cell in grid.cells if budget_mw(cell) > _asked_mw(cell)]
    return {
        "seconds": f"{grid.seconds:g}",
        "drain": f"{DRAIN_S:g}",
        "fleets": "; ".join(f"`{profile}`: {_fleet(profile)}" for profile in grid.profiles),
        "aim": percent(AIM, 0),
        "low": percent(LOW, 0),
        "high": percent(HIGH, 0),
        "load_budget": percent(LOAD_SHARE, 0),
        "rule": f"{off} of {len(results.loads)} loads cannot" if off else "all loads do",
        "changes": _coded(tuple(CHANGES)),
        "floors": f"these are raised to the floors: {listed(raised)}" if raised else "none here is below the floors",
        "sources": results.sources,
        "work": f"{results.work_s / 60:,.0f}",
    }


def _caveats(results: Results) -> dict[str, str]:
    cut = {trace: _cut_off(results, trace) for trace in results.grid.traces}
    worst = max(cut, key=lambda trace: cut[trace])
    return {"cut_trace": worst, "cut": percent(cut[worst]), "made": _made(results.grid)}


# ---- small parts ----


def _cut_off(results: Results, trace: str) -> float:
    """The share of its requests that never finished."""
    mine = [each for each in results.entries if each.trace == trace]
    return sum(each.unfinished_sum for each in mine) / sum(each.requests_sum for each in mine)


def _made(grid: Grid) -> str:
    """Which traces nobody logged."""
    kinds = (("Made by hand", SYNTHETIC), ("Generated from the statistics of a fleet", GENERATED))
    found = [(what, tuple(trace for trace in grid.traces if trace in names)) for what, names in kinds]
    return " ".join(f"{what}: {_coded(mine)}." for what, mine in found if mine)


def _fleet(profile: str) -> str:
    fleet = FLEETS[profile]
    nodes = f"{fleet.nodes} nodes" if fleet.nodes > 1 else "1 node"
    return f"{nodes} of {GPUS} GPUs, TTFT {duration(fleet.slo.ttft_s)}, TPOT {duration(fleet.slo.tpot_s)}"


def _asked_mw(cell: Cell) -> int:
    return round(cell.share * cell.setting.engine.ceiling_mw * GPUS * cell.setting.fleet.nodes)


def _coded(names: tuple[str, ...]) -> str:
    return listed([f"`{name}`" for name in names])


def _plain(text: str) -> str:
    return text.strip("*")


def _filled(block: str) -> str:
    """A paragraph or a list filled to the width; headings, tables and pictures as they are."""
    if block.startswith(("|", "#", "!")):
        return block
    dash = "- " if block.startswith("- ") else ""
    items = block.removeprefix("- ").split("\n- ") if dash else [block]
    return "\n".join(
        fill(
            dash + " ".join(item.split()),
            WIDTH,
            subsequent_indent=" " * len(dash),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
