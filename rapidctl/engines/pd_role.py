"""GET and POST /v1/pd_role of a vLLM engine, as its RFC (vllm-project/vllm, 56133) and pull request 56134 have it.

The engine itself closes admission, drains, commits on all of its cores and opens at the next epoch; it goes on when the
caller goes away. So nothing is asked twice: after a 202, and after a 409, the state is read until it is at rest.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec import Struct

from rapid.core.cluster import Role
from rapid.engine import NotSwitched, SwitchFailed
from rapidctl.engines.http import CallFailed, Peer

PATH = "/v1/pd_role"
POLL_S = 0.02
READY, FAILED = "ready", "failed"
DRAIN_MAX_S = 3600.0  # that the engine takes
NO_ROUTE = "it has no such route: live roles need a vLLM with pd_role, started with it in its --kv-transfer-config"
_ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE}
_NOTHING_DONE = (400, 401, 403, 404, 405, 415, 422)


class State(Struct, frozen=True):
    """What it says. `error` is of the last change, and stays after it was rolled back."""

    role: str
    epoch: int
    phase: str
    target_role: str | None = None
    active_requests: int = 0
    error: str | None = None

    @property
    def served(self) -> Role | None:
        """The role in which it takes requests; None: it takes none just now."""
        return _ROLES.get(self.role) if self.phase == READY else None


class PdRole:
    """The role of one engine."""

    def __init__(self, engine: Peer) -> None:
        self._engine = engine

    async def state(self, step: str) -> State:
        """Raises CallFailed; its status is 404 where the engine has no such route."""
        return (await self._engine.get(step, PATH, missing=NO_ROUTE)).read(State)

    async def switch(self, role: Role, drain_s: float) -> None:
        """Have it drain for so long at most, and become `role`. Raises NotSwitched, SwitchFailed, and CallFailed when
        nobody knows."""
        about, began_s = f"{self._engine.instance}: switch", time.monotonic()
        try:
            before = await self.state("switch")
            if before.phase == READY:
                body = {"role": role.value, "expected_epoch": before.epoch, "drain_timeout": min(drain_s, DRAIN_MAX_S)}
                await self._engine.call("switch", "POST", PATH, body, good=(202, 409), missing=NO_ROUTE)
        except CallFailed as error:
            if not error.sent or error.status in _NOTHING_DONE:
                raise NotSwitched(str(error)) from error
            raise
        # Also after a 409: then a change is under way that somebody else has begun, or was over before ours came.
        after = await self._rest(lambda: time.monotonic() - began_s > 2 * drain_s + 1)
        if after.phase == FAILED:
            raise SwitchFailed(f"{about}: the engine has closed itself: {after.error or 'no reason given'}; restart it")
        if after.phase != READY:
            raise CallFailed(f"{about}: the engine is still {after.phase} after {time.monotonic() - began_s:.0f} s")
        if after.served is not role:
            why = after.error or "it refused, as a change that another hand had begun was under way"
            raise NotSwitched(f"{about}: it is {after.role} at epoch {after.epoch} still: {why}")

    async def _rest(self, late: Callable[[], bool]) -> State:
        """Its state when it is ready, has failed, or has taken too long. Raises CallFailed."""
        while True:
            state = await self.state("switch")
            if state.phase in (READY, FAILED) or late():
                return state
            await asyncio.sleep(POLL_S)
