"""A comparison as a PNG: who attains how much, who missed what, and where watts and instances were."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapid.core.cluster import Role
from rapid.sim.world.scenario import Scenario
from rapidctl.sim.canvas import FAINT, INK, ROLES, colours, figure_at, tidy
from rapidctl.sim.load import Load
from rapidctl.sim.standing import Standing
from rapidctl.sim.words import in_watts, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSED = (
    ("ttft_only", "missed TTFT", ROLES[Role.PREFILL]),
    ("tpot_only", "missed TPOT", ROLES[Role.DECODE]),
    ("both", "missed both", "#9E2A2B"),
    ("unfinished", "never finished", "#5A6069"),
)


def draw_compare(everybody: Sequence[Standing], load: Load, scenario: Scenario, path: Path) -> None:
    """Write the picture. Raises UsageError if the path cannot be written."""
    seeds = len(everybody[0].runs)
    title = (
        f"{load.trace} at {load.rate_rps:.1f} requests/s on {scenario.nodes * scenario.gpus} x "
        f"{scenario.profile.name} under {in_watts(scenario.budget_mw)}"
    )
    height = 2.4 + 0.42 * len(everybody)
    with figure_at(path, title, (13.0, height)) as figure:
        panels: list[Axes] = list(figure.subplots(1, 4, sharey=True, width_ratios=(1.5, 1.1, 1.0, 1.0)))
        _draw_attained(everybody, panels[0])
        _draw_missed(everybody, panels[1])
        _draw_limits(everybody, scenario, panels[2])
        _draw_instances(everybody, panels[3])
        attained = f"attained (%), 95 % interval of {_seeds(seeds)}"
        titles = (attained, "missed (% of requests)", "mean limit of a GPU (W)", "mean instances")
        for panel, words in zip(panels, titles, strict=True):
            panel.set_title(words, loc="left", fontsize=10, color=FAINT)
            tidy(panel, along="x")
        panels[0].set_yticks(range(len(everybody)), [each.policy for each in everybody], color=INK)
        panels[0].invert_yaxis()
        legend: dict[str, Any] = {"fontsize": 9, "frameon": False}
        figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, **legend)
        figure.legend(*panels[3].get_legend_handles_labels(), loc="outside lower right", ncols=3, **legend)


def _seeds(count: int) -> str:
    return "one seed: none" if count == 1 else f"{count} seeds"


def _draw_attained(everybody: Sequence[Standing], axes: "Axes") -> None:
    colour = colours([each.policy for each in everybody])
    for row, each in enumerate(everybody):
        mean, half = 100 * each.attainment.mean, 100 * (each.attainment.half or 0.0)
        axes.barh(row, mean, color=colour[each.policy], height=0.66, alpha=0.9)
        if half:
            axes.errorbar(mean, row, xerr=half, color=INK, capsize=3, linewidth=1.2)
        text = percent(each.attainment.mean)
        inside = mean > 30
        beside = half + 1.5
        axes.text(
            mean - beside if inside else mean + beside,
            row,
            text,
            va="center",
            ha="right" if inside else "left",
            fontweight="bold",
            color="white" if inside else INK,
        )
    axes.set_xlim(0, 104)


def _draw_missed(everybody: Sequence[Standing], axes: "Axes") -> None:
    left = [0.0] * len(everybody)
    for field, name, colour in MISSED:
        shares = [100 * each.share(lambda run, field=field: getattr(run.why.missed, field)) for each in everybody]  # type: ignore[misc]
        axes.barh(range(len(everybody)), shares, left=left, color=colour, height=0.66, label=name, alpha=0.9)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_xlim(0, max(1.0, 1.05 * max(left)))


def _draw_limits(everybody: Sequence[Standing], scenario: Scenario, axes: "Axes") -> None:
    """A dot per role; roles of one policy lie apart, so that none hides another."""
    for role, apart in ((Role.PREFILL, -0.14), (Role.DECODE, 0.14), (Role.MIXED, 0.0)):
        limits_w = _means(everybody, "limit_w", role)
        rows = [row + apart for row, limit_w in enumerate(limits_w) if limit_w]
        axes.scatter([limit_w for limit_w in limits_w if limit_w], rows, color=ROLES[role], s=46, zorder=3)
    floor_w, ceiling_w = scenario.profile.floor_mw / 1e3, scenario.profile.ceiling_mw / 1e3
    margin_w = 0.07 * (ceiling_w - floor_w)
    axes.set_xlim(floor_w - margin_w, ceiling_w + margin_w)


def _draw_instances(everybody: Sequence[Standing], axes: "Axes") -> None:
    left = [0.0] * len(everybody)
    for role in Role:
        counts = [count or 0.0 for count in _means(everybody, "instances", role)]
        if any(counts):
            axes.barh(
                range(len(counts)), counts, left=left, color=ROLES[role], height=0.66, label=role.value, alpha=0.9
            )
        left = [before + count for before, count in zip(left, counts, strict=True)]


def _means(everybody: Sequence[Standing], field: str, role: Role) -> list[float | None]:
    return [each.mean(lambda run: getattr(getattr(run.why, field), role.value)) for each in everybody]
