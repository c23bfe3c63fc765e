"""Which of the retained states are due: a change of state at once, mere numbers now and then, the same never twice."""

from collections.abc import Mapping

from msgspec import Struct

# What moves all the time. Everything else in a state is a change that others wait for.
NUMBERS = frozenset(
    {
        *("time", "held_w", "draw_w", "draw_at_most_w", "limit_w", "least_w", "attainment"),
        *("watched_s", "over_s", "unmeasured_s", "compliant_since"),
    }
)


class Board:
    """What hangs on the board, by topic."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._hangs: dict[str, tuple[float, dict[str, object], dict[str, object]]] = {}

    def due(self, states: Mapping[str, Struct], now_s: float) -> list[str]:
        """The topics whose state is to be published now; they count as published."""
        found: list[str] = []
        for topic, state in states.items():
            fields = {name: getattr(state, name) for name in state.__struct_fields__}
            steady = {name: value for name, value in fields.items() if name not in NUMBERS}
            numbers = {name: value for name, value in fields.items() if name in NUMBERS and name != "time"}
            before = self._hangs.get(topic)
            same = before is not None and before[1] == steady
            if same and before is not None and (now_s - before[0] < self._interval_s or before[2] == numbers):
                continue
            self._hangs[topic] = (now_s, steady, numbers)
            found.append(topic)
        return found

    def clear(self) -> None:
        """Everything is due again: a broker may have lost what it had."""
        self._hangs.clear()
