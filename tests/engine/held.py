"""A whole engine as a process of its own, on rapid.engine, that stops at the step at which the test holds it.

In its folder, `hold-STEP` holds it at that step for as long as the file is there, and `raise-STEP` has the step fail
once with what the file says. It notes each step that it begins in `steps`, one per line.
"""

import argparse
import asyncio
import logging
import signal
import time
from pathlib import Path

from rapid.engine import NotSwitched, PhaseLoad, Role, SwitchFailed, attach
from tests.wait import wait_until

FAILURES = {"refuse": NotSwitched, "fail": SwitchFailed, "break": OSError}
LONG_S = 600.0


class HeldEngine:
    """Does what it is asked to as soon as it is let."""

    def __init__(self, name: str, role: Role, folder: Path) -> None:
        self.name, self.role, self._folder = name, role, folder

    async def close(self) -> None:
        await self._step("close")

    async def drained(self) -> int:
        return int((self._folder / "hold-drained").exists())

    async def switch(self, role: Role) -> None:
        await self._step("switch")
        self.role = role

    async def open(self, role: Role) -> None:
        await self._step("open")

    def load(self) -> PhaseLoad:
        return PhaseLoad(self.name, self.role, time.monotonic())

    async def _step(self, step: str) -> None:
        with (self._folder / "steps").open("a") as steps:
            steps.write(f"{step}\n")
        hold, fault = self._folder / f"hold-{step}", self._folder / f"raise-{step}"
        await wait_until(lambda: not hold.exists(), LONG_S, "the test to let go")
        if fault.exists():
            kind, _, text = fault.read_text().partition(" ")
            fault.unlink()
            raise FAILURES[kind](text)


async def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("instance", "role", "node", "gpu", "address", "folder"):
        options.add_argument(f"--{name}", required=True)
    given = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    role = Role(given.role)
    async with attach(
        HeldEngine(given.instance, role, Path(given.folder)),
        instance=given.instance,
        node=given.node,
        gpus=(given.gpu,),
        role=role,
        roles=tuple(Role),
        address=given.address,
    ):
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
