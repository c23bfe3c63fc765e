"""One small client of ControllerService: nouns in, nouns out, a deadline on every call, errors of rapid.core.errors.

async with Client("127.0.0.1:7600") as client:
    status = await client.status()
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import Self, TypeVar

import grpc
from grpc import aio

from rapid.core.cluster import Decision, Role
from rapid.core.errors import RapidError, Unreachable
from rapid.core.facility.nouns import Schedule, ScheduleStatus
from rapid.core.status import Status
from rapid.rpc import open_channel
from rapid.tls import TlsConfig, check_dial
from rapid.v1 import controller_pb2 as v1
from rapid.v1.controller_pb2_grpc import ControllerServiceStub
from rapid.wire.common import encode_role
from rapid.wire.errors import error_of
from rapid.wire.operator import decode_decisions, decode_plan
from rapid.wire.schedule import decode_schedules, encode_schedule
from rapid.wire.status import Look, decode_look, decode_status

Response = TypeVar("Response")


class Client:
    """A connection to the controller at `address`, open inside `async with`.

    Opening raises ConfigInvalid for an address or TLS files that cannot be used. Every call ends within timeout_s.
    Calls raise Unreachable (nobody there, or no answer in time), Refused and its kinds with the controller's own
    words, and RapidError for everything else.
    """

    def __init__(self, address: str, *, tls: TlsConfig | None = None, timeout_s: float = 5.0) -> None:
        self._address = address
        self._tls = tls
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        check_dial(self._address, self._tls, "address")
        self._channel = open_channel(self._address, self._tls)
        self._stub = ControllerServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def status(self) -> Status:
        """The whole picture, once."""
        return decode_status(await self._answer(self._stub.GetStatus(v1.GetStatusRequest(), timeout=self._timeout_s)))

    async def look(self) -> Look:
        """The whole picture, with the controller's version and clock."""
        return decode_look(await self._answer(self._stub.GetStatus(v1.GetStatusRequest(), timeout=self._timeout_s)))

    async def watch(self, interval_s: float) -> AsyncGenerator[Status]:
        """A picture every interval_s until the caller stops iterating. Each has a deadline of its own."""
        call = self._stub.Watch(v1.WatchRequest(interval_s=interval_s))
        try:
            while True:
                patience_s = interval_s + self._timeout_s
                try:
                    picture = await asyncio.wait_for(self._answer(call.read()), patience_s)
                except TimeoutError:
                    raise Unreachable(self._too_slow(patience_s)) from None
                if not isinstance(picture, v1.WatchResponse):
                    raise Unreachable(f"{self._who} has ended the stream")
                yield decode_status(picture)
        finally:
            call.cancel()
            # Until the call has ended, gRPC still has something to tell this event loop.
            await call.code()

    async def set_budget(self, domain: str, budget_mw: int, *, force: bool, by: str) -> str:
        """Set the budget of a domain; what the controller says about it. `force` accepts one that floors do not fit."""
        request = v1.SetBudgetRequest(domain=domain, budget_mw=budget_mw, force=force, by=by)
        return (await self._done(self._stub.SetBudget(request, timeout=self._timeout_s))).text

    async def set_role(self, instance: str, role: Role | None, *, park: bool = False, by: str) -> str:
        """Move an instance to a role and pin it, or park it; None takes the pin away. Returns when the order is out,
        not done."""
        request = v1.SetRoleRequest(instance=instance, role=encode_role(role), park=park, by=by)
        return (await self._done(self._stub.SetRole(request, timeout=self._timeout_s))).text

    async def pause(self, *, by: str) -> str:
        """Stop the policy."""
        return (await self._done(self._stub.Pause(v1.PauseRequest(by=by), timeout=self._timeout_s))).text

    async def resume(self, *, by: str) -> str:
        """Start the policy again."""
        return (await self._done(self._stub.Resume(v1.ResumeRequest(by=by), timeout=self._timeout_s))).text

    async def release_node(self, node: str, *, by: str) -> str:
        """Say that a silent node is off: what is booked for it is freed."""
        request = v1.ReleaseNodeRequest(node=node, by=by)
        return (await self._done(self._stub.ReleaseNode(request, timeout=self._timeout_s))).text

    async def decisions(self, *, limit: int, about: str = "") -> tuple[Decision, ...]:
        """The last decisions, newest first, at most `limit`; about a decision id, a GPU's UUID or an instance."""
        request = v1.ListDecisionsRequest(limit=limit, about=about)
        return decode_decisions(await self._answer(self._stub.ListDecisions(request, timeout=self._timeout_s)))

    async def plan(self) -> Decision:
        """What the policy would decide now, without doing it."""
        return decode_plan(await self._answer(self._stub.Plan(v1.PlanRequest(), timeout=self._timeout_s)))

    async def add_schedule(self, schedule: Schedule) -> str:
        """Add windows in which a domain's budget is another; what the controller says about it."""
        request = v1.AddScheduleRequest(schedule=encode_schedule(schedule))
        return (await self._done(self._stub.AddSchedule(request, timeout=self._timeout_s))).text

    async def remove_schedule(self, name: str, *, by: str) -> str:
        """Take a schedule away."""
        request = v1.RemoveScheduleRequest(name=name, by=by)
        return (await self._done(self._stub.RemoveSchedule(request, timeout=self._timeout_s))).text

    async def schedules(self) -> tuple[ScheduleStatus, ...]:
        """Every schedule, with its present or next window."""
        request = v1.ListSchedulesRequest()
        return decode_schedules(await self._answer(self._stub.ListSchedules(request, timeout=self._timeout_s)))

    @property
    def _who(self) -> str:
        return f"the controller at {self._address}"

    async def _done(self, call: Awaitable[Response]) -> Response:
        """The answer to a call that changes something: without one in time, nobody knows whether it was done."""
        return await self._answer(call, doubt="; it may still do as asked: look at its status")

    async def _answer(self, call: Awaitable[Response], *, doubt: str = "") -> Response:
        try:
            return await call
        except aio.AioRpcError as failure:
            raise self._error(failure, doubt) from failure

    def _error(self, failure: aio.AioRpcError, doubt: str) -> RapidError:
        if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(self._too_slow(self._timeout_s) + doubt)
        error = error_of(failure, address=self._who)
        if str(error).endswith("nobody listens there"):
            return Unreachable(f"{error}; is rapid-controller running? set --address or RAPID_ADDRESS")
        if failure.code() is grpc.StatusCode.UNAVAILABLE and not isinstance(error, Unreachable):
            return Unreachable(f"{self._who}: {error}")
        return error

    def _too_slow(self, waited_s: float) -> str:
        return f"{self._who} did not answer within {waited_s:g} s; --timeout waits longer"
