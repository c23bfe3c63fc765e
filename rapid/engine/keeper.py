"""Looks every few seconds whether engine and router are as they should be, for the driver to put right what is not."""

import asyncio
import time
from collections.abc import Callable

from rapid.core.cluster import Phase
from rapid.core.reconcile import Reconciler, Remedy, Seen, Should
from rapid.core.role_change import RoleChange
from rapid.engine.author import Reconciles
from rapid.engine.looks import look

_TAKING = {Phase.SERVING: True, Phase.PARKED: False}


class Keeper:
    """`wake` is called whenever there is something new to see. Looks go on beside the steps of the driver, which says
    with `stepped` that one was taken: what was seen across a step is not believed."""

    def __init__(self, engine: Reconciles, change: RoleChange, wake: Callable[[], None]) -> None:
        self._engine, self._change, self._wake = engine, change, wake
        self._reconciler = Reconciler()
        self._remedy: Remedy | None = None
        self._steps = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # The first look is at once: what it was like while all was well must be known before it is not.
            await self._look()
            await asyncio.sleep(self._reconciler.pause_s)

    def stepped(self) -> None:
        """A step has been taken, or is being taken."""
        self._steps += 1
        self._remedy = None

    def changed(self) -> None:
        """A role change has got to the engine."""
        self._reconciler.changed()

    def remedy(self) -> Remedy | None:
        """What is to be done about the last look, once."""
        remedy, self._remedy = self._remedy, None
        return remedy

    def done(self, remedy: Remedy, at_s: float, error: str = "") -> None:
        """It was tried; `error` says why it did not work."""
        self._reconciler.done(remedy, at_s, error)

    @property
    def trouble(self) -> str:
        """What is wrong and not put right; empty: nothing."""
        return self._reconciler.trouble

    def refusal(self, at_s: float) -> str:
        """Why no order is to be taken now; empty: orders are."""
        return self._reconciler.refusal(at_s)

    # ---- inside ----

    async def _look(self) -> None:
        change, steps = self._change, self._steps
        if not change.adjustable:
            return
        seen, problem = await look(self._engine.look_around())
        if steps != self._steps or not change.adjustable:
            return
        should = Should(change.role, change.roles, _TAKING.get(change.phase), change.phase is Phase.FAILED)
        self._remedy = self._reconciler.look(should, seen or Seen(problem=problem), time.monotonic())
        self._wake()
