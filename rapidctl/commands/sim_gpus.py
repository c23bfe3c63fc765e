"""`rapidctl sim-gpus`: make simulated GPUs, to try the real daemons on a machine that has none."""

import time
from pathlib import Path

import click

from rapid.core.errors import Refused
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import NOMINAL_DIE
from rapidctl import output
from rapidctl.commands._verb import Options, Verb

EXAMPLES = """
rapidctl sim-gpus ./gpus                         then in rapidd.toml: [device] backend = "sim", path = "./gpus"
rapidctl sim-gpus ./gpus --count 4 --node h2 --profile h100-8b
"""
SHAPE = "one object: folder gpus [{gpu, file, floor_w, ceiling_w}]"


@click.command("sim-gpus", cls=Verb, examples=EXAMPLES, shape=SHAPE)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1, 64), default=8, help="How many.")
@click.option("--node", default="h1", metavar="NAME", help="Part of their UUIDs, which differ between hosts.")
@click.option("--profile", default="mi300x-8b", metavar="NAME", help="What they can do.")
@click.pass_obj
def command(options: Options, folder: Path, count: int, node: str, profile: str) -> None:
    """Make simulated GPUs in a new FOLDER, one state file each.

    rapidd with the sim backend enforces limits on them as on real ones; 'rapidctl sim-engine' works on them.
    """
    from rapidctl.demo.gpus import make_gpus

    like = profile_named(profile)
    try:
        files = make_gpus(folder, node, like, [NOMINAL_DIE] * count, time.monotonic())
    except OSError as error:
        raise Refused(f"cannot make GPUs in {folder}: {(error.strerror or str(error)).lower()}") from error
    gpus = [
        {
            "gpu": f"SIM-{node}-{index}",
            "file": str(file),
            "floor_w": like.floor_mw / 1e3,
            "ceiling_w": like.ceiling_mw / 1e3,
        }
        for index, file in enumerate(files)
    ]
    text = f"{count} simulated GPUs SIM-{node}-0 to SIM-{node}-{count - 1} in {folder}"
    output.show(output.Page({"folder": str(folder), "gpus": gpus}, (output.line(text),)), as_json=options.as_json)
