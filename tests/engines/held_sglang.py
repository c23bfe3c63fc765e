"""The mock SGLang engine, which stops at the step at which a test holds it.

In its folder, `hold-switch` keeps it in the middle of a change of its role, and `hold-open` has it say that it is not
healthy, so that no router takes it in; each for as long as the file is there. It notes in `stopped` where it stands.

    python -m tests.engines.held_sglang --port 30000 --role decode --bootstrap-port 8998 --model FOLDER --folder FOLDER
"""

import argparse
import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.engines.mock_sglang import MockSglang, serve
from tests.wait import wait_until

LONG_S = 600.0


@dataclass
class HeldSglang(MockSglang):
    """Does what it is asked to as soon as it is let."""

    folder: Path = field(default=Path())
    owed_s: float = 2.0  # so that what a killed engine has not pulled holds nobody up for long

    async def _rebuild(self, role: str, body: dict[str, Any]) -> dict[str, Any]:
        await self._held("switch")
        return await super()._rebuild(role, body)

    async def health(self, request: web.Request) -> web.Response:
        if self._hold("open").exists():
            self._note("open")
            return web.Response(status=503)
        return await super().health(request)

    async def _held(self, step: str) -> None:
        hold = self._hold(step)
        if hold.exists():
            self.switching = True
            self._note(step)
            await wait_until(lambda: not hold.exists(), LONG_S, "the test to let go")

    def _hold(self, step: str) -> Path:
        return self.folder / f"hold-{step}"

    def _note(self, step: str) -> None:
        (self.folder / "stopped").write_text(step)


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--role", required=True)
    options.add_argument("--bootstrap-port", type=int, required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--folder", type=Path, required=True)
    given = options.parse_args()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    engine = HeldSglang(given.role, given.bootstrap_port, given.model, graph_gb=1.5, folder=given.folder)
    await serve(engine, given.port, stopping)


if __name__ == "__main__":
    asyncio.run(main())
