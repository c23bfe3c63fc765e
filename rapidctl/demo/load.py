"""The requests of a run, and how fast they come: chosen by a rule, not by the look of the result."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rapid.core.cluster import Role, SloTargets
from rapid.core.errors import UsageError
from rapid.sim.cluster import InstancePlan, cast_die
from rapid.sim.model.profile import Profile
from rapid.sim.model.requests import Die, Request
from rapid.sim.rate import RULE, RateChoice, choose_rate
from rapid.sim.traces.loader import load_workload
from rapidctl.demo.report import percent

PREFILL, DECODE = 4, 4


@dataclass(frozen=True, slots=True)
class Load:
    """What comes to every host. `chosen` is None when the scale was given."""

    workload: str
    seconds: float
    scale: float
    chosen: RateChoice | None
    requests: tuple[Request, ...]  # arrival_s from 0 on

    @property
    def offered_rps(self) -> float:
        return len(self.requests) / self.seconds


def cast_dies(seed: int) -> tuple[Die, ...]:
    """The small differences between the GPUs of a host; every host of the demo has the same ones."""
    dice = Random(seed)
    return tuple(cast_die(dice) for _ in range(PREFILL + DECODE))


def roles() -> tuple[Role, ...]:
    """The roles that the engines of a host start in, by GPU."""
    return (Role.PREFILL,) * PREFILL + (Role.DECODE,) * DECODE


def prepare(
    name: str,
    *,
    seconds: float,
    scale: float | None,
    profile: Profile,
    dies: tuple[Die, ...],
    limit_mw: int,
    slo: SloTargets,
    say: Callable[[str], None],
) -> Load:
    """Load the workload and find its speed. Raises TraceInvalid, and UsageError for one without a request."""
    workload = load_workload(name, profile.kv_capacity_tokens)
    chosen = None
    if scale is None:
        plans = tuple(InstancePlan(role, limit_mw, die) for role, die in zip(roles(), dies, strict=True))
        chosen = choose_rate(workload, seconds, profile, plans, slo)
        scale = chosen.rate_scale
        fulfils = "" if chosen.fulfils_rule else "; no speed fulfils the rule, this one comes nearest"
        say(
            f"rate rule: {RULE}; simulated ahead in {chosen.runs} runs: {workload.name} x {scale:.2f} gives "
            f"{percent(chosen.attainment)}{fulfils}"
        )
    requests = workload.requests(scale, seconds)
    if not requests:
        raise UsageError(f"no request of {workload.name} arrives in {seconds:g} s at rate scale {scale:g}; raise one")
    return Load(workload.name, seconds, scale, chosen, requests)
