"""A run as a PNG: what was asked, limits and roles of every GPU, their sum, queues, and what users got."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rapid.core.cluster import Role
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import Scenario
from rapidctl.sim.canvas import ALARM, FAINT, GOOD, INK, ROLES, figure_at, tidy
from rapidctl.sim.film import Film
from rapidctl.sim.load import Load
from rapidctl.sim.words import in_watts, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = NDArray[np.float64]

POINTS = 1600  # of the time axis
ROLLING_S = 5  # over which load and attainment are taken, in whole seconds
LEAST_JUDGED = 3  # requests; an attainment of fewer is noise and is not drawn
APART_W = 2.0  # between the lines of two GPUs with the same limit
MOST_APART = 16  # GPUs; with more, lines lie on each other
ORDER = (Role.PREFILL, Role.MIXED, Role.DECODE, None)
NAMES: Mapping[Role | None, str] = {**{role: role.value for role in Role}, None: "changing role"}


def draw_run(film: Film, outcome: Outcome, load: Load, scenario: Scenario, path: Path) -> None:
    """Write the picture. Raises UsageError if the path cannot be written."""
    title = (
        f"policy {outcome.policy}: {load.trace} at {load.rate_rps:.1f} requests/s on "
        f"{scenario.nodes * scenario.gpus} x {scenario.profile.name} under {in_watts(scenario.budget_mw)}"
    )
    end_s = max(load.span_s, 1.0)
    axis = np.linspace(0.0, end_s, POINTS)
    tracks = Tracks(film, axis)
    with figure_at(path, title, (11.0, 12.0)) as figure:
        rows: list[Axes] = list(figure.subplots(5, 1, height_ratios=(0.8, 1.3, 1.3, 0.9, 0.9)))
        draw_load(film, end_s, rows[0])
        draw_limits(tracks, axis, scenario, rows[1])
        draw_sum(tracks, axis, scenario, rows[2])
        _draw_queues(film, rows[3])
        draw_attainment(film, outcome, end_s, rows[4])
        for axes in rows:
            axes.set_xlim(0, end_s)
            tidy(axes)
        rows[-1].set_xlabel("seconds")


class Tracks:
    """The limit, in watts, and the role of every GPU at every time of the axis."""

    def __init__(self, film: Film, axis: Series) -> None:
        gpus = list(film.limits_mw)
        self.limits_w = np.array([_steps(film.limits_mw[gpu], axis) for gpu in gpus]) / 1e3
        codes = {instance: _codes(changes, axis) for instance, changes in film.roles.items()}
        self.roles = np.array([codes[film.instance_of[gpu]] for gpu in gpus])


def _steps(changes: list[tuple[float, int]], axis: Series) -> Series:
    """The value in force at each time; before the first change, the first."""
    at_s, values = np.array([at_s for at_s, _ in changes]), np.array([float(value) for _, value in changes])
    found: Series = values[np.maximum(0, np.searchsorted(at_s, axis, side="right") - 1)]
    return found


def _codes(changes: list[tuple[float, Role | None]], axis: Series) -> Series:
    return _steps([(at_s, ORDER.index(role)) for at_s, role in changes], axis)


def draw_load(film: Film, end_s: float, axes: "Axes") -> None:
    axis, prompts, answers = _rolling(film, end_s)
    prefill, decode = ROLES[Role.PREFILL], ROLES[Role.DECODE]
    axes.fill_between(axis, prompts / 1e3, color=prefill, alpha=0.30, linewidth=0)
    axes.plot(axis, prompts / 1e3, color=prefill, linewidth=1.6)
    axes.set_ylabel("prompt tokens/s\n(thousands)", color=prefill)
    axes.set_ylim(0, None)
    right = axes.twinx()
    right.plot(axis, answers / 1e3, color=decode, linewidth=1.6)
    right.set_ylabel("output tokens/s\n(thousands)", color=decode)
    right.set_ylim(0, None)
    right.spines[["top"]].set_visible(False)
    axes.set_title(f"asked for (mean of {ROLLING_S} s)", loc="left", fontsize=10, color=FAINT)


def _rolling(film: Film, end_s: float) -> tuple[Series, Series, Series]:
    """Times, and prompt and output tokens per second over the last ROLLING_S."""
    count = int(end_s) + 1
    tokens = np.zeros((2, count))
    for at, second in film.seconds.items():
        if at < count:
            tokens[:, at] = second.input_tokens, second.output_tokens
    window = np.minimum(np.arange(1, count + 1), ROLLING_S)
    prompts, answers = (_moving(row) / window for row in tokens)
    return np.arange(count, dtype=np.float64) + 0.5, prompts, answers


def _moving(values: Series) -> Series:
    """The sum of each value and the ROLLING_S - 1 before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    found: Series = total[last] - total[np.maximum(0, last - ROLLING_S)]
    return found


def draw_limits(tracks: Tracks, axis: Series, scenario: Scenario, axes: "Axes") -> None:
    """A line per GPU; lines that would hide each other are drawn a little apart."""
    count = len(tracks.limits_w)
    apart_w = APART_W if count <= MOST_APART else 0.0
    for number, (limits_w, roles) in enumerate(zip(tracks.limits_w, tracks.roles, strict=True)):
        shifted_w = limits_w + apart_w * ((count - 1) / 2 - number)
        for code, role in enumerate(ORDER):
            shown_w = np.where(_widened(roles == code), shifted_w, np.nan)
            axes.plot(axis, shown_w, color=ROLES[role], linewidth=1.3, alpha=0.9, drawstyle="steps-post")
    profile = scenario.profile
    margin_w = 0.07 * (profile.ceiling_mw - profile.floor_mw) / 1e3
    axes.set_ylim(profile.floor_mw / 1e3 - margin_w, profile.ceiling_mw / 1e3 + margin_w)
    axes.set_ylabel("limit per GPU (W)")


def draw_sum(tracks: Tracks, axis: Series, scenario: Scenario, axes: "Axes") -> None:
    """The limits on top of each other, in the colour of the role that each is for."""
    below = np.zeros_like(axis)
    for code, role in enumerate(ORDER):
        if not (tracks.roles == code).any():
            continue
        above = below + np.where(tracks.roles == code, tracks.limits_w, 0.0).sum(axis=0)
        axes.fill_between(axis, below, above, step="post", color=ROLES[role], alpha=0.8, linewidth=0, label=NAMES[role])
        below = above
    budget_w = scenario.budget_mw / 1e3
    axes.axhline(budget_w, color=ALARM, linewidth=1.6, label=f"budget {budget_w:,.0f} W")
    axes.set_ylim(0, 1.12 * budget_w)
    axes.set_ylabel("sum of limits (W)")
    axes.legend(loc="lower left", ncols=5, fontsize=8, framealpha=0.9, edgecolor="none")


def _draw_queues(film: Film, axes: "Axes") -> None:
    at_s = [at_s for at_s, _ in film.queue]
    axes.plot(at_s, [each.waiting for _, each in film.queue], color=ROLES[Role.PREFILL], linewidth=1.6, label="prefill")
    axes.plot(at_s, [each.decoding for _, each in film.queue], color=ROLES[Role.DECODE], linewidth=1.6, label="decode")
    axes.set_ylim(0, None)
    axes.set_ylabel("requests in\nthe site")
    axes.legend(loc="upper left", ncols=2, fontsize=8, framealpha=0.9, edgecolor="none")


def draw_attainment(film: Film, outcome: Outcome, end_s: float, axes: "Axes") -> None:
    count = int(end_s) + 1
    seconds = [film.seconds.get(at) for at in range(count)]
    requests = _moving(np.array([0.0 if each is None else each.requests for each in seconds]))
    attained = _moving(np.array([0.0 if each is None else each.attained for each in seconds]))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(requests >= LEAST_JUDGED, 100 * attained / requests, np.nan)
    axis = np.arange(count) + 0.5
    axes.fill_between(axis, share, color=GOOD, alpha=0.20, linewidth=0)
    axes.plot(axis, share, color=GOOD, linewidth=1.8)
    mean = 100 * outcome.attainment
    axes.axhline(mean, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    text = f"{percent(outcome.attainment)} % in all"
    axes.text(0.012 * end_s, mean - 5, text, va="top", fontsize=9.5, fontweight="bold", color=INK)
    axes.set_ylim(0, 104)
    axes.set_ylabel(f"attained (%)\nof arrivals in {ROLLING_S} s")


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One step longer, so that pieces of different colours touch."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    return wide
