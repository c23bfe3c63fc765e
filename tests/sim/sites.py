"""Scenarios and requests for tests of the simulated site: small, seeded, and quick."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from rapid.core.cluster import Decision, Phase, Role
from rapid.sim.model.profile import Profile, profile_named
from rapid.sim.model.requests import Finished, Request
from rapid.sim.world.scenario import Scenario
from rapid.sim.world.watch import Queues

MI300X = profile_named("mi300x-8b")
HEAVY = 85.0  # requests of poisson() a second: more than 4 GPUs at 600 W can prefill


def poisson(
    rate_rps: float, seconds: float, *, seed: int = 1, input_tokens: int = 2000, output_tokens: int = 60
) -> Iterator[Request]:
    """Requests of one size that come at random, made as they are asked for."""
    dice = Random(f"requests {seed}")
    at_s, number = dice.expovariate(rate_rps), 0
    while at_s < seconds:
        yield Request(number, at_s, input_tokens, output_tokens)
        at_s, number = at_s + dice.expovariate(rate_rps), number + 1


def scenario(policy: str = "rapid", *, profile: Profile = MI300X, watts_each: int = 600, **changes: object) -> Scenario:
    """One node of 8 GPUs, half of its instances for prefill, under a budget of so many watts per GPU."""
    found = replace(Scenario(profile, 1, 1, policy=policy), **changes)  # type: ignore[arg-type]
    prefill = changes.get("prefill", found.instances // 2)
    assert isinstance(prefill, int)
    return replace(found, budget_mw=watts_each * 1000 * found.nodes * found.gpus, prefill=prefill)


class Recorder:
    """A watch that writes down what it sees."""

    def __init__(self) -> None:
        self.decisions: list[tuple[float, Decision]] = []
        self.limits: list[tuple[float, str, str, int]] = []
        self.moves: list[tuple[float, str, Phase, Role]] = []
        self.finishes: list[tuple[float, Finished]] = []
        self.queued: list[tuple[float, Queues]] = []

    def decided(self, at_s: float, decision: Decision) -> None:
        self.decisions.append((at_s, decision))

    def limited(self, at_s: float, gpu: str, instance: str, limit_mw: int) -> None:
        self.limits.append((at_s, gpu, instance, limit_mw))

    def moved(self, at_s: float, instance: str, phase: Phase, role: Role) -> None:
        self.moves.append((at_s, instance, phase, role))

    def finished(self, finished: Finished) -> None:
        self.finishes.append((finished.at_s, finished))

    def queues(self, at_s: float, queues: Queues) -> None:
        self.queued.append((at_s, queues))

    def limits_at(self, at_s: float) -> dict[str, dict[str, int]]:
        """The limits in force then, by instance and GPU."""
        found: dict[str, dict[str, int]] = {}
        for when_s, gpu, instance, limit_mw in self.limits:
            if when_s <= at_s:
                found.setdefault(instance, {})[gpu] = limit_mw
        return found

    def greatest_mw(self, node: str, at_s: float) -> int:
        """The greatest limit in force on a node then."""
        limits = self.limits_at(at_s)
        return max(limit_mw for name, gpus in limits.items() if name.startswith(node) for limit_mw in gpus.values())
