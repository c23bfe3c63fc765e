"""What all pictures have in common: fonts, colours, axes, and the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapid.core.cluster import Role
from rapid.core.errors import UsageError
from rapidctl.demo import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, ALARM, GOOD = picture.INK, picture.FAINT, picture.ALARM, picture.GOOD
ROLES: Mapping[Role | None, str] = {**picture.COLOURS, Role.MIXED: "#8E5BB5"}
POLICIES: Mapping[str, str] = {
    "uniform": "#7A828E",
    "static": "#B8862B",
    "power": "#3B7DD8",
    "roles": "#2A9D8F",
    "rapid": "#E8743B",
    "colocated": "#8E5BB5",
    "oracle": "#23272E",
}
OTHERS = ("#C2185B", "#5C8A1E", "#00838F", "#6D4C41", "#5E35B1", "#AFB42B")
STYLE: Any = {
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "font.family": "DejaVu Sans",
}


@contextmanager
def figure_at(path: Path, title: str, size: tuple[float, float]) -> "Iterator[Figure]":
    """A figure that is written to the path at the end. Raises UsageError if it cannot be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure = pyplot.figure(figsize=size, layout="constrained")
        try:
            yield figure
            figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130, facecolor="white")
        except OSError as error:
            raise UsageError(f"--plot {path}: {error.strerror or error}") from error
        finally:
            pyplot.close(figure)


def tidy(axes: "Axes", along: str = "y") -> None:
    """No frame, a faint grid across the values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=along, color="#E6E9ED", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def colours(labels: list[str]) -> dict[str, str]:
    """By policy; the first of each name has the name's own, variants get others."""
    taken: dict[str, str] = {}
    spare = iter(OTHERS * len(labels))
    for label in labels:
        own = POLICIES.get(label.partition(":")[0])
        taken[label] = own if own is not None and own not in taken.values() else next(spare)
    return taken
