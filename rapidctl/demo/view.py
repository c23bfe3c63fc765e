"""The live view: hosts side by side on a terminal, one line now and then everywhere else."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import wrap
from typing import TYPE_CHECKING

from rapid.core.cluster import NodeHealth, Phase, Role
from rapidctl import output
from rapidctl.demo.record import RECENT
from rapidctl.demo.scene import GpuScene, HostScene, Scene

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PREFILL, DECODE, CHANGING, FAINT = "#E8743B", "#4C8DE8", "#9AA0A6", "bright_black"
GOOD, FAIR, BAD = "green", "yellow", "bold red"
COLOURS: Mapping[Role | None, str] = {Role.PREFILL: PREFILL, Role.DECODE: DECODE, None: CHANGING}
LETTERS: Mapping[Role | None, str] = {Role.PREFILL: "P", Role.DECODE: "D", Role.MIXED: "M", None: "-"}
LEAST_WIDTH = 80  # columns; on less, lines are cut
TITLE_WIDTH = 5  # of the names of shares
NUMBERS_WIDTH = 19  # limit, draw and queue beside a bar
MAX_NOTICES = 3
FRAME_S = 0.25  # between two pictures on a terminal
LINE_S = 5.0  # between two lines elsewhere
DECISION_LINES = 3


class Board:
    """Where people see the demo: line by line, or, while `show` draws, on a screen of its own.

    The screen is on the terminal behind stderr, if there is one, unless `screen` says that nobody will look at it.
    """

    def __init__(self, line: Callable[[str], None], *, screen: bool) -> None:
        self._line = line
        self._may_draw = screen and _can_draw()
        self._drawing = False

    def say(self, text: str) -> None:
        """One line, unless a screen is being drawn, which shows such news itself."""
        if not self._drawing:
            self._line(text)

    async def show(self, scene: Callable[[], Scene]) -> None:
        """Show what is going on, for ever: many times a second on a terminal, and now and then in a line elsewhere."""
        if not self._may_draw:
            while True:
                await asyncio.sleep(LINE_S)
                self.say(plain(scene()))
        with self._screen() as draw:
            while True:
                draw(scene())
                await asyncio.sleep(FRAME_S)

    @contextmanager
    def _screen(self) -> Iterator[Callable[[Scene], None]]:
        """Afterwards the terminal is as it was before."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=sys.stderr)
        self._drawing = True
        try:
            with Live(console=console, screen=True, auto_refresh=False) as screen:
                yield lambda scene: screen.update(render(scene, console.width), refresh=True)
        finally:
            self._drawing = False


def _can_draw() -> bool:
    """Whether stderr is a terminal that can be drawn on."""
    return sys.stderr.isatty() and output.colourful(sys.stderr)


def plain(scene: Scene) -> str:
    """One line for a log."""
    hosts = "; ".join(_plain_host(host) for host in scene.hosts)
    at_s = max(0.0, scene.now_s)
    late = f" and {at_s - scene.seconds:.0f} s to let it finish" if at_s >= scene.seconds + 0.5 else ""
    return f"{min(at_s, scene.seconds):3.0f} s of {scene.seconds:g}{late}: {hosts}"


def render(scene: Scene, width: int) -> "RenderableType":
    """The screen, for a terminal `width` columns wide."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    width = max(width, LEAST_WIDTH)
    each = width // len(scene.hosts)
    beside = Table.grid()
    for _ in scene.hosts:
        beside.add_column(width=each)
    panels = []
    for host in scene.hosts:
        title = Text.assemble((f" {host.name} ", "bold"))
        style = BAD if host.over_budget else FAINT
        panels.append(Panel(Group(*_host(host, scene.ceiling_mw, each - 4)), title=title, border_style=style))
    beside.add_row(*panels)
    legend = Text.assemble(
        " ", ("█ prefill ", PREFILL), ("█ decode ", DECODE), ("█ changing role ", CHANGING),
        ("░ allowed, not drawn   Ctrl-C stops", FAINT),
    )  # fmt: skip
    notices = [Text(f" {notice}", style=FAIR, no_wrap=True) for notice in scene.notices[-MAX_NOTICES:]]
    return Group(*_head(scene, width), beside, legend, *notices)


def _head(scene: Scene, width: int) -> "list[Text]":
    from rich.text import Text

    done = min(1.0, max(0.0, scene.now_s / scene.seconds))
    if scene.now_s <= scene.seconds:
        clock = f" {max(0.0, scene.now_s):.0f} of {scene.seconds:g} s, {scene.arriving_rps:.0f} requests/s "
    else:
        clock = " the last requests finish "
    bar = width - len(clock) - 2
    filled = round(bar * done)
    return [
        Text.assemble(" ", (scene.title, "bold")),
        Text.assemble(" ", ("━" * filled, "bold"), ("─" * (bar - filled), FAINT), clock),
    ]


def _host(host: HostScene, ceiling_mw: int, width: int) -> "Iterator[Text]":
    from rich.text import Text

    shares = host.attainment
    yield _share("SLO", shares.both, width, bold=True)
    yield _share("TTFT", shares.ttft, width)
    yield _share("TPOT", shares.tpot, width)
    yield Text.assemble(
        "now".ljust(TITLE_WIDTH), (_percent(shares.recent), _tone(shares.recent)), (f" of the last {RECENT}", FAINT)
    )
    yield Text(f"{'GPU':<{width - NUMBERS_WIDTH}}{'limit':>6}{'draw':>6}{'queue':>7}", style=FAINT)
    for gpu in host.gpus:
        yield _gpu(gpu, ceiling_mw, width)
    yield Text()
    drawing = f"{host.draw_mw / 1e3:,.0f} W" if host.draw_mw is not None else "not known"
    over = ("  OVER BUDGET", BAD) if host.over_budget else ("", "")
    held = f"{host.held_mw / 1e3:,.0f} of {host.budget_mw / 1e3:,.0f} W"
    yield Text.assemble(("limits ", FAINT), held, over)
    yield Text.assemble(("draw   ", FAINT), drawing)
    waiting = (f", {host.waiting} find no engine", BAD) if host.waiting else ("", "")
    yield Text.assemble(f"{host.finished:,} of {host.requests:,}", (" requests done", FAINT), waiting)
    yield Text.assemble(
        f"{host.role_moves}", (" role move" if host.role_moves == 1 else " role moves", FAINT), _trouble(host)
    )
    yield from _decision(host, width)


def _decision(host: HostScene, width: int) -> "Iterator[Text]":
    """Always as many lines, so that nothing jumps."""
    from rich.text import Text

    text = f"{host.decision_age_s:.0f} s ago, {host.decision}" if host.decision else "no decision yet"
    lines = wrap(output.printable(text), width, max_lines=DECISION_LINES, placeholder=" ...")
    for line in lines + [""] * (DECISION_LINES - len(lines)):
        yield Text(line, style="italic")


def _gpu(gpu: GpuScene, ceiling_mw: int, width: int) -> "Text":
    """Number, role, a bar of draw within limit within ceiling, and the same in numbers."""
    from rich.text import Text

    serving = gpu.phase is Phase.SERVING
    letter = LETTERS[gpu.role] if serving or gpu.role is None else "~"
    colour = COLOURS[gpu.role if serving else None]
    bar = width - NUMBERS_WIDTH - 4
    limit = round(bar * min(1.0, gpu.limit_mw / ceiling_mw))
    draw = min(limit, round(bar * (gpu.draw_mw or 0) / ceiling_mw))
    drawn = f"{gpu.draw_mw / 1e3:.0f}" if gpu.draw_mw is not None else "?"
    queue = f"{gpu.waiting}+{gpu.running}"
    return Text.assemble(
        (f"{gpu.index} ", FAINT),
        (f"{letter} ", f"bold {colour}"),
        ("█" * draw, colour),
        ("░" * (limit - draw), colour),
        (" " * (bar - limit), ""),
        (f"{gpu.limit_mw / 1e3:>6.0f}", "" if gpu.managed else BAD),
        f"{drawn:>6}",
        (f"{queue:>7}", FAIR if gpu.waiting else FAINT),
        no_wrap=True,
    )


def _share(title: str, share: float | None, width: int, *, bold: bool = False) -> "Text":
    from rich.text import Text

    bar = width - TITLE_WIDTH - 8
    filled = round(bar * (share or 0.0))
    tone = _tone(share)
    return Text.assemble(
        (title.ljust(TITLE_WIDTH), "bold" if bold else ""),
        (_percent(share), f"bold {tone}" if bold else tone),
        "  ",
        ("━" * filled, tone),
        ("─" * (bar - filled), FAINT),
        no_wrap=True,
    )


def _percent(share: float | None) -> str:
    return "   - %" if share is None else f"{100 * share:4.0f} %"


def _tone(share: float | None) -> str:
    if share is None:
        return FAINT
    return GOOD if share >= 0.9 else FAIR if share >= 0.5 else BAD


def _trouble(host: HostScene) -> tuple[str, str]:
    if host.is_stale:
        return ("  the controller is away", BAD)
    if host.node is not NodeHealth.REPORTING:
        return (f"  rapidd is {host.node.value}", BAD)
    return ("", "")


def _plain_host(host: HostScene) -> str:
    shares = host.attainment
    split = "".join(LETTERS[gpu.role] if gpu.phase is Phase.SERVING else "~" for gpu in host.gpus) or "?"
    limits = "/".join(f"{limit_w:.0f}" for limit_w in _limits_w(host))
    return (
        f"{host.name} SLO {_percent(shares.both).strip()}, TTFT {_percent(shares.ttft).strip()}, "
        f"TPOT {_percent(shares.tpot).strip()}, roles {split}, limits {limits or '?'} W of {host.budget_mw / 1e3:,.0f}"
        f"{_trouble(host)[0]}"
    )


def _limits_w(host: HostScene) -> list[float]:
    """The least and the greatest limit, or the one that all have."""
    limits_mw = {gpu.limit_mw for gpu in host.gpus}
    return [limit_mw / 1e3 for limit_mw in sorted({min(limits_mw), max(limits_mw)})] if limits_mw else []
