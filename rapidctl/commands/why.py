"""`rapidctl why`: explain a decision, or the last one about a GPU or an instance."""

from typing import TYPE_CHECKING

import click

from rapid.core.cluster import Decision
from rapid.core.errors import Refused, watts
from rapid.core.status import Status
from rapidctl import output
from rapidctl.commands._documents import DECISION_SHAPE, decision_document
from rapidctl.commands._names import completer, subjects
from rapidctl.commands._verb import Options, Verb, call
from rapidctl.commands._words import ago, date_and_clock, every_gpu, gpu_label
from rapidctl.commands.decisions import about_what
from rapidctl.output import Block, Cell, Column, Line, Table, Tone, line

if TYPE_CHECKING:
    from rapidctl.client import Client

EXAMPLES = """\
rapidctl why d42
rapidctl why h1/3             # the last decision about GPU 3 of node h1
rapidctl why GPU-8f3a         # a UUID, or as much of it as is unique
rapidctl why p3 --json"""
SHAPE = "one object: " + DECISION_SHAPE
INPUT_COLUMNS = (Column("RESTED ON"), Column("VALUE"))
CHANGE_COLUMNS = (Column("CHANGED"), Column("BEFORE"), Column("AFTER"), Column("NOW"), Column("WHAT", elastic=True))


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.argument(
    "what",
    metavar="ID|GPU|INSTANCE",
    help="A decision, or what the last one was about.",
    shell_complete=completer(subjects),
)
@click.pass_obj
def command(options: Options, what: str) -> None:
    """Explain a decision, or the last one about a GPU or an instance.

    Says who decided, when and why, the numbers it rested on, what it changed, and what that is now. A GPU is named by
    its UUID, a unique beginning of it, or NODE/INDEX.
    """

    async def work(client: "Client") -> tuple[tuple[Decision, ...], Status]:
        return await about_what(client, what, 1), await client.status()

    found, status = call(options, work)
    if not found:
        raise Refused(f"no decision about {what!r} among the last 10,000")
    blocks = _blocks(found[0], status)
    output.show(output.Page(decision_document(found[0]), blocks), as_json=options.as_json)


def _blocks(decision: Decision, status: Status) -> tuple[Block, ...]:
    age = ago(max(0.0, status.wall_s - decision.wall_s))
    head = Line(
        (Cell(decision.id, Tone.STRONG), Cell(f"  {date_and_clock(decision.wall_s)} ({age} ago) by {decision.by}"))
    )
    inputs = tuple((Cell(name), Cell(_input(value))) for name, value in decision.inputs)
    blocks: list[Block] = [head, line(decision.reason)]
    if inputs:
        blocks += [line(), Table(INPUT_COLUMNS, inputs)]
    if decision.changes:
        things = _things(status)
        blocks += [line(), Table(CHANGE_COLUMNS, tuple(_change(change, things) for change in decision.changes))]
    return tuple(blocks)


def _change(change: tuple[str, str, str], things: dict[str, tuple[str, str, str]]) -> tuple[Cell, ...]:
    subject, before, after = change
    name, now, what = things.get(subject, (subject, "-", "not known any more"))
    return (
        Cell(name, Tone.STRONG),
        Cell(before),
        Cell(after),
        Cell(now, Tone.PLAIN if now == after else Tone.WARN),
        Cell(what),
    )


def _things(status: Status) -> dict[str, tuple[str, str, str]]:
    """Every subject that a change can name: its short name, how it stands now, and what it is."""
    things = {domain.domain: (domain.domain, watts(domain.budget_mw), "domain") for domain in status.domains}
    for node in status.nodes:
        things[node.node] = (node.node, watts(sum(gpu.held_mw for gpu in node.gpus)), "node")
    for instance in status.instances:
        things[instance.instance] = (instance.instance, instance.role.value, f"instance on {instance.node}")
    for node, gpu in every_gpu(status):
        what = gpu.gpu + (f", {gpu.instance}" if gpu.instance else "")
        things[gpu.gpu] = (gpu_label(node.node, gpu), watts(gpu.limit_mw), what)
    return things


def _input(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
