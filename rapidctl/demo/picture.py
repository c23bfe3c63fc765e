"""The run as a PNG: what was asked of the hosts, their limits and roles, and what users got, over time.

Everything drawn comes from records: the requests', the devices', and the front ends' of who took requests when.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rapid.core.cluster import Role
from rapid.sim.world.checkers import LimitHistory
from rapidctl.demo.record import Record, verdict
from rapidctl.demo.router import Door

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = NDArray[np.float64]

STEP_S = 0.1  # of the time axis
ROLLING_S = 5.0  # over which attainment and offered load are taken
APART_W = 2.0  # between the lines of two GPUs with the same limit
LEAST_JUDGED = 3  # requests; an attainment of fewer is noise and is not drawn
COLOURS: Mapping[Role | None, str] = {Role.PREFILL: "#E8743B", Role.DECODE: "#3B7DD8", None: "#B4BAC2"}
NAMES: Mapping[Role | None, str] = {Role.PREFILL: "prefill", Role.DECODE: "decode", None: "changing role, or away"}
INK, FAINT, ALARM, GOOD = "#23272E", "#8A919C", "#C62828", "#2E7D4F"


@dataclass(frozen=True, slots=True)
class HostStory:
    """What happened on one host. instances[i] runs on the GPU of histories[i]."""

    name: str
    record: Record
    histories: tuple[LimitHistory, ...]
    instances: tuple[str, ...]
    doors: tuple[Door, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """What happened, from start_s (the first request may come) to end_s (none comes any more), by one clock."""

    title: str
    hosts: tuple[HostStory, ...]
    budget_mw: int
    floor_mw: int
    ceiling_mw: int
    start_s: float
    end_s: float


def draw(story: Story, path: Path) -> None:
    """Write the picture. Raises ModuleNotFoundError without matplotlib, OSError if the path cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {"font.size": 9.5, "axes.edgecolor": FAINT, "text.color": INK, "axes.labelcolor": INK}
    style |= {"xtick.color": FAINT, "ytick.color": FAINT, "font.family": "DejaVu Sans"}
    columns = len(story.hosts)
    with pyplot.rc_context(style):
        figure = pyplot.figure(figsize=(6.6 * columns, 9.6), layout="constrained")
        grid = figure.add_gridspec(4, columns, height_ratios=(0.75, 1.15, 1.25, 1.0))
        _draw_load(story, figure.add_subplot(grid[0, :]))
        first: list[Axes] = []
        for column, host in enumerate(story.hosts):
            rows = [figure.add_subplot(grid[row + 1, column]) for row in range(3)]
            first = first or rows
            _draw_limits(story, host, rows[0])
            _draw_sum(story, host, rows[1])
            _draw_attainment(story, host, rows[2])
            for axes, left in zip(rows, first, strict=True):
                _tidy(axes, story, labelled=axes is left)
            rows[2].set_xlabel("seconds")
        figure.suptitle(story.title, fontsize=13, fontweight="bold", x=0.01, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, facecolor="white")
        pyplot.close(figure)


def times(story: Story) -> Series:
    """The time axis, in seconds since the start."""
    return np.arange(0.0, story.end_s - story.start_s, STEP_S)


def limits_w(history: LimitHistory, start_s: float, axis: Series) -> Series:
    """The limit in force at each time."""
    changed_s = np.array([at_s - start_s for at_s, _ in history.changes])
    values = np.array([history.factory_mw, *(limit_mw for _, limit_mw in history.changes)]) / 1e3
    return values[np.searchsorted(changed_s, axis, side="right")].astype(np.float64)


def roles_at(doors: Sequence[Door], instance: str, start_s: float, axis: Series) -> list[Role | None]:
    """The role that the instance took requests in at each time; None: it took none."""
    mine = [door for door in doors if door.instance == instance]
    changed_s = [door.at_s - start_s for door in mine]
    found = (bisect_right(changed_s, at_s) for at_s in axis)
    return [mine[count - 1].role if count else None for count in found]


def attainment(record: Record, start_s: float, axis: Series) -> Series:
    """Share of the requests that arrived within ROLLING_S before each time and met both targets; NaN: too few."""
    arrived_s = np.array([request.arrival_s - start_s for request in record.offered.values()])
    met = np.array(
        [number in record.finished and all(verdict(record.finished[number], record.slo)) for number in record.offered],
        dtype=np.float64,
    )
    order = np.argsort(arrived_s, kind="stable")
    arrived_s, total = arrived_s[order], np.concatenate([[0.0], np.cumsum(met[order])])
    low = np.searchsorted(arrived_s, axis - ROLLING_S, side="right")
    high = np.searchsorted(arrived_s, axis, side="right")
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (total[high] - total[low]) / (high - low)
    return np.where(high - low >= LEAST_JUDGED, share, np.nan)


def _draw_load(story: Story, axes: "Axes") -> None:
    axis = times(story)
    offered = story.hosts[0].record.offered.values()
    arrived_s = np.array([request.arrival_s - story.start_s for request in offered])
    prompts = _per_second(arrived_s, np.array([request.input_tokens for request in offered]), axis)
    answers = _per_second(arrived_s, np.array([request.output_tokens for request in offered]), axis)
    axes.fill_between(axis, prompts / 1e3, color=COLOURS[Role.PREFILL], alpha=0.30, linewidth=0)
    axes.plot(axis, prompts / 1e3, color=COLOURS[Role.PREFILL], linewidth=1.6)
    axes.set_ylabel("prompt tokens/s\n(thousands)", color=COLOURS[Role.PREFILL])
    axes.set_ylim(0, None)
    right = axes.twinx()
    right.plot(axis, answers / 1e3, color=COLOURS[Role.DECODE], linewidth=1.6)
    right.set_ylabel("output tokens/s\n(thousands)", color=COLOURS[Role.DECODE])
    right.set_ylim(0, None)
    axes.set_title(f"asked of every host (mean of {ROLLING_S:g} s)", loc="left", fontsize=10, color=FAINT)
    for each in (axes, right):
        each.spines[["top"]].set_visible(False)
        each.set_xlim(0, story.end_s - story.start_s)


def _draw_limits(story: Story, host: HostStory, axes: "Axes") -> None:
    """A line per GPU; lines that would hide each other are drawn a little apart."""
    axis = times(story)
    for number, (history, instance) in enumerate(zip(host.histories, host.instances, strict=True)):
        apart_w = APART_W * ((len(host.instances) - 1) / 2 - number)
        power_w = limits_w(history, story.start_s, axis) + apart_w
        roles = roles_at(host.doors, instance, story.start_s, axis)
        for role, colour in COLOURS.items():
            mask = np.array([each is role for each in roles])
            shown_w = np.where(_widened(mask), power_w, np.nan)
            axes.plot(axis, shown_w, color=colour, linewidth=1.3, alpha=0.9, drawstyle="steps-post")
    axes.set_ylim(story.floor_mw / 1e3 - 25, story.ceiling_mw / 1e3 + 25)
    axes.set_ylabel("limit per GPU (W)")
    axes.set_title(host.name, loc="left", fontsize=12, fontweight="bold")


def _draw_sum(story: Story, host: HostStory, axes: "Axes") -> None:
    """The limits on top of each other, in the colour of the role that each is for."""
    axis = times(story)
    roles = [roles_at(host.doors, instance, story.start_s, axis) for instance in host.instances]
    below = np.zeros_like(axis)
    for role, colour in COLOURS.items():
        for history, mine in zip(host.histories, roles, strict=True):
            mask = np.array([each is role for each in mine])
            above = below + np.where(mask, limits_w(history, story.start_s, axis), 0.0)
            axes.fill_between(
                axis, below, above, where=_widened(above > below), step="post", color=colour, alpha=0.8, linewidth=0
            )
            axes.step(axis, np.where(above > below, above, np.nan), where="post", color="white", linewidth=0.6)
            below = above
        axes.fill_between([], [], color=colour, alpha=0.8, label=NAMES[role])
    axes.axhline(story.budget_mw / 1e3, color=ALARM, linewidth=1.6, label=f"budget {story.budget_mw / 1e3:,.0f} W")
    axes.set_ylim(0, 1.12 * story.budget_mw / 1e3)
    axes.set_ylabel("sum of limits (W)")
    if host is story.hosts[0]:
        axes.legend(loc="lower left", ncols=2, fontsize=8, framealpha=0.9, edgecolor="none")


def _draw_attainment(story: Story, host: HostStory, axes: "Axes") -> None:
    axis = times(story)
    share = 100 * attainment(host.record, story.start_s, axis)
    finished = host.record.finished.values()
    mean = 100 * sum(all(verdict(each, host.record.slo)) for each in finished) / max(1, len(host.record.offered))
    axes.fill_between(axis, share, color=GOOD, alpha=0.20, linewidth=0)
    axes.plot(axis, share, color=GOOD, linewidth=1.8)
    axes.axhline(mean, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.text(0.012 * axis[-1], mean - 4, f"{mean:.1f} % in all", va="top", fontsize=9.5, fontweight="bold", color=INK)
    axes.set_ylim(0, 104)
    axes.set_ylabel(f"SLO attainment (%)\nof arrivals in {ROLLING_S:g} s")


def _tidy(axes: "Axes", story: Story, *, labelled: bool) -> None:
    axes.set_xlim(0, story.end_s - story.start_s)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E9ED", linewidth=0.8)
    axes.set_axisbelow(True)
    if not labelled:
        axes.set_ylabel("")


def _per_second(arrived_s: Series, amount: NDArray[np.int_], axis: Series) -> Series:
    """The mean of `amount` per second over the last ROLLING_S, or since the start if that is shorter."""
    total = np.concatenate([[0.0], np.cumsum(amount[np.argsort(arrived_s, kind="stable")])])
    ordered_s = np.sort(arrived_s)
    low = np.searchsorted(ordered_s, axis - ROLLING_S, side="right")
    high = np.searchsorted(ordered_s, axis, side="right")
    per_second: Series = (total[high] - total[low]) / np.clip(axis, 1.0, ROLLING_S)
    return per_second


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One step longer, so that pieces of different colours touch."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    return wide
