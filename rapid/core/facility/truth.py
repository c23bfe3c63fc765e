"""What is true of each domain: measured against its budget once a tick, and drawn for whoever asks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rapid.core.facility.facility import Facility
from rapid.core.facility.meter import STALE_S
from rapid.core.facility.nouns import INF, DomainTruth, Kept, ScheduleStatus
from rapid.core.facility.rules import ceiling_of
from rapid.core.facility.windows import window


@dataclass(frozen=True, slots=True)
class Draw:
    """Of a domain's GPUs: mean power of those measured; the same with the others at what is booked; their number."""

    measured_mw: int = 0
    at_most_mw: int = 0
    unknown: int = 0


def measure(facility: Facility, at_s: float, silent_after_s: float) -> dict[str, Draw]:
    """The draw of every domain now."""
    ledger = facility.ledger
    sums = {name: [0, 0, 0] for name in ledger.domains}
    for name, node in ledger.nodes.items():
        if node.released:
            continue
        fresh = ledger.is_fresh(name, at_s, silent_after_s)
        measured_mw, at_most_mw, unknown = 0, node.unseen_mw, max(0, node.spec.gpus - len(node.gpus))
        for gpu in node.gpus:
            mean_mw = facility.meter.mean_mw(gpu, at_s) if fresh else None
            measured_mw += mean_mw or 0
            at_most_mw += ledger.gpus[gpu].held_mw if mean_mw is None else mean_mw
            unknown += mean_mw is None
        for domain in node.chain:
            for index, more in enumerate((measured_mw, at_most_mw, unknown)):
                sums[domain][index] += more
    return {name: Draw(*found) for name, found in sums.items()}


def judge(facility: Facility, at_s: float, silent_after_s: float) -> dict[str, Draw]:
    """Count the time since the last call as kept, over, or unmeasured, for every domain; to be asked once a tick."""
    ledger, passed_s = facility.ledger, at_s - facility.kept_at_s
    facility.kept_at_s = at_s
    draws = measure(facility, at_s, silent_after_s)
    for name, draw in draws.items():
        kept = facility.kept.get(name, Kept())
        kept = replace(kept, watched_s=kept.watched_s + passed_s)
        over = draw.measured_mw + ledger.reserved_mw(name) > ledger.domains[name].budget_mw
        unmeasured = draw.unknown > 0 or passed_s > STALE_S
        if over:
            kept = replace(kept, over_s=kept.over_s + passed_s)
        elif unmeasured:
            kept = replace(kept, unmeasured_s=kept.unmeasured_s + passed_s)
        facility.kept[name] = kept
        if over or unmeasured:
            facility.compliant_s.pop(name, None)
        else:
            facility.compliant_s.setdefault(name, at_s)
    return draws


def schedules(facility: Facility) -> tuple[ScheduleStatus, ...]:
    """Every schedule with its present or next window, by the clock of the host."""
    wall_s = facility.clocks.wall_s
    found = []
    for schedule in facility.schedules.values():
        start_s, end_s = window(schedule, wall_s) or (INF, INF)
        found.append(ScheduleStatus(schedule, start_s, end_s, start_s <= wall_s < end_s))
    return tuple(found)


def of_domain(facility: Facility, domain: str, draw: Draw | None, movable: Iterable[str]) -> DomainTruth:
    """All that is published of a domain besides its books; `draw` None: nobody has looked yet."""
    if draw is None:
        held_mw = facility.ledger.domain_held_mw(domain)
        gpus = sum(node.spec.gpus for node in facility.ledger.nodes.values() if domain in node.chain)
        draw = Draw(0, held_mw, gpus)
    since_s = facility.compliant_s.get(domain)
    return DomainTruth(
        standing_mw=facility.standing_mw[domain],
        ceiling_mw=ceiling_of(domain, facility.configured, facility.settings),
        least_mw=facility.least_mw(domain, movable),
        held_by=facility.held_by(domain),
        ramping=facility.ramping(domain),
        measured_mw=draw.measured_mw,
        at_most_mw=draw.at_most_mw,
        unknown_gpus=draw.unknown,
        compliant_since_wall_s=None if since_s is None else facility.clocks.wall_of(since_s),
        kept=facility.kept.get(domain, Kept()),
    )
