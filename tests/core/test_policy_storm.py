"""Whatever engines say of themselves, a policy answers, and asks for nothing that does not fit.

A policy that raises stops its controller: an engine that counts nothing, or nonsense, must not be able to do that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from rapid.core.cluster import Histogram, InstanceView, Phase, PhaseLoad, Role, View
from rapid.core.policy import NAMES, make
from tests.core.hosts import W
from tests.core.views import CEILING_W, FLOOR_W, gpu, instance, view

TICKS, TICK_S = 150, 0.5
MORE = (0, 0, 1, 2, 7, 300, 50_000, 10**9)
SHARES = (0.0, 0.0, 1e-9, 0.3, 0.99, 1.0)
BOUNDS_S = (0.02, 0.04, 1.0, 2.0)


@dataclass(slots=True)
class Liar:
    """An engine whose counters grow as they like, fall now and then, and of which some never move."""

    name: str
    gpus: list[str]
    dice: Random
    role: Role
    still: set[str] = field(default_factory=set)
    sums: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> int:
        if self.dice.random() < 0.02:
            self.sums[what] = 0
        if what not in self.still:
            self.sums[what] = min(2**53, self.sums.get(what, 0) + self.dice.choice(MORE))
        return self.sums.get(what, 0)

    def counts(self, what: str) -> Histogram:
        return Histogram(BOUNDS_S, tuple(self.count(f"{what} {index}") for index in range(len(BOUNDS_S) + 1)))

    def load(self, at_s: float) -> PhaseLoad:
        dice = self.dice
        return PhaseLoad(
            self.name,
            self.role if dice.random() < 0.97 else dice.choice(list(Role)),
            at_s - dice.choice((0.0, 0.1, 0.3)),
            waiting_requests=dice.choice(MORE),
            waiting_tokens=dice.choice(MORE),
            oldest_wait_s=dice.choice((0.0, 0.5, 1e6)),
            running_requests=dice.choice(MORE),
            kv_used_fraction=dice.choice(SHARES),
            prompt_tokens=self.count("prompt tokens"),
            output_tokens=self.count("output tokens"),
            ttft=self.counts("ttft"),
            tpot=self.counts("tpot"),
        )

    def view(self, at_s: float) -> InstanceView:
        dice = self.dice
        if dice.random() < 0.03:
            self.role = dice.choice((Role.PREFILL, Role.DECODE, Role.MIXED))
        phase = Phase.SERVING if dice.random() < 0.95 else dice.choice(list(Phase))
        queue = self.load(at_s) if dice.random() < 0.95 else None
        return instance(self.name, self.role, self.gpus, phase=phase, queue=queue, pinned=dice.random() < 0.05)


def storm(seed: int) -> Iterator[View]:
    """Eight GPUs of a node, one or two to an instance."""
    dice = Random(f"storm {seed}")
    wide = dice.choice((1, 2))
    names = [f"g{index}" for index in range(8)]
    liars = [
        Liar(f"e{index}", names[wide * index : wide * (index + 1)], dice, (Role.PREFILL, Role.DECODE)[index % 2])
        for index in range(8 // wide)
    ]
    for liar in liars:
        liar.still = {what for what in ("prompt tokens", "output tokens", "ttft 0", "tpot 0") if dice.random() < 0.3}
    for tick in range(TICKS):
        at_s = 1_000.0 + TICK_S * tick
        gpus = [gpu(name, dice.uniform(FLOOR_W, CEILING_W)) for name in names if dice.random() < 0.99]
        late = dice.choice((None, 0.0, 0.01, 30.0))
        waited_s = dice.choice((0.0, 3.0))
        seen = view(gpus, [one.view(at_s) for one in liars], ttft_s=late, tpot_s=late, oldest_wait_s=waited_s)
        yield replace(seen, at_s=at_s)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_a_policy_answers_whatever_is_said(name: str, seed: int) -> None:
    policy = make(name, {})
    for seen in storm(seed):
        targets = policy.decide(seen)
        known = {each.gpu for each in seen.gpus}
        pinned = {one.instance for one in seen.instances if one.pinned}
        assert set(targets.limits_mw) <= known, (name, seed, seen.at_s)
        assert all(FLOOR_W * W <= limit_mw <= CEILING_W * W for limit_mw in targets.limits_mw.values()), (name, seed)
        assert not pinned & set(targets.roles), (name, seed, seen.at_s)
