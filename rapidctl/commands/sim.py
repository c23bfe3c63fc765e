"""`rapidctl sim run|compare|sweep|reproduce|trace`: the simulator. Each verb is loaded when it is called."""

from typing import Any

import click

from rapidctl import output
from rapidctl.commands import Entry, Verbs

STOPPED = 130  # as shells report SIGINT

ENTRIES = (
    Entry("run", "run", "Run one policy on a trace."),
    Entry("compare", "compare", "Find the policy that serves a trace best, and see why."),
    Entry("sweep", "sweep", "Find the rate that each policy sustains."),
    Entry("reproduce", "reproduce", "Check the claims of the RAPID paper one by one."),
    Entry("trace", "trace", "Show what is in a trace."),
)


class SimVerbs(Verbs):
    """The group of the simulator's verbs."""

    sections = (("Commands", ENTRIES),)
    package = "rapidctl.sim"

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            output.talk("stopped; nothing is left running")
            ctx.exit(STOPPED)


@click.group(cls=SimVerbs)
def command() -> None:
    """Try policies on a simulated site: the controller and the node daemon's guard as they are, on simulated GPUs.

    Nothing real is touched, and no controller is needed. The same seed gives the same answer everywhere.
    """
