"""Judges that stand outside of everything they judge: they look at records, never at the code that made them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf


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
    limits = [history.factory_mw for history in histories]
    # One stream of (time, which, value); which -1 is the budget. sorted() is stable, so each GPU's own order is kept.
    events = [(at_s, -1, budget_mw) for at_s, budget_mw in budgets]
    for index, history in enumerate(histories):
        events += [(at_s, index, limit_mw) for at_s, limit_mw in history.changes]
    events = sorted((event for event in events if event[0] < end_s), key=lambda event: event[0])
    verdict = _Watch()
    budget_mw, total_mw = budgets[0][1], sum(limits)
    for at_s, together in groupby([*events, (end_s, -2, 0)], key=lambda event: max(event[0], start_s)):
        verdict.moment(at_s, total_mw, budget_mw)
        for _, which, value in together:
            if which == -1:
                budget_mw = value
            elif which >= 0:
                total_mw += value - limits[which]
                limits[which] = value
    return verdict.result()


class _Watch:
    """Hears, for every moment at which something changes, what held up to that moment."""

    def __init__(self) -> None:
        self._since_s = inf
        self._was_over = False
        self._over_s = 0.0
        self._moments = 0
        self._worst = (-inf, 0, 0.0)

    def moment(self, at_s: float, total_mw: int, budget_mw: int) -> None:
        if self._since_s < at_s:
            over = total_mw > budget_mw
            self._over_s += (at_s - self._since_s) * over
            self._moments += over and not self._was_over
            self._was_over = over
            if total_mw - budget_mw > self._worst[0]:
                self._worst = (total_mw - budget_mw, total_mw, self._since_s)
        self._since_s = at_s

    def result(self) -> BudgetVerdict:
        over_mw, total_mw, at_s = self._worst
        return BudgetVerdict(self._over_s, self._moments, int(over_mw), total_mw, at_s)
