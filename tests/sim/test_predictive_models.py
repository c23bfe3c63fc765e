"""What the policy's models make of simulated engines: sampled loads, delayed limits, dies that differ, noisy meters."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import exp, log
from random import Random

import pytest

from rapid.core.cluster import GpuView, Phase, Role, Targets, View
from rapid.core.policy import NO_CHANGE
from rapid.core.policy.predictive.models import Models, Start
from rapid.sim.model.profile import Profile, corners, profile_named
from rapid.sim.model.requests import Request
from rapid.sim.world.scenario import ORACLE, Scenario
from rapid.sim.world.site import Site

SECONDS = 60.0
VISIT_S = 6.0  # at one limit
SEEDS = (1, 2)  # a minute of one site is a small sample: errors are judged on the mean of two
COST_OFF, STEP_OFF, SPEED_OFF = 0.10, 0.10, 0.08

H200 = profile_named("h200-8b").with_corners(*corners("steep,sharp"))

Kind = Callable[[Random], tuple[int, int]]  # throws a request: tokens of its prompt, and of its answer
Level = tuple[float, float]  # limits of prefill and decode, by ceiling


def chat_and_code(dice: Random) -> tuple[int, int]:
    """Like the Azure traces: chat with real answers, code with longer prompts and tiny ones."""
    if dice.random() < 0.5:
        return _length(dice, 1000, 0.9), _length(dice, 210, 0.8)
    return _length(dice, 2000, 0.8), _length(dice, 28, 0.8)


def documents(dice: Random) -> tuple[int, int]:
    """Like LongBench: long prompts."""
    return min(8192, _length(dice, 4300, 0.6)), _length(dice, 120, 0.6)


def _length(dice: Random, mean: int, sigma: float) -> int:
    return max(2, int(mean * exp(dice.gauss(-sigma * sigma / 2, sigma))))


def bursty(kind: Kind, rate_rps: float, seed: int) -> Iterator[Request]:
    """For a minute, at a rate that changes every 5 s."""
    dice = Random(f"models {seed}")
    at_s, number, until_s, many = 0.0, 0, 0.0, 1.0
    while at_s < SECONDS:
        if at_s >= until_s:
            until_s, many = until_s + 5.0, dice.choice((0.6, 1.0, 1.4))
        at_s += dice.expovariate(rate_rps * many)
        yield Request(number, at_s, *kind(dice))
        number += 1


@dataclass(slots=True)
class Wanderer:
    """Moves the limits of the roles from level to level, and lets models watch, through what `sight` leaves of it."""

    site: Site
    levels: tuple[Level, ...]
    models: tuple[Models, ...]
    sight: Callable[[View], View]
    name: str = "wanderer"
    moved_s: float = float("-inf")
    turn: int = 0
    steps: list[list[tuple[float, float]]] = field(default_factory=list)  # of each of the models: said, true

    def __post_init__(self) -> None:
        self.steps = [[] for _ in self.models]

    def decide(self, view: View) -> Targets:
        for models in self.models:
            models.observe(self.sight(view))
        if view.at_s > self.site.zero_s + SECONDS / 2:
            self._compare_steps(view)
        if view.at_s < self.moved_s + VISIT_S:
            return NO_CHANGE
        prefill, decode = self.levels[self.turn % len(self.levels)]
        self.moved_s, self.turn = view.at_s, self.turn + 1
        owners = {gpu: one.role for one in view.instances for gpu in one.gpus}
        shares = {gpu.gpu: prefill if owners.get(gpu.gpu) is Role.PREFILL else decode for gpu in view.gpus}
        limits_mw = {gpu.gpu: round(shares[gpu.gpu] * gpu.ceiling_mw) for gpu in view.gpus}
        return Targets({gpu.gpu: limits_mw[gpu.gpu] for gpu in view.gpus if gpu.limit_mw != limits_mw[gpu.gpu]}, {})

    def _compare_steps(self, view: View) -> None:
        profile, limits = self.site.scenario.profile, {gpu.gpu: gpu for gpu in view.gpus}
        for one in view.instances:
            if one.role is not Role.DECODE or one.phase is not Phase.SERVING:
                continue
            under_way = list(self.site.cluster.instances[one.instance].under_way(self.site.cluster.now_s))
            batch = len(under_way)
            if batch:
                gpu = limits[one.gpus[0]]
                context = sum(done.request.input_tokens + 1 + made for done, made in under_way)
                true_s = profile.decode_step_s(batch, context, gpu.limit_mw)
                for models, pairs in zip(self.models, self.steps, strict=True):
                    pairs.append((models.step_s(batch, models.context_tokens, gpu.limit_mw, gpu), true_s))


@dataclass(frozen=True, slots=True)
class Errors:
    """Logs of said by true: prefill time at each visited limit, and the mean decode step."""

    prefill: tuple[float, ...]
    step: float

    @property
    def cost(self) -> float:
        return max(abs(each) for each in self.prefill)

    @property
    def speeds(self) -> float:
        return max(self.prefill) - min(self.prefill)


def mean(all_errors: list[Errors]) -> Errors:
    count = len(all_errors)
    prefill = zip(*(errors.prefill for errors in all_errors), strict=True)
    return Errors(tuple(sum(each) / count for each in prefill), sum(errors.step for errors in all_errors) / count)


def starts(profile: Profile) -> Mapping[str, Start | None]:
    def believed(times: float, exponent: float) -> Start:
        return Start(
            prefill_ms=profile.prefill_ms * times,
            prefill_token_ms=profile.prefill_token_ms * times,
            prefill_square_ms=profile.prefill_square_ms * times,
            prefill_exponent=exponent,
            decode_ms=profile.decode_ms * times,
            decode_sequence_ms=profile.decode_sequence_ms * times,
            decode_context_ms=profile.decode_context_ms * times,
            sure=0.2,
        )

    return {"none": None, "slower, steeper": believed(1.3, 0.9), "faster, flatter": believed(0.7, 0.5)}


def clear(view: View) -> View:
    return view


def blind(view: View) -> View:
    """No loads."""
    return replace(view, instances=tuple(replace(one, load=None) for one in view.instances))


def muddled(view: View) -> View:
    """Every limit looks like the ceiling."""
    return replace(view, gpus=tuple(replace(gpu, limit_mw=gpu.ceiling_mw) for gpu in view.gpus))


def watch(
    profile: Profile, kind: Kind, levels: tuple[Level, ...], seed: int, sight: Callable[[View], View] = clear
) -> list[Errors]:
    """A minute of a site, prefill three quarters busy on average. One entry per start."""
    nodes, prefill = profile.gpus, 8 // profile.gpus // 2  # as many instances as eight single GPUs would be
    sample = [Request(number, 0.0, *kind(Random(f"sample {number}"))) for number in range(2000)]
    limits_mw = [level * profile.ceiling_mw for level in sorted({level for level, _ in levels})]
    speed = sum(profile.prefill_speed(mw) for mw in limits_mw) / len(limits_mw)
    prompt_s = token_s(profile, sample) * mean_prompt(sample)
    requests = list(bursty(kind, 0.75 * nodes * prefill * speed / prompt_s, seed))
    models = tuple(Models(start) for start in starts(profile).values())
    made: list[Wanderer] = []

    def policy(site: Site) -> Wanderer:
        made.append(Wanderer(site, levels, models, sight))
        return made[0]

    scenario = Scenario(profile, nodes * 8 * profile.ceiling_mw, prefill, ORACLE, nodes=nodes, seed=seed)
    Site(scenario, requests, policy=policy).run(max_drain_s=0.0)
    found = []
    gpu = GpuView("any", "n", profile.floor_mw, profile.ceiling_mw, profile.ceiling_mw, None, None)
    for each, pairs in zip(models, made[0].steps, strict=True):
        cost = each.prefill_token_s(mean_prompt(requests)) / token_s(profile, requests)
        speeds = [each.prefill_speed(mw, gpu) / profile.prefill_speed(mw) for mw in limits_mw]
        step = log(sum(said_s for said_s, _ in pairs) / sum(true_s for _, true_s in pairs))
        found.append(Errors(tuple(log(cost / speed) for speed in speeds), step))
    return found


def mean_prompt(requests: list[Request]) -> float:
    return sum(request.input_tokens for request in requests) / len(requests)


def token_s(profile: Profile, requests: list[Request]) -> float:
    """What a prompt token costs at full speed, in batches of 2000 tokens or of one longer prompt."""
    tokens = sum(request.input_tokens for request in requests)
    squares = sum(request.input_tokens**2 for request in requests)
    batches = tokens / max(2000.0, mean_prompt(requests))
    whole_s = profile.prefill_s(tokens, squares, profile.ceiling_mw)
    return (whole_s + (batches - 1) * profile.prefill_ms / 1e3) / tokens


WIDE = ((1.0, 0.8), (0.75, 0.6), (0.55, 0.5))
CASES = (
    ("mi300x-8b", "steep,gentle", chat_and_code, ((1.0, 0.8), (0.8, 0.6), (0.6, 1.0))),
    ("mi300x-8b", "shallow,pessimistic", documents, ((1.0, 0.8), (0.8, 0.6), (0.6, 1.0))),
    ("h200-8b", "steep,sharp", documents, WIDE),
    ("h200-8b", "shallow,gentle", chat_and_code, WIDE),
    ("a100-8b", "steep,pessimistic", chat_and_code, WIDE),
    ("a100-8b", "shallow,sharp", documents, WIDE),
    ("h100-70b-tp4", "steep,gentle", documents, WIDE),
    ("h100-70b-tp4", "shallow,sharp", chat_and_code, WIDE),
)


@pytest.mark.parametrize(("name", "corner", "kind", "levels"), CASES)
def test_a_minute_is_enough_from_any_start(name: str, corner: str, kind: Kind, levels: tuple[Level, ...]) -> None:
    profile = profile_named(name).with_corners(*corners(corner))
    runs = [watch(profile, kind, levels, seed) for seed in SEEDS]
    for start, all_errors in zip(starts(profile), zip(*runs, strict=True), strict=True):
        errors = mean(list(all_errors))
        assert errors.cost < log(1 + COST_OFF), f"start {start}, seeds {SEEDS}: {errors}"
        assert errors.speeds < log(1 + SPEED_OFF), f"start {start}, seeds {SEEDS}: {errors}"
        assert abs(errors.step) < log(1 + STEP_OFF), f"start {start}, seeds {SEEDS}: {errors}"


def test_who_sees_nothing_stays_with_the_start() -> None:
    """The bounds above are no gift: every start is outside them."""
    for errors in watch(H200, documents, WIDE, SEEDS[0], blind):
        assert errors.cost > log(1 + COST_OFF)
        assert abs(errors.step) > log(1 + STEP_OFF)


def test_who_sees_the_wrong_limits_learns_the_wrong_costs() -> None:
    for errors in watch(H200, documents, WIDE, SEEDS[0], muddled):
        assert errors.cost > log(1 + COST_OFF)
