"""A run over time under each policy, side by side: what was asked, limits and roles of all GPUs, what users got."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.evaluation.grid import LOAD_SHARE, Cell, Setting
from bench.evaluation.results import Results
from bench.evaluation.tasks import DRAIN_S, RunTask
from rapid.sim.model.requests import Request
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import COLOCATED, Scenario
from rapid.sim.world.site import simulate
from rapidctl.sim.canvas import INK, figure_at, tidy
from rapidctl.sim.film import Film
from rapidctl.sim.picture_run import POINTS, Tracks, draw_attainment, draw_limits, draw_load, draw_sum
from rapidctl.sim.words import in_watts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT_OUT = ("uniform", COLOCATED)  # nothing ever happens, and all limits are equal
LOAD_HEIGHT, ROWS = 0.6, (1.2, 1.2, 0.9)  # of the panels, from above


def draw_films(results: Results, folder: Path) -> None:
    """A file per trace of grid.films: the middle seed in the shown setting, simulated anew."""
    grid = results.grid
    rates_rps = {each.setting: each.load.rate_rps for each in results.loads}
    for trace in grid.films:
        setting = grid.shown(trace)
        seed = grid.seeds // 2
        shown = [policy for policy in grid.policies if policy not in LEFT_OUT]
        tasks = [
            RunTask(Cell(setting, LOAD_SHARE), policy, seed, grid.seeds, grid.seconds, rates_rps[setting])
            for policy in shown
        ]
        _draw(setting, tasks, folder / film_name(trace))


def film_name(trace: str) -> str:
    return f"over-time-{trace}.png"


def _draw(setting: Setting, tasks: list[RunTask], path: Path) -> None:
    world = tasks[0].scenario
    title = (
        f"{setting.trace} at {tasks[0].rate_rps:.1f} requests/s on {world.nodes * world.gpus} x {setting.profile} "
        f"({setting.corner}) under {in_watts(world.budget_mw)}, seed {tasks[0].seed}"
    )
    requests = tasks[0].window.requests()
    end_s = requests[-1].arrival_s
    with figure_at(path, title, (4.3 * len(tasks), 11.0)) as figure:
        grid = figure.add_gridspec(1 + len(ROWS), len(tasks), height_ratios=(LOAD_HEIGHT, *ROWS))
        first: list[Axes] = []
        for column, task in enumerate(tasks):
            film = Film(world.slo)
            outcome = simulate(task.scenario, _filmed(requests, film), watch=film, max_drain_s=DRAIN_S)
            if not column:
                load = figure.add_subplot(grid[0, :])  # one for all: they are asked the same
                draw_load(film, end_s, load)
                load.set_xlim(0, end_s)
                tidy(load)
            rows = [figure.add_subplot(grid[row, column]) for row in range(1, 1 + len(ROWS))]
            _column(rows, film, outcome, end_s, task.scenario)
            first = first or rows
            if rows is not first:
                for axes in rows:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
        _legend(figure)


def _column(rows: "list[Axes]", film: Film, outcome: Outcome, end_s: float, world: Scenario) -> None:
    limits, total, attained = rows
    axis = np.linspace(0.0, end_s, POINTS)
    tracks = Tracks(film, axis)
    draw_limits(tracks, axis, world, limits)
    draw_sum(tracks, axis, world, total)
    draw_attainment(film, outcome, end_s, attained)
    for axes in rows:
        axes.set_xlim(0, end_s)
        tidy(axes)
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()  # too wide for a column; there is one for all
    limits.set_title(outcome.policy, loc="left", fontsize=13, fontweight="bold", color=INK)
    attained.set_xlabel("seconds")


def _legend(figure: "Figure") -> None:
    """Of every role that a panel has, and the budget."""
    found = {name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=len(found), frameon=False)


def _filmed(requests: Iterable[Request], film: Film) -> Iterator[Request]:
    for request in requests:
        film.offered(request)
        yield request
