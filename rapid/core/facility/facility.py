"""All that is known of budget orders: which are live, what they come to, what was answered and must still be delivered.

facility.turn(at_s, wall_s)          # at every step that asks it anything
facility.admit(order, raises=...)    # after rules.why_not
moved, ended = facility.settle()     # begins, ends, ramps; the budgets that follow
facility.say_in_force()              # the orders whose limits are all read back by now
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rapid.core.cluster import Domain
from rapid.core.errors import watts
from rapid.core.facility import says
from rapid.core.facility.clocks import Clocks, When
from rapid.core.facility.meter import Meter, Recent
from rapid.core.facility.nouns import (
    SCHEDULE,
    BudgetOrder,
    BudgetResult,
    FacilitySnapshot,
    Heard,
    Kept,
    LiveOrder,
    OrderStatus,
    Outcome,
    Schedule,
    Why,
)
from rapid.core.facility.rules import TAKEN_MAX
from rapid.core.ledger import Ledger
from rapid.core.settings import Settings

RESULTS_MAX = 4096  # answers that wait to be delivered; beyond it, those of schedules give way first
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Moved:
    """A budget that has to change, and what made it: the beginning, or the end, of an order, or a step of a ramp.

    reason  empty: only a step of a ramp
    toward  where it goes, in words
    """

    domain: str
    before_mw: int
    budget_mw: int
    by: str
    reason: str
    toward: str


class Facility:
    """Of one controller life. `standing_mw` is each domain's budget without orders."""

    def __init__(self, ledger: Ledger, settings: Settings, at_s: float, wall_s: float) -> None:
        self.ledger, self.settings = ledger, settings.facility
        self.configured: tuple[Domain, ...] = settings.domains
        self.standing_mw = {name: domain.budget_mw for name, domain in ledger.domains.items()}
        self.clocks = Clocks(at_s, wall_s)
        self.schedules: dict[str, Schedule] = {}
        self.undelivered: dict[int, BudgetResult] = {}
        self.meter, self.recent = Meter(), Recent()
        self.kept: dict[str, Kept] = {}
        self.compliant_s: dict[str, float] = {}  # since when, where it is
        self.kept_at_s = at_s
        self._orders: dict[str, list[LiveOrder]] = {}
        self._heard: dict[tuple[str, str], Heard] = {}
        self._held_by: dict[str, str] = {}
        self._numbers = self._results = 0

    # ---- what is known ----

    def of(self, domain: str, source: str | None = None) -> list[LiveOrder]:
        """The live orders for a domain, in the order in which they were made; those that only ramp back among them."""
        return [it for it in self._orders.get(domain, ()) if source is None or it.order.source == source]

    def known(self, order: BudgetOrder) -> LiveOrder | None:
        """The live order that is the very same."""
        return next(
            (it for it in self.of(order.domain, order.source) if it.order == order and it.ended_s is None), None
        )

    def heard(self, order: BudgetOrder) -> Heard | None:
        return self._heard.get((order.source, order.domain))

    def held_by(self, domain: str) -> str:
        """Whose order makes the budget what it is; empty: the operator's word does."""
        return self._held_by.get(domain, "")

    def statuses(self) -> tuple[OrderStatus, ...]:
        """The orders that have not ended, by domain."""
        return tuple(
            OrderStatus(it.order, self.clocks.within(it) is not When.NO, it.said)
            for orders in self._orders.values()
            for it in orders
            if it.ended_s is None
        )

    def ramping(self, domain: str) -> int:
        """-1 while the budget is on its way down, 1 while it is on its way up, 0 else."""
        _, live = says.in_force(self.of(domain), self.clocks, self.standing_mw[domain])
        if live is None:
            return 0
        if live.ended_s is not None:
            return 1
        if live.begun_s is None or self._ramp_is_over(live):
            return 0
        own_mw = live.order.budget_mw
        return -1 if own_mw is not None and own_mw < live.from_mw else 1

    def least_mw(self, domain: str, movable: Iterable[str]) -> int:
        """What a domain can be brought down to: floors of the GPUs that can be moved, all that is booked elsewhere."""
        ledger, spare_mw = self.ledger, 0
        for gpu in movable:
            booking = ledger.gpus[gpu]
            if domain in ledger.nodes[booking.node].chain:
                spare_mw += booking.held_mw - min(booking.held_mw, booking.report.floor_mw)
        return ledger.domain_held_mw(domain) + ledger.reserved_mw(domain) - spare_mw

    # ---- what changes it ----

    def turn(self, at_s: float, wall_s: float | None = None) -> None:
        """Time has passed."""
        self.clocks.turn(at_s, wall_s)

    def admit(self, order: BudgetOrder, *, raises: bool) -> LiveOrder:
        """Take an order. It speaks from its begin on; settle() makes it so."""
        clocks = self.clocks
        self._numbers += 1
        live = LiveOrder(
            self._numbers,
            order,
            raises,
            clocks.steady_of(order.not_before_wall_s),
            clocks.steady_of(order.expires_wall_s),
        )
        orders = self._orders.setdefault(order.domain, [])
        orders.append(live)
        orders.sort(key=lambda it: (it.order.issued_wall_s, it.number))
        if not order.source.startswith(SCHEDULE):
            key = (order.source, order.domain)
            heard = self._heard.get(key, Heard(*key))
            taken, forgotten_wall_s = (*heard.taken, (order.id, order.issued_wall_s)), heard.forgotten_wall_s
            if len(taken) > TAKEN_MAX:
                forgotten_wall_s = max(forgotten_wall_s, taken[0][1])
            self._heard[key] = replace(heard, taken=taken[-TAKEN_MAX:], forgotten_wall_s=forgotten_wall_s)
        return live

    def set_standing(self, domain: str, budget_mw: int) -> list[LiveOrder]:
        """The operator's word. What was ordered before it may no longer stand above it; gives those orders."""
        self.standing_mw[domain] = budget_mw
        lowered: list[LiveOrder] = []
        for index, it in enumerate(self._orders.get(domain, ())):
            if it.raises and it.order.budget_mw is not None and it.order.budget_mw > budget_mw:
                self._orders[domain][index] = replace(it, raises=False)
                lowered.append(it)
        return lowered

    def settle(self) -> tuple[list[Moved], list[tuple[LiveOrder, Why]]]:
        """Begin and end what is due: the budgets that have to change, and the orders that have ended."""
        moved: list[Moved] = []
        ended: list[tuple[LiveOrder, Why]] = []
        for domain in list(self._orders):
            begun = self._begin(domain)
            over = self._end(domain)
            ended += over
            change = self._move(domain, begun, [it for it, _ in over])
            if change is not None:
                moved.append(change)
        return moved, ended

    def remove(self, source: str) -> list[LiveOrder]:
        """End the live orders of a source, which ramp back as they were to; gives them."""
        gone: list[LiveOrder] = []
        for orders in self._orders.values():
            for index, it in enumerate(orders):
                if it.order.source == source and it.ended_s is None:
                    gone.append(it)
                    orders[index] = self._over(it)
        return gone

    def say_in_force(self, movable: list[str]) -> list[BudgetResult]:
        """Answers about orders that speak, whose ramp is over, and beside which nothing more can be drawn."""
        results: list[BudgetResult] = []
        for domain, orders in self._orders.items():
            for index, it in enumerate(orders):
                if not it.said and it.ended_s is None and self._arrived(it) and self._read_back(domain, movable):
                    orders[index] = replace(it, said=True)
                    results.append(self.result(it.order, Outcome.IN_FORCE, in_force_wall_s=self.clocks.wall_s))
        return results

    @property
    def awaits(self) -> bool:
        """Some order speaks and was not said to be in force yet."""
        return any(not it.said and it.begun_s is not None for each in self._orders.values() for it in each)

    # ---- answers ----

    def result(
        self,
        order: BudgetOrder,
        outcome: Outcome,
        *,
        text: str = "",
        why: Why | None = None,
        in_force_wall_s: float | None = None,
        attainment: float | None = None,
        repeated: bool = False,
    ) -> BudgetResult:
        """An answer about an order for a domain that exists; kept until it is delivered, unless it is repeated."""
        domain, ledger = order.domain, self.ledger
        budget_mw, held_by = ledger.domains[domain].budget_mw, self.held_by(domain)
        lower = order.budget_mw is not None and budget_mw < order.budget_mw
        self._results += not repeated
        made = BudgetResult(
            number=0 if repeated else self._results,
            id=order.id,
            source=order.source,
            domain=domain,
            outcome=outcome,
            wall_s=self.clocks.wall_s,
            text=text,
            why=why,
            budget_mw=order.budget_mw,
            in_force_mw=budget_mw,
            in_force_wall_s=in_force_wall_s,
            ends_wall_s=order.expires_wall_s,
            held_by=(held_by or OPERATOR) if lower and outcome is not Outcome.ENDED else "",
            shortfall_mw=ledger.over_mw(domain) if outcome is Outcome.IN_FORCE else 0,
            attainment=attainment,
            repeated=repeated,
        )
        if made.shortfall_mw and not made.text:
            made = replace(made, text=f"everything is at its floor, and {watts(made.shortfall_mw)} too much")
        if self.settings.publishes and not repeated:
            self._keep(made)
        return made

    def amend(self, made: BudgetResult) -> BudgetResult:
        """Replace an answer that was just made by a fuller one."""
        if made.number in self.undelivered:
            self.undelivered[made.number] = made
        return made

    def ended(self, live: LiveOrder, why: Why) -> BudgetResult:
        return self.result(live.order, Outcome.ENDED, why=why)

    def delivered(self, numbers: Iterable[int]) -> None:
        """The broker has these answers."""
        for number in numbers:
            self.undelivered.pop(number, None)

    # ---- from life to life ----

    def snapshot(self) -> FacilitySnapshot:
        """What the next life starts with."""
        clocks = self.clocks
        return FacilitySnapshot(
            clocks.at_s,
            clocks.wall_s,
            clocks.steady_s,
            tuple(it for orders in self._orders.values() for it in orders),
            tuple(self._heard.values()),
            tuple(self.schedules.values()),
            tuple(self.undelivered.values()),
            self._numbers,
            self._results,
            tuple(self.kept.items()),
        )

    def go_on_from(self, kept: FacilitySnapshot) -> None:
        """Take over what an earlier life knew, as far as the configuration still has its domains."""
        self.clocks.go_on_from(kept)
        for it in kept.orders:
            if it.order.domain in self.standing_mw:
                self._orders.setdefault(it.order.domain, []).append(it)
        self._heard = {(it.source, it.domain): it for it in kept.heard if it.domain in self.standing_mw}
        self.schedules = {it.name: it for it in kept.schedules if it.domain in self.standing_mw}
        self.undelivered = {it.number: it for it in kept.undelivered} if self.settings.publishes else {}
        self._numbers, self._results = kept.numbers, kept.results
        self.kept = {domain: found for domain, found in kept.kept if domain in self.standing_mw}

    # ---- helpers ----

    def _begin(self, domain: str) -> list[LiveOrder]:
        """Start the ramps of orders whose time has come, downwards by either clock, upwards by both; gives them."""
        begun: list[LiveOrder] = []
        orders, now_mw = self._orders[domain], self.ledger.domains[domain].budget_mw
        for index, it in enumerate(orders):
            if it.begun_s is not None or it.ended_s is not None:
                continue
            when, own_mw = self.clocks.within(it), it.order.budget_mw
            up = own_mw is None or own_mw > now_mw
            if when is When.YES or (when is When.MAYBE and not up):
                orders[index] = replace(it, begun_s=self.clocks.steady_s, from_mw=now_mw, left_s=None)
                begun.append(orders[index])
        return begun

    def _end(self, domain: str) -> list[tuple[LiveOrder, Why]]:
        """End what is over by both clocks, or is covered to its end by a newer order of its source that speaks."""
        orders, clocks = self._orders[domain], self.clocks
        ended: list[tuple[LiveOrder, Why]] = []
        left: list[LiveOrder] = []
        speaking: dict[str, list[LiveOrder]] = {}
        for it in reversed(orders):
            newer = speaking.setdefault(it.order.source, [])
            if any(_covers(by, it) for by in newer):
                if it.ended_s is None:
                    ended.append((it, Why.SUPERSEDED))
                continue
            if it.ended_s is None and clocks.ended(it) is When.YES:
                ended.append((it, Why.EXPIRED))
                it = self._over(it)
            elif it.ended_s is None and clocks.within(it) is When.YES:
                newer.append(it)
            elif it.ended_s is None and it.begun_s is not None and clocks.within(it) is When.NO:
                it = replace(it, begun_s=None, left_s=clocks.steady_s, from_mw=self._stands_mw(it))
            if it.ended_s is None or says.back_mw(it, clocks.steady_s, self.standing_mw[domain]) is not None:
                left.append(it)
        if left:
            self._orders[domain] = left[::-1]
        else:
            del self._orders[domain]
        return ended[::-1]

    def _over(self, it: LiveOrder) -> LiveOrder:
        """An order whose end has come."""
        return replace(it, ended_s=self.clocks.steady_s, from_mw=self._stands_mw(it))

    def _stands_mw(self, it: LiveOrder) -> int:
        """From where an order whose end has come ramps back: where its own ramp stands, or where its ramp back does."""
        now_s, standing_mw = self.clocks.steady_s, self.standing_mw[it.order.domain]
        now_mw: int | None = standing_mw
        if it.left_s is not None:
            now_mw = says.back_mw(it, now_s, standing_mw)
        elif it.begun_s is not None:
            now_mw = says.curve_mw(it, now_s, standing_mw)
        return standing_mw if now_mw is None else now_mw

    def _move(self, domain: str, begun: list[LiveOrder], ended: list[LiveOrder]) -> Moved | None:
        budget_mw, live = says.in_force(self.of(domain), self.clocks, self.standing_mw[domain])
        self._held_by[domain] = "" if live is None else f"{live.order.source}: {live.order.id}"
        before_mw = self.ledger.domains[domain].budget_mw
        if budget_mw == before_mw and not begun:
            return None
        words = [f"order {it.order.id} of {it.order.source} begins" for it in begun]
        words += [f"order {it.order.id} of {it.order.source} ended" for it in ended]
        toward = watts(budget_mw)
        if begun and not self._ramp_is_over(begun[-1]):
            order = begun[-1].order
            own_mw = self.standing_mw[domain] if order.budget_mw is None else order.budget_mw
            toward = f"{watts(own_mw)} over {says.ramp_s(order, begun[-1].from_mw):g} s"
        by = begun[-1].order.source if begun else OPERATOR if live is None else live.order.source
        return Moved(domain, before_mw, budget_mw, by, "; ".join(words), toward)

    def _arrived(self, it: LiveOrder) -> bool:
        """It speaks, and its ramp is over."""
        return it.begun_s is not None and self._ramp_is_over(it) and self.clocks.within(it) is not When.NO

    def _ramp_is_over(self, it: LiveOrder) -> bool:
        assert it.begun_s is not None
        return self.clocks.steady_s >= it.begun_s + says.ramp_s(it.order, it.from_mw)

    def _read_back(self, domain: str, movable: list[str]) -> bool:
        """The budget is where the orders want it, and no more is booked than that, or than floors need."""
        ledger = self.ledger
        wanted_mw, _ = says.in_force(self.of(domain), self.clocks, self.standing_mw[domain])
        if ledger.domains[domain].budget_mw != wanted_mw:
            return False
        booked_mw = ledger.domain_held_mw(domain) + ledger.reserved_mw(domain)
        return booked_mw <= ledger.domains[domain].budget_mw or booked_mw <= self.least_mw(domain, movable)

    def _keep(self, result: BudgetResult) -> None:
        self.undelivered[result.number] = result
        if len(self.undelivered) > RESULTS_MAX:
            schedules = (number for number, it in self.undelivered.items() if it.source.startswith(SCHEDULE))
            del self.undelivered[next(schedules, next(iter(self.undelivered)))]


def _covers(by: LiveOrder, it: LiveOrder) -> bool:
    """Made and taken later, and no sooner over, by either clock."""
    later = by.number > it.number
    return later and by.ends_s >= it.ends_s and by.order.expires_wall_s >= it.order.expires_wall_s
