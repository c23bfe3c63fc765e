"""The operator's command line: `rapidctl VERB`. Here a RapidError becomes one line on stderr and an exit code."""

from typing import Any

import click

from rapid import __version__
from rapid.core.errors import ConfigInvalid, RapidError, Unreachable, UsageError
from rapidctl import output
from rapidctl.commands import Verbs
from rapidctl.commands._verb import global_options

REFUSED, USAGE, NO_CONNECTION = 1, 2, 3


class Rapidctl(Verbs):
    """All verbs, and the one place where an error of theirs becomes text and an exit code.

    stdout stays empty, also with --json: data alone goes there, and the exit code tells a machine.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RapidError as error:
            output.talk(f"rapidctl: {error}")
            ctx.exit(exit_code(error))


def exit_code(error: RapidError) -> int:
    """0 done, 1 refused, 2 usage or config, 3 cannot connect."""
    if isinstance(error, Unreachable):
        return NO_CONNECTION
    return USAGE if isinstance(error, ConfigInvalid | UsageError) else REFUSED


@click.group(
    cls=Rapidctl,
    params=global_options(top=True),
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 refused, or status found something red; 2 usage or configuration; 3 cannot connect. "
    "Data goes to stdout, everything else to stderr. 'rapidctl VERB --help' has examples and the JSON of each verb.",
)
@click.version_option(__version__, prog_name="rapidctl")
def cli(**given: Any) -> None:
    """See and steer how RAPID spends a GPU power budget.

    Global options may also stand after the verb.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    cli(prog_name="rapidctl")


if __name__ == "__main__":
    main()
