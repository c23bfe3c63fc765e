"""One trace that swings between prompts and answers, on Dynamo alone and on Dynamo under RAPID.

The engines are Dynamo's mocker with a table of times of our own, slow enough that two processor cores can drive the
requests that overload it. What a step costs there follows its tokens alone: the mocker does not slow down with watts.
So power is left out of the comparison, by a budget that gives every GPU its ceiling, and roles are all that RAPID has
to offer.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin
from pathlib import Path

import numpy as np

from rapid.core.cluster import Phase, Role
from tests.engines.dynamo_cluster import Cluster
from tests.engines.dynamo_site import CEILING_MW, Site
from tests.engines.dynamo_traffic import Ask, Served, Traffic
from tests.wait import wait_for

TTFT_S, TPOT_S = 1.0, 0.040  # the controller's own defaults
# What one engine takes, a stand-in (assumed): prompts at 5,600 tokens/s; a decode step of 20 ms and 2 ms per sequence,
# so that 10 sequences at once still meet the target.
PREFILL_TOKEN_MS, PREFILL_MS = 0.18, 10.0
BATCH_TOKENS = 2048  # of one prefill step, which takes 0.4 s
DECODE_MS, DECODE_SEQUENCE_MS = 20.0, 2.0
SPLIT = (Role.PREFILL,) * 3 + (Role.DECODE,) * 3


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind, at a rate that swings between nothing and rate_rps."""

    name: str
    rate_rps: float
    prompt_tokens: int
    answer_tokens: int


# At the height of its swing the first is too much for three workers that prefill and not for four; the second the same
# for decode.
PROMPTS, ANSWERS = Kind("prompts", 17.0, 1000, 20), Kind("answers", 17.0, 400, 50)
PERIOD_S = 120.0


def share(at_s: float, period_s: float) -> float:
    """Of PROMPTS, in what comes then: from a half up to all, down to nothing and back to a half."""
    return 0.5 + 0.5 * sin(2 * pi * at_s / period_s)


def trace(lasts_s: float, seed: int, period_s: float = PERIOD_S) -> list[Ask]:
    """Exponential gaps at the rates of the instant, lengths even within a fifth."""
    dice, asks = random.Random(f"swing {seed}"), list[Ask]()
    for kind in (PROMPTS, ANSWERS):
        at_s = dice.expovariate(kind.rate_rps)
        while at_s < lasts_s:
            now = share(at_s, period_s)
            if dice.random() < (now if kind is PROMPTS else 1.0 - now):
                prompt, answer = (
                    round(dice.uniform(0.8, 1.2) * mean) for mean in (kind.prompt_tokens, kind.answer_tokens)
                )
                asks.append(Ask(at_s, prompt, answer))
            at_s += dice.expovariate(kind.rate_rps)
    return sorted(asks, key=lambda ask: ask.at_s)


@dataclass(frozen=True, slots=True)
class Change:
    """So many workers prefill since at_s of the trace."""

    at_s: float
    prefilling: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace."""

    served: list[Served]
    changes: list[Change]
    worst_mw: int = 0
    budget_mw: int = 0

    @property
    def lost(self) -> int:
        return sum(not one.complete for one in self.served)

    @property
    def attainment(self) -> float:
        return sum(meets(one) for one in self.served) / len(self.served)

    def heavy_in(self, kind: Kind, period_s: float = PERIOD_S) -> "Outcome":
        """What became of the requests that came while most were of this kind."""

        def fits(one: Served) -> bool:
            return (share(one.ask.at_s, period_s) > 0.5) is (kind is PROMPTS)

        return Outcome([one for one in self.served if fits(one)], self.changes)

    def prefilling(self, since_s: float, until_s: float) -> list[int]:
        """How many workers prefilled in this time, one number after the other."""
        before = [change.prefilling for change in self.changes if change.at_s <= since_s][-1:]
        return before + [change.prefilling for change in self.changes if since_s < change.at_s <= until_s]


def meets(one: Served) -> bool:
    """Both targets of the SLO, and every token."""
    return one.complete and one.ttft_s <= TTFT_S and one.tpot_s <= TPOT_S


def engines(folder: Path) -> dict[Role, list[str]]:
    """The mocker's words for these times. It looks a step up by the tokens it has in its cache, and their mean context;
    the first divided by the second are the sequences."""
    prompts = np.linspace(0, 32_768, 257)
    tokens, contexts = np.geomspace(16, 262_144, 400), np.geomspace(16, 8192, 160)
    steps = DECODE_MS + DECODE_SEQUENCE_MS * np.maximum(1.0, tokens[:, None] / contexts[None, :])
    np.savez(
        folder / "times.npz",
        prefill_isl=prompts,
        prefill_ttft_ms=PREFILL_MS + PREFILL_TOKEN_MS * prompts,
        decode_active_kv_tokens=tokens,
        decode_context_length=contexts,
        decode_itl=steps,
    )
    timing = {"type": "external", "provider": "dynamo_profile", "config": {"path": str(folder / "times.npz")}}
    words = {}
    for role in (Role.PREFILL, Role.DECODE):
        config = {
            "engine": {"worker_type": role.value, "timing_model": timing},
            "dynamo": {"enable_local_indexer": True},
        }
        file = folder / f"{role.value}.json"
        file.write_text(json.dumps(config))
        words[role] = ["--extra-engine-args", str(file)]
    return words


def alone(folder: Path, roles: Sequence[Role], asks: Sequence[Ask]) -> Outcome:
    """Dynamo's own frontend, router and mockers, with nothing of ours."""
    with Cluster(folder / "dynamo", roles, engines=engines(folder), stock=True) as cluster:
        traffic = _send(cluster, asks)
        wait_for(lambda: traffic.all_sent, _long_s(asks), "the end of the trace")
        traffic.finish()
    return Outcome(traffic.served, [Change(0.0, sum(role is Role.PREFILL for role in roles))])


def under_rapid(folder: Path, roles: Sequence[Role], asks: Sequence[Ask], *, policy: str = "predictive") -> Outcome:
    """The same, with a controller that decides by itself from what Dynamo's metrics say."""
    with (
        Cluster(folder / "dynamo", roles, engines=engines(folder)) as cluster,
        Site(folder, cluster, policy=policy, gpu_mw=CEILING_MW) as site,
    ):
        changes = [Change(0.0, sum(role is Role.PREFILL for role in roles))]
        traffic = _send(cluster, asks)

        def over() -> bool:
            serving = [one.role for one in site.status().instances if one.phase is Phase.SERVING]
            if len(serving) == len(roles) and (prefilling := serving.count(Role.PREFILL)) != changes[-1].prefilling:
                changes.append(Change(traffic.at_s, prefilling))
            return traffic.all_sent

        wait_for(over, _long_s(asks), "the end of the trace")
        traffic.finish()
        return Outcome(traffic.served, changes, site.worst_mw(), site.budget_mw)


def _send(cluster: Cluster, asks: Sequence[Ask]) -> Traffic:
    traffic = Traffic(cluster.url, asks)
    traffic.start()
    return traffic


def _long_s(asks: Sequence[Ask]) -> float:
    return asks[-1].at_s + 60.0
