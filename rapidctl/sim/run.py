"""`rapidctl sim run`: one policy on one trace."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb
from rapidctl.sim.options import (
    LIMITS,
    PLOT,
    PolicyChoice,
    PolicyType,
    check_plot,
    site_choice,
    site_options,
    trace_choice,
    trace_options,
    with_limits,
)

if TYPE_CHECKING:
    from rapid.sim.world.outcome import Outcome
    from rapidctl.sim.progress import Progress
    from rapidctl.sim.question import Question

EXAMPLES = """
rapidctl sim run --trace azure --rate 40    # rapid on 8 GPUs under 4,800 W
rapidctl sim run --trace my.csv --policy rapid:step=50W,slack=0.7
rapidctl sim run --trace longbench --policy static --limits 675/525
rapidctl sim run --trace azure --rate 40 --seconds 120 --plot run.png
rapidctl sim run --trace azure --profile h100-8b --budget 4.2kW --ttft 500ms
"""
OUTCOME_SHAPE = """
  policy           as written with --policy
  profile seed requests
  attainment ttft_attainment tpot_attainment   shares of all requests, 0 to 1
  goodput_rps      requests that met both targets, per second of arrivals
  ttft_s tpot_s    {p50 p90 p99}; null: nothing was measured
  energy_j joules_per_output_token (null: no token)
  qps_per_budget_watt qps_per_drawn_watt   finished requests per second, watt
  role_moves watts_moved (sum of all raises) unfinished
  over_budget_s    seconds with limits above the budget; must be 0
  sim_s wall_s control_steps
  why              limit_w instances busy: means, each {prefill decode mixed}
                     (null: no instance had the role); changing: instances on
                     their way; errors; missed: {ttft_only tpot_only both
                     unfinished}, shares of all requests
"""
SHAPE = f"""
one object:
{OUTCOME_SHAPE.strip(chr(10))}
"""


@click.command(
    "run",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Simulate one policy on a trace and say what the users of that trace got.\n\n"
    "The controller and the guard of every node are the real ones; GPUs, engines and network are simulated. The same "
    "seed gives the same numbers. Exit code 1 if the limits were over budget at any instant.",
)
@trace_options(rate=True)
@click.option(
    "--policy",
    type=PolicyType(),
    default="predictive",
    metavar="NAME[:key=value,...]",
    help="Who decides: rapid:step=50W.",
)
@LIMITS
@site_options
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the differences between GPUs, and of chance.")
@PLOT
@click.pass_context
def command(
    ctx: click.Context, /, policy: PolicyChoice, limits: str | None, seed: int, plot: Path | None, **given: Any
) -> None:
    from rapid.sim.world.outcome import to_document
    from rapidctl.sim.load import measure
    from rapidctl.sim.progress import Progress
    from rapidctl.sim.question import Question, answer, profile_of, scenario
    from rapidctl.sim.report import exit_code, run_blocks

    check_plot(plot)
    options = ctx.obj
    assert isinstance(options, Options)
    trace, site = trace_choice(given), site_choice(given)
    (chosen,) = with_limits((policy,), limits)
    asked = scenario(site, chosen, seed)
    load = measure(trace, profile_of(site).kv_capacity_tokens)
    question = Question(str(chosen), asked, load)
    with Progress("simulating") as progress:
        if plot is None:
            outcome = answer(question, progress)
        else:
            outcome = _filmed(question, progress, plot)
    blocks = run_blocks(outcome, load, asked)
    if plot is not None:
        blocks.append(output.line(f"picture: {plot}"))
    output.show(output.Page(to_document(outcome), tuple(blocks)), as_json=options.as_json)
    ctx.exit(exit_code([outcome]))


def _filmed(question: "Question", tell: "Progress", path: Path) -> "Outcome":
    """Run it and draw it."""
    from rapidctl.sim.film import Film
    from rapidctl.sim.picture_run import draw_run
    from rapidctl.sim.question import answer

    film = Film(question.scenario.slo)
    outcome = answer(question, tell, film)
    draw_run(film, outcome, question.load, question.scenario, path)
    return outcome
