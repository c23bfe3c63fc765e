"""`rapidctl plan`: what the policy would do now, without doing it."""

from typing import TYPE_CHECKING

import click

from rapid.core.cluster import Decision
from rapid.core.status import Status
from rapidctl import output
from rapidctl.commands._documents import PLAN_SHAPE, plan_document
from rapidctl.commands._explain import planned
from rapidctl.commands._verb import Options, Verb, call

if TYPE_CHECKING:
    from rapidctl.client import Client

EXAMPLES = """\
rapidctl plan
rapidctl plan --json | jq '.candidates[] | [.words, .predicted]'
rapidctl pause && rapidctl plan    # what it would do, if it might"""


@click.command(cls=Verb, examples=EXAMPLES, shape=PLAN_SHAPE)
@click.pass_obj
def command(options: Options) -> None:
    """Show what the policy would do now, without doing it.

    Says what it would change and why, or why it would change nothing, what SLO attainment it expects, the numbers that
    rests on, and what else it weighs. A paused policy is asked as well.
    """

    async def work(client: "Client") -> tuple[Decision, Status]:
        return await client.plan(), await client.status()

    plan, status = call(options, work)
    output.show(output.Page(plan_document(plan, status), planned(plan, status)), as_json=options.as_json)
