"""What a claim of the RAPID paper (arXiv 2601.12241) is, and how it is judged: claims_table has them, R1 to R11.

A claim names the simulations it needs (claims_runs), and judges what they measured, the means over the seeds, by the
rules of claims_rules: in the profile's own corner and, if asked, in all corners.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rapid.sim.claims.rules import Part, Verdict, combined, overall
from rapid.sim.claims.runs import (
    LEVEL,
    TPOT_S,
    Answer,
    Corner,
    Gap,
    GapTask,
    Rates,
    RateTask,
    Rule,
    Shift,
    ShiftTask,
    Split,
    Task,
)
from rapid.sim.model.paper_profile import RULE
from rapid.sim.model.profile import DecodeCorner, PrefillCorner, Profile
from rapid.sim.study import sustained

CORNERS: tuple[Corner, ...] = tuple((prefill, decode) for prefill in PrefillCorner for decode in DecodeCorner)


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured: with more seeds and requests the numbers are surer, and take longer."""

    profile: Profile
    corners: tuple[Corner, ...]
    seeds: int
    requests: int  # of LongBench
    rates_rps: tuple[float, ...]  # of the Sonnet shift: from where all is well with 4P4D-600W to where nothing is
    rule: Rule = RULE

    @property
    def own(self) -> Corner:
        return self.profile.prefill_corner, self.profile.decode_corner


def full(profile: Profile, seeds: int = 3) -> Scope:
    """All corners."""
    return Scope(profile, CORNERS, seeds, 4000, (11.0, 12.0, 13.0, 14.0, 15.0))


def quick(profile: Profile, seeds: int = 1) -> Scope:
    """The profile's own corner only."""
    return Scope(profile, ((profile.prefill_corner, profile.decode_corner),), seeds, 1500, (11.0, 13.0, 14.0, 15.0))


class Measured:
    """What was measured in one corner: means over the seeds."""

    def __init__(self, profile: Profile, answers: Sequence[tuple[Task, Answer]]) -> None:
        self.profile = profile  # in this corner
        self._rates: dict[tuple[Split, float], list[Rates]] = {}
        self._shifts: dict[tuple[str, float], list[Shift]] = {}
        self.gaps: list[Gap] = []
        for task, answer in answers:
            match task, answer:
                case RateTask(), Rates():
                    self._rates.setdefault((task.split, task.tpot_s), []).append(answer)
                case ShiftTask(), Shift():
                    self._shifts.setdefault((task.policy, task.rate_rps), []).append(answer)
                case GapTask(), Gap():
                    self.gaps.append(answer)
                case _:
                    raise AssertionError(f"{answer} does not answer {task}")

    def curves(self, split: Split, tpot_s: float) -> list[Rates]:
        """By seed."""
        return self._rates[split, tpot_s]

    def sustained_rps(self, split: Split, tpot_s: float = TPOT_S) -> float:
        """The rate that 80 % attainment leaves. A split that attains it at no rate tried sustains the least, halved."""
        return mean([sustained_rps(curve) for curve in self.curves(split, tpot_s)])

    def qps_per_watt(self, split: Split) -> float:
        return self.sustained_rps(split) / split.budget_w

    @property
    def splits(self) -> tuple[tuple[Split, float], ...]:
        """That were measured, with the TPOT target."""
        return tuple(self._rates)

    @property
    def policies(self) -> tuple[str, ...]:
        """That were measured on the shift."""
        return tuple(dict.fromkeys(policy for policy, _ in self._shifts))

    @property
    def shift_rates_rps(self) -> tuple[float, ...]:
        return tuple(sorted(dict.fromkeys(rate_rps for _, rate_rps in self._shifts)))

    def shifts(self, policy: str, rate_rps: float) -> list[Shift]:
        """By seed."""
        return self._shifts[policy, rate_rps]

    def shift_attainments(self, policy: str) -> dict[float, float]:
        """By rate."""
        return {rate: mean([run.attainment for run in self.shifts(policy, rate)]) for rate in self.shift_rates_rps}

    def half_attainment(self, policy: str, half: int) -> float:
        """Over all rates."""
        return mean([run.halves[half] for rate in self.shift_rates_rps for run in self.shifts(policy, rate)])


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim in one corner."""

    parts: tuple[Part, ...]

    @property
    def verdict(self) -> Verdict:
        return combined([part.verdict for part in self.parts])


@dataclass(frozen=True, slots=True)
class Claim:
    """stated: as the paper has it, (i) what is inferred from it. rule: what has to come out. cause: why it does not, if
    it does not. splits, gap, policies: what has to be simulated for it."""

    id: str
    stated: str
    rule: str
    judge: Callable[[Measured], tuple[Part, ...]]
    cause: str
    splits: tuple[tuple[Split, float], ...] = ()
    gap: bool = False
    policies: tuple[str, ...] = ()

    def tasks(self, scope: Scope) -> list[Task]:
        """All simulations behind it."""
        tasks: list[Task] = []
        decode_corners = tuple(dict.fromkeys(decode for _, decode in scope.corners))
        for seed in range(scope.seeds):
            for decode in decode_corners:
                fixed = (scope.profile, decode, seed, scope.requests)
                tasks += [RateTask(split, tpot_s, *fixed) for split, tpot_s in self.splits]
                tasks += [GapTask(*fixed)] if self.gap else []
            for corner in scope.corners:
                for rate_rps in scope.rates_rps if self.policies else ():
                    tasks += [
                        ShiftTask(policy, rate_rps, scope.profile, corner, seed, scope.rule) for policy in self.policies
                    ]
        return tasks


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim, judged. corners: the verdict in each that was looked at, the profile's own first; never empty."""

    claim: Claim
    own: Judgement
    corners: Mapping[Corner, Verdict]

    @property
    def verdict(self) -> Verdict:
        return overall(self.own.verdict, tuple(self.corners.values()))

    @property
    def ours(self) -> str:
        return "; ".join(part.text for part in self.own.parts)

    @property
    def holds_in(self) -> tuple[Corner, ...]:
        """The corners in which it is reproduced."""
        return tuple(corner for corner, verdict in self.corners.items() if verdict is Verdict.REPRODUCED)

    @property
    def why(self) -> str:
        """Why it is not reproduced, in the own corner; empty: it is."""
        short = [part.text for part in self.own.parts if part.verdict is not Verdict.REPRODUCED]
        if not short:
            return ""
        missed = f"missed: {'; '.join(short)}. " if len(short) < len(self.own.parts) else ""
        return f"{missed}{self.claim.cause}"


def tasks_of(claims: Sequence[Claim], scope: Scope) -> tuple[Task, ...]:
    """All simulations behind these claims, each once."""
    return tuple(dict.fromkeys(task for claim in claims for task in claim.tasks(scope)))


def findings(claims: Sequence[Claim], scope: Scope, answers: Sequence[tuple[Task, Answer]]) -> tuple[Finding, ...]:
    """Every claim judged in every corner of the scope; all its tasks have been answered."""
    own, *others = (scope.own, *(corner for corner in scope.corners if corner != scope.own))
    measured = {corner: measured_in(scope.profile, corner, answers) for corner in (own, *others)}
    found = []
    for claim in claims:
        judged = {corner: Judgement(claim.judge(numbers)) for corner, numbers in measured.items()}
        verdicts = {corner: judgement.verdict for corner, judgement in judged.items()}
        found.append(Finding(claim, judged[own], verdicts))
    return tuple(found)


def measured_in(profile: Profile, corner: Corner, answers: Sequence[tuple[Task, Answer]]) -> Measured:
    """What belongs to one corner."""
    here = [
        (task, answer)
        for task, answer in answers
        if (task.corner == corner if isinstance(task, ShiftTask) else task.decode_corner is corner[1])
    ]
    return Measured(profile.with_corners(*corner), here)


def sustained_rps(curve: Rates) -> float:
    """The rate that 80 % attainment leaves, of one seed; if no rate tried does, half the least tried."""
    points = curve.attainments()
    return sustained(points, LEVEL).rate_rps or min(points) / 2


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)
