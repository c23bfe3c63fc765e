"""Judges that stand outside of everything they judge: they look at records, never at the code that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar


@dataclass(frozen=True, slots=True)
class LimitHistory:
    """What one GPU wrote down: the limit it had before its first change, and (time, enforced limit), in order."""

    gpu: str
    factory_mw: int
    changes: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class BudgetVerdict:
    """Whether the limits in force together kept within the budget, and the worst moment.

    over_budget_s   time during which they did not; moments counts how often that began
    worst_over_mw   how far over at the worst moment, or (negative) how near the budget the limits ever came
    worst_sum_mw    the sum of limits at that moment, worst_at_s
    """

    over_budget_s: float
    moments: int
    worst_over_mw: int
    worst_sum_mw: int
    worst_at_s: float

    @property
    def kept(self) -> bool:
        return self.worst_over_mw <= 0


def check_budget(
    histories: Sequence[LimitHistory], budgets: Sequence[tuple[float, int]], *, start_s: float, end_s: float
) -> BudgetVerdict:
    """Sums the limits in force at every instant from start_s (when the host was ready) up to end_s.

    budgets: (from when on, mW), rising in time, the first at or before start_s. Changes at the very same time count as
    one.
    """
    assert budgets, "no budget to hold the limits against"
    assert budgets[0][0] <= start_s < end_s
    # One stream of (time, GPU or None for the budget, value). sorted() is stable, so each GPU's own order is kept.
    events: list[tuple[float, int | None, int]] = [(at_s, None, budget_mw) for at_s, budget_mw in budgets]
    for index, history in enumerate(histories):
        events += [(at_s, index, limit_mw) for at_s, limit_mw in history.changes]
    events = sorted((event for event in events if event[0] < end_s), key=lambda event: event[0])
    running = RunningBudget(dict(enumerate(history.factory_mw for history in histories)), budgets[0][1])
    for at_s, which, value in events:
        if at_s > start_s:
            running.begin(start_s)
        if which is None:
            running.budgeted(value, at_s)
        else:
            running.limited(which, value, at_s)
    running.begin(start_s)
    return running.verdict(end_s)


Gpu = TypeVar("Gpu", str, int)


class RunningBudget(Generic[Gpu]):
    """The same, as it goes: told every change in order of time, it keeps only the limits in force now.

    limits_mw: of every GPU at first, which counts from begin() on. Changes at the very same time count as one.
    """

    def __init__(self, limits_mw: Mapping[Gpu, int], budget_mw: int) -> None:
        self._limits_mw: dict[Gpu, int] = dict(limits_mw)
        self._total_mw, self._budget_mw = sum(limits_mw.values()), budget_mw
        self._since_s: float | None = None  # the limits hold since then; None: not begun
        self._was_over = False
        self._over_s = 0.0
        self._moments = 0
        self._worst = (-inf, 0, 0.0)

    def begin(self, at_s: float) -> None:
        """From now on it counts; when it has begun, nothing."""
        if self._since_s is None:
            self._since_s = at_s

    def limited(self, gpu: Gpu, limit_mw: int, at_s: float) -> None:
        """A device enforces another limit."""
        self._live(at_s)
        self._total_mw += limit_mw - self._limits_mw[gpu]
        self._limits_mw[gpu] = limit_mw

    def budgeted(self, budget_mw: int, at_s: float) -> None:
        """Another budget binds."""
        self._live(at_s)
        self._budget_mw = budget_mw

    def verdict(self, end_s: float) -> BudgetVerdict:
        """On the time from begin() up to end_s, which must be longer than nothing."""
        self._live(end_s)
        over_mw, total_mw, at_s = self._worst
        return BudgetVerdict(self._over_s, self._moments, int(over_mw), total_mw, at_s)

    def _live(self, at_s: float) -> None:
        """What held since the last change has held up to at_s."""
        since_s = self._since_s
        if since_s is None or at_s <= since_s:
            return
        over_mw = self._total_mw - self._budget_mw
        if over_mw > 0:
            self._over_s += at_s - since_s
            self._moments += not self._was_over
        self._was_over = over_mw > 0
        if over_mw > self._worst[0]:
            self._worst = (over_mw, self._total_mw, since_s)
        self._since_s = at_s
