"""How the fitted numbers of profile mi300x-8b-paper were found, and what breaks when one of them is off by 20 %.

    splits   every point of a grid within the bounds, in the profile's own corner: the rates that fixed splits sustain
             on LongBench, against what the paper states of them (R1 to R5 and R8). `off` is the root of the mean square
             of the logarithms of ours / stated; an order that is kept is off by nothing
    shift    the points at which all of those claims are reproduced: the verdicts of R9 to R11
    rule     the profile under other settings of the rule: the same verdicts
    edges    every fitted number 20 % down and up (within its bounds or not): the verdicts that change

Runs are spread over the cores; the tables do not depend on how many.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from multiprocessing import get_context

from rapid.sim.claims.claims import Claim, Finding, Measured, Scope, findings, full, measured_in, tasks_of
from rapid.sim.claims.rules import Verdict
from rapid.sim.claims.runs import (
    COLOCATED,
    EVEN_600,
    EVEN_750,
    FIVE_600,
    SPLIT_675,
    SPLIT_750,
    TIGHT_TPOT_S,
    Answer,
    Task,
    answer,
)
from rapid.sim.claims.table import CLAIMS
from rapid.sim.model.paper_profile import FITTED, FITTED_RULE, NAME
from rapid.sim.model.profile import Profile, profile_named

HOST_MS = (9.0, 10.0, 11.0, 12.0)
HOST_SEQUENCE_MS = (0.01, 0.15, 0.3)
STEP_MS = (0.55, 0.59, 0.63, 0.67)  # of a sequence with the mean context, in a decode step: sets decode_context_ms
MEAN_CONTEXT = 4_170  # tokens, of LongBench
STEP_MW, ROLE_COOLDOWN_S = (25_000, 50_000, 75_000), (2.0, 5.0)
EDGE = 0.20
STATED = (1.5, 1.2, 1.7, 1.1, 0.90, 1.125)  # R1, R2, R3, R3, R4 (the middle of each band)
NUMBERS = ("host", "sequence", "context")  # ms
LEAST_ORDER = 1.02  # what an order has to differ by
ON_SPLITS = tuple(claim for claim in CLAIMS if claim.splits)
ON_SHIFT = tuple(claim for claim in CLAIMS if claim.policies)


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the grid. kept: all claims on splits are reproduced; off: how far they are from what is stated."""

    profile: Profile
    kept: bool
    off: float


Answers = Callable[[Sequence[Task]], list[Answer]]


def main() -> None:
    parser = argparse.ArgumentParser(description="how mi300x-8b-paper was fitted")
    tables = ("splits", "shift", "rule", "edges")
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables)
    parser.add_argument("--seeds", type=int, default=2, help="of all but the splits, which take one")
    parser.add_argument("--requests", type=int, default=4000, help="of LongBench")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    paper = profile_named(NAME)
    scope = full(paper, asked.seeds)
    scope = replace(scope, corners=(scope.own,), requests=asked.requests)
    with get_context("spawn").Pool(asked.workers) as pool:

        def answers(tasks: Sequence[Task]) -> list[Answer]:
            return list(pool.imap(answer, tasks))

        if "splits" in asked.tables or "shift" in asked.tables:
            points = list(_splits(replace(scope, seeds=1), answers))
            if "shift" in asked.tables:
                _shift(scope, [point for point in points if point.kept], answers)
        if "rule" in asked.tables:
            _rule(scope, answers)
        if "edges" in asked.tables:
            _edges(scope, answers)


# ---- splits ----


def _splits(scope: Scope, answers: Answers) -> Iterator[Point]:
    titles = ("R1 1.5", "R2 1.2", "R3 1.7", "R3 1.1", "R4 .90", "R4 1.13", "R5 >1", "R8 >1", "off", "reproduced")
    print(_row((*NUMBERS, *titles)), flush=True)
    for host_ms in HOST_MS:
        for sequence_ms in HOST_SEQUENCE_MS:
            for step_ms in STEP_MS:
                profile = replace(
                    scope.profile,
                    host_ms=host_ms,
                    host_sequence_ms=sequence_ms,
                    decode_context_ms=round((step_ms - sequence_ms) / MEAN_CONTEXT, 6),
                )
                yield _point(replace(scope, profile=profile), answers)


def _point(scope: Scope, answers: Answers) -> Point:
    tasks = tasks_of(ON_SPLITS, scope)
    answered = list(zip(tasks, answers(tasks), strict=True))
    ratios, off = _ratios(measured_in(scope.profile, scope.own, answered))
    kept = sum(each.verdict is Verdict.REPRODUCED for each in findings(ON_SPLITS, scope, answered))
    told = (*(f"{value:.2f}" for value in ratios), f"{off:.3f}", f"{kept} of {len(ON_SPLITS)}")
    print(_row((*_numbers(scope.profile), *told)), flush=True)
    return Point(scope.profile, kept == len(ON_SPLITS), off)


def _ratios(measured: Measured) -> tuple[tuple[float, ...], float]:
    """Ours, in the order of the titles, and how far off they are."""
    colocated, even_750, even_600, five, split = (
        measured.sustained_rps(each) for each in (COLOCATED, EVEN_750, EVEN_600, FIVE_600, SPLIT_750)
    )
    tight = measured.sustained_rps(SPLIT_675, TIGHT_TPOT_S) / measured.sustained_rps(SPLIT_750, TIGHT_TPOT_S)
    per_watt = SPLIT_750.budget_w / EVEN_750.budget_w
    ours = (
        even_750 / colocated,
        even_600 / colocated,
        split / colocated / per_watt,
        split / even_750 / per_watt,
        split / even_750,
        split / even_600,
    )
    orders = (split / five, tight)
    distances = [log(value / stated) for value, stated in zip(ours, STATED, strict=True)]
    distances += [min(0.0, log(value / LEAST_ORDER)) for value in orders]
    return (*ours, *orders), sqrt(sum(each * each for each in distances) / len(distances))


# ---- shift ----


def _shift(scope: Scope, points: Sequence[Point], answers: Answers) -> None:
    """Under the profile's settings."""
    print("\n" + _row((*NUMBERS, "off", *(claim.id for claim in ON_SHIFT))))
    for point in points:
        judged = _judged(ON_SHIFT, replace(scope, profile=point.profile), answers)
        print(
            _row((*_numbers(point.profile), f"{point.off:.3f}", *_verdicts(judged))) + f"  {judged[0].ours}", flush=True
        )


def _rule(scope: Scope, answers: Answers) -> None:
    """At the profile's own point."""
    print("\n" + _row(("step", "cooldown", *(claim.id for claim in ON_SHIFT))))
    for step_mw in STEP_MW:
        for cooldown_s in ROLE_COOLDOWN_S:
            rule = (("step_mw", float(step_mw)), ("role_cooldown_s", cooldown_s))
            judged = _judged(ON_SHIFT, replace(scope, rule=rule), answers)
            settings = (f"{step_mw / 1e3:g} W", f"{cooldown_s:g} s")
            print(_row((*settings, *_verdicts(judged))) + f"  {judged[0].ours}", flush=True)


def _verdicts(judged: Sequence[Finding]) -> list[str]:
    return [each.verdict.value for each in judged]


def _numbers(profile: Profile) -> tuple[str, ...]:
    return f"{profile.host_ms:g}", f"{profile.host_sequence_ms:g}", f"{profile.decode_context_ms:.2e}"


# ---- edges ----


def _edges(scope: Scope, answers: Answers) -> None:
    """What changes against the profile as it is."""
    as_it_is = {each.claim.id: each for each in _judged(CLAIMS, scope, answers)}
    print("\nas it is: " + ", ".join(f"{name} {each.verdict.value}" for name, each in as_it_is.items()), flush=True)
    for name, low, high in _moved(scope):
        for share, moved in ((-EDGE, low), (EDGE, high)):
            judged = _judged(CLAIMS, moved, answers)
            changed = [each for each in judged if each.verdict is not as_it_is[each.claim.id].verdict]
            said = "; ".join(f"{each.claim.id} {each.verdict.value} ({each.ours})" for each in changed)
            print(f"{name} {share:+.0%}: {said or 'nothing changes'}", flush=True)


def _moved(scope: Scope) -> Iterator[tuple[str, Scope, Scope]]:
    """The scope with one number moved down, and up."""
    for each in FITTED:
        low, high = (
            replace(scope.profile, **{each.name: each.value * (1 + share)})  # type: ignore[arg-type]
            for share in (-EDGE, EDGE)
        )
        yield each.name, replace(scope, profile=low), replace(scope, profile=high)
    for each in FITTED_RULE:
        rules = [
            tuple((name, value * (1 + share) if name == each.name else value) for name, value in scope.rule)
            for share in (-EDGE, EDGE)
        ]
        yield each.name, replace(scope, rule=rules[0]), replace(scope, rule=rules[1])


def _judged(claims: Sequence[Claim], scope: Scope, answers: Answers) -> tuple[Finding, ...]:
    tasks = tasks_of(claims, scope)
    return findings(claims, scope, list(zip(tasks, answers(tasks), strict=True)))


def _row(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>10}" for cell in cells)


if __name__ == "__main__":
    main()
