"""How far a long computation is, on stderr: a bar on a terminal, a line now and then elsewhere.

What is over within two seconds shows nothing.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rapidctl import output

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SILENT_S = 2.0  # before anything is shown
LINE_S = 5.0  # between two lines where there is no terminal
LEAST_SHARE = 0.05  # done before the time left is guessed


class Progress:
    """Call it with what is done, as a share from 0 to 1 (None: nobody knows of how much), and a few words."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic, *, screen: bool | None = None) -> None:
        self._title = title
        self._clock = clock
        self._screen = output.colourful(sys.stderr) if screen is None else screen
        self._start_s = clock()
        self._next_line_s = self._start_s + SILENT_S
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, share: float | None, words: str = "") -> None:
        """Shows it, if it is time to."""
        now_s = self._clock()
        if self._screen and now_s >= self._start_s + SILENT_S:
            self._draw(share, words)
        elif not self._screen and now_s >= self._next_line_s:
            self._next_line_s = now_s + LINE_S
            output.talk(plain(self._title, share, words, now_s - self._start_s))

    def _draw(self, share: float | None, words: str) -> None:
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task(self._title, total=1.0, words="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=share or 0.0, total=None if share is None else 1.0)
        self._bar.update(self._bar.task_ids[0], words=words)


def plain(title: str, share: float | None, words: str, took_s: float) -> str:
    """One line for a log."""
    parts = [] if share is None else [f"{100 * share:.0f} %"]
    parts += [words] if words else []
    parts.append(f"{took_s:.0f} s")
    if share is not None and LEAST_SHARE <= share < 1:
        parts.append(f"about {took_s * (1 - share) / share:.0f} s left")
    return f"{title}: {', '.join(parts)}"


def _bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
    )
