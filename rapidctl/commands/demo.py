"""`rapidctl demo`: the whole loop on a real trace, on simulated GPUs."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rapid.core.policy import NAMES
from rapidctl import output
from rapidctl.commands._verb import Verb
from rapidctl.output import Page

if TYPE_CHECKING:
    from rapidctl.demo.figures import Figures
    from rapidctl.demo.run import DemoOptions

EXAMPLES = """
rapidctl demo                                   one minute of Azure's chat and code services of 2023
rapidctl demo --workload sonnet                 the RAPID paper's own shift of load
rapidctl demo --policy power --seconds 30       another policy, a shorter run
rapidctl demo --workload my.csv --rate-scale 3  a trace of yours: arrival_s,input_tokens,output_tokens
rapidctl demo --keep                            leave it running, to try the other verbs on it
rapidctl demo --seconds 20 --json | tail -n 1   for machines
"""
SHAPE = """
one object, as the last line:
{"hosts": {"uniform": HOST, "predictive": HOST}, "budget_w": W, "over_budget_s": S, "picture": PATH or null,
 "workload", "seconds", "ttft_target_s", "tpot_target_s", "rate_rule", "rate_scale", "offered_rps",
 "predicted_attainment" (null with --rate-scale), "within_rule", "restarts", "arrival_lag_max_s", "cpu_cores"}
with --policy NAME the second host's key is NAME; over_budget_s is the sum over the hosts. HOST:
{"attainment", "ttft_attainment", "tpot_attainment" (0 to 1, of all requests), "goodput_rps", "requests",
 "joules_per_output_token", "role_moves", "watts_moved" (sum of raises), "over_budget_s", "unfinished",
 "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s" (null: none finished), "energy_j", "highest_limits_w",
 "dispatched_again", "engine_lag_max_s", "engine_lag_mean_s"}
"""
PICTURES = Path("demo-out")
STOPPED, TERMINATED = 130, 143  # as shells report SIGINT and SIGTERM


@click.command(
    "demo",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Run two simulated hosts of 8 GPUs side by side, on one real trace, under 4,800 W each.\n\n"
    "One host is under policy uniform, the other under --policy. Each has a real rapidd and a real controller; GPUs "
    "and engines are simulated in real time. At the end a judge sums the limits that the devices wrote down: exit "
    "code 1 if any instant was over budget.",
)
@click.option("--workload", default="azure", metavar="azure|sonnet|FILE", help="What users ask for.")
@click.option("--policy", type=click.Choice(NAMES), default="predictive", help="The policy of the second host.")
@click.option(
    "--rate-scale",
    type=click.FloatRange(0, 1000, min_open=True),
    default=None,
    help="How fast to replay the trace. Default: by the rule that the uniform host attains 50 to 70 %.",
)
@click.option(
    "--seconds", type=click.FloatRange(2, 3600), default=60.0, help="How long requests arrive.", metavar="SECONDS"
)
@click.option("--seed", type=int, default=0, help="Of the small differences between the GPUs of a host.")
@click.option("--keep", is_flag=True, help="Afterwards leave everything running until Ctrl-C.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help=f"Where to draw the run as PNG. Default: in ./{PICTURES}.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where logs, sockets and simulated GPUs go, and stay. Default: a temporary one.",
)
@click.pass_context
def command(ctx: click.Context, /, picture: Path | None, folder: Path | None, **given: Any) -> None:
    from rapidctl.demo.folder import working_folder
    from rapidctl.demo.run import DemoOptions

    if picture is None:
        workload = Path(given["workload"]).name.partition(".")[0]
        picture = PICTURES / f"{workload}-{given['policy']}.png"
    with working_folder(folder, output.talk) as home:
        options = DemoOptions(picture=picture.absolute(), folder=home.path, **given)
        code, home.keep = _run(options, as_json=ctx.obj.as_json)
    ctx.exit(code)


def _run(options: "DemoOptions", *, as_json: bool) -> tuple[int, bool]:
    """The exit code, and whether somebody will want to see the logs."""
    from rapidctl.demo.figures import to_document
    from rapidctl.demo.report import blocks
    from rapidctl.demo.run import run_demo
    from rapidctl.demo.view import Board

    told: list[Figures] = []

    def report(figures: "Figures") -> None:
        told.append(figures)
        output.show(Page(to_document(figures), tuple(blocks(figures))), as_json=as_json)

    board = Board(output.talk, screen=not as_json)
    try:
        asyncio.run(_until_terminated(run_demo(options, board, report)))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        output.talk("stopped; no process is left")
        if not (options.keep and told):
            return STOPPED if isinstance(stop, KeyboardInterrupt) else TERMINATED, False
    kept = told[-1].kept_budget
    return int(not kept), not kept


async def _until_terminated(work: Coroutine[Any, Any, object]) -> None:
    """SIGTERM ends it as Ctrl-C does: in order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work
