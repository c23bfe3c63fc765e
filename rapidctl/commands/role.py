"""`rapidctl role set`: move an instance to a role and pin it there."""

import click

from rapid.core.cluster import Role
from rapidctl import output
from rapidctl.commands._names import completer, instances
from rapidctl.commands._verb import Options, Verb, call, operator

AUTO, PARKED = "auto", "parked"
CHOICES = (*(role.value for role in Role), PARKED, AUTO)
EXAMPLES = """\
rapidctl role set p3 decode
rapidctl role set p3 parked   # serve nobody, at the floor of its GPUs
rapidctl role set p3 auto     # take the pin away: the policy decides"""
SHAPE = "one object: instance role text"


@click.group()
def command() -> None:
    """Move an instance to a role and pin it there."""


@command.command(
    "set", cls=Verb, short_help="Move an instance to a role and pin it there.", examples=EXAMPLES, shape=SHAPE
)
@click.argument("instance", help="Its id.", shell_complete=completer(instances))
@click.argument("role", metavar="ROLE", type=click.Choice(CHOICES), help=f"{', '.join(CHOICES)}: no pin.")
@click.pass_obj
def set_role(options: Options, instance: str, role: str) -> None:
    """Move INSTANCE to ROLE and pin it there; the policy leaves it alone until 'auto' takes the pin away.

    'parked' has it serve nobody, and its watts serve the others; 'auto' or a role has it serve again.

    Returns when the order is out. The instance drains first: 'rapidctl watch' shows how far it is.
    """
    park = role == PARKED
    wanted = None if role in (AUTO, PARKED) else Role(role)
    text = call(options, lambda client: client.set_role(instance, wanted, park=park, by=operator()))
    document = {"instance": instance, "role": role, "text": text}
    output.show(output.Page(document, (output.line(text),)), as_json=options.as_json)
