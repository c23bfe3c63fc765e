"""The rules by which the paper's claims are judged, on planted numbers: every rule can say every verdict."""

import pickle
from collections.abc import Mapping
from dataclasses import fields, replace

import pytest

from rapid.sim.claims import claims
from rapid.sim.claims.claims import CORNERS, Claim, Judgement, Scope, findings, measured_in, tasks_of
from rapid.sim.claims.rules import Part, Verdict, band, combined, order, overall, ratio
from rapid.sim.claims.runs import (
    COLOCATED,
    EVEN_600,
    EVEN_750,
    FIVE_600,
    SPLIT_675,
    SPLIT_750,
    TIGHT_TPOT_S,
    TPOT_S,
    Answer,
    Corner,
    Gap,
    GapTask,
    Rates,
    RateTask,
    Shares,
    Shift,
    ShiftTask,
    Split,
    Task,
    answer,
    load,
)
from rapid.sim.claims.table import CLAIMS, SHIFT_POLICIES, attainment_at
from rapid.sim.model.curves import PowerLaw
from rapid.sim.model.paper_profile import FITTED, FITTED_RULE, NAME
from rapid.sim.model.profile import DecodeCorner, PrefillCorner, profile_named

PAPER, STAND_IN = profile_named(NAME), profile_named("mi300x-8b")
SCOPE = claims.quick(PAPER)
YES, PARTLY, NOT = Verdict.REPRODUCED, Verdict.PARTLY, Verdict.NOT
BY_ID = {claim.id: claim for claim in CLAIMS}


# ---- the rules ----


@pytest.mark.parametrize(
    ("stated", "ours", "verdict"),
    [
        (1.5, 1.5, YES),
        (1.5, 1.29, YES),
        (1.5, 1.72, YES),
        (1.5, 1.27, PARTLY),
        (1.5, 1.73, PARTLY),
        (1.5, 1.02, PARTLY),
        (1.5, 1.01, NOT),
        (1.5, 0.5, NOT),
        (1.1, 1.01, NOT),  # within 15 %, and yet a tie
        (0.8, 0.8, YES),
        (0.8, 0.97, PARTLY),
        (0.8, 0.99, NOT),
    ],
)
def test_a_ratio_needs_its_side_of_one_and_its_distance(stated: float, ours: float, verdict: Verdict) -> None:
    assert ratio(stated, ours) is verdict


@pytest.mark.parametrize(("better", "verdict"), [(10.3, YES), (10.1, PARTLY), (9.9, PARTLY), (9.7, NOT)])
def test_an_order_needs_two_percent(better: float, verdict: Verdict) -> None:
    assert order(better, 10.0) is verdict


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.9, NOT), (1.0, PARTLY), (1.2, YES), (1.3, YES), (1.31, PARTLY), (1.51, NOT)]
)
def test_a_band_has_a_wider_one_around_it(ours: float, verdict: Verdict) -> None:
    assert band(ours, (1.2, 1.3), (1.0, 1.5)) is verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [([YES, YES], YES), ([NOT, NOT], NOT), ([YES, NOT], PARTLY), ([PARTLY], PARTLY), ([PARTLY, NOT], PARTLY)],
)
def test_all_parts_count(parts: list[Verdict], verdict: Verdict) -> None:
    assert combined(parts) is verdict
    assert Judgement(tuple(Part("", each) for each in parts)).verdict is verdict


def test_a_claim_that_only_holds_in_another_corner_is_partly_reproduced() -> None:
    assert overall(NOT, [NOT, YES]) is PARTLY
    assert overall(NOT, [NOT, PARTLY]) is NOT
    assert overall(YES, [NOT]) is YES


# ---- the fit ----


def test_every_fitted_number_is_within_its_bounds_and_has_a_reason() -> None:
    for each in (*FITTED, *FITTED_RULE):
        assert each.low <= each.value <= each.high, each.name
        assert each.low < each.high, each.name
        assert each.why, each.name


def test_nothing_else_differs_from_the_stand_in() -> None:
    names = [field.name for field in fields(PAPER) if field.compare]
    different = {name for name in names if getattr(PAPER, name) != getattr(STAND_IN, name)}
    assert different == {"name", "decode_corner", *(each.name for each in FITTED)}
    assert {each.name: getattr(PAPER, each.name) for each in FITTED} == {each.name: each.value for each in FITTED}
    assert all(each.low == pytest.approx(getattr(STAND_IN, each.name)) for each in FITTED)


# ---- the judges, on a world as the paper states it, and on others ----

STATED_RPS: Mapping[tuple[Split, float], float] = {
    (COLOCATED, TPOT_S): 20.0,
    (EVEN_750, TPOT_S): 30.0,
    (EVEN_600, TPOT_S): 24.0,
    (SPLIT_750, TPOT_S): 27.0,
    (FIVE_600, TPOT_S): 23.0,
    (SPLIT_675, TIGHT_TPOT_S): 20.0,
    (SPLIT_750, TIGHT_TPOT_S): 18.0,
}
STATED_GAP = Gap(30.0, (0.130, 0.1495), (0.80, 0.30))
# By policy: the attainment of either half at 13 requests/s, and the most GPUs in prefill, then in decode.
STATED_SHIFT: Mapping[str, tuple[float, float, int, int]] = {
    "uniform": (0.30, 0.50, 4, 4),
    "static": (0.60, 0.40, 4, 4),
    "power": (0.60, 0.50, 4, 4),
    "roles": (0.60, 0.70, 6, 7),
    "rapid": (0.70, 0.90, 6, 7),
}


def rates(sustained_rps: float, *, short_of: str = "tpot") -> Rates:
    below = Shares(0.9, 0.95, 0.95)
    above = Shares(0.4, 0.45, 0.9) if short_of == "ttft" else Shares(0.4, 0.9, 0.45)
    return Rates(((0.9 * sustained_rps, below), (sustained_rps, Shares(0.8, 0.9, 0.85)), (1.1 * sustained_rps, above)))


def world(
    rps: Mapping[tuple[Split, float], float] = STATED_RPS,
    gap: Gap = STATED_GAP,
    shift: Mapping[str, tuple[float, float, int, int]] = STATED_SHIFT,
    *,
    short_of: str = "tpot",
    corner: Corner = SCOPE.own,
) -> list[tuple[Task, Answer]]:
    """Every answer there can be, in one corner."""
    made: list[tuple[Task, Answer]] = [
        (RateTask(split, tpot_s, PAPER, corner[1], 0, 100), rates(rate, short_of=short_of))
        for (split, tpot_s), rate in rps.items()
    ]
    made.append((GapTask(PAPER, corner[1], 0, 100), gap))
    for policy, (first, second, prefill, decode) in shift.items():
        found = Shift((first + second) / 2, (first, second), prefill, decode, 3, 0.0)
        made.append((ShiftTask(policy, 13.0, PAPER, corner, 0), found))
    return made


def judged(identity: str, answers: list[tuple[Task, Answer]]) -> Verdict:
    return findings([BY_ID[identity]], SCOPE, answers)[0].verdict


@pytest.mark.parametrize("identity", [f"R{number}" for number in range(1, 12)])
def test_a_world_as_stated_reproduces_every_claim(identity: str) -> None:
    (found,) = findings([BY_ID[identity]], SCOPE, world())
    assert (found.verdict, found.why) == (YES, "")


@pytest.mark.parametrize(
    ("identity", "changed", "verdict"),
    [
        ("R1", {(COLOCATED, TPOT_S): 25.0}, PARTLY),
        ("R1", {(COLOCATED, TPOT_S): 30.0}, NOT),
        ("R2", {(COLOCATED, TPOT_S): 16.0}, PARTLY),
        ("R2", {(COLOCATED, TPOT_S): 24.0}, NOT),
        ("R3", {(COLOCATED, TPOT_S): 30.0}, PARTLY),
        ("R3", {(COLOCATED, TPOT_S): 40.0, (EVEN_750, TPOT_S): 40.0}, NOT),
        ("R4", {(EVEN_750, TPOT_S): 34.0}, PARTLY),
        ("R4", {(EVEN_600, TPOT_S): 27.0}, PARTLY),
        ("R4", {(EVEN_750, TPOT_S): 40.0, (EVEN_600, TPOT_S): 27.0}, NOT),
        ("R5", {(FIVE_600, TPOT_S): 27.1}, PARTLY),
        ("R5", {(FIVE_600, TPOT_S): 29.0}, NOT),
        ("R8", {(SPLIT_750, TIGHT_TPOT_S): 20.1}, PARTLY),
        ("R8", {(SPLIT_750, TIGHT_TPOT_S): 22.0}, PARTLY),
    ],
)
def test_other_rates_do_not(identity: str, changed: dict[tuple[Split, float], float], verdict: Verdict) -> None:
    answers = world({**STATED_RPS, **changed})
    (found,) = findings([BY_ID[identity]], SCOPE, answers)
    assert found.verdict is verdict
    assert found.why.endswith(found.claim.cause)


def test_prompts_that_come_late_do_not_starve_decode() -> None:
    assert judged("R8", world(short_of="ttft")) is PARTLY
    late = {**STATED_RPS, (SPLIT_750, TIGHT_TPOT_S): 22.0}
    assert judged("R8", world(late, short_of="ttft")) is NOT


def test_a_gap_no_wider_than_the_longer_prefill_is_none() -> None:
    assert judged("R6", world(gap=replace(STATED_GAP, attainment=(0.80, 0.65)))) is PARTLY
    assert judged("R6", world(gap=replace(STATED_GAP, attainment=(0.80, 0.79), prefill_s=(0.13, 0.2)))) is NOT


@pytest.mark.parametrize(
    ("identity", "changed", "verdict"),
    [
        ("R9", {"roles": (0.70, 0.91, 6, 7)}, PARTLY),  # a tie for the best
        ("R9", {"power": (0.60, 0.85, 4, 4)}, PARTLY),  # not so weak
        ("R9", {"power": (0.90, 0.90, 4, 4)}, NOT),
        ("R10", {"rapid": (0.70, 0.90, 5, 7)}, PARTLY),
        ("R10", {"rapid": (0.70, 0.90, 4, 4)}, NOT),
        ("R11", {"uniform": (0.50, 0.60, 4, 4)}, PARTLY),
        ("R11", {"uniform": (0.80, 0.80, 4, 4)}, NOT),
        ("R11", {"rapid": (0.70, 0.80, 6, 7)}, NOT),  # it sustains no rate that was tried
    ],
)
def test_other_shifts_do_not(
    identity: str, changed: dict[str, tuple[float, float, int, int]], verdict: Verdict
) -> None:
    assert judged(identity, world(shift={**STATED_SHIFT, **changed})) is verdict


def test_how_decode_fades_depends_on_the_corner() -> None:
    scope = replace(SCOPE, corners=CORNERS)
    (found,) = findings([BY_ID["R7"]], scope, [])
    holds = {(prefill, DecodeCorner.PESSIMISTIC) for prefill in PrefillCorner}
    assert set(found.holds_in) == holds
    assert next(iter(found.corners)) == PAPER_CORNER


def test_prefill_that_gains_nothing_above_600_w_is_caught() -> None:
    flat = replace(PAPER, shallow=PowerLaw(0.0, knee=0.8, exponent_below=0.6))
    assert findings([BY_ID["R7"]], replace(SCOPE, profile=flat), [])[0].verdict is PARTLY


PAPER_CORNER = (PrefillCorner.SHALLOW, DecodeCorner.PESSIMISTIC)


def test_the_table_says_in_which_corner_a_claim_holds() -> None:
    elsewhere = (PrefillCorner.SHALLOW, DecodeCorner.SHARP)
    scope = replace(SCOPE, corners=(PAPER_CORNER, elsewhere))
    answers = world({**STATED_RPS, (FIVE_600, TPOT_S): 29.0}) + world(corner=elsewhere)
    (found,) = findings([BY_ID["R5"]], scope, answers)
    assert found.corners == {PAPER_CORNER: NOT, elsewhere: YES}
    assert (found.verdict, found.holds_in) == (PARTLY, (elsewhere,))


# ---- what is simulated ----


def test_a_claim_is_judged_from_its_own_tasks_alone() -> None:
    everything = dict(world())
    for claim in CLAIMS:
        kinds = {_kind(task) for task in claim.tasks(SCOPE)}
        enough = [(task, found) for task, found in everything.items() if _kind(task) in kinds]
        assert claim.judge(measured_in(PAPER, SCOPE.own, enough))


def _kind(task: Task) -> tuple[object, ...]:
    match task:
        case RateTask():
            return (task.split, task.tpot_s)
        case ShiftTask():
            return (task.policy,)
        case GapTask():
            return ("gap",)


def test_tasks_that_claims_share_are_run_once() -> None:
    tasks = tasks_of(CLAIMS, claims.full(PAPER))
    assert len(tasks) == len(set(tasks)) < sum(len(claim.tasks(claims.full(PAPER))) for claim in CLAIMS)
    assert {task.policy for task in tasks if isinstance(task, ShiftTask)} == set(SHIFT_POLICIES)


def test_a_seed_changes_the_order_of_gaps_and_not_the_load() -> None:
    first, second = (list(load("longbench", 20.0, seed, 400, mix=True)) for seed in (0, 1))
    assert [each.arrival_s for each in first] != [each.arrival_s for each in second]
    assert first[-1].arrival_s == pytest.approx(second[-1].arrival_s) == pytest.approx(400 / 20.0)
    assert sorted(each.input_tokens for each in first) == sorted(each.input_tokens for each in second)
    halves = [each.input_tokens for each in load("sonnet", 20.0, 1, None, mix=False)]
    assert halves == [8192] * 1000 + [512] * 1000


def test_attainment_between_two_rates_is_on_the_line() -> None:
    points = {10.0: 1.0, 20.0: 0.5}
    assert [attainment_at(points, rate) for rate in (5.0, 10.0, 15.0, 20.0, 30.0)] == [1.0, 1.0, 0.75, 0.5, 0.5]


def test_a_cheap_claim_end_to_end() -> None:
    scope = Scope(PAPER, (PAPER_CORNER,), 1, 1000, (13.0,))
    claim = BY_ID["R5"]
    answers = [(task, answer(task)) for task in claim.tasks(scope)]
    (found,) = findings([claim], scope, answers)
    assert found.verdict is YES, found.ours
    assert answer(pickle.loads(pickle.dumps(answers[0][0]))) == answers[0][1]


def test_the_stand_in_fails_where_the_paper_profile_does_not() -> None:
    """With fast decode 5P3D-600W wins: what the fit is for."""
    scope = Scope(STAND_IN, ((PrefillCorner.SHALLOW, DecodeCorner.GENTLE),), 1, 1000, (13.0,))
    claim: Claim = BY_ID["R5"]
    assert findings([claim], scope, [(task, answer(task)) for task in claim.tasks(scope)])[0].verdict is NOT


def test_a_shift_counts_halves_and_roles() -> None:
    found = answer(ShiftTask("roles", 14.0, PAPER, PAPER_CORNER, 0))
    assert isinstance(found, Shift)
    assert sum(found.halves) / 2 == pytest.approx(found.attainment)
    assert found.role_moves > 0
    assert min(found.most_prefill, found.most_decode) > 4
    assert found.over_budget_s == 0.0
    fixed = answer(ShiftTask("uniform", 14.0, PAPER, PAPER_CORNER, 0))
    assert isinstance(fixed, Shift)
    assert (fixed.most_prefill, fixed.most_decode) == (4, 4)
