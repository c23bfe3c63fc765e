"""The simulations behind the claims: what each is asked, and what it answers. Every task stands alone and is seeded.

The load of a seed other than 0 has the trace's own gaps between arrivals, and on LongBench its own requests, in another
order: seeds differ by chance only, not by load.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from random import Random

from rapid.core.cluster import Decision, Phase, Role, SloTargets
from rapid.sim.cluster import Cluster, InstancePlan
from rapid.sim.model.paper_profile import RULE
from rapid.sim.model.profile import DecodeCorner, PrefillCorner, Profile
from rapid.sim.model.requests import Finished, Request
from rapid.sim.study import RateSearch
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.loader import open_trace
from rapid.sim.traces.reading import Reading, read
from rapid.sim.world.scenario import Scenario
from rapid.sim.world.score import Score
from rapid.sim.world.site import simulate
from rapid.sim.world.watch import Queues

Corner = tuple[PrefillCorner, DecodeCorner]
Rule = tuple[tuple[str, float], ...]  # settings of the reactive rule by name

GPUS = 8
FULL_W, BUDGET_W = 6_000, 4_800
LEVEL = 0.80  # the attainment at which the paper calls a rate sustained
TTFT_S, TPOT_S, TIGHT_TPOT_S = 1.0, 0.040, 0.025
FIRST_RPS = 20.0  # where the search for a sustained rate begins
RULED = ("power", "roles", "rapid")  # the policies that have the rule's settings


@dataclass(frozen=True, slots=True)
class Split:
    """Eight GPUs with fixed roles and limits; decode 0: all are mixed (the colocated baseline)."""

    name: str
    prefill: int
    prefill_w: int
    decode: int
    decode_w: int

    @property
    def budget_w(self) -> int:
        """What the split may draw: the unconstrained node's, or the budget."""
        return FULL_W if self.prefill * self.prefill_w + self.decode * self.decode_w > BUDGET_W else BUDGET_W

    def plans(self) -> tuple[InstancePlan, ...]:
        first = Role.PREFILL if self.decode else Role.MIXED
        return (InstancePlan(first, self.prefill_w * 1000),) * self.prefill + (
            InstancePlan(Role.DECODE, self.decode_w * 1000),
        ) * self.decode


COLOCATED = Split("colocated-750W", 8, 750, 0, 0)
EVEN_750 = Split("4P4D-750W", 4, 750, 4, 750)
EVEN_600 = Split("4P4D-600W", 4, 600, 4, 600)
FIVE_600 = Split("5P3D-600W", 5, 600, 3, 600)
SPLIT_750 = Split("4P-750W/4D-450W", 4, 750, 4, 450)
SPLIT_675 = Split("4P-675W/4D-525W", 4, 675, 4, 525)


# ---- tasks and answers ----


@dataclass(frozen=True, slots=True)
class RateTask:
    """Which rate of LongBench does the split sustain?

    The prefill corner is not asked for: steep and shallow part below 600 W, and no split gives prefill less.
    """

    split: Split
    tpot_s: float
    profile: Profile
    decode_corner: DecodeCorner
    seed: int
    requests: int

    def __str__(self) -> str:
        return f"{self.split.name} at {self.tpot_s * 1e3:.0f} ms"


@dataclass(frozen=True, slots=True)
class Shares:
    """Of all requests: that met both targets, TTFT, TPOT."""

    both: float
    ttft: float
    tpot: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What was attained at every rate tried, by rising rate."""

    points: tuple[tuple[float, Shares], ...]

    def attainments(self) -> dict[float, float]:
        """By rate."""
        return {rate_rps: shares.both for rate_rps, shares in self.points}

    def first_below(self, level: float) -> Shares:
        """At the least rate tried that does not attain the level; at the greatest, if all do."""
        return next((shares for _, shares in self.points if shares.both < level), self.points[-1][1])


@dataclass(frozen=True, slots=True)
class GapTask:
    """How do 4P4D-750W and 4P4D-600W serve the same LongBench load: the one that 4P4D-750W just sustains?"""

    profile: Profile
    decode_corner: DecodeCorner
    seed: int
    requests: int

    def __str__(self) -> str:
        return "600 W against 750 W"


@dataclass(frozen=True, slots=True)
class Gap:
    """prefill_s: mean time that a prefill GPU worked for a request; attainment at rate_rps. Of 750 W, then of 600 W."""

    rate_rps: float
    prefill_s: tuple[float, float]
    attainment: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ShiftTask:
    """How does the policy serve the Sonnet shift at this rate, from 4P4D-600W on, under the budget?"""

    policy: str
    rate_rps: float
    profile: Profile
    corner: Corner
    seed: int
    rule: Rule = RULE

    def __str__(self) -> str:
        return f"{self.policy} on the shift at {self.rate_rps:g}/s"


@dataclass(frozen=True, slots=True)
class Shift:
    """halves: attainment of the long prompts, then of the long answers.

    most_prefill, most_decode: instances that served in the role at once, in the first half and from then on.
    """

    attainment: float
    halves: tuple[float, float]
    most_prefill: int
    most_decode: int
    role_moves: int
    over_budget_s: float


Task = RateTask | GapTask | ShiftTask
Answer = Rates | Gap | Shift


def answer(task: Task) -> Answer:
    """Runs it. The same task gives the same answer everywhere."""
    match task:
        case RateTask():
            return _rates(task)
        case GapTask():
            return _gap(task)
        case ShiftTask():
            return _shift(task)


# ---- loads ----


def load(trace: str, rate_rps: float, seed: int, count: int | None, *, mix: bool) -> Iterator[Request]:
    """The first `count` requests (None: all) at this rate. mix: in another order, too, for a seed other than 0."""
    arrivals = list(_arrivals(trace, count))
    ends_s = [arrival.arrival_s for arrival in arrivals]
    gaps_s = [end_s - begin_s for begin_s, end_s in zip([0.0, *ends_s], ends_s, strict=False)]
    if seed:
        dice = Random(f"rapid.sim.claims.claims {trace} {seed}")
        dice.shuffle(gaps_s)
        if mix:
            dice.shuffle(arrivals)
    pace = len(arrivals) / (sum(gaps_s) * rate_rps)
    for number, (at_s, arrival) in enumerate(zip(accumulate(gaps_s), arrivals, strict=True)):
        yield Request(number, at_s * pace, arrival.input_tokens, arrival.output_tokens)


@lru_cache(maxsize=4)
def _arrivals(trace: str, count: int | None) -> tuple[Arrival, ...]:
    return tuple(islice(read(open_trace(trace), Reading()), count))


# ---- LongBench, fixed splits ----


def _rates(task: RateTask) -> Rates:
    profile = task.profile.with_corners(task.profile.prefill_corner, task.decode_corner)
    search = RateSearch(FIRST_RPS, (LEVEL,))
    found: dict[float, Shares] = {}
    while wanted := search.next_rates():
        for rate_rps in wanted:
            run = _FixedRun(profile, task.split, task.tpot_s, rate_rps, task.seed, task.requests)
            found[rate_rps] = run.shares
            search.tell(rate_rps, run.shares.both)
    return Rates(tuple(sorted(found.items())))


class _FixedRun:
    """One run to its end, and what came of it."""

    def __init__(self, profile: Profile, split: Split, tpot_s: float, rate_rps: float, seed: int, count: int) -> None:
        score = Score(SloTargets(TTFT_S, tpot_s))
        cluster = Cluster(profile, split.plans(), on_finished=score.finish)
        for request in load("longbench", rate_rps, seed, count, mix=True):
            score.offer(request)
            cluster.offer(request)
        cluster.finish()
        served = [each for each in cluster.instances.values() if each.role is Role.PREFILL]
        self.prefill_s = sum(each.busy_s(cluster.now_s) for each in served) / score.requests
        ttft = score.attained + score.missed_tpot
        tpot = score.attained + score.missed_ttft
        self.shares = Shares(*(score.share(part) for part in (score.attained, ttft, tpot)))


def _gap(task: GapTask) -> Gap:
    profile = task.profile.with_corners(task.profile.prefill_corner, task.decode_corner)
    low_rps, high_rps = FIRST_RPS / 4, FIRST_RPS * 4
    while high_rps > 1.005 * low_rps:
        rate_rps = (low_rps * high_rps) ** 0.5
        full = _FixedRun(profile, EVEN_750, TPOT_S, rate_rps, task.seed, task.requests)
        if full.shares.both >= LEVEL:
            low_rps = rate_rps
        else:
            high_rps = rate_rps
    pair = [_FixedRun(profile, split, TPOT_S, low_rps, task.seed, task.requests) for split in (EVEN_750, EVEN_600)]
    return Gap(low_rps, (pair[0].prefill_s, pair[1].prefill_s), (pair[0].shares.both, pair[1].shares.both))


# ---- the Sonnet shift, policies ----


def shift_scenario(task: ShiftTask) -> Scenario:
    return Scenario(
        profile=task.profile.with_corners(*task.corner),
        budget_mw=BUDGET_W * 1000,
        prefill=GPUS // 2,
        policy=task.policy,
        policy_settings=dict(task.rule) if task.policy in RULED else {},
        gpus=GPUS,
        slo=SloTargets(TTFT_S, TPOT_S),
        seed=task.seed,
    )


def shift_load(task: ShiftTask) -> tuple[Request, ...]:
    return tuple(load("sonnet", task.rate_rps, task.seed, None, mix=False))


def _shift(task: ShiftTask) -> Shift:
    scenario, requests = shift_scenario(task), shift_load(task)
    middle = len(requests) // 2
    watch = _RoleWatch(scenario.slo, middle, requests[middle].arrival_s)
    outcome = simulate(scenario, requests, watch=watch)
    return Shift(
        outcome.attainment,
        (watch.attained[0] / middle, watch.attained[1] / (len(requests) - middle)),
        watch.most(Role.PREFILL, second=False),
        watch.most(Role.DECODE, second=True),
        outcome.role_moves,
        outcome.over_budget_s,
    )


class _RoleWatch:
    """Counts, for either half, the requests that attained their SLO and the most instances of a role at once."""

    def __init__(self, slo: SloTargets, middle: int, middle_s: float) -> None:
        self.attained = [0, 0]
        self._slo, self._middle, self._middle_s = slo, middle, middle_s
        self._serving: list[tuple[float, Counter[Role]]] = []  # from when on, how many; by rising time
        self._role_of: dict[str, Role] = {}

    def decided(self, at_s: float, decision: Decision) -> None:
        """Not of interest."""

    def limited(self, at_s: float, gpu: str, instance: str, limit_mw: int) -> None:
        """Not of interest."""

    def queues(self, at_s: float, queues: Queues) -> None:
        """Not of interest."""

    def moved(self, at_s: float, instance: str, phase: Phase, role: Role) -> None:
        self._role_of.pop(instance, None)
        if phase is Phase.SERVING:
            self._role_of[instance] = role
        self._serving.append((at_s, Counter(self._role_of.values())))

    def finished(self, finished: Finished) -> None:
        slo = self._slo
        if finished.ttft_s <= slo.ttft_s and (finished.tpot_s is None or finished.tpot_s <= slo.tpot_s):
            self.attained[finished.request.request_id >= self._middle] += 1

    def most(self, role: Role, *, second: bool) -> int:
        """At once, in that half; the second begins with what there is at the end of the first."""
        first = [counts[role] for at_s, counts in self._serving if at_s < self._middle_s]
        return max(first) if not second else max([first[-1], *(c[role] for at_s, c in self._serving[len(first) :])])
