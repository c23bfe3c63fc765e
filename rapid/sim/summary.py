"""What came of a run, in the numbers that people compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from rapid.core.cluster import SloTargets
from rapid.sim.model.requests import Finished


@dataclass(frozen=True, slots=True)
class Quantiles:
    """By nearest rank, in seconds. None: nothing was measured."""

    p50_s: float | None
    p90_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Attainments are shares of all requests offered; one that has not finished attains nothing.

    A request of one token has no TPOT to miss. goodput_rps: requests that attained both targets, per second of
    window_s.
    """

    requests: int
    unfinished: int
    attainment: float
    ttft_attainment: float
    tpot_attainment: float
    goodput_rps: float
    ttft: Quantiles
    tpot: Quantiles
    energy_j: float
    joules_per_output_token: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the ordered values does not exceed (nearest rank)."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def quantiles(values: Sequence[float]) -> Quantiles:
    if not values:
        return Quantiles(None, None, None)
    ordered = sorted(values)
    return Quantiles(*(quantile(ordered, share) for share in (0.50, 0.90, 0.99)))


def summarize(
    finished: Sequence[Finished], requests: int, *, slo: SloTargets, window_s: float, energy_mj: float
) -> Summary:
    """Sums up `requests` offered requests, of which `finished` have finished, offered over window_s > 0."""
    ttft_met = [item.ttft_s <= slo.ttft_s for item in finished]
    tpot_met = [item.tpot_s is None or item.tpot_s <= slo.tpot_s for item in finished]
    met = sum(ttft and tpot for ttft, tpot in zip(ttft_met, tpot_met, strict=True))
    tokens = sum(item.request.output_tokens for item in finished)
    offered = max(1, requests)
    return Summary(
        requests=requests,
        unfinished=requests - len(finished),
        attainment=met / offered,
        ttft_attainment=sum(ttft_met) / offered,
        tpot_attainment=sum(tpot_met) / offered,
        goodput_rps=met / window_s,
        ttft=quantiles([item.ttft_s for item in finished]),
        tpot=quantiles([item.tpot_s for item in finished if item.tpot_s is not None]),
        energy_j=energy_mj / 1e3,
        joules_per_output_token=energy_mj / 1e3 / max(1, tokens),
    )
