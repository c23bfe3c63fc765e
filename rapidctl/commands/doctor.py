"""`rapidctl doctor`: what is wrong with the controller and its nodes, and what to do about it; exit 1 if red."""

import asyncio
import sys
from pathlib import Path

import click

from rapid.core.findings.base import documents, is_red, laid_out, merged, summary
from rapid.core.findings.site import lost_mw
from rapid.core.status import NodeStatus, Status
from rapidctl import output
from rapidctl.commands._findings import finding_line
from rapidctl.commands._names import completer, nodes
from rapidctl.commands._verb import Options, Verb, tls_of
from rapidctl.commands._words import number_w
from rapidctl.output import Block, Cell, Column, Document, Table

CONFIG = Path("/etc/rapid/controller.toml")
EXAMPLES = """\
rapidctl doctor                     # best as root on the controller's host
rapidctl doctor --node h1
rapidctl doctor --json | jq '.findings[] | select(.grade == "red")'
rapidctl doctor >/dev/null || echo 'something is red'"""
SHAPE = """\
one object: ok findings on_loss
  ok        true when nothing is red
  findings  a list of: grade topic about what do
    grade   "green", "yellow" or "red"
    about   names of nodes, GPUs, domains or instances; may be empty
    do      what to do about it; empty for green
  on_loss   what each GPU may draw when the controller is lost, a list of:
            gpu node index limit_w on_loss_w; null: it did not answer"""


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.option(
    "--node",
    default="",
    show_default=False,
    metavar="NODE",
    help="This node alone, GPU by GPU.",
    shell_complete=completer(nodes),
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CONFIG,
    show_default=True,
    metavar="FILE",
    help="The controller's configuration: it says where its journal and the nodes are.",
)
@click.pass_obj
def command(options: Options, node: str, config: Path) -> None:
    """Look for what is wrong, and say what to do about it.

    Looks at the controller's configuration, TLS files and journal, if they are on this host; asks the controller, and
    each node itself; and judges silent nodes, GPUs that do not obey, other programs that set limits, versions, clocks,
    certificates, and whether every budget holds when the controller is lost. Changes nothing. Exits 1 if anything is
    red. On a GPU host, 'rapidd --check' looks closer.
    """
    from rapid.clock import SystemClock
    from rapidctl.doctor import Wanted, examine

    wanted = Wanted(options.address, tls_of(options), options.timeout_s, config, node)
    examined = asyncio.run(examine(wanted, SystemClock()))
    findings = merged(examined.findings)
    document: Document = {
        "ok": not is_red(findings),
        "findings": documents(findings),
        "on_loss": None if examined.status is None else _on_loss(examined.status),
    }
    width = output.terminal_width(sys.stdout)
    blocks: list[Block] = [finding_line(row.grade, row.text) for row in laid_out(findings, width)]
    if node and examined.status is not None:
        blocks += [output.line(), *_table(examined.status.nodes)]
    blocks += [output.line(), output.line(summary(findings))]
    output.show(output.Page(document, tuple(blocks)), as_json=options.as_json)
    if is_red(findings):
        raise click.exceptions.Exit(1)


def _table(nodes: tuple[NodeStatus, ...]) -> list[Block]:
    """What each GPU may draw when the controller is lost."""
    columns = (Column("GPU"), *(Column(t, right=True) for t in ("NOW W", "ON LOSS W", "FLOOR W", "CEILING W")))
    rows = []
    for node in nodes:
        for gpu in node.gpus:
            figures = (gpu.limit_mw, lost_mw(node, gpu), gpu.floor_mw, gpu.ceiling_mw)
            rows.append((Cell(f"{node.node}/{gpu.index}"), *(Cell(number_w(each)) for each in figures), Cell(gpu.gpu)))
    return [output.line("when the controller is lost:"), Table((*columns, Column("UUID", elastic=True)), tuple(rows))]


def _on_loss(status: Status) -> list[Document]:
    return [
        {
            "gpu": gpu.gpu,
            "node": node.node,
            "index": gpu.index,
            "limit_w": gpu.limit_mw / 1000 or None,
            "on_loss_w": lost_mw(node, gpu) / 1000,
        }
        for node in status.nodes
        for gpu in node.gpus
    ]
