"""`python -m rapidctl.engines.dynamo_worker`: a worker, until SIGTERM."""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from rapidctl.engines import dynamo_worker
from rapidctl.engines.dynamo_worker import words
from rapidctl.engines.dynamo_worker.control import Control
from rapidctl.engines.dynamo_worker.half import Build, Refused
from rapidctl.engines.dynamo_worker.mocker import mocker
from rapidctl.engines.dynamo_worker.worker import Worker

LOG = logging.getLogger("rapid.dynamo")


async def run(control: Path, build: Build, given: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(build, given, words.mode(given), f"http://127.0.0.1:{words.system_port()}/metrics", tasks)
        async with Control(worker).serving(control):
            try:
                await worker.open()
            except Exception:  # whatever an engine may raise
                LOG.exception("cannot serve as %s", worker.role)
                return 1
            LOG.info("serves as %s, is told what to do at %s", worker.role, control)
            waits = [tasks.create_task(each) for each in (stopping.wait(), worker.ended.wait(), worker.look())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            await worker.leave()
    return 1 if worker.ended.is_set() else 0


def main() -> int:
    options = argparse.ArgumentParser(
        prog="python -m rapidctl.engines.dynamo_worker",
        description=dynamo_worker.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    options.add_argument("--control", type=Path, required=True, help="the Unix socket for `rapidctl attach dynamo`")
    options.add_argument("--engine", default="", metavar="MODULE:FUNCTION", help="builds a Half; else the mocker")
    options.add_argument("words", nargs="*", metavar="-- WORDS", help="the engine's own arguments")
    given = options.parse_args()
    try:
        words.mode(given.words)
        words.system_port()
        build = words.named(given.engine) if given.engine else mocker
    except Refused as error:
        options.error(str(error))
    os.environ.setdefault("DYN_COMPUTE_THREADS", "0")  # as dynamo.mocker does
    from dynamo.runtime.logging import configure_dynamo_logging

    configure_dynamo_logging()
    try:
        return asyncio.run(run(given.control, build, given.words))
    except OSError as error:
        options.exit(2, f"{options.prog}: error: {error}\n")


if __name__ == "__main__":
    raise SystemExit(main())
