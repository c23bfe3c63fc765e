"""`rapidctl sim sweep`: attainment against rate."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb
from rapidctl.sim.options import (
    LIMITS,
    PLOT,
    PolicyChoice,
    SiteChoice,
    TraceChoice,
    check_plot,
    policies_of,
    policies_option,
    site_choice,
    site_options,
    trace_choice,
    trace_options,
)

if TYPE_CHECKING:
    from rapid.sim.world.scenario import Scenario
    from rapidctl.sim.load import Load
    from rapidctl.sim.rates import Curve, Point

MOST_S, MOST_REQUESTS = 300.0, 3000  # of a trace, unless --seconds or --limit says more
EXAMPLES = """
rapidctl sim sweep --trace longbench    # what each of six policies sustains
rapidctl sim sweep --trace my.csv --policy uniform --policy rapid --plot s.png
rapidctl sim sweep --trace sonnet --rates 8:20:2 --seeds 5    # with intervals
rapidctl sim sweep --trace azure --json | jq '.curves[].sustained'
"""
SHAPE = """
one object:
  requests   how many, the same at every rate
  curves     a list, one per policy in the order asked for:
    policy
    points     a list by rising rate: rate_rps attainment_mean
               attainment_ci95 (null: one seed) ttft_attainment_mean
               tpot_attainment_mean joules_per_output_token_mean over_budget_s
    sustained  a list for the levels 0.8, 0.9 and 0.99: level rate_rps
               low_rps    attained there; null, as rate_rps: at no rate tried
               high_rps   not attained there; null: at every rate tried
"""


class RatesType(click.ParamType[tuple[float, ...]]):
    """A list of rates, or a range."""

    name = "rates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        from rapidctl.sim.rates import parse_rates

        if isinstance(value, tuple):
            return value
        try:
            return parse_rates(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "sweep",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Replay the same requests of a trace at many rates, and say which rate each policy sustains at 80, 90 and "
    "99 % attainment.\n\n"
    "Rates are searched: in coarse steps first, then by halving the gap around each level until it is within 2 %, then "
    "on the line between its ends. Where chance lets attainment rise with rate, neighbours are pooled. Exit code 1 if "
    "the limits of any run were over budget at any instant.",
)
@trace_options(rate=False)
@click.option("--rates", type=RatesType(), metavar="R,R,...|LOW:HIGH:STEP", help="These, in requests/s; no search.")
@policies_option("One to sweep; may be given many times.")
@LIMITS
@site_options
@click.option("--seeds", type=click.IntRange(1, 1000), default=1, help="Runs at every rate, with seeds from 0 on.")
@PLOT
@click.pass_context
def command(
    ctx: click.Context,
    /,
    policies: Sequence[PolicyChoice],
    limits: str | None,
    rates: tuple[float, ...] | None,
    seeds: int,
    plot: Path | None,
    **given: Any,
) -> None:
    from rapidctl.sim.rates import curves
    from rapidctl.sim.report import exit_code
    from rapidctl.sim.report_sweep import sweep_blocks

    check_plot(plot)
    options = ctx.obj
    assert isinstance(options, Options)
    trace, site = trace_choice(given), site_choice(given)
    chosen = policies_of(policies, limits)
    scenarios = {str(policy): _scenarios(site, policy, seeds) for policy in chosen}
    first = next(iter(scenarios.values()))[0]
    load, first_rps = _stretch(trace, first, rates)
    everybody = curves(scenarios, first_rps, rates)
    _sweep(everybody, scenarios, load)
    cut = trace.seconds is None and trace.limit is None
    blocks = sweep_blocks(everybody, load, {name: row[0] for name, row in scenarios.items()}, seeds, cut=cut)
    if plot is not None:
        from rapidctl.sim.picture_sweep import draw_sweep

        draw_sweep(everybody, load, first, plot)
        blocks.append(output.line(f"picture: {plot}"))
    output.show(output.Page(document(everybody, load), tuple(blocks)), as_json=options.as_json)
    ctx.exit(exit_code([run for curve in everybody for run in curve.runs()]))


def _scenarios(site: SiteChoice, policy: PolicyChoice, seeds: int) -> "list[Scenario]":
    from rapidctl.sim.question import scenario

    return [scenario(site, policy, seed) for seed in range(seeds)]


def _stretch(trace: TraceChoice, first: "Scenario", rates: tuple[float, ...] | None) -> "tuple[Load, float]":
    """The requests that are replayed at every rate, and the rate at which a search begins."""
    from rapidctl.sim.load import measure
    from rapidctl.sim.rates import first_rate

    capacity = first.profile.kv_capacity_tokens
    probe = measure(replace(trace, seconds=None, limit=trace.limit or MOST_REQUESTS), capacity)
    first_rps = rates[-1] if rates else first_rate(first, probe.mean_input, probe.mean_output)
    if trace.limit is not None and trace.seconds is None:
        return probe, first_rps
    count = max(1, round(first_rps * (trace.seconds or MOST_S)))
    if trace.seconds is None:
        count = min(count, MOST_REQUESTS)
    if trace.limit is not None:
        count = min(count, trace.limit)
    return measure(replace(trace, seconds=None, limit=count), capacity), first_rps


def _sweep(everybody: "Sequence[Curve]", scenarios: "dict[str, list[Scenario]]", load: "Load") -> None:
    """Round by round, until no curve wants another run; runs of a round go side by side."""
    from rapidctl.sim.crew import Crew
    from rapidctl.sim.load import at_rate
    from rapidctl.sim.question import Question
    from rapidctl.sim.rates import Point

    with Crew("sweeping") as crew:
        while wanted := [(curve, rate_rps) for curve in everybody for rate_rps in curve.wanted()]:
            questions = [
                Question(curve.policy, scenario, at_rate(load, rate_rps))
                for curve, rate_rps in wanted
                for scenario in scenarios[curve.policy]
            ]
            outcomes = iter(crew.answers(questions, more=wanted[0][0].given is None))
            for curve, rate_rps in wanted:
                curve.add(Point(rate_rps, tuple(next(outcomes) for _ in scenarios[curve.policy])))


def document(everybody: "Sequence[Curve]", load: "Load") -> output.Document:
    """What --json prints."""
    from rapid.sim.study import LEVELS

    return {
        "requests": load.offered,
        "curves": [
            {
                "policy": curve.policy,
                "points": [_point(point) for point in curve.points],
                "sustained": [
                    {
                        "level": found.level,
                        "rate_rps": found.rate_rps,
                        "low_rps": found.low_rps,
                        "high_rps": found.high_rps,
                    }
                    for found in map(curve.sustained, LEVELS)
                ],
            }
            for curve in everybody
        ],
    }


def _point(point: "Point") -> output.Document:
    from rapidctl.sim.standing import Standing

    mine = Standing("", point.runs, point.attainment)
    return {
        "rate_rps": point.rate_rps,
        "attainment_mean": point.attainment.mean,
        "attainment_ci95": point.attainment.half,
        "ttft_attainment_mean": mine.share(lambda run: run.ttft_attainment),
        "tpot_attainment_mean": mine.share(lambda run: run.tpot_attainment),
        "joules_per_output_token_mean": mine.mean(lambda run: run.joules_per_output_token),
        "over_budget_s": mine.sum(lambda run: run.over_budget_s),
    }
