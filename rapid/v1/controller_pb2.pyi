from rapid.v1 import node_pb2 as _node_pb2
from rapid.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeHealth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_HEALTH_UNSPECIFIED: _ClassVar[NodeHealth]
    NODE_HEALTH_NEVER_HEARD: _ClassVar[NodeHealth]
    NODE_HEALTH_REPORTING: _ClassVar[NodeHealth]
    NODE_HEALTH_SILENT: _ClassVar[NodeHealth]
    NODE_HEALTH_RELEASED: _ClassVar[NodeHealth]
NODE_HEALTH_UNSPECIFIED: NodeHealth
NODE_HEALTH_NEVER_HEARD: NodeHealth
NODE_HEALTH_REPORTING: NodeHealth
NODE_HEALTH_SILENT: NodeHealth
NODE_HEALTH_RELEASED: NodeHealth

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status", "version", "wall_s")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    status: Status
    version: str
    wall_s: float
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ..., version: _Optional[str] = ..., wall_s: _Optional[float] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: Status
    def __init__(self, status: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class SetBudgetRequest(_message.Message):
    __slots__ = ("domain", "budget_mw", "force", "by")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MW_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    domain: str
    budget_mw: int
    force: bool
    by: str
    def __init__(self, domain: _Optional[str] = ..., budget_mw: _Optional[int] = ..., force: _Optional[bool] = ..., by: _Optional[str] = ...) -> None: ...

class SetBudgetResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class SetRoleRequest(_message.Message):
    __slots__ = ("instance", "role", "by", "park")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    instance: str
    role: _types_pb2.Role
    by: str
    park: bool
    def __init__(self, instance: _Optional[str] = ..., role: _Optional[_Union[_types_pb2.Role, str]] = ..., by: _Optional[str] = ..., park: _Optional[bool] = ...) -> None: ...

class SetRoleResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("by",)
    BY_FIELD_NUMBER: _ClassVar[int]
    by: str
    def __init__(self, by: _Optional[str] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("by",)
    BY_FIELD_NUMBER: _ClassVar[int]
    by: str
    def __init__(self, by: _Optional[str] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ReleaseNodeRequest(_message.Message):
    __slots__ = ("node", "by")
    NODE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    node: str
    by: str
    def __init__(self, node: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class ReleaseNodeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("limit", "about")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    about: str
    def __init__(self, limit: _Optional[int] = ..., about: _Optional[str] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: Decision
    def __init__(self, plan: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("name", "domain", "budget_mw", "days", "start_s", "duration_s", "ramp_down_s", "ramp_up_s", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MW_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    START_S_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    RAMP_DOWN_S_FIELD_NUMBER: _ClassVar[int]
    RAMP_UP_S_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    domain: str
    budget_mw: int
    days: _containers.RepeatedScalarFieldContainer[int]
    start_s: float
    duration_s: float
    ramp_down_s: float
    ramp_up_s: float
    by: str
    def __init__(self, name: _Optional[str] = ..., domain: _Optional[str] = ..., budget_mw: _Optional[int] = ..., days: _Optional[_Iterable[int]] = ..., start_s: _Optional[float] = ..., duration_s: _Optional[float] = ..., ramp_down_s: _Optional[float] = ..., ramp_up_s: _Optional[float] = ..., by: _Optional[str] = ...) -> None: ...

class ScheduleStatus(_message.Message):
    __slots__ = ("schedule", "starts_wall_s", "ends_wall_s", "active")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    STARTS_WALL_S_FIELD_NUMBER: _ClassVar[int]
    ENDS_WALL_S_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    starts_wall_s: float
    ends_wall_s: float
    active: bool
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ..., starts_wall_s: _Optional[float] = ..., ends_wall_s: _Optional[float] = ..., active: _Optional[bool] = ...) -> None: ...

class AddScheduleRequest(_message.Message):
    __slots__ = ("schedule",)
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ...) -> None: ...

class AddScheduleResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class RemoveScheduleRequest(_message.Message):
    __slots__ = ("name", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    by: str
    def __init__(self, name: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class RemoveScheduleResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ListSchedulesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSchedulesResponse(_message.Message):
    __slots__ = ("schedules",)
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[ScheduleStatus]
    def __init__(self, schedules: _Optional[_Iterable[_Union[ScheduleStatus, _Mapping]]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("id", "at_s", "wall_s", "by", "reason", "inputs", "changes", "predicted", "held", "horizon_s", "candidates", "measured")
    ID_FIELD_NUMBER: _ClassVar[int]
    AT_S_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    HORIZON_S_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    id: str
    at_s: float
    wall_s: float
    by: str
    reason: str
    inputs: _containers.RepeatedCompositeFieldContainer[DecisionInput]
    changes: _containers.RepeatedCompositeFieldContainer[DecisionChange]
    predicted: float
    held: float
    horizon_s: float
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    measured: float
    def __init__(self, id: _Optional[str] = ..., at_s: _Optional[float] = ..., wall_s: _Optional[float] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[DecisionInput, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[DecisionChange, _Mapping]]] = ..., predicted: _Optional[float] = ..., held: _Optional[float] = ..., horizon_s: _Optional[float] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., measured: _Optional[float] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("words", "predicted", "chosen")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    words: str
    predicted: float
    chosen: bool
    def __init__(self, words: _Optional[str] = ..., predicted: _Optional[float] = ..., chosen: _Optional[bool] = ...) -> None: ...

class DecisionInput(_message.Message):
    __slots__ = ("name", "number", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    number: float
    text: str
    def __init__(self, name: _Optional[str] = ..., number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class DecisionChange(_message.Message):
    __slots__ = ("subject", "before", "after")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    subject: str
    before: str
    after: str
    def __init__(self, subject: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("at_s", "wall_s", "epoch", "controller_id", "policy", "paused", "domains", "nodes", "instances", "slo", "role_moves", "watts_moved_mw", "last_decision", "scored", "prediction_error")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SLO_FIELD_NUMBER: _ClassVar[int]
    ROLE_MOVES_FIELD_NUMBER: _ClassVar[int]
    WATTS_MOVED_MW_FIELD_NUMBER: _ClassVar[int]
    LAST_DECISION_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    wall_s: float
    epoch: int
    controller_id: str
    policy: str
    paused: bool
    domains: _containers.RepeatedCompositeFieldContainer[DomainStatus]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceStatus]
    slo: SloStatus
    role_moves: int
    watts_moved_mw: int
    last_decision: Decision
    scored: int
    prediction_error: float
    def __init__(self, at_s: _Optional[float] = ..., wall_s: _Optional[float] = ..., epoch: _Optional[int] = ..., controller_id: _Optional[str] = ..., policy: _Optional[str] = ..., paused: _Optional[bool] = ..., domains: _Optional[_Iterable[_Union[DomainStatus, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., instances: _Optional[_Iterable[_Union[InstanceStatus, _Mapping]]] = ..., slo: _Optional[_Union[SloStatus, _Mapping]] = ..., role_moves: _Optional[int] = ..., watts_moved_mw: _Optional[int] = ..., last_decision: _Optional[_Union[Decision, _Mapping]] = ..., scored: _Optional[int] = ..., prediction_error: _Optional[float] = ...) -> None: ...

class DomainStatus(_message.Message):
    __slots__ = ("domain", "parent", "budget_mw", "reserved_mw", "held_mw", "draw_mw", "over_budget", "advice", "standing_mw", "held_by")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MW_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MW_FIELD_NUMBER: _ClassVar[int]
    HELD_MW_FIELD_NUMBER: _ClassVar[int]
    DRAW_MW_FIELD_NUMBER: _ClassVar[int]
    OVER_BUDGET_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    STANDING_MW_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    domain: str
    parent: str
    budget_mw: int
    reserved_mw: int
    held_mw: int
    draw_mw: int
    over_budget: bool
    advice: str
    standing_mw: int
    held_by: str
    def __init__(self, domain: _Optional[str] = ..., parent: _Optional[str] = ..., budget_mw: _Optional[int] = ..., reserved_mw: _Optional[int] = ..., held_mw: _Optional[int] = ..., draw_mw: _Optional[int] = ..., over_budget: _Optional[bool] = ..., advice: _Optional[str] = ..., standing_mw: _Optional[int] = ..., held_by: _Optional[str] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "domain", "health", "age_s", "problem", "gpus", "watch")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    node: str
    domain: str
    health: NodeHealth
    age_s: float
    problem: str
    gpus: _containers.RepeatedCompositeFieldContainer[GpuStatus]
    watch: _node_pb2.NodeWatch
    def __init__(self, node: _Optional[str] = ..., domain: _Optional[str] = ..., health: _Optional[_Union[NodeHealth, str]] = ..., age_s: _Optional[float] = ..., problem: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[GpuStatus, _Mapping]]] = ..., watch: _Optional[_Union[_node_pb2.NodeWatch, _Mapping]] = ...) -> None: ...

class GpuStatus(_message.Message):
    __slots__ = ("gpu", "index", "floor_mw", "ceiling_mw", "fallback_mw", "target_mw", "limit_mw", "held_mw", "draw_mw", "managed", "health", "problem", "instance", "watch")
    GPU_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FLOOR_MW_FIELD_NUMBER: _ClassVar[int]
    CEILING_MW_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MW_FIELD_NUMBER: _ClassVar[int]
    TARGET_MW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MW_FIELD_NUMBER: _ClassVar[int]
    HELD_MW_FIELD_NUMBER: _ClassVar[int]
    DRAW_MW_FIELD_NUMBER: _ClassVar[int]
    MANAGED_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    target_mw: int
    limit_mw: int
    held_mw: int
    draw_mw: int
    managed: bool
    health: _node_pb2.GpuHealth
    problem: str
    instance: str
    watch: _node_pb2.GpuWatch
    def __init__(self, gpu: _Optional[str] = ..., index: _Optional[int] = ..., floor_mw: _Optional[int] = ..., ceiling_mw: _Optional[int] = ..., fallback_mw: _Optional[int] = ..., target_mw: _Optional[int] = ..., limit_mw: _Optional[int] = ..., held_mw: _Optional[int] = ..., draw_mw: _Optional[int] = ..., managed: _Optional[bool] = ..., health: _Optional[_Union[_node_pb2.GpuHealth, str]] = ..., problem: _Optional[str] = ..., instance: _Optional[str] = ..., watch: _Optional[_Union[_node_pb2.GpuWatch, _Mapping]] = ...) -> None: ...

class InstanceStatus(_message.Message):
    __slots__ = ("instance", "engine", "node", "gpus", "role", "phase", "target_role", "pinned", "problem", "load", "cap_bound")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    TARGET_ROLE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    CAP_BOUND_FIELD_NUMBER: _ClassVar[int]
    instance: str
    engine: str
    node: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    role: _types_pb2.Role
    phase: _types_pb2.Phase
    target_role: _types_pb2.Role
    pinned: bool
    problem: str
    load: _types_pb2.PhaseLoad
    cap_bound: float
    def __init__(self, instance: _Optional[str] = ..., engine: _Optional[str] = ..., node: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[_types_pb2.Role, str]] = ..., phase: _Optional[_Union[_types_pb2.Phase, str]] = ..., target_role: _Optional[_Union[_types_pb2.Role, str]] = ..., pinned: _Optional[bool] = ..., problem: _Optional[str] = ..., load: _Optional[_Union[_types_pb2.PhaseLoad, _Mapping]] = ..., cap_bound: _Optional[float] = ...) -> None: ...

class SloStatus(_message.Message):
    __slots__ = ("ttft_target_s", "tpot_target_s", "ttft_attainment", "tpot_attainment", "ttft_window_s", "tpot_window_s", "finished")
    TTFT_TARGET_S_FIELD_NUMBER: _ClassVar[int]
    TPOT_TARGET_S_FIELD_NUMBER: _ClassVar[int]
    TTFT_ATTAINMENT_FIELD_NUMBER: _ClassVar[int]
    TPOT_ATTAINMENT_FIELD_NUMBER: _ClassVar[int]
    TTFT_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    TPOT_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    ttft_target_s: float
    tpot_target_s: float
    ttft_attainment: float
    tpot_attainment: float
    ttft_window_s: float
    tpot_window_s: float
    finished: int
    def __init__(self, ttft_target_s: _Optional[float] = ..., tpot_target_s: _Optional[float] = ..., ttft_attainment: _Optional[float] = ..., tpot_attainment: _Optional[float] = ..., ttft_window_s: _Optional[float] = ..., tpot_window_s: _Optional[float] = ..., finished: _Optional[int] = ...) -> None: ...
