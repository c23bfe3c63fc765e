"""Log lines about things that may happen again and again: said once, and then once in a while."""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

REPEAT_S = 60.0  # how often a thing that goes on unchanged is said again
_REMEMBERED = 1024  # things; a GPU has a handful


class Talk:
    """Says what a guard wants said. A GPU that fails twice a second must not fill the disk with one line."""

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._said: dict[tuple[str, str], tuple[str, float]] = {}

    def say(self, level: str, event: str, about: str, detail: str) -> None:
        """Log the event, unless the same was said of the same thing within REPEAT_S."""
        at_s = self._clock()
        before, said_at_s = self._said.get((event, about), ("", -REPEAT_S))
        if detail == before and at_s - said_at_s < REPEAT_S:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[event, about] = (detail, at_s)
        say = {"info": self._log.info, "warning": self._log.warning, "error": self._log.error}[level]
        say(event, about=about, detail=detail)
