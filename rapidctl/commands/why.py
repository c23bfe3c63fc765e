"""`rapidctl why`: explain a decision, or the last one about a GPU or an instance."""

from typing import TYPE_CHECKING

import click

from rapid.core.cluster import Decision
from rapid.core.errors import Refused
from rapid.core.status import Status
from rapidctl import output
from rapidctl.commands._documents import DECISION_SHAPE, decision_document
from rapidctl.commands._explain import explained
from rapidctl.commands._names import completer, subjects
from rapidctl.commands._verb import Options, Verb, call
from rapidctl.commands.decisions import about_what

if TYPE_CHECKING:
    from rapidctl.client import Client

EXAMPLES = """\
rapidctl why d42
rapidctl why h1/3             # the last decision about GPU 3 of node h1
rapidctl why GPU-8f3a         # a UUID, or as much of it as is unique
rapidctl why p3 --json"""
SHAPE = "one object: " + DECISION_SHAPE


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

    Says why and by whom, what SLO attainment was expected of it and what was measured, the numbers it rested on, what
    else was weighed, what it changed, and what that is now. A GPU is named by its UUID, a unique beginning of it, or
    NODE/INDEX.
    """

    async def work(client: "Client") -> tuple[tuple[Decision, ...], Status]:
        return await about_what(client, what, 1), await client.status()

    found, status = call(options, work)
    if not found:
        raise Refused(f"no decision about {what!r} among the last 10,000")
    page = output.Page(decision_document(found[0]), explained(found[0], status))
    output.show(page, as_json=options.as_json)
