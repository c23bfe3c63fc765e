"""A question to the simulator: one policy on one load, with one seed; and its answer. Both can go between processes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rapid.core.cluster import Role, SloTargets
from rapid.core.errors import ConfigInvalid, NotFound, UsageError
from rapid.sim.model.profile import Profile, corners, profile_named
from rapid.sim.model.requests import EngineSettings, Request
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import ORACLE, Scenario
from rapid.sim.world.site import PolicyMaker, simulate
from rapidctl.sim.film import Film
from rapidctl.sim.load import Load
from rapidctl.sim.options import FIXED_LIMITS, PolicyChoice, SiteChoice
from rapidctl.sim.words import in_watts

BUDGET_SHARE = 0.80  # of the ceilings, unless a budget is given
OPTIONS = {"slo.ttft_s": "ttft", "slo.tpot_s": "tpot", "engine.chunk_tokens": "chunk"}


@dataclass(frozen=True, slots=True)
class Question:
    """One run. `label` is the policy as the user wrote it."""

    label: str
    scenario: Scenario
    load: Load

    def __str__(self) -> str:
        return f"policy {self.label}, seed {self.scenario.seed}, {self.load.rate_rps:.3g} requests/s"


def answer(question: Question, tell: Callable[[float], None], film: Film | None = None) -> Outcome:
    """Simulate it. `tell` hears which share of the time of arrivals is over. Only wall_s is measured."""
    start_s = time.perf_counter()
    looks = _looks(question.scenario)
    if len(looks) == 1:
        outcome = _run(question, looks[0], tell, film)
    else:
        outcomes = [_run(question, look, _part_of(tell, done, len(looks)), None) for done, look in enumerate(looks)]
        outcome = max(outcomes, key=lambda each: each.attainment)
        if film is not None:
            _run(question, looks[outcomes.index(outcome)], lambda share: None, film)
    return replace(outcome, policy=question.label, wall_s=round(time.perf_counter() - start_s, 3))


def scenario(site: SiteChoice, policy: PolicyChoice, seed: int) -> Scenario:
    """What was asked for, checked. Raises UsageError naming the option."""
    profile = profile_of(site)
    instances = site.gpus // profile.gpus
    budget_mw = budget_of(site, profile)
    prefill = max(1, instances // 2) if site.prefill is None else site.prefill
    engine = EngineSettings() if site.chunk_tokens is None else EngineSettings(chunk_tokens=site.chunk_tokens)
    settings = dict(policy.settings)
    if policy.name == FIXED_LIMITS:
        settings = split_limits(profile, budget_mw // site.nodes, prefill, instances - prefill) | settings
    found = Scenario(
        profile=profile,
        budget_mw=budget_mw,
        prefill=prefill,
        policy=policy.name,
        policy_settings=settings,
        nodes=site.nodes,
        gpus=site.gpus,
        slo=SloTargets(site.ttft_s, site.tpot_s),
        seed=seed,
        engine=engine,
    )
    try:
        found.check()
    except ConfigInvalid as error:
        # It names the keys of a scenario, where a user at the command line needs the options.
        option = OPTIONS.get(error.key, error.key.partition(".")[0])
        raise UsageError(f"--{option}: {str(error).removeprefix(f'config key {error.key}: ')}") from error
    if policy.settings and policy.name == FIXED_LIMITS:
        _check_limits(found)
    return found


def _check_limits(found: Scenario) -> None:
    """Limits that somebody stated have to be what the site gets, or its numbers would belong to others."""
    profile, sum_mw = found.profile, 0.0
    for role in (Role.PREFILL, Role.DECODE):
        limit_mw = found.policy_settings[f"{role.value}_mw"]
        if not profile.floor_mw <= limit_mw <= profile.ceiling_mw:
            raise UsageError(
                f"--limits: {in_watts(limit_mw)} for {role.value} is outside {in_watts(profile.floor_mw)} to "
                f"{in_watts(profile.ceiling_mw)}, which {profile.name} takes"
            )
        sum_mw += limit_mw * found.roles.count(role) * profile.gpus * found.nodes
    if sum_mw > found.budget_mw:
        raise UsageError(
            f"--limits: they sum to {in_watts(sum_mw)} over all GPUs, and the budget is {in_watts(found.budget_mw)}"
        )


def profile_of(site: SiteChoice) -> Profile:
    """With the corner that was asked for. Raises UsageError."""
    try:
        profile = profile_named(site.profile)
    except NotFound as error:
        raise UsageError(f"--profile: {error}") from error
    try:
        return profile if site.corner is None else profile.with_corners(*corners(site.corner))
    except UsageError as error:
        raise UsageError(f"--corner: {error}") from error


def budget_of(site: SiteChoice, profile: Profile) -> int:
    """Of all nodes, in mW."""
    if site.budget_mw is not None:
        return site.budget_mw
    return round(BUDGET_SHARE * profile.ceiling_mw * site.gpus * site.nodes)


def split_limits(profile: Profile, budget_mw: int, prefill: int, decode: int) -> dict[str, float]:
    """The limits of a static split when none are given: prefill at its ceiling, decode with what is left of a node's
    budget, as in the best static split of the RAPID paper (750/450 at 4,800 W); decode keeps its floor."""
    floor_mw, ceiling_mw = profile.floor_mw, profile.ceiling_mw
    prefill_gpus, decode_gpus = prefill * profile.gpus, max(1, decode * profile.gpus)
    left_mw = (budget_mw - prefill_gpus * ceiling_mw) // decode_gpus
    decode_mw = min(ceiling_mw, max(floor_mw, left_mw))
    prefill_mw = min(ceiling_mw, (budget_mw - decode_gpus * decode_mw) // max(1, prefill_gpus))
    return {"prefill_mw": float(max(floor_mw, prefill_mw)), "decode_mw": float(decode_mw)}


def _run(question: Question, policy: PolicyMaker | None, tell: Callable[[float], None], film: Film | None) -> Outcome:
    requests = _told(question.load.requests(), question.load.span_s, tell, film)
    return simulate(question.scenario, requests, policy=policy, watch=film)


def _part_of(tell: Callable[[float], None], done: int, parts: int) -> Callable[[float], None]:
    """Tells of one run of several, when so many are done."""
    return lambda share: tell((done + share) / parts)


def _looks(scenario: Scenario) -> list[PolicyMaker | None]:
    """The policies to be made with the site, since they look at it, of which the best counts. None: an ordinary one."""
    if scenario.policy != ORACLE:
        return [None]
    from rapid.sim.oracle import looks

    return list(looks(scenario.slo))


def _told(
    requests: Iterator[Request], span_s: float, tell: Callable[[float], None], film: Film | None
) -> Iterator[Request]:
    for request in requests:
        if film is not None:
            film.offered(request)
        tell(request.arrival_s / span_s)
        yield request
