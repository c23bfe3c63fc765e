"""`rapidctl decisions`: the last decisions, newest first."""

from typing import TYPE_CHECKING

import click

from rapid.core.cluster import Decision
from rapidctl import output
from rapidctl.commands._documents import DECISION_SHAPE, decision_document
from rapidctl.commands._explain import CLOSE
from rapidctl.commands._names import completer, subjects
from rapidctl.commands._verb import Options, Verb, call
from rapidctl.commands._words import date_and_clock, subject_of
from rapidctl.output import Cell, Column, Table, Tone

if TYPE_CHECKING:
    from rapidctl.client import Client

EXAMPLES = """\
rapidctl decisions
rapidctl decisions --limit 100 --about h1/3
rapidctl decisions --json | jq -r '.decisions[] | [.id, .reason] | @tsv'"""
SHAPE = "one object: decisions, a list, newest first, of:\n  " + DECISION_SHAPE.replace("\n", "\n  ")
ATTAINED = Column("ATTAINED", right=True)
COLUMNS = (
    Column("ID"),
    Column("WHEN"),
    Column("BY", elastic=True),
    Column("CHANGES", right=True),
    ATTAINED,
    Column("REASON", elastic=True),
)


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most this many.")
@click.option(
    "--about",
    metavar="GPU|INSTANCE",
    help="Only those about this, named as in 'rapidctl why'.",
    shell_complete=completer(subjects),
)
@click.pass_obj
def command(options: Options, limit: int, about: str | None) -> None:
    """List the last decisions, newest first. 'rapidctl why ID' explains one.

    ATTAINED is the SLO attainment that was measured after a decision, and what it expected: "95/97 %".
    """
    found = call(options, lambda client: about_what(client, about or "", limit))
    document = {"decisions": [decision_document(decision) for decision in found]}
    output.show(output.Page(document, (_table(found),)), as_json=options.as_json)
    if not found:
        output.talk(f"no decision about {about} yet" if about else "no decision yet")


async def about_what(client: "Client", name: str, limit: int) -> tuple[Decision, ...]:
    """The decisions about what an operator calls `name` (empty: all). Raises NotFound for a name that nothing has.

    What is named exactly comes first, so that a decision's id is never taken for the beginning of a GPU's UUID.
    """
    found = await client.decisions(limit=limit, about=name)
    if found or not name:
        return found
    subject = subject_of(await client.status(), name)
    return await client.decisions(limit=limit, about=subject) if subject != name else ()


def _table(decisions: tuple[Decision, ...]) -> Table:
    """Without the column about predictions where there are none."""
    rows = tuple(_row(decision) for decision in decisions)
    if any(decision.predicted is not None for decision in decisions):
        return Table(COLUMNS, rows)
    at = COLUMNS.index(ATTAINED)
    return Table((*COLUMNS[:at], *COLUMNS[at + 1 :]), tuple((*row[:at], *row[at + 1 :]) for row in rows))


def _row(decision: Decision) -> tuple[Cell, ...]:
    return (
        Cell(decision.id, Tone.STRONG),
        Cell(date_and_clock(decision.wall_s)),
        Cell(decision.by),
        Cell(str(len(decision.changes))),
        _forecast(decision),
        Cell(decision.reason),
    )


def _forecast(decision: Decision) -> Cell:
    """SLO attainment in whole percents, what came before what was expected: "95/97 %", "-/97 %"."""
    if decision.predicted is None:
        return Cell("-")
    came, expected = ("-" if it is None else f"{it * 100:.0f}" for it in (decision.measured, decision.predicted))
    close = decision.measured is None or abs(decision.measured - decision.predicted) < CLOSE
    return Cell(f"{came}/{expected} %", Tone.PLAIN if close else Tone.WARN)
