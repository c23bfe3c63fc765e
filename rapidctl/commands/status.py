"""`rapidctl status`: the whole picture, once; exit 1 if anything in it is red."""

import click

from rapidctl import output
from rapidctl.commands._documents import STATUS_SHAPE, status_document
from rapidctl.commands._health import troubles
from rapidctl.commands._page import status_blocks
from rapidctl.commands._verb import Options, Verb, call

EXAMPLES = """\
rapidctl status
rapidctl status --all
rapidctl status --json | jq '.nodes[].gpus[] | {gpu, limit_w, draw_w}'
rapidctl status >/dev/null || echo 'something is red'"""


@click.command(cls=Verb, examples=EXAMPLES, shape=STATUS_SHAPE)
@click.option("--all", "every_gpu", is_flag=True, help="Every GPU, also where there are more than 64.")
@click.pass_obj
def command(options: Options, every_gpu: bool) -> None:
    """Show budgets, nodes, GPUs and instances.

    Exits 1, and says on stderr why, if anything is red: a domain over its budget, a node that is silent, was never
    heard or draws more than it may, a GPU that does not obey, or a failed instance.
    """
    status = call(options, lambda client: client.status())
    page = output.Page(status_document(status), status_blocks(status, every_gpu=every_gpu))
    output.show(page, as_json=options.as_json)
    red = troubles(status)
    for trouble in red:
        output.talk(f"red: {trouble}", output.Tone.BAD)
    if red:
        raise click.exceptions.Exit(1)
