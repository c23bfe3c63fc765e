"""`rapidctl sim compare`: several policies on one trace, over several seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb
from rapidctl.sim.options import (
    LIMITS,
    PLOT,
    PolicyChoice,
    check_plot,
    policies_of,
    policies_option,
    site_choice,
    site_options,
    trace_choice,
    trace_options,
)

if TYPE_CHECKING:
    from rapidctl.sim.question import Question
    from rapidctl.sim.standing import Standing

MOST_S = 300.0  # of a trace, unless --seconds says more
EXAMPLES = """
rapidctl sim compare --trace azure --rate 40    # which is best, and why
rapidctl sim compare --trace my.csv --profile h100-8b --budget 4kW --seeds 5
rapidctl sim compare --trace sonnet --policy rapid --policy rapid:step=50W
rapidctl sim compare --trace azure --rate 40 --policy uniform --policy oracle
rapidctl sim compare --trace azure --rate 40 --json | jq '.summary[].policy'
"""
SHAPE = """
one object:
  runs      a list, one per policy and seed, each as of sim run --json
  summary   a list, one per policy in the order asked for:
    policy attainment_mean
    attainment_ci95    half the width of the 95 % interval (Student's t);
                       null: one seed
    ttft_attainment_mean tpot_attainment_mean goodput_rps_mean
    joules_per_output_token_mean role_moves_mean watts_moved_mean
    over_budget_s      the sum over its runs
    regret_mean regret_ci95   attainment that it lacks to oracle; null: oracle
                       was not asked for
"""


@click.command(
    "compare",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Simulate several policies on a trace, each with the same seeds, and say which serves it best, and why.\n\n"
    "One process per core; the answer does not depend on how many. Of a long trace the first 300 s are taken, unless "
    "--seconds says more. Exit code 1 if the limits of any run were over budget at any instant.",
)
@trace_options(rate=True)
@policies_option("One of those to compare; may be given many times. Also: oracle, which sees the future, and is slow.")
@LIMITS
@site_options
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, help="How many, from 0 on.")
@PLOT
@click.pass_context
def command(
    ctx: click.Context,
    /,
    policies: Sequence[PolicyChoice],
    limits: str | None,
    seeds: int,
    plot: Path | None,
    **given: Any,
) -> None:
    from rapidctl.sim.load import measure
    from rapidctl.sim.question import Question, profile_of, scenario
    from rapidctl.sim.report import compare_blocks, exit_code

    check_plot(plot)
    options = ctx.obj
    assert isinstance(options, Options)
    trace, site = trace_choice(given), site_choice(given)
    chosen = policies_of(policies, limits)
    scenarios = {str(policy): [scenario(site, policy, seed) for seed in range(seeds)] for policy in chosen}
    load = measure(trace, profile_of(site).kv_capacity_tokens, MOST_S)
    standing = _asked([Question(name, each, load) for name, row in scenarios.items() for each in row])
    cut = trace.seconds is None and trace.limit is None
    firsts = {name: row[0] for name, row in scenarios.items()}
    blocks = compare_blocks(standing, load, firsts, cut=cut)
    if plot is not None:
        from rapidctl.sim.picture_compare import draw_compare

        draw_compare(standing, load, next(iter(firsts.values())), plot)
        blocks.append(output.line(f"picture: {plot}"))
    output.show(output.Page(document(standing), tuple(blocks)), as_json=options.as_json)
    ctx.exit(exit_code([run for each in standing for run in each.runs]))


def _asked(questions: "list[Question]") -> "tuple[Standing, ...]":
    """The answers, by policy."""
    from itertools import groupby

    from rapidctl.sim.crew import Crew
    from rapidctl.sim.standing import standings

    with Crew("comparing") as crew:
        outcomes = crew.answers(questions)
    by_policy = groupby(outcomes, key=lambda outcome: outcome.policy)
    return standings([tuple(runs) for _, runs in by_policy])


def document(everybody: "Sequence[Standing]") -> output.Document:
    """What --json prints."""
    from rapid.sim.world.outcome import to_document

    return {
        "runs": [to_document(run) for each in everybody for run in each.runs],
        "summary": [_summary(each) for each in everybody],
    }


def _summary(each: "Standing") -> output.Document:
    return {
        "policy": each.policy,
        "attainment_mean": each.attainment.mean,
        "attainment_ci95": each.attainment.half,
        "ttft_attainment_mean": each.share(lambda run: run.ttft_attainment),
        "tpot_attainment_mean": each.share(lambda run: run.tpot_attainment),
        "goodput_rps_mean": each.share(lambda run: run.goodput_rps),
        "joules_per_output_token_mean": each.mean(lambda run: run.joules_per_output_token),
        "role_moves_mean": each.share(lambda run: run.role_moves),
        "watts_moved_mean": each.share(lambda run: run.watts_moved),
        "over_budget_s": each.sum(lambda run: run.over_budget_s),
        "regret_mean": None if each.regret is None else each.regret.mean,
        "regret_ci95": None if each.regret is None else each.regret.half,
    }
