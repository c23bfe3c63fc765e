"""`rapidctl pause`: stop the policy."""

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb, call, operator

EXAMPLES = """\
rapidctl pause
rapidctl pause --json"""
SHAPE = "one object: paused text"


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.pass_obj
def command(options: Options) -> None:
    """Stop the policy: limits and roles stay as they are.

    Budgets hold all the same, leases are renewed, and 'budget set' and 'role set' still work.
    """
    text = call(options, lambda client: client.pause(by=operator()))
    output.show(output.Page({"paused": True, "text": text}, (output.line(text),)), as_json=options.as_json)
