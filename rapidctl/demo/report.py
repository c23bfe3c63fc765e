"""The end of the demo for a person: one table, and what should be known about it."""

from collections.abc import Callable
from dataclasses import dataclass

from rapid.core.cluster import SloTargets
from rapid.sim.rate import RULE, RULE_HIGH, RULE_LOW
from rapidctl.demo.figures import Figures, HostFigures
from rapidctl.output import Block, Cell, Column, Table, Tone, line

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its words, its value on a host, how to write it; `ratio`: say how many times the baseline it is."""

    title: str
    value: Callable[[HostFigures], float | None]
    text: Callable[[float], str]
    ratio: bool = False


def blocks(figures: Figures) -> list[Block]:
    """The whole report."""
    return [line(), _table(figures), line(), *_notes(figures)]


def in_watts(power_mw: float) -> str:
    """With thousands set apart, as in the table."""
    return f"{power_mw / 1e3:,.0f} W"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rows(slo: SloTargets) -> tuple[Row, ...]:
    return (
        Row("SLO attainment", lambda host: host.summary.attainment, percent, ratio=True),
        Row(f"  TTFT within {slo.ttft_s:g} s", lambda host: host.summary.ttft_attainment, percent),
        Row(f"  TPOT within {1e3 * slo.tpot_s:g} ms", lambda host: host.summary.tpot_attainment, percent),
        Row("goodput", lambda host: host.summary.goodput_rps, lambda rps: f"{rps:.1f} /s", ratio=True),
        Row("TTFT p50", lambda host: host.summary.ttft.p50_s, _seconds),
        Row("TTFT p99", lambda host: host.summary.ttft.p99_s, _seconds),
        Row("TPOT p50", lambda host: host.summary.tpot.p50_s, _milliseconds),
        Row("TPOT p99", lambda host: host.summary.tpot.p99_s, _milliseconds),
        Row("joules per output token", lambda host: host.summary.joules_per_output_token, lambda j: f"{j:.2f} J"),
        Row("requests", lambda host: host.summary.requests, _count),
        Row("  not finished, so missed", lambda host: host.summary.unfinished, _count),
        Row("role moves", lambda host: host.role_moves, _count),
        Row("watts moved", lambda host: host.raised_mw, in_watts),
        Row("highest sum of limits", lambda host: host.verdict.worst_sum_mw, in_watts),
        Row("time over budget", lambda host: host.verdict.over_budget_s, lambda time_s: f"{time_s:.3f} s"),
    )


def _table(figures: Figures) -> Table:
    base, *others = figures.hosts
    columns = [Column(""), *(Column(host.name, right=True) for host in figures.hosts)]
    if others:
        columns.append(Column("against it", right=True))
    rows = []
    for row in _rows(figures.slo):
        values = [row.value(host) for host in figures.hosts]
        tone = Tone.STRONG if row.ratio else Tone.PLAIN
        cells = [Cell(row.title, tone), *(Cell(_written(row, value), tone) for value in values)]
        if others:
            cells.append(_against(row, row.value(base), values[-1]))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _against(row: Row, base: float | None, other: float | None) -> Cell:
    if not row.ratio or not base or other is None:
        return Cell("")
    times = other / base
    return Cell(f"{times:.2f}x", Tone.GOOD if times > 1.005 else Tone.WARN if times < 0.995 else Tone.PLAIN)


def _written(row: Row, value: float | None) -> str:
    return NOTHING if value is None else row.text(value)


def _notes(figures: Figures) -> list[Block]:
    notes = [*_rule_notes(figures), _judge_note(figures)]
    lag_s = max(host.lags.max_s for host in figures.hosts)
    mean_s = max(host.lags.mean_s for host in figures.hosts)
    notes.append(
        line(
            f"real time: engines told their news {1e3 * mean_s:.1f} ms late on average, {1e3 * lag_s:.0f} ms at most; "
            f"all processes together used {figures.cpu_cores:.2f} cores",
            Tone.DIM,
        )
    )
    if figures.restarts:
        again = sum(host.dispatched_again for host in figures.hosts)
        notes.append(line(f"{figures.restarts} processes died and came back; {again} requests were dispatched again"))
    notes.append(line(f"picture: {figures.picture or 'none, since matplotlib is not installed (the extra plot)'}"))
    return notes


def _rule_notes(figures: Figures) -> list[Block]:
    rate, base = figures.rate, figures.hosts[0]
    chosen = "as given"
    if rate.predicted_attainment is not None:
        chosen = f"chosen so that {RULE}; predicted {percent(rate.predicted_attainment)}"
    measured = (
        f"rule: {base.name} measured {percent(base.summary.attainment)}, "
        f"{'within' if figures.within_rule else 'NOT within'} {100 * RULE_LOW:.0f} to {100 * RULE_HIGH:.0f} %"
    )
    return [
        line(f"rate: {figures.workload} x {rate.scale:.2f}, {rate.offered_rps:.1f} requests/s, {chosen}"),
        line(measured, Tone.PLAIN if figures.within_rule else Tone.WARN),
    ]


def _judge_note(figures: Figures) -> Block:
    budget = in_watts(figures.budget_mw)
    if figures.kept_budget:
        return line(f"judge: by the devices' own records no instant over {budget} since rapidd was ready", Tone.GOOD)
    bad = "; ".join(
        f"{host.name} {host.verdict.moments} times, {host.verdict.over_budget_s:.3f} s in all, at worst "
        f"{in_watts(host.verdict.worst_sum_mw)}"
        for host in figures.hosts
        if not host.verdict.kept
    )
    return line(f"judge: OVER BUDGET of {budget}: {bad}", Tone.BAD)


def _seconds(time_s: float) -> str:
    return f"{time_s:.2f} s"


def _milliseconds(time_s: float) -> str:
    return f"{1e3 * time_s:.1f} ms"


def _count(number: float) -> str:
    return f"{number:,.0f}"
