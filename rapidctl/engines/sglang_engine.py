"""What an SGLang engine (0.5.23) can be asked: its role, what it still holds, and to change role live.

Its scheduler takes one message at a time: a role that is read after a switch was sent is the role after that switch,
and `prepare_only` asks, without doing anything, whether the engine would switch now.
"""

import asyncio
import time
from typing import Any

from msgspec import Struct, field

from rapid.core.cluster import Role
from rapid.engine import NotSwitched, SwitchFailed
from rapidctl.engines.http import WITHIN_S, CallFailed, Peer, shown

SWITCH_WITHIN_S = 100.0  # for the answer to a switch, decode graphs captured; below what rapid.engine grants
IDLE_WITHIN_S = 2.0  # how long a switch that finds one more request is tried again; a drain has been over before
IDLE_PAUSE_S = 0.05
_MODES = {"prefill": Role.PREFILL, "decode": Role.DECODE, "null": Role.MIXED}
_NOT_IDLE = "not idle"
_NO_ROUTE = "it has no such route: live roles need SGLang 0.5.23 or later, and its HTTP server"


class State(Struct, frozen=True):
    """One data-parallel rank's live state; what the top level of the answer says is how it was launched."""

    disaggregation_mode: str | None = None
    decode_cuda_graph_bs: list[int] | None = None
    decode_cuda_graph_memory_gb: float | None = None
    enable_pd_role_switch: bool | None = None
    startup_time: Any = None


class Info(Struct, frozen=True):
    """GET /server_info, as far as it is needed."""

    internal_states: list[State] = field(default_factory=list)
    version: str = ""
    disaggregation_mode: str | None = None
    disaggregation_bootstrap_port: int | None = None
    enable_pd_role_switch: bool | None = None
    startup_time: Any = None

    @property
    def role(self) -> Role | None:
        """The live role; None: it does not say, or its ranks do not agree."""
        modes = {state.disaggregation_mode for state in self.internal_states}
        return _MODES.get(modes.pop() or "") if len(modes) == 1 else None

    @property
    def life(self) -> str:
        """Another text in another life of the process: how long each part of its start took."""
        return str([state.startup_time for state in self.internal_states] + [self.startup_time])

    @property
    def switches(self) -> bool:
        """Whether it was started so that it can change role; True as well if it does not say."""
        told = [self.enable_pd_role_switch, *(state.enable_pd_role_switch for state in self.internal_states)]
        return False not in told

    @property
    def has_graphs(self) -> bool:
        return bool(self.internal_states) and all(state.decode_cuda_graph_bs for state in self.internal_states)


class _Queues(Struct, frozen=True):
    prefill_bootstrap_queue_reqs: int = 0
    prefill_inflight_queue_reqs: int = 0
    decode_prealloc_queue_reqs: int = 0
    decode_transfer_queue_reqs: int = 0
    decode_retracted_queue_reqs: int = 0


class _Load(Struct, frozen=True):
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    disaggregation: _Queues | None = None

    @property
    def held(self) -> int:
        """Every request in it, with those whose KV cache is yet to be pulled or to come."""
        queues = self.disaggregation or _Queues()
        return (
            self.num_running_reqs
            + self.num_waiting_reqs
            + queues.prefill_bootstrap_queue_reqs
            + queues.prefill_inflight_queue_reqs
            + queues.decode_prealloc_queue_reqs
            + queues.decode_transfer_queue_reqs
            + queues.decode_retracted_queue_reqs
        )


class _Loads(Struct, frozen=True):
    loads: list[_Load]


class _Answer(Struct, frozen=True):
    """success None: an error of the HTTP server, not the engine's word."""

    success: bool | None = None
    message: str = ""
    safe_to_restore: bool = False


class SglangEngine:
    """One engine at its URL."""

    def __init__(self, engine: Peer) -> None:
        self.peer = engine

    async def info(self, step: str) -> Info:
        """Raises CallFailed."""
        return (await self.peer.get(step, "/server_info", missing=_NO_ROUTE)).read(Info)

    async def left(self, other: Role) -> int:
        """How many requests it holds. Its figures are of a moment ago, so none is not none before it would switch to
        its `other` role, if asked. Raises CallFailed."""
        loads = (await self.peer.get("drain", "/v1/loads", missing=_NO_ROUTE)).read(_Loads).loads
        if not loads:
            raise CallFailed(f"{self.peer.instance}: drain: {self.peer.endpoint.url}/v1/loads says nothing of any rank")
        if held := sum(load.held for load in loads):
            return held
        answer = await self._post("drain", other, {"prepare_only": True})
        # Refused for another reason, the switch will be as well, and that says why.
        return 1 if not answer.success and _NOT_IDLE in answer.message else 0

    async def switch(self, role: Role, hints: dict[str, Any]) -> None:
        """Become `role`. Raises NotSwitched, SwitchFailed, and CallFailed when nobody knows."""
        until_s = time.monotonic() + IDLE_WITHIN_S
        while True:
            try:
                answer = await self._post("switch", role, hints, SWITCH_WITHIN_S)
            except CallFailed as error:
                if not error.sent:
                    raise NotSwitched(str(error)) from error
                raise
            if answer.success:
                return
            refusal = f"{self.peer.instance}: switch: the engine refuses to become {role.value}: {answer.message}"
            if not answer.safe_to_restore:
                raise SwitchFailed(f"{refusal}; restart the engine, and it is taken in again")
            # A definite no, so to ask again is to ask for the first time.
            if _NOT_IDLE not in answer.message or time.monotonic() >= until_s:
                raise NotSwitched(f"{refusal}{_help(answer.message)}")
            await asyncio.sleep(IDLE_PAUSE_S)

    # ---- inside ----

    async def _post(self, step: str, role: Role, more: dict[str, Any], within_s: float = WITHIN_S) -> _Answer:
        """Its own answer, yes or no. Raises CallFailed."""
        body = {"new_role": role.value, **more}
        path, good = "/pd_role_switch", (200, 400)
        answer = await self.peer.call(step, "POST", path, body, good=good, missing=_NO_ROUTE, within_s=within_s)
        said = answer.read(_Answer)
        if said.success is None:
            # An error of the HTTP server and not of the switch, which may have begun.
            raise CallFailed(f"{answer.call}: {answer.status}: {shown(answer.body)}", status=answer.status)
        return said


def _help(message: str) -> str:
    """What an operator does about a refusal."""
    if "enable-pd-role-switch" in message:
        return "; start it with --enable-pd-role-switch"
    if "headroom" in message:
        return "; free memory there, or give less: --graph-memory-gb"
    if "decode_cuda_graph_memory_gb" in message:
        return "; say how much decode graphs need: --graph-memory-gb"
    if "does not support" in message or "not supported" in message:
        return "; live roles need the mooncake or mori transfer backend, without the staging buffer"
    return ""
