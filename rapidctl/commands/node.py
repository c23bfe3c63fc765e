"""`rapidctl node release`: say that a silent node is off."""

import click

from rapid.core.cluster import NodeHealth
from rapid.core.errors import NotFound, Refused, watts
from rapid.core.status import NodeStatus, Status
from rapidctl import output
from rapidctl.commands._names import completer, nodes
from rapidctl.commands._verb import Options, Verb, call, confirm, operator
from rapidctl.commands._words import ago

EXAMPLES = """\
rapidctl node release h7
rapidctl node release h7 --yes    # for scripts that know that h7 has no power"""
SHAPE = """\
one object: node booked_w text
  booked_w  null: not known, as the node was never heard"""


@click.group()
def command() -> None:
    """Say that a silent node is off."""


@command.command(
    "release",
    cls=Verb,
    short_help="Free the power booked for a silent node that is off.",
    examples=EXAMPLES,
    shape=SHAPE,
)
@click.argument("node", help="Its name.", shell_complete=completer(nodes))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def release(options: Options, node: str, yes: bool) -> None:
    """Free the power that is booked for NODE, which is silent and which you know to be off.

    A silent node keeps its power booked, because its GPUs may well still draw it. If you release one that is not off,
    the budget can be broken.
    """
    found = _find(call(options, lambda client: client.status()), node)
    booked_mw = sum(gpu.held_mw for gpu in found.gpus) if found.gpus else None
    booked = "what is" if booked_mw is None else f"the {watts(booked_mw)}"
    silence = "never heard" if found.health is NodeHealth.NEVER_HEARD else f"silent for {ago(found.age_s)}"
    confirm(f"free {booked} booked for node {node} ({silence}), sure that it is off", yes=yes)
    text = call(options, lambda client: client.release_node(node, by=operator()))
    document = {"node": node, "booked_w": None if booked_mw is None else booked_mw / 1000, "text": text}
    output.show(output.Page(document, (output.line(text),)), as_json=options.as_json)


def _find(status: Status, name: str) -> NodeStatus:
    for node in status.nodes:
        if node.node == name:
            if node.health is NodeHealth.REPORTING:
                raise Refused(f"node {name} reports (last {ago(node.age_s)} ago): stop its rapidd before releasing it")
            return node
    raise NotFound("node", name, tuple(node.node for node in status.nodes))
