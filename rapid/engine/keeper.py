"""Looks every few seconds whether engine and router are as they should be, for the driver to put right what is not."""

import asyncio
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
        self._seen: Seen | None = None
        self._steps = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._reconciler.pause_s)
            steps = self._steps
            if not self._change.adjustable:
                continue
            seen, problem = await look(self._engine.seen())
            if steps == self._steps:
                self._seen = seen or Seen(problem=problem)
                self._wake()

    def stepped(self) -> None:
        """A step has been taken, or is being taken."""
        self._steps += 1
        self._seen = None

    def changed(self) -> None:
        """A role change has got to the engine."""
        self._reconciler.changed()

    def remedy(self, at_s: float) -> Remedy | None:
        """What is to be done about the last look, once."""
        seen, self._seen = self._seen, None
        change = self._change
        if seen is None or not change.adjustable:
            return None
        failed = change.phase is Phase.FAILED
        return self._reconciler.look(Should(change.role, change.roles, _TAKING.get(change.phase), failed), seen, at_s)

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
