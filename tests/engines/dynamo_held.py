"""Dynamo's mocker as a worker that stops in the middle of a change of role, where the test holds it.

Runs in Dynamo's environment. In the folder that HOLD names, `switch` holds it before it is built in the other role and
`open` before it is published; at.switch and at.open say that it stands there.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rapidctl.engines.dynamo_worker.half import Half
from rapidctl.engines.dynamo_worker.mocker import mocker
from tests.wait import wait_until

FOLDER = Path(os.environ["HOLD"])
LONG_S = 120.0


async def build(words: Sequence[str], role: str) -> Half:
    await _pass("switch")
    half = await mocker(words, role)

    async def serve() -> None:
        await _pass("open")
        await half.serve()

    return replace(half, serve=serve)


async def _pass(step: str) -> None:
    if (FOLDER / step).exists():
        (FOLDER / f"at.{step}").touch()
        await wait_until(lambda: not (FOLDER / step).exists(), LONG_S, "the test to let go")
