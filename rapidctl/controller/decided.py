"""The decisions that an operator may ask about, each with what was measured of what it predicted."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from rapid.core.cluster import Decision
from rapid.core.commands import Announce, Command, Scored

DECISIONS_MAX = 10_000  # that are remembered


class Decided:
    """Follows the commands of the core; the oldest decision gives way to the newest."""

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self._decisions: deque[Decision] = deque(decisions, maxlen=DECISIONS_MAX)

    def follow(self, commands: Iterable[Command]) -> None:
        """Commands were given."""
        for command in commands:
            if isinstance(command, Announce):
                self._decisions.append(command.decision)
            elif isinstance(command, Scored):
                self._score(command)

    def all(self) -> tuple[Decision, ...]:
        """Oldest first."""
        return tuple(self._decisions)

    def last(self, limit: int, about: str = "") -> tuple[Decision, ...]:
        """Newest first; `about` an id or what a decision has changed (empty: all)."""
        chosen: list[Decision] = []
        for decision in reversed(self._decisions):
            if len(chosen) == limit:
                break
            if about in ("", decision.id) or any(about == subject for subject, _, _ in decision.changes):
                chosen.append(decision)
        return tuple(chosen)

    def _score(self, scored: Scored) -> None:
        """It is among the newest, unless it is one of a life that is not remembered."""
        for index in range(len(self._decisions) - 1, -1, -1):
            if self._decisions[index].id == scored.decision:
                self._decisions[index] = replace(self._decisions[index], measured=scored.measured)
                return
