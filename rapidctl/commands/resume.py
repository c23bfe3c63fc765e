"""`rapidctl resume`: start the policy again."""

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb, call, operator

EXAMPLES = """\
rapidctl resume
rapidctl resume --json"""
SHAPE = "one object: paused text"


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.pass_obj
def command(options: Options) -> None:
    """Start the policy again after a pause."""
    text = call(options, lambda client: client.resume(by=operator()))
    output.show(output.Page({"paused": False, "text": text}, (output.line(text),)), as_json=options.as_json)
