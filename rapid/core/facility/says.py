"""What the live orders of a domain come to: each source says one number, and the least of them counts.

Of one source the order made last that is in its time speaks, and when it is over, the one before it. Nobody stands
above the budget that the operator set but who may raise; of several, again the least.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rapid.core.facility.clocks import Clocks, When
from rapid.core.facility.nouns import BudgetOrder, LiveOrder


@dataclass(frozen=True, slots=True)
class Say:
    """What a source asks for now, and the order by which it does. `raises`: it may stand above the operator's budget,
    by an order that is in its time for sure."""

    budget_mw: int
    live: LiveOrder
    raises: bool = False


def ramp_s(order: BudgetOrder, from_mw: int) -> float:
    """How long the way from a budget to that of an order takes."""
    if order.budget_mw == from_mw:
        return 0.0
    down = order.budget_mw is not None and order.budget_mw < from_mw
    return order.ramp_down_s if down else order.ramp_up_s


def curve_mw(live: LiveOrder, steady_s: float, standing_mw: int) -> int | None:
    """Where the ramp of an order stands; its own budget before it has begun (None: it asks for nothing).

    One that asks for nothing goes up to the standing budget.
    """
    order = live.order
    if live.begun_s is None or steady_s >= live.begun_s + (over_s := ramp_s(order, live.from_mw)):
        return order.budget_mw
    own_mw = standing_mw if order.budget_mw is None else order.budget_mw
    share = max(0.0, (steady_s - live.begun_s) / over_s)
    return live.from_mw + int((own_mw - live.from_mw) * share)


def back_mw(live: LiveOrder, steady_s: float, standing_mw: int) -> int | None:
    """Where the ramp back of an order that has ended stands; None: it is over, or there was nothing to go back from."""
    over_s, from_mw = live.order.ramp_up_s, live.from_mw
    since_s = live.left_s if live.ended_s is None else live.ended_s
    if since_s is None or live.order.budget_mw is None or from_mw >= standing_mw or steady_s >= since_s + over_s:
        return None
    return from_mw + int((standing_mw - from_mw) * max(0.0, (steady_s - since_s) / over_s))


def say_of(orders: Sequence[LiveOrder], clocks: Clocks, standing_mw: int) -> Say | None:
    """The least that one source may be asking for now, by its orders from the oldest to the newest; None: nothing.

    While the clocks differ about an order, it and what it would replace are both asked for. An order that came after
    the newest, though it was made before it, can only lower: neither one that was held up may raise, nor a clock of its
    sender that was set back keep a cut out.
    """
    said: list[Say] = []
    speaks: LiveOrder | None = None  # the newest that is in its time for sure
    silent = False  # the source may be asking for nothing
    for live in reversed(orders):
        if speaks is not None and live.number < speaks.number:
            continue
        when = When.NO if live.ended_s is not None else clocks.within(live)
        if when is When.NO:
            mw = back_mw(live, clocks.steady_s, standing_mw)
        else:
            mw = curve_mw(live, clocks.steady_s, standing_mw)
            silent = silent or mw is None
        if mw is not None:
            said.append(Say(mw, live))
        if when is When.YES and speaks is None:
            speaks = live
    if not said:
        return None
    least = min(said, key=lambda say: say.budget_mw)
    return replace(least, raises=speaks is not None and speaks.raises and not silent)


def by_source(orders: Iterable[LiveOrder]) -> dict[str, list[LiveOrder]]:
    """The orders of each source, in their order."""
    found: dict[str, list[LiveOrder]] = {}
    for live in orders:
        found.setdefault(live.order.source, []).append(live)
    return found


def in_force(orders: Iterable[LiveOrder], clocks: Clocks, standing_mw: int) -> tuple[int, LiveOrder | None]:
    """The budget of a domain now, and the order that makes it so (None: it is the operator's)."""
    found = (say_of(each, clocks, standing_mw) for each in by_source(orders).values())
    says = [say for say in found if say is not None]
    raised = any(say.budget_mw > standing_mw and say.raises for say in says)
    cuts = [say for say in says if say.budget_mw < standing_mw]
    least = min(says if raised else cuts, key=lambda say: say.budget_mw, default=None)
    return (standing_mw, None) if least is None else (least.budget_mw, least.live)
