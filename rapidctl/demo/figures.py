"""What came of a run, in numbers: one frozen value per host, and the JSON that is a contract."""

from dataclasses import dataclass
from typing import Any

from rapid.core.cluster import SloTargets
from rapid.sim.rate import RULE, RULE_HIGH, RULE_LOW
from rapid.sim.summary import Summary, summarize
from rapid.sim.world.checkers import BudgetVerdict
from rapidctl.demo.audit import Finding
from rapidctl.demo.router import FrontEnd

DIGITS = 6  # of numbers in JSON; more would be noise


@dataclass(frozen=True, slots=True)
class Lags:
    """How late the engines were with their news, over all of them."""

    max_s: float
    mean_s: float


@dataclass(frozen=True, slots=True)
class HostFigures:
    """One host's run. Requests that had not finished at the end count as missed."""

    name: str
    summary: Summary
    verdict: BudgetVerdict
    role_moves: int
    raised_mw: int
    dispatched_again: int
    lags: Lags


@dataclass(frozen=True, slots=True)
class RateFigures:
    """How fast the trace was replayed. predicted_attainment is None when the scale was given and not chosen."""

    scale: float
    offered_rps: float
    predicted_attainment: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole result. Hosts are in the order in which they are shown: the baseline first."""

    hosts: tuple[HostFigures, ...]
    workload: str
    seconds: float
    budget_mw: int
    slo: SloTargets
    rate: RateFigures
    restarts: int
    arrival_lag_max_s: float
    cpu_cores: float
    picture: str | None

    @property
    def over_budget_s(self) -> float:
        return sum(host.verdict.over_budget_s for host in self.hosts)

    @property
    def kept_budget(self) -> bool:
        """An instant is enough to break it, even one too short to have a length."""
        return all(host.verdict.kept for host in self.hosts)

    @property
    def within_rule(self) -> bool:
        """Whether the baseline attained, measured, what the rule for the rate aims at."""
        return RULE_LOW <= self.hosts[0].summary.attainment <= RULE_HIGH


def host_figures(name: str, front: FrontEnd, finding: Finding, *, seconds: float, energy_mj: float) -> HostFigures:
    """Sum up a host whose requests arrived over `seconds`, and which spent energy_mj on them."""
    record = front.record
    summary = summarize(
        list(record.finished.values()), len(record.offered), slo=record.slo, window_s=seconds, energy_mj=energy_mj
    )
    lags = front.lags.values()
    events = sum(lag.events for lag in lags)
    return HostFigures(
        name=name,
        summary=summary,
        verdict=finding.verdict,
        role_moves=front.role_moves,
        raised_mw=finding.raised_mw,
        dispatched_again=front.dispatched_again,
        lags=Lags(
            max_s=max((lag.max_s for lag in lags), default=0.0),
            mean_s=sum(lag.sum_s for lag in lags) / events if events else 0.0,
        ),
    )


def to_document(figures: Figures) -> dict[str, Any]:
    """The contract of `rapidctl demo --json`; see SHAPE in rapidctl.commands.demo."""
    rate = figures.rate
    return {
        "hosts": {host.name: _host_document(host) for host in figures.hosts},
        "budget_w": _rounded(figures.budget_mw / 1e3),
        "over_budget_s": _rounded(figures.over_budget_s),
        "picture": figures.picture,
        "workload": figures.workload,
        "seconds": figures.seconds,
        "ttft_target_s": figures.slo.ttft_s,
        "tpot_target_s": figures.slo.tpot_s,
        "rate_rule": RULE,
        "rate_scale": _rounded(rate.scale),
        "offered_rps": _rounded(rate.offered_rps),
        "predicted_attainment": _rounded(rate.predicted_attainment),
        "within_rule": figures.within_rule,
        "restarts": figures.restarts,
        "arrival_lag_max_s": _rounded(figures.arrival_lag_max_s),
        "cpu_cores": _rounded(figures.cpu_cores),
    }


def _host_document(host: HostFigures) -> dict[str, Any]:
    summary, verdict = host.summary, host.verdict
    return {
        "attainment": _rounded(summary.attainment),
        "ttft_attainment": _rounded(summary.ttft_attainment),
        "tpot_attainment": _rounded(summary.tpot_attainment),
        "goodput_rps": _rounded(summary.goodput_rps),
        "requests": summary.requests,
        "joules_per_output_token": _rounded(summary.joules_per_output_token),
        "role_moves": host.role_moves,
        "watts_moved": _rounded(host.raised_mw / 1e3),
        "over_budget_s": _rounded(verdict.over_budget_s),
        "unfinished": summary.unfinished,
        "ttft_p50_s": _rounded(summary.ttft.p50_s),
        "ttft_p99_s": _rounded(summary.ttft.p99_s),
        "tpot_p50_s": _rounded(summary.tpot.p50_s),
        "tpot_p99_s": _rounded(summary.tpot.p99_s),
        "energy_j": _rounded(summary.energy_j),
        "highest_limits_w": _rounded(verdict.worst_sum_mw / 1e3),
        "dispatched_again": host.dispatched_again,
        "engine_lag_max_s": _rounded(host.lags.max_s),
        "engine_lag_mean_s": _rounded(host.lags.mean_s),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
