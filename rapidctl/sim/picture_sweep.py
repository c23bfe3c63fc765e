"""A sweep as a PNG: attainment against rate, and where each policy crosses the levels."""

from collections.abc import Sequence
from pathlib import Path

from rapid.sim.study import LEVELS, falling
from rapid.sim.world.scenario import Scenario
from rapidctl.sim.canvas import FAINT, INK, colours, figure_at, tidy
from rapidctl.sim.load import Load
from rapidctl.sim.rates import Curve
from rapidctl.sim.words import in_watts, percent

BEYOND = 1.25  # times the greatest sustained rate are shown


def draw_sweep(everybody: Sequence[Curve], load: Load, scenario: Scenario, path: Path) -> None:
    """Write the picture. Raises UsageError if the path cannot be written."""
    title = (
        f"{load.trace} on {scenario.nodes * scenario.gpus} x {scenario.profile.name} under "
        f"{in_watts(scenario.budget_mw)}: attainment against rate"
    )
    colour = colours([curve.policy for curve in everybody])
    with figure_at(path, title, (9.5, 6.0)) as figure:
        axes = figure.subplots()
        for level in LEVELS:
            axes.axhline(100 * level, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.annotate(
                f"{percent(level, 0)} %",
                (1.0, 100 * level),
                xycoords=("axes fraction", "data"),
                color=FAINT,
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        for curve in everybody:
            shade = colour[curve.policy]
            line = falling(curve.search.points)
            axes.plot([rate for rate, _ in line], [100 * share for _, share in line], color=shade, linewidth=1.8)
            means = [100 * point.attainment.mean for point in curve.points]
            halves = [100 * (point.attainment.half or 0.0) for point in curve.points]
            rates = [point.rate_rps for point in curve.points]
            axes.errorbar(rates, means, yerr=halves, color=shade, fmt="o", markersize=3.5, elinewidth=0.9, alpha=0.8)
            reached = [found for found in map(curve.sustained, LEVELS) if found.rate_rps is not None]
            label = curve.policy
            if reached and reached[0].level == LEVELS[0]:
                label += f"  {reached[0].rate_rps:.1f}/s at {percent(LEVELS[0], 0)} %"
            axes.plot(
                [found.rate_rps or 0.0 for found in reached],
                [100 * found.level for found in reached],
                color=shade,
                linestyle="none",
                marker="D",
                markersize=6,
                markeredgecolor="white",
                label=label,
                zorder=4,
            )
        low, high = _shown(everybody)
        axes.set_xlim(low, high)
        axes.set_ylim(0, 103)
        axes.set_xlabel("requests/s", color=INK)
        axes.set_ylabel("SLO attainment (%)")
        axes.legend(loc="lower left", fontsize=9, framealpha=0.9, edgecolor="none")
        tidy(axes)


def _shown(everybody: Sequence[Curve]) -> tuple[float, float]:
    """The part of the rates where something happens."""
    rates = [point.rate_rps for curve in everybody for point in curve.points]
    reached = [rate for curve in everybody for level in LEVELS if (rate := curve.sustained(level).rate_rps) is not None]
    if not reached or everybody[0].given is not None:
        return 0.98 * min(rates), 1.02 * max(rates)
    return max(min(rates), 0.6 * min(reached)), min(max(rates), BEYOND * max(reached))
