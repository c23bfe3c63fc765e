"""`rapidctl completion`: the script that makes a shell complete verbs and options."""

import click
from click.shell_completion import get_completion_class

from rapidctl import output
from rapidctl.commands._verb import Options, Verb

EXAMPLES = """\
rapidctl completion bash >/etc/bash_completion.d/rapidctl
rapidctl completion zsh >"${fpath[1]}/_rapidctl"
rapidctl completion fish >~/.config/fish/completions/rapidctl.fish
. <(rapidctl completion bash)     # for this shell only"""
SHAPE = "one object: shell script"


@click.command(cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.argument("shell", metavar="SHELL", help="bash, zsh or fish.", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL. Asks no controller."""
    options = ctx.find_object(Options)
    kind = get_completion_class(shell)
    assert options is not None
    assert kind is not None, f"click has no completion for {shell}"
    script = kind(ctx.find_root().command, {}, "rapidctl", "_RAPIDCTL_COMPLETE").source().strip()
    page = output.Page({"shell": shell, "script": script}, tuple(output.line(row) for row in script.splitlines()))
    output.show(page, as_json=options.as_json)
