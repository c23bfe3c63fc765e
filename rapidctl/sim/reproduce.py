"""`rapidctl sim reproduce`: the claims of the RAPID paper (arXiv 2601.12241), one by one."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb

if TYPE_CHECKING:
    from rapid.sim.claims.claims import Finding, Scope
    from rapid.sim.claims.runs import Answer, Corner, Task

IDS = tuple(f"R{number}" for number in range(1, 12))
SEEDS, QUICK_SEEDS = 3, 1
EXAMPLES = """
rapidctl sim reproduce                          # some minutes: all corners
rapidctl sim reproduce --quick                  # the profile's own corner only
rapidctl sim reproduce --claim R4 --claim R5 --seeds 5
rapidctl sim reproduce --plots figures
rapidctl sim reproduce --json | jq -r '.claims[] | .id + " " + .verdict'
"""
SHAPE = """
one object:
  claims    a list, in the order of their ids:
    id
    stated    as in the paper; (i): inferred from its figures
    ours      what the simulation measured, means over the seeds
    verdict   reproduced, partly or not
    rule      what has to come out to be reproduced
    why       what was missed, and why; empty: nothing
    corners   the verdict in each corner looked at, by its name
              (PREFILL,DECODE: how fast under a limit); own corner first
"""


@click.command(
    "reproduce",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Simulate what the RAPID paper measured, and say of each of its claims whether it comes out: reproduced, "
    "partly, or not, by rules that were written down first.\n\n"
    "The engine is profile mi300x-8b-paper, in which a few numbers are fitted to these very claims; they are listed. "
    "What is not known of GPUs under a limit makes six corners; the verdict is that of the profile's own corner, "
    "and the others are told beside it.",
)
@click.option("--quick", is_flag=True, help="Under a minute: one seed, less load, the profile's own corner only.")
@click.option(
    "--claim",
    "ids",
    type=click.Choice(IDS, case_sensitive=False),
    multiple=True,
    help="One of those to check; may be given many times. Default: all.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    metavar="N",
    help=f"How many, from 0 on: arrivals, GPUs, network. Default: {SEEDS}, with --quick {QUICK_SEEDS}.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Draw a PNG per figure into this folder.",
)
@click.pass_context
def command(ctx: click.Context, /, quick: bool, ids: Sequence[str], seeds: int | None, plots: Path | None) -> None:
    from rapid.sim.claims import claims
    from rapid.sim.claims.table import CLAIMS
    from rapid.sim.model.paper_profile import NAME
    from rapid.sim.model.profile import profile_named

    if plots is not None:
        _check_folder(plots)
    options = ctx.obj
    assert isinstance(options, Options)
    chosen = tuple(claim for claim in CLAIMS if claim.id in ids or not ids)
    profile = profile_named(NAME)
    scope = claims.quick(profile, seeds or QUICK_SEEDS) if quick else claims.full(profile, seeds or SEEDS)
    answers = _answers(claims.tasks_of(chosen, scope))
    found = claims.findings(chosen, scope, answers)
    said = blocks(found, scope)
    if plots is not None:
        from rapidctl.sim.picture_claims import draw_claims

        drawn = draw_claims(scope, answers, plots)
        said.append(output.line(f"pictures: {', '.join(map(str, drawn))}"))
    output.show(output.Page(document(found), tuple(said)), as_json=options.as_json)


def _check_folder(plots: Path) -> None:
    """Says so before anything has been computed. Raises click.UsageError."""
    if find_spec("matplotlib") is None:
        raise click.UsageError("--plots needs matplotlib, which is not installed: pip install 'rapid-power[plot]'")
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--plots {plots}: {error.strerror or error}") from error


def work(task: "Task", tell: Callable[[float], None]) -> "Answer":
    """What a worker does."""
    from rapid.sim.claims.runs import answer

    return answer(task)


def _answers(tasks: "Sequence[Task]") -> "list[tuple[Task, Answer]]":
    from rapidctl.sim.progress import Progress
    from rapidctl.sim.workers import Workers, cores

    done = [0.0] * len(tasks)
    with Progress("reproducing") as progress, Workers(work, cores()) as workers:

        def heard(index: int, share: float) -> None:
            done[index] = share
            progress(sum(done) / len(done), f"{sum(each >= 1 for each in done)} of {len(done)} runs done")

        return list(zip(tasks, workers.map(tasks, str, heard), strict=True))


def document(found: "Sequence[Finding]") -> output.Document:
    """What --json prints."""
    return {
        "claims": [
            {
                "id": each.claim.id,
                "stated": each.claim.stated,
                "ours": each.ours,
                "verdict": each.verdict.value,
                "rule": each.claim.rule,
                "why": each.why,
                "corners": {_name(corner): verdict.value for corner, verdict in each.corners.items()},
            }
            for each in found
        ]
    }


# ---- for a person ----


def blocks(found: "Sequence[Finding]", scope: "Scope") -> list[output.Block]:
    return [*_conditions(scope), *(block for each in found for block in _finding(each)), output.line(), _sum(found)]


def _conditions(scope: "Scope") -> list[output.Block]:
    from rapid.sim.model.paper_profile import FITTED, FITTED_RULE

    said: list[output.Block] = [
        output.line(f"profile {scope.profile.name}, corner {_name(scope.own)}; fitted to these claims:"),
        output.Table(
            tuple(
                output.Column(title, right=title != "number", elastic=False)
                for title in ("number", "value", "from", "to")
            ),
            tuple(
                tuple(output.Cell(text) for text in (each.name, f"{each.value:g}", f"{each.low:g}", f"{each.high:g}"))
                for each in (*FITTED, *FITTED_RULE)
            ),
        ),
    ]
    seeds = "seed 0" if scope.seeds == 1 else f"seeds 0 to {scope.seeds - 1}"
    rates = ", ".join(f"{rate_rps:g}" for rate_rps in scope.rates_rps)
    text = f"{seeds}; {scope.requests:,} requests of LongBench; the Sonnet shift at {rates} requests/s"
    return [*said, output.line(text, output.Tone.DIM)]


_TONES = {"reproduced": output.Tone.GOOD, "partly": output.Tone.WARN, "not": output.Tone.BAD}


def _finding(each: "Finding") -> list[output.Block]:
    verdict = each.verdict.value
    head = (
        output.Cell(f"{each.claim.id}  ", output.Tone.STRONG),
        output.Cell(f"{verdict}  ", _TONES[verdict]),
        output.Cell(each.claim.stated),
    )
    said: list[output.Block] = [output.line(), output.Line(head), output.line(f"  ours: {each.ours}")]
    if each.why:
        said.append(output.line(f"  {each.why}"))
    return [*said, output.line(f"  {_where(each)}; rule: {each.claim.rule}", output.Tone.DIM)]


def _where(each: "Finding") -> str:
    """In which corners it holds."""
    if len(each.corners) == 1:
        return "no other corner was looked at"
    holds = [_name(corner) for corner in each.holds_in]
    if len(holds) == len(each.corners):
        return f"reproduced in all {len(holds)} corners"
    return f"reproduced in {len(holds)} of {len(each.corners)} corners" + (f": {'; '.join(holds)}" if holds else "")


def _name(corner: "Corner") -> str:
    prefill, decode = corner
    return f"{prefill.value},{decode.value}"


def _sum(found: "Sequence[Finding]") -> output.Line:
    counts = {verdict: sum(each.verdict.value == verdict for each in found) for verdict in _TONES}
    return output.line(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), output.Tone.STRONG)
