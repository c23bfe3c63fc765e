"""rapidd holds the GPUs of this host to the limits that were granted, and lands them when nobody grants any more.

Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 no driver or no GPU.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from rapid import __version__, log
from rapid.clock import SystemClock
from rapid.config import NodeConfig, load_node_config
from rapid.core.errors import ConfigInvalid, DeviceError, RapidError, Unreachable, UsageError
from rapid.notify import Notifier, Watchdog
from rapid.rpc import RpcServer
from rapid.streams import first_of
from rapidd.agent import Agent
from rapidd.device.open import open_backend
from rapidd.load.push import LoadService, serving_load
from rapidd.load.scrape import scrape_all
from rapidd.metrics import serving_metrics
from rapidd.reload import reload
from rapidd.server import NodeService, serving_node
from rapidd.start import Node, begin, choose_devices
from rapidd.state import State
from rapidd.talk import Talk

CONFIG = Path("/etc/rapid/rapidd.toml")
EXAMPLES = """\
examples:
  rapidd --check                    # before the first start, and when in doubt
  rapidd --check --json | jq '.findings[] | select(.grade != "green")'
  rapidd --check --json | jq .on_loss   # what it may draw without a controller

exit codes: 0 done; 1 refused or failed, or --check found something red;
2 usage or configuration; 3 no driver or no GPU"""
READY_WAIT_S = 10.0  # then the controller is served all the same, and hears which GPU is in the way


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, run; the exit code."""
    options = _parse(arguments)
    try:
        if not __debug__:
            raise UsageError("rapidd relies on its assertions: do not run it under python -O or PYTHONOPTIMIZE")
        if options.check:
            # Here and not above: the daemon never needs them, and they take memory.
            from rapidd.check import check
            from rapidd.check_page import show

            return show(check(options.config, SystemClock()), as_json=options.json)
        config = load_node_config(options.config)
        if options.check_config:
            sys.stdout.write(f"{options.config} is valid\n")
            return 0
        log.configure(config.log.level, config.log.format)
        return asyncio.run(run(config, options.config))
    except (RapidError, ExceptionGroup) as error:
        return _told(error)


async def run(config: NodeConfig, path: Path) -> int:
    """From the lock to the last landing; whatever was begun is ended in the opposite order. The exit code."""
    asked, notifier = Asked(), Notifier()
    clock, logger = SystemClock().monotonic_s, log.get(node=config.node.name)
    state = State(config.node.state_dir)
    with contextlib.ExitStack() as held:
        held.enter_context(state.locked())
        backend = open_backend(config.device.backend, sim_dir=config.device.path, clock=clock)
        held.callback(backend.close)
        node = await begin(choose_devices(backend, config, logger), backend, config, state, clock, logger)
        try:
            async with asyncio.TaskGroup() as tasks:
                enforcing = tasks.create_task(node.agent.run(Watchdog(notifier, clock).pet))
                async with contextlib.AsyncExitStack() as stack:
                    stack.callback(node.agent.stop)
                    await _until_landed(node.agent, asked, notifier, logger)
                    server = await serve(stack, node, config, state, logger)
                    scraping = tasks.create_task(
                        scrape_all(config.engine, node.crew.workers, node.loads, Talk(logger, clock), clock)
                    )
                    stack.callback(scraping.cancel)
                    announcing = tasks.create_task(_announce(node.agent, server, notifier, logger))
                    stack.callback(announcing.cancel)
                    await _until_stop(asked, node.agent, config, path, logger)
                    notifier.stopping()
        finally:
            if not node.stop_workers():
                held.pop_all()  # A call hangs in the driver: closing it would hang too, and the process ends anyway.
    if not enforcing.result():
        logger.error("stopped above the fallback", detail="not every GPU has read back its fallback")
    return 0 if enforcing.result() else 1


async def serve(
    stack: contextlib.AsyncExitStack, node: Node, config: NodeConfig, state: State, logger: FilteringBoundLogger
) -> RpcServer:
    """Listen wherever the configuration says, and write down where. The controller's stream is the first to end."""
    listen = config.listen
    endpoints: dict[str, str | int] = {"pid": os.getpid(), "incarnation": node.incarnation}
    endpoints |= {"address": "", "load_socket": listen.load_socket, "metrics": ""}
    if listen.metrics:
        endpoints["metrics"] = stack.enter_context(
            serving_metrics(listen.metrics, lambda: node.agent.snapshot, "listen.metrics")
        )
    if listen.load_socket:
        scraped = [engine.instance for engine in config.engine]
        load = LoadService(node.loads, SystemClock().monotonic_s, scraped)
        await stack.enter_async_context(serving_load(load, Path(listen.load_socket), "listen.load_socket"))
    service = NodeService(node.agent, node.describe, logger)
    server = await stack.enter_async_context(serving_node(service, listen.address, config.tls, "listen.address"))
    endpoints["address"] = server.addresses["listen.address"]
    try:
        stack.enter_context(state.published(endpoints))
    except OSError as error:
        logger.error("endpoints not written", detail=f"{state.folder}: {error.strerror}")
    logger.info("listening", **endpoints)
    return server


class Asked:
    """What signals have asked for. SIGTERM and SIGINT stop the daemon, SIGHUP has it read its configuration again."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.reload = False
        self.something = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._note, number)

    def _note(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            self.reload = True
        else:
            self.stop = number
        self.something.set()


async def _until_stop(asked: Asked, agent: Agent, config: NodeConfig, path: Path, logger: FilteringBoundLogger) -> None:
    while asked.stop is None:
        await asked.something.wait()
        asked.something.clear()
        if asked.reload:
            asked.reload = False
            config = await reload(config, path, logger)
            agent.unfence()
    logger.info("stopping", signal=asked.stop.name)


async def _until_landed(agent: Agent, asked: Asked, notifier: Notifier, logger: FilteringBoundLogger) -> None:
    """Until every GPU is at its fallback; a signal ends the wait, and so does time."""
    try:
        async with asyncio.timeout(READY_WAIT_S):
            await first_of(agent.ready.wait(), asked.something.wait())
    except TimeoutError:
        waiting = ", ".join(agent.unlanded)
        notifier.status(f"not ready, not at the fallback: {waiting}")
        logger.error("not ready", detail=f"not read back at the fallback within {READY_WAIT_S:g} s: {waiting}")


async def _announce(agent: Agent, server: RpcServer, notifier: Notifier, logger: FilteringBoundLogger) -> None:
    """Tell the service manager and gRPC health when every GPU is under control; engines are started after that."""
    await agent.ready.wait()
    await server.set_serving(True)
    notifier.status(f"enforces the limits of {len(agent.snapshot.report.gpus)} GPUs")
    notifier.ready()
    logger.info("ready")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rapidd",
        description="Holds the GPUs of this host to their power limits.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help=f"default: {CONFIG}")
    parser.add_argument("--check-config", action="store_true", help="read the configuration, say what is wrong, exit")
    parser.add_argument(
        "--check",
        action="store_true",
        help="look at this host: rights, GPUs, who else could set limits, clock, TLS, and what happens when the "
        "controller is lost; change nothing, and exit 1 if anything is red",
    )
    parser.add_argument("--json", action="store_true", help="with --check: print JSON for machines")
    parser.add_argument("--version", action="version", version=f"rapidd {__version__}")
    options = parser.parse_args(arguments)
    if options.json and not options.check:
        parser.error("--json goes with --check")
    return options


def _told(error: RapidError | ExceptionGroup) -> int:
    """One line for a person, and the exit code. A group is what a task group makes of an error while serving."""
    while isinstance(error, ExceptionGroup):
        first = error.exceptions[0]
        if not isinstance(first, RapidError | ExceptionGroup):
            raise error
        error = first
    sys.stderr.write(f"rapidd: {error}\n")
    if isinstance(error, ConfigInvalid | UsageError):
        return 2
    return 3 if isinstance(error, DeviceError | Unreachable) else 1


if __name__ == "__main__":
    sys.exit(main())
