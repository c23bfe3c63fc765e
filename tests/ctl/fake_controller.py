"""A controller without a control loop: ControllerService on a real port, with the answers that its proto promises."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn

import grpc

from rapid import __version__
from rapid.core.cluster import Decision, NodeHealth
from rapid.core.errors import BudgetRefused, NotFound, RapidError, RoleRefused, watts
from rapid.core.facility.nouns import Schedule, ScheduleStatus
from rapid.core.status import DomainStatus, Status
from rapid.v1 import controller_pb2 as v1
from rapid.v1 import controller_pb2_grpc
from rapid.wire.errors import status_of
from rapid.wire.operator import (
    decode_list_decisions,
    decode_set_budget,
    decode_set_role,
    decode_watch,
    encode_decisions,
    encode_plan,
)
from rapid.wire.schedule import decode_add_schedule, decode_remove_schedule, encode_schedules
from rapid.wire.status import encode_status
from tests.ctl.cluster import MOVE, NOON_S, OLDER, picture

Context = Any  # The generated stubs name a type of their own that exists only for type checkers.


class FakeController(controller_pb2_grpc.ControllerServiceServicer):
    """Serves `status` and `decisions`; keeps every change asked of it in `asked`, in order, and obeys it.

    The floors of a domain count 400 W for each GPU of the nodes in it. An instance named in `last` is the last of its
    role. `after_status` is what happens right after a status has been told.
    """

    def __init__(self) -> None:
        self.status: Status = picture()
        self.version, self.wall_s = __version__, NOON_S
        self.decisions: tuple[Decision, ...] = (MOVE, OLDER)
        night = Schedule("night", "rack1", 2_000_000, (0, 1, 2, 3, 4), 79_200.0, 28_800.0, 60.0, 0.0, "ann@ops")
        once = Schedule("dr-42", "rack1", 1_500_000, (), NOON_S + 3600.0, 600.0, by="bob@ops")
        self.schedules: tuple[ScheduleStatus, ...] = (
            ScheduleStatus(night, NOON_S + 36_000, NOON_S + 64_800, False),
            ScheduleStatus(once, NOON_S + 3600.0, NOON_S + 4200.0, False),
        )
        self.asked: list[tuple[object, ...]] = []
        self.by: list[str] = []
        self.last: set[str] = set()
        self.after_status: Callable[[], None] = lambda: None
        self._hearing = threading.Event()
        self._hearing.set()
        self._stopped = threading.Event()
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen on loopback, on any free port unless told."""
        self._stopped.clear()
        self._server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        if credentials:
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()

    def stop(self) -> None:
        """Let go of every call and of the port."""
        self._hearing.set()
        self._stopped.set()
        if self._server:
            self._server.stop(None).wait()
        self._server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def be_deaf(self) -> None:
        """Take calls and answer none."""
        self._hearing.clear()

    def GetStatus(self, request: v1.GetStatusRequest, context: Context) -> v1.GetStatusResponse:
        self._hearing.wait()
        response = v1.GetStatusResponse(status=encode_status(self.status), version=self.version, wall_s=self.wall_s)
        self.after_status()
        return response

    def Watch(self, request: v1.WatchRequest, context: Context) -> Iterator[v1.WatchResponse]:
        interval_s = decode_watch(request)
        context.add_callback(self._hearing.set)
        while context.is_active() and not self._stopped.is_set():
            self._hearing.wait()
            yield v1.WatchResponse(status=encode_status(self.status))
            self._stopped.wait(interval_s)
        _refuse(context, grpc.StatusCode.UNAVAILABLE, RapidError("the controller stops"))

    def SetBudget(self, request: v1.SetBudgetRequest, context: Context) -> v1.SetBudgetResponse:
        asked = decode_set_budget(request, at_s=0.0, request="r")
        domain = self._find_domain(asked.domain, context)
        need_mw = domain.reserved_mw + sum(gpu.floor_mw for node in self.status.nodes for gpu in node.gpus)
        if asked.budget_mw < need_mw and not asked.force:
            text = f"budget of {domain.domain}: {watts(asked.budget_mw)} is below what its floors need; "
            _refuse(context, None, BudgetRefused(f"{text}the smallest that would do is {watts(need_mw)}"))
        self._took(asked.by, "budget", asked.domain, asked.budget_mw, asked.force)
        domains = (replace(d, budget_mw=asked.budget_mw) if d is domain else d for d in self.status.domains)
        self.status = replace(self.status, domains=tuple(domains))
        return v1.SetBudgetResponse(text=f"budget of {asked.domain} is {watts(asked.budget_mw)}")

    def AddSchedule(self, request: v1.AddScheduleRequest, context: Context) -> v1.AddScheduleResponse:
        asked = decode_add_schedule(request, at_s=0.0, request="r").schedule
        assert asked is not None
        self._find_domain(asked.domain, context)
        self._took(asked.by, "schedule", replace(asked, by=""))
        self.schedules = (*self.schedules, ScheduleStatus(asked, NOON_S, NOON_S + 60, False))
        return v1.AddScheduleResponse(text=f"schedule {asked.name}: domain {asked.domain} at {watts(asked.budget_mw)}")

    def RemoveSchedule(self, request: v1.RemoveScheduleRequest, context: Context) -> v1.RemoveScheduleResponse:
        asked = decode_remove_schedule(request, at_s=0.0, request="r")
        known = tuple(it.schedule.name for it in self.schedules)
        if asked.name not in known:
            _refuse(context, None, NotFound("schedule", asked.name, known))
        self._took(asked.by, "remove schedule", asked.name)
        self.schedules = tuple(it for it in self.schedules if it.schedule.name != asked.name)
        return v1.RemoveScheduleResponse(text=f"schedule {asked.name} is removed")

    def ListSchedules(self, request: v1.ListSchedulesRequest, context: Context) -> v1.ListSchedulesResponse:
        return encode_schedules(self.schedules)

    def SetRole(self, request: v1.SetRoleRequest, context: Context) -> v1.SetRoleResponse:
        asked = decode_set_role(request, at_s=0.0, request="r")
        known = tuple(instance.instance for instance in self.status.instances)
        if asked.instance not in known:
            _refuse(context, None, NotFound("instance", asked.instance, known))
        if asked.instance in self.last:
            _refuse(context, None, RoleRefused(f"instance {asked.instance}: is the last that serves its role"))
        self._took(asked.by, "role", asked.instance, "parked" if asked.park else asked.role)
        return v1.SetRoleResponse(text=f"{asked.instance} is told to serve {asked.role.value if asked.role else 'any'}")

    def Pause(self, request: v1.PauseRequest, context: Context) -> v1.PauseResponse:
        self._hearing.wait()
        self._took(request.by, "pause")
        self.status = replace(self.status, paused=True)
        return v1.PauseResponse(text="the policy is paused")

    def Resume(self, request: v1.ResumeRequest, context: Context) -> v1.ResumeResponse:
        self._took(request.by, "resume")
        self.status = replace(self.status, paused=False)
        return v1.ResumeResponse(text="the policy runs")

    def ReleaseNode(self, request: v1.ReleaseNodeRequest, context: Context) -> v1.ReleaseNodeResponse:
        found = next((node for node in self.status.nodes if node.node == request.node), None)
        if found is None:
            _refuse(context, None, NotFound("node", request.node))
        if found.health is NodeHealth.REPORTING:
            _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, RapidError(f"node {request.node} still reports"))
        self._took(request.by, "release", request.node)
        return v1.ReleaseNodeResponse(text=f"node {request.node} is released")

    def ListDecisions(self, request: v1.ListDecisionsRequest, context: Context) -> v1.ListDecisionsResponse:
        limit, about = decode_list_decisions(request)
        found = [d for d in self.decisions if not about or about in (d.id, *(change[0] for change in d.changes))]
        return encode_decisions(tuple(found[:limit]))

    def Plan(self, request: v1.PlanRequest, context: Context) -> v1.PlanResponse:
        return encode_plan(replace(self.decisions[0], id="plan", measured=None))

    def _find_domain(self, name: str, context: Context) -> DomainStatus:
        found = next((domain for domain in self.status.domains if domain.domain == name), None)
        if found is None:
            _refuse(context, None, NotFound("domain", name))
        return found

    def _took(self, by: str, *what: object) -> None:
        self.by.append(by)
        self.asked.append(what)


def _refuse(context: Context, code: grpc.StatusCode | None, error: RapidError) -> NoReturn:
    status = status_of(error, code)
    context.set_trailing_metadata(status.trailers)
    context.abort(status.code, status.message)
    raise AssertionError("abort returns never")
