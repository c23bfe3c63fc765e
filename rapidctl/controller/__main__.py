"""rapid-controller: read the configuration, lead, and say why not. Exit codes: 0 stopped in order, 1 refused or failed,
2 configuration or command line, 3 a peer or the system does not answer, 4 stepped down."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import rapid.log
from rapid import __version__
from rapid.clock import SystemClock
from rapid.config import ControllerConfig, load_controller_config
from rapid.core.control import Control
from rapid.core.errors import ConfigInvalid, RapidError, Unreachable, UsageError
from rapid.notify import Notifier
from rapidctl.controller.app import Controller, open_journal
from rapidctl.controller.nodes import SteppedDown
from rapidctl.controller.store import JournalFile

REFUSED, USAGE, NO_CONNECTION, STEPPED_DOWN = 1, 2, 3, 4
EPOCH_MAX = 2**63 - 1  # the largest number that the journal can hold


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="rapid-controller")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/rapid/controller.toml"),
    help="The configuration, in TOML.",
)
@click.option("--check-config", is_flag=True, help="Only check the configuration: exit 0, or 2 naming the key.")
@click.option("--fresh", is_flag=True, help="Refuse to start if there is a journal, instead of going on from it.")
@click.option(
    "--epoch-at-least",
    type=click.IntRange(1, EPOCH_MAX),
    default=1,
    help="Start no lower than this epoch. For a fresh start after a lost journal: one above any that a node has seen.",
)
def cli(path: Path, *, check_config: bool, fresh: bool, epoch_at_least: int) -> None:
    """Share a power budget among GPUs, and choose the role of each engine.

    \b
    Exit codes: 0 stopped in order; 1 refused, or the journal failed; 2 command line or configuration;
    3 something does not answer; 4 another controller leads, so do not start this one again by itself.
    """
    config = load_controller_config(path)
    Control(config.settings)  # Only the policy knows its own settings.
    if config.mqtt is not None:
        from rapidctl.controller.mqtt import check

        check(config.mqtt)
    if check_config:
        click.echo(_summary(path, config))
        return
    rapid.log.configure(config.log.level, config.log.format)
    file = open_journal(config, fresh=fresh)
    asyncio.run(_lead(config, file, epoch_at_least))


async def _lead(config: ControllerConfig, file: JournalFile, epoch_at_least: int) -> None:
    controller = Controller(
        config, file, epoch_at_least=epoch_at_least, clock=SystemClock(), notifier=Notifier(), log=rapid.log.get()
    )
    await controller.run()


def _summary(path: Path, config: ControllerConfig) -> str:
    settings = config.settings
    gpus = sum(node.gpus for node in settings.nodes)
    return (
        f"{path} is fine. domains: {len(settings.domains)}, nodes: {len(settings.nodes)}, GPUs: {gpus}, "
        f"policy: {settings.policy}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """What the console script runs (None: with the arguments of this process). Ends with SystemExit."""
    if not __debug__:
        click.echo("rapid-controller: will not run under python -O: its assertions guard the budget", err=True)
        sys.exit(USAGE)
    try:
        cli(arguments, prog_name="rapid-controller")
    except RapidError as error:
        click.echo(f"rapid-controller: {error}", err=True)
        sys.exit(_exit_code(error))


def _exit_code(error: RapidError) -> int:
    if isinstance(error, Unreachable):
        return NO_CONNECTION
    if isinstance(error, SteppedDown):
        return STEPPED_DOWN
    return USAGE if isinstance(error, ConfigInvalid | UsageError) else REFUSED


if __name__ == "__main__":
    main()
