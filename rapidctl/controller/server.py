"""ControllerService over gRPC: what an operator may see and ask. A refusal becomes the status that fits its class."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from rapid import __version__
from rapid.clock import SystemClock
from rapid.core.cluster import Decision
from rapid.core.commands import Answer, Command
from rapid.core.errors import Unreachable
from rapid.core.events import BudgetAsked, PauseAsked, ReleaseAsked, RoleAsked, ScheduleAsked
from rapid.core.status import Status
from rapid.rpc import Context, answering
from rapid.v1 import controller_pb2 as v1
from rapid.v1 import controller_pb2_grpc
from rapid.wire.errors import error_named
from rapid.wire.operator import (
    decode_list_decisions,
    decode_pause,
    decode_release,
    decode_set_budget,
    decode_set_role,
    decode_watch,
    encode_decisions,
    encode_plan,
)
from rapid.wire.schedule import decode_add_schedule, decode_remove_schedule, encode_schedules
from rapid.wire.status import encode_status
from rapidctl.controller.inbox import Inbox

WALL_S = SystemClock().wall_s
ANSWER_S = 5.0  # how long an operator waits for an answer; it is there after one commit to the journal

Asked = BudgetAsked | RoleAsked | PauseAsked | ReleaseAsked | ScheduleAsked


class Sight(Protocol):
    """What an operator may look at: rapidctl.controller.loop.Loop."""

    def status(self) -> Status: ...
    def plan(self) -> Decision: ...
    def decisions(self, limit: int, about: str = "") -> tuple[Decision, ...]: ...


class ControllerService(controller_pb2_grpc.ControllerServiceServicer):
    """Every change goes through the inbox like any other event, and is answered when it is journaled and performed."""

    def __init__(
        self,
        inbox: Inbox,
        sight: Sight,
        *,
        answer_s: float = ANSWER_S,
        wall_s: Callable[[], float] = WALL_S,
    ) -> None:
        self._inbox, self._sight, self._answer_s, self._wall_s = inbox, sight, answer_s, wall_s
        self._drawn: tuple[Status, v1.Status] | None = None
        self._stopping = asyncio.Event()

    async def GetStatus(self, request: v1.GetStatusRequest, context: Context) -> v1.GetStatusResponse:
        return v1.GetStatusResponse(status=self._picture(), version=__version__, wall_s=self._wall_s())

    async def Watch(self, request: v1.WatchRequest, context: Context) -> AsyncIterator[v1.WatchResponse]:
        async with answering(context):
            interval_s = decode_watch(request)
            while not self._stopping.is_set():
                yield v1.WatchResponse(status=self._picture())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), interval_s)
            raise Unreachable("the controller stops; watch again when it is back")

    def stop(self) -> None:
        """End all that is being watched: the controller stops."""
        self._stopping.set()

    async def SetBudget(self, request: v1.SetBudgetRequest, context: Context) -> v1.SetBudgetResponse:
        async with answering(context):
            return v1.SetBudgetResponse(text=await self._ask(decode_set_budget(request, at_s=0.0, request=_new_id())))

    async def SetRole(self, request: v1.SetRoleRequest, context: Context) -> v1.SetRoleResponse:
        async with answering(context):
            return v1.SetRoleResponse(text=await self._ask(decode_set_role(request, at_s=0.0, request=_new_id())))

    async def Pause(self, request: v1.PauseRequest, context: Context) -> v1.PauseResponse:
        async with answering(context):
            return v1.PauseResponse(text=await self._ask(decode_pause(request, at_s=0.0, request=_new_id())))

    async def Resume(self, request: v1.ResumeRequest, context: Context) -> v1.ResumeResponse:
        async with answering(context):
            return v1.ResumeResponse(text=await self._ask(decode_pause(request, at_s=0.0, request=_new_id())))

    async def ReleaseNode(self, request: v1.ReleaseNodeRequest, context: Context) -> v1.ReleaseNodeResponse:
        async with answering(context):
            return v1.ReleaseNodeResponse(text=await self._ask(decode_release(request, at_s=0.0, request=_new_id())))

    async def ListDecisions(self, request: v1.ListDecisionsRequest, context: Context) -> v1.ListDecisionsResponse:
        async with answering(context):
            limit, about = decode_list_decisions(request)
            return encode_decisions(self._sight.decisions(limit, about))

    async def Plan(self, request: v1.PlanRequest, context: Context) -> v1.PlanResponse:
        return encode_plan(self._sight.plan())

    async def AddSchedule(self, request: v1.AddScheduleRequest, context: Context) -> v1.AddScheduleResponse:
        async with answering(context):
            asked = decode_add_schedule(request, at_s=0.0, request=_new_id())
            return v1.AddScheduleResponse(text=await self._ask(asked))

    async def RemoveSchedule(self, request: v1.RemoveScheduleRequest, context: Context) -> v1.RemoveScheduleResponse:
        async with answering(context):
            asked = decode_remove_schedule(request, at_s=0.0, request=_new_id())
            return v1.RemoveScheduleResponse(text=await self._ask(asked))

    async def ListSchedules(self, request: v1.ListSchedulesRequest, context: Context) -> v1.ListSchedulesResponse:
        return encode_schedules(self._sight.status().schedules)

    # ---- helpers ----

    def _picture(self) -> v1.Status:
        """The present picture, put on the wire once for all who look at the same time."""
        status = self._sight.status()
        if self._drawn is None or self._drawn[0] is not status:
            self._drawn = (status, encode_status(status))
        return self._drawn[1]

    async def _ask(self, event: Asked) -> str:
        """What the core answers. Raises what it refuses with, and Unreachable without an answer in time."""
        try:
            async with asyncio.timeout(self._answer_s):
                commands = await self._inbox.ask(event)
        except TimeoutError:
            raise Unreachable(
                f"the controller did not answer within {self._answer_s:g} s; it may still do as asked"
            ) from None
        answer = _answer_to(event.request, commands)
        if answer.error:
            raise error_named(answer.kind, answer.error)
        return answer.text


def _answer_to(request: str, commands: list[Command]) -> Answer:
    return next(command for command in commands if isinstance(command, Answer) and command.request == request)


def _new_id() -> str:
    return secrets.token_hex(8)
