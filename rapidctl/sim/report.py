"""The answers of run and compare for a person: what was asked, a table, and what is to be known about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rapid.core.cluster import Role
from rapid.sim.world.outcome import Outcome
from rapid.sim.world.scenario import Scenario
from rapidctl.output import Block, Cell, Column, Line, Table, Tone, line
from rapidctl.sim.load import Load
from rapidctl.sim.reasons import reasons
from rapidctl.sim.standing import Standing, ranked
from rapidctl.sim.words import duration, in_watts, listed, milliseconds, number, percent, seconds


def asked(load: Load, scenarios: Mapping[str, Scenario], seeds: int, *, cut: bool) -> list[Line]:
    """What was simulated, by policy. cut: nobody asked for so short a stretch."""
    scenario = next(iter(scenarios.values()))
    said = [line(f"load: {_load(load)}"), site_line(scenario)]
    if cut and not load.whole:
        said.append(line(f"only its first {load.span_s:.0f} s were taken; --seconds for more", Tone.DIM))
    if load.left_out:
        said.append(line(f"left out: {load.left_out}", Tone.WARN))
    return [*said, *static_lines(scenarios), seeds_line(scenario.seed, seeds)]


def site_line(scenario: Scenario) -> Line:
    return line(f"site: {_site(scenario)}")


def static_lines(scenarios: Mapping[str, Scenario]) -> list[Line]:
    """The limits of static policies, which nobody else names."""
    return [
        line(
            f"{name}: {in_watts(each.policy_settings['prefill_mw'])} for prefill, "
            f"{in_watts(each.policy_settings['decode_mw'])} for decode"
        )
        for name, each in scenarios.items()
        if {"prefill_mw", "decode_mw"} <= each.policy_settings.keys()
    ]


def seeds_line(first: int, count: int) -> Line:
    seeds = f"seed: {first}" if count == 1 else f"seeds: {first} to {first + count - 1}"
    return line(f"{seeds}; of the differences between GPUs, sensors and the network", Tone.DIM)


def _load(load: Load) -> str:
    speed = "as it arrived" if load.scale == 1 else f"{load.scale:.3g} times as fast"
    return (
        f"{load.trace}, {speed}: {load.offered:,} requests in {load.span_s:.0f} s, {load.rate_rps:.2f}/s, "
        f"{load.mean_input:,.0f} tokens in and {load.mean_output:,.0f} out"
    )


def _site(scenario: Scenario) -> str:
    profile, gpus = scenario.profile, scenario.nodes * scenario.gpus
    share = scenario.budget_mw / (gpus * profile.ceiling_mw)
    nodes = f"{scenario.nodes} nodes of " if scenario.nodes > 1 else ""
    roles = [
        f"{scenario.roles.count(role)} {role.value}"
        for role in (Role.PREFILL, Role.DECODE, Role.MIXED)
        if role in scenario.roles
    ]
    return (
        f"{nodes}{scenario.gpus} GPUs of {profile.name} ({profile.prefill_corner.value}, "
        f"{profile.decode_corner.value}), {in_watts(scenario.budget_mw)} ({percent(share, 0)} % of the ceilings), "
        f"{listed(roles)} at the start; TTFT {duration(scenario.slo.ttft_s)}, TPOT {duration(scenario.slo.tpot_s)}"
    )


def judged(runs: Sequence[Outcome], budget_mw: int) -> Line:
    """What the judge says, who stands outside of all that it judges."""
    budget, count = in_watts(budget_mw), len(runs)
    how_many = "the run" if count == 1 else f"any of {count} runs"
    bad = [run for run in runs if run.over_budget_s > 0]
    if not bad:
        return line(f"judge: at no instant of {how_many} did the limits sum to more than {budget}", Tone.GOOD)
    which = ", ".join(f"{run.policy} seed {run.seed} for {run.over_budget_s:.3f} s" for run in bad)
    return line(f"judge: OVER BUDGET of {budget}: {which}", Tone.BAD)


def exit_code(runs: Sequence[Outcome]) -> int:
    """1 if any run was over budget."""
    return int(any(run.over_budget_s > 0 for run in runs))


# ---- one run ----


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its words and how to write it."""

    title: str
    text: Callable[[Outcome], str]
    strong: bool = False


def run_blocks(outcome: Outcome, load: Load, scenario: Scenario) -> list[Block]:
    """The whole report of one run."""
    rows = _rows(scenario)
    table = Table(
        (Column(f"policy {outcome.policy}"), Column("", right=True)),
        tuple((Cell(row.title, Tone.STRONG if row.strong else Tone.PLAIN), Cell(row.text(outcome))) for row in rows),
    )
    speed = outcome.sim_s / max(outcome.wall_s, 1e-9)
    took = f"simulated {outcome.sim_s:.0f} s in {outcome.wall_s:.1f} s, {speed:,.0f} times real time"
    return [
        *asked(load, {outcome.policy: scenario}, 1, cut=False),
        line(),
        table,
        line(),
        _roles_table(outcome),
        line(),
        judged([outcome], scenario.budget_mw),
        line(f"{took}; the controller took {outcome.control_steps:,} steps", Tone.DIM),
    ]


def _rows(scenario: Scenario) -> tuple[Row, ...]:
    slo = scenario.slo
    return (
        Row("SLO attainment", lambda run: f"{percent(run.attainment)} %", strong=True),
        Row(f"  TTFT within {duration(slo.ttft_s)}", lambda run: f"{percent(run.ttft_attainment)} %"),
        Row(f"  TPOT within {duration(slo.tpot_s)}", lambda run: f"{percent(run.tpot_attainment)} %"),
        Row("goodput", lambda run: f"{run.goodput_rps:.2f} /s"),
        Row("TTFT p50", lambda run: seconds(run.ttft_s.p50)),
        Row("TTFT p90", lambda run: seconds(run.ttft_s.p90)),
        Row("TTFT p99", lambda run: seconds(run.ttft_s.p99)),
        Row("TPOT p50", lambda run: milliseconds(run.tpot_s.p50)),
        Row("TPOT p90", lambda run: milliseconds(run.tpot_s.p90)),
        Row("TPOT p99", lambda run: milliseconds(run.tpot_s.p99)),
        Row("energy", lambda run: f"{run.energy_j / 1e3:,.0f} kJ"),
        Row("joules per output token", lambda run: f"{number(run.joules_per_output_token, 2)} J"),
        Row("requests", lambda run: number(run.requests)),
        Row("  not finished, so missed", lambda run: number(run.unfinished)),
        Row("role moves", lambda run: number(run.role_moves)),
        Row("watts moved", lambda run: f"{number(run.watts_moved)} W"),
        Row("time over budget", lambda run: f"{run.over_budget_s:.3f} s"),
    )


def _roles_table(outcome: Outcome) -> Table:
    """Where the watts and the time went."""
    columns = (
        Column("role"),
        Column("instances", right=True),
        Column("limit", right=True),
        Column("had work", right=True),
    )
    rows = []
    for role in Role:
        count = getattr(outcome.why.instances, role.value)
        if count:
            limit_w, busy = getattr(outcome.why.limit_w, role.value), getattr(outcome.why.busy, role.value)
            rows.append(
                (Cell(role.value), Cell(f"{count:.2f}"), Cell(f"{number(limit_w)} W"), Cell(f"{percent(busy, 0)} %"))
            )
    if outcome.why.changing >= 0.005:
        rows.append((Cell("changing"), Cell(f"{outcome.why.changing:.2f}"), Cell(""), Cell("")))
    return Table(columns, tuple(rows))


# ---- many runs ----


def compare_blocks(
    everybody: Sequence[Standing], load: Load, scenarios: Mapping[str, Scenario], *, cut: bool
) -> list[Block]:
    """The whole report of a comparison. scenarios: one of each policy."""
    scenario = next(iter(scenarios.values()))
    runs = [run for each in everybody for run in each.runs]
    return [
        *asked(load, scenarios, len(everybody[0].runs), cut=cut),
        line(),
        compare_table(everybody),
        line(),
        *(line(text) for text in reasons(everybody)),
        judged(runs, scenario.budget_mw),
    ]


def compare_table(everybody: Sequence[Standing]) -> Table:
    """One row per policy, 80 columns wide at most."""
    best = {each.policy for each in ranked(everybody)[:1]}
    with_regret = any(each.regret is not None for each in everybody)
    titles = ["attained %", "TTFT %", "TPOT %", "TTFT p99", "TPOT p99", "J/tok", "moves"]
    over = any(each.sum(lambda run: run.over_budget_s) > 0 for each in everybody)
    titles += ["regret"] if with_regret else []
    titles += ["over budget"] if over else []
    rows = []
    for each in everybody:
        tone = Tone.GOOD if each.policy in best else Tone.PLAIN
        cells = [
            Cell(each.policy, Tone.STRONG if each.policy in best else Tone.PLAIN),
            Cell(_interval(each), tone),
            Cell(percent(each.share(lambda run: run.ttft_attainment))),
            Cell(percent(each.share(lambda run: run.tpot_attainment))),
            Cell(seconds(each.mean(lambda run: run.ttft_s.p99))),
            Cell(milliseconds(each.mean(lambda run: run.tpot_s.p99))),
            Cell(number(each.mean(lambda run: run.joules_per_output_token), 2)),
            Cell(number(each.share(lambda run: run.role_moves), 1)),
        ]
        if with_regret:
            cells.append(Cell("" if each.foresees or each.regret is None else percent(each.regret.mean)))
        if over:
            over_s = each.sum(lambda run: run.over_budget_s)
            cells.append(Cell(f"{over_s:.3f} s", Tone.BAD if over_s else Tone.PLAIN))
        rows.append(tuple(cells))
    return Table((Column("policy", elastic=True), *(Column(title, right=True) for title in titles)), tuple(rows))


def _interval(each: Standing) -> str:
    half = each.attainment.half
    return percent(each.attainment.mean) if half is None else f"{percent(each.attainment.mean)} ± {percent(half)}"
