"""Two clocks, of which each may be wrong: the host's UTC, which people set, and a steady one, which nobody can.

An order is bound to both when it is accepted. What lowers a budget holds while either clock says so, what raises one
only while both do; so a clock that is set, forwards or back, ends no cut early and begins no raise.
"""

from enum import Enum

from rapid.core.facility.nouns import FacilitySnapshot, LiveOrder

_FINE_S = 1e-3  # seconds since 1970, as floats, are no finer than a microsecond; so little early is in time


class When(Enum):
    """Whether the clocks are in an order's time."""

    NO = 0
    MAYBE = 1  # one of them
    YES = 2


class Clocks:
    """The present on both clocks. Times that go in are the controller's monotonic ones."""

    def __init__(self, at_s: float, wall_s: float) -> None:
        self._ahead_s = -at_s  # the steady clock begins at zero, and goes on from life to life
        self._wall_ahead_s = wall_s - at_s
        self.at_s = at_s

    @property
    def steady_s(self) -> float:
        return self.at_s + self._ahead_s

    @property
    def wall_s(self) -> float:
        return self.at_s + self._wall_ahead_s

    def wall_of(self, at_s: float) -> float:
        """What the host's clock shows at a monotonic time, as it goes now."""
        return at_s + self._wall_ahead_s

    def turn(self, at_s: float, wall_s: float | None = None) -> None:
        """Time passes; wall_s is what the host's clock shows (None: nobody looked)."""
        self.at_s = at_s
        if wall_s is not None:
            self._wall_ahead_s = wall_s - at_s

    def go_on_from(self, kept: FacilitySnapshot) -> None:
        """Between two lives the steady clock has gone as far as the host's monotonic one; after a boot, which sets that
        to zero, as far as UTC, and never back."""
        passed_s = self.at_s - kept.at_s
        if passed_s < 0:
            passed_s = max(0.0, self.wall_s - kept.wall_s)
        self._ahead_s = kept.steady_s + passed_s - self.at_s

    def steady_of(self, wall_s: float) -> float:
        """When the steady clock will say what UTC is to say at wall_s, as both go now."""
        return self.steady_s + wall_s - self.wall_s

    def ended(self, live: LiveOrder) -> When:
        """Whether its time is over."""
        return _both(self.steady_s >= live.ends_s, self.wall_s >= live.order.expires_wall_s)

    def within(self, live: LiveOrder) -> When:
        """Whether it is in its time."""
        return _both(
            live.starts_s - _FINE_S <= self.steady_s < live.ends_s,
            live.order.not_before_wall_s - _FINE_S <= self.wall_s < live.order.expires_wall_s,
        )


def _both(steady: bool, wall: bool) -> When:
    return When.YES if steady and wall else When.MAYBE if steady or wall else When.NO
