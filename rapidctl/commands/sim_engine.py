"""`rapidctl sim-engine`: one simulated engine as a process."""

import asyncio
from pathlib import Path
from typing import Any

import click

from rapid.core.cluster import Role
from rapid.sim.model.profile import profile_named
from rapidctl import output
from rapidctl.commands._verb import Options, Verb, tls_of

EXAMPLES = """
rapidctl sim-engine --instance p0 --role prefill --node h1 --gpu-file /run/rapid/gpu0 --rate 8
rapidctl sim-engine --instance d0 --role decode --node h1 --gpu-file /run/rapid/gpu4 --load-socket /run/rapid/load.sock
"""
SHAPE = """
nothing: it runs until Ctrl-C and talks on stderr
"""


@click.command(
    "sim-engine",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Run one simulated engine instance, in real time, on a simulated GPU.\n\n"
    "It attaches to the controller at --address, obeys its role orders, pushes its load to rapidd, and feels the limit "
    "that rapidd sets in the GPU's state file. Without --data-socket it makes up its own requests.",
)
@click.option("--instance", required=True, metavar="ID", help="Its id, unique in the cluster.")
@click.option(
    "--role", required=True, type=click.Choice([Role.PREFILL.value, Role.DECODE.value]), help="The role to start in."
)
@click.option("--node", required=True, metavar="NAME", help="The node whose rapidd has the GPU.")
@click.option(
    "--gpu-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="State file of the simulated GPU.",
)
@click.option("--profile", default="mi300x-8b", metavar="NAME", help="What the GPU and the model can do.")
@click.option("--load-socket", type=click.Path(path_type=Path), help="rapidd's socket for load; without it, none goes.")
@click.option("--data-socket", type=click.Path(path_type=Path), help="Where a demo's requests come from.")
@click.option(
    "--rate",
    "rate_rps",
    type=click.FloatRange(0, 10_000, min_open=True),
    default=4.0,
    help="Its own requests per second, without --data-socket.",
)
@click.option(
    "--die-speed", type=click.FloatRange(0.5, 1.5), default=1.0, help="How fast this GPU is, against its data sheet."
)
@click.option("--seed", type=int, default=0, help="Of its own requests.")
@click.pass_obj
def command(options: Options, /, role: str, profile: str, **given: Any) -> None:
    from rapidctl.demo.serve import ServeOptions, serve

    told = ServeOptions(
        role=Role(role),
        profile=profile_named(profile),
        controller=options.address,
        tls=tls_of(options),
        **given,
    )
    asyncio.run(serve(told, lambda text: output.talk(f"{told.instance}: {text}")))
