"""Runs the grid, as far as it has not been run yet, and writes the document, its figures and results.json.

Ctrl-C loses a few seconds of work: the next call goes on from there, unless the sources have changed.
"""

import argparse
import sys
import time
from pathlib import Path

from bench.evaluation.document import write
from bench.evaluation.evaluate import evaluate
from bench.evaluation.figures import draw_all
from bench.evaluation.films import draw_films
from bench.evaluation.grid import FULL, QUICK, Grid
from bench.evaluation.results import check_budget, load, save
from bench.evaluation.store import ROOT, Store
from rapid.core.errors import RapidError
from rapidctl.sim.workers import cores

CACHE = ROOT / "build" / "evaluation"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 over budget or failed, 130 stopped."""
    options = _options(argv)
    grid = QUICK if options.quick else FULL
    folder = options.out or (CACHE / "quick" if options.quick else ROOT / "docs")
    try:
        made(grid, folder, options.cores, render=options.render)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except RapidError as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    return 0


def made(grid: Grid, folder: Path, count: int, *, cache: Path = CACHE, render: bool = False) -> None:
    """Everything into the folder. render: only text and plots, from the results there. Raises OverBudget."""
    began_s = time.perf_counter()
    figures = folder / "evaluation"
    saved = figures / "results.json"
    if render:
        results = load(saved)
    else:
        print(f"{len(grid.settings)} loads to choose, {grid.runs:,} runs, {count} processes", file=sys.stderr)
        results = evaluate(grid, Store(cache), count)
    check_budget(results)
    save(results, saved)
    draw_all(results, figures)
    if not render:
        draw_films(results, figures)
    write(results, folder / "evaluation.md")
    print(f"{folder / 'evaluation.md'} after {time.perf_counter() - began_s:.0f} s", file=sys.stderr)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cells, in a minute or two, into build/evaluation")
    parser.add_argument("--render", action="store_true", help="only write text and plots anew, from results.json")
    parser.add_argument("--out", type=Path, help="folder of evaluation.md (default: docs)")
    parser.add_argument("--cores", type=int, default=cores(), help="processes side by side")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
