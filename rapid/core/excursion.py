"""When a node draws more than it may, and by how much it cuts its limits, without waiting for anybody.

The bands are those of Thunderbolt (Li et al., OSDI 2020, "Thunderbolt: throughput-optimized, quality-of-service-aware
power capping at scale"), as this project takes them: cut at 100 % of the budget, aim at 96 %, let go at 92 %.
"""

from dataclasses import dataclass, field

AIM, LET_GO = 0.96, 0.92


@dataclass(frozen=True, slots=True)
class ExcursionSettings:
    """draw_tolerance  how far a sensor may be off, as a share: as in the controller's ledger
    samples         how many in a row must be over
    settle_s        how long a draw takes to follow a limit (assumed, as in the ledger): one cut waits for the last
    hold_s          how long a cut lasts at least (assumed), so that cutting and letting go do not chase each other
    """

    draw_tolerance: float = 0.05
    samples: int = 2
    settle_s: float = 0.5
    hold_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Cut:
    """Multiply every limit by this, 0 to 1."""

    factor: float


@dataclass(frozen=True, slots=True)
class LetGo:
    """Go back to what is granted."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a node may draw. `leave_mw` is the sum of what its grants leave it, `hard_mw` the host's own bound.

    Against the leave, the error of the sensors is allowed for, since GPUs at their limits draw it in full; the host's
    own bound is met as it is measured.
    """

    leave_mw: int
    hard_mw: int | None = None

    @property
    def budget_mw(self) -> int:
        return self.leave_mw if self.hard_mw is None else min(self.leave_mw, self.hard_mw)

    def most_mw(self, draw_tolerance: float) -> float:
        """The most that may be measured."""
        leave_mw = self.leave_mw * (1 + draw_tolerance)
        return leave_mw if self.hard_mw is None else min(leave_mw, self.hard_mw)


@dataclass(slots=True)
class Excursion:
    """One node. `active` while limits are cut; `count` is how often that began."""

    settings: ExcursionSettings = ExcursionSettings()
    active: bool = False
    count: int = 0
    _over: int = field(init=False, default=0)
    _cut_s: float = field(init=False, default=float("-inf"))

    def wait(self, at_s: float) -> None:
        """Limits come down from now on anyway: give the draw the time to follow."""
        self._cut_s = at_s

    def look(self, draw_mw: int, bound: Bound, at_s: float) -> Cut | LetGo | None:
        """A sample of the whole node: what must be done now."""
        settings, waited_s = self.settings, at_s - self._cut_s
        if draw_mw > bound.most_mw(settings.draw_tolerance):
            self._over += 1
            if self._over < settings.samples or waited_s < settings.settle_s:
                return None
            self.count += not self.active
            self.active, self._over, self._cut_s = True, 0, at_s
            return Cut(AIM * bound.budget_mw / draw_mw)
        self._over = 0
        if self.active and waited_s >= settings.hold_s and draw_mw < LET_GO * bound.budget_mw:
            self.active = False
            return LetGo()
        return None
