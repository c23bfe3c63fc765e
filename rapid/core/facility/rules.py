"""Which orders are taken. A cut is never refused for what it costs, only for what it is: forged, late, or malformed."""

from collections.abc import Iterable, Sequence

from rapid.core.cluster import Domain
from rapid.core.errors import watts
from rapid.core.facility.clocks import Clocks
from rapid.core.facility.nouns import INF, BudgetOrder, Heard, LiveOrder, Why
from rapid.core.settings import FacilitySettings, SourceSettings

YEAR_S = 366 * 86_400.0
RAMP_MAX_S = 86_400.0
BUDGET_MAX_MW = 10_000_000_000_000  # 10 GW, as everywhere
ORDERS_MAX = 64  # live orders of one source for one domain
CUTS_MAX = 128  # and with those that cut at once, which find room beyond that
TAKEN_MAX = 256  # orders of one source for one domain that are remembered once they are over

Refusal = tuple[Why, str]


def why_not(
    order: BudgetOrder,
    *,
    domains: Iterable[Domain],
    settings: FacilitySettings,
    clocks: Clocks,
    heard: Heard | None,
    live: Sequence[LiveOrder],
) -> Refusal | None:
    """Why an order that came from outside is refused; None: it is taken. `live` are the source's own for the domain."""
    source = next((each for each in settings.sources if each.name == order.source), None)
    return (
        _who(order, domains, source)
        or malformed(order, settings)
        or _when(order, settings.replay_window_s, clocks)
        or _again(order, heard)
        or too_high(order, domains, settings)
        or _how_many(order, clocks, live)
    )


def _who(order: BudgetOrder, domains: Iterable[Domain], source: SourceSettings | None) -> Refusal | None:
    known = [domain.name for domain in domains]
    if order.domain not in known:
        return Why.UNKNOWN_DOMAIN, f"no domain named {order.domain!r}"
    if source is None:
        return Why.NOT_ALLOWED, f"source {order.source!r} is not in the configuration"
    if source.domains and order.domain not in source.domains:
        return Why.NOT_ALLOWED, f"source {order.source} may not order budgets of domain {order.domain}"
    return None


def malformed(order: BudgetOrder, settings: FacilitySettings) -> Refusal | None:
    """What makes no sense, whoever says it."""
    budget_mw = order.budget_mw
    if budget_mw is not None and not 0 <= budget_mw <= BUDGET_MAX_MW:
        return Why.INVALID, f"a budget of {watts(budget_mw)} is outside 0 W..{watts(BUDGET_MAX_MW)}"
    if not order.expires_wall_s > order.not_before_wall_s:
        return Why.INVALID, "it expires before it begins"
    for name, ramp_s in (("ramp_down_s", order.ramp_down_s), ("ramp_up_s", order.ramp_up_s)):
        if not 0 <= ramp_s <= RAMP_MAX_S:
            return Why.INVALID, f"{name} = {ramp_s:g} is outside 0..{RAMP_MAX_S:g}"
    begin_wall_s = max(order.not_before_wall_s, order.issued_wall_s)
    if begin_wall_s > order.issued_wall_s + YEAR_S or INF > order.expires_wall_s > begin_wall_s + YEAR_S:
        return Why.INVALID, "its times lie more than a year ahead"
    return None


def _when(order: BudgetOrder, window_s: float, clocks: Clocks) -> Refusal | None:
    age_s = clocks.wall_s - order.issued_wall_s
    if age_s > window_s:
        return Why.STALE, f"it was made {age_s:.1f} s ago, at most {window_s:g} s are allowed; make and sign it anew"
    if age_s < -window_s:
        return (
            Why.FUTURE,
            f"it was made {-age_s:.1f} s in the future, at most {window_s:g} s are allowed; set the clock",
        )
    if order.expires_wall_s <= clocks.wall_s:
        return Why.EXPIRED, f"it expired {clocks.wall_s - order.expires_wall_s:.1f} s ago"
    return None


def _again(order: BudgetOrder, heard: Heard | None) -> Refusal | None:
    """Nothing is taken twice: what is remembered is known by its id, and nothing as old as what is not is taken."""
    if heard is None:
        return None
    if any(order.id == id for id, _ in heard.taken):
        return Why.REPLAYED, f"order {order.id} was taken already"
    if order.issued_wall_s <= heard.forgotten_wall_s:
        return Why.OUT_OF_ORDER, f"it was made before the last {TAKEN_MAX} that were taken; make it anew"
    return None


def too_high(order: BudgetOrder, domains: Iterable[Domain], settings: FacilitySettings) -> Refusal | None:
    """Nobody goes above the ceiling of a domain."""
    if order.budget_mw is None:
        return None
    ceiling_mw = ceiling_of(order.domain, domains, settings)
    if order.budget_mw <= ceiling_mw:
        return None
    text = f"{watts(order.budget_mw)} is above {watts(ceiling_mw)}, the ceiling configured for domain {order.domain}"
    return Why.ABOVE_CEILING, text


def ceiling_of(domain: str, domains: Iterable[Domain], settings: FacilitySettings) -> int:
    """What no order for a domain may pass: as configured, or else the budget in the configuration."""
    ceilings_mw = {each.name: each.budget_mw for each in domains} | dict(settings.ceilings_mw)
    return ceilings_mw[domain]


def _how_many(order: BudgetOrder, clocks: Clocks, live: Sequence[LiveOrder]) -> Refusal | None:
    at_once = order.budget_mw is not None and order.not_before_wall_s <= clocks.wall_s
    most = CUTS_MAX if at_once else ORDERS_MAX
    if len(live) < most:
        return None
    return Why.TOO_MANY, f"{len(live)} orders of {order.source} for domain {order.domain} are live, at most {most}"
