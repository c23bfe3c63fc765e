from rapid.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GpuHealth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_HEALTH_UNSPECIFIED: _ClassVar[GpuHealth]
    GPU_HEALTH_OK: _ClassVar[GpuHealth]
    GPU_HEALTH_DENIED: _ClassVar[GpuHealth]
    GPU_HEALTH_LOST: _ClassVar[GpuHealth]
    GPU_HEALTH_MISMATCH: _ClassVar[GpuHealth]

class Mover(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVER_UNSPECIFIED: _ClassVar[Mover]
    MOVER_PROCESS: _ClassVar[Mover]
    MOVER_OUTSIDE: _ClassVar[Mover]
    MOVER_RELOAD: _ClassVar[Mover]
    MOVER_UNKNOWN: _ClassVar[Mover]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_APPLIED: _ClassVar[Verdict]
    VERDICT_CLAMPED: _ClassVar[Verdict]
    VERDICT_REFUSED: _ClassVar[Verdict]
    VERDICT_FAILED: _ClassVar[Verdict]
GPU_HEALTH_UNSPECIFIED: GpuHealth
GPU_HEALTH_OK: GpuHealth
GPU_HEALTH_DENIED: GpuHealth
GPU_HEALTH_LOST: GpuHealth
GPU_HEALTH_MISMATCH: GpuHealth
MOVER_UNSPECIFIED: Mover
MOVER_PROCESS: Mover
MOVER_OUTSIDE: Mover
MOVER_RELOAD: Mover
MOVER_UNKNOWN: Mover
VERDICT_UNSPECIFIED: Verdict
VERDICT_APPLIED: Verdict
VERDICT_CLAMPED: Verdict
VERDICT_REFUSED: Verdict
VERDICT_FAILED: Verdict

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("node", "version", "backend", "incarnation", "hard_budget_mw", "gpus", "wall_s")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HARD_BUDGET_MW_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    node: str
    version: str
    backend: str
    incarnation: str
    hard_budget_mw: int
    gpus: _containers.RepeatedCompositeFieldContainer[GpuDescription]
    wall_s: float
    def __init__(self, node: _Optional[str] = ..., version: _Optional[str] = ..., backend: _Optional[str] = ..., incarnation: _Optional[str] = ..., hard_budget_mw: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[GpuDescription, _Mapping]]] = ..., wall_s: _Optional[float] = ...) -> None: ...

class GpuDescription(_message.Message):
    __slots__ = ("gpu", "index", "name", "driver", "floor_mw", "ceiling_mw", "fallback_mw", "bus", "unmanageable", "lacks", "warnings")
    GPU_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    FLOOR_MW_FIELD_NUMBER: _ClassVar[int]
    CEILING_MW_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MW_FIELD_NUMBER: _ClassVar[int]
    BUS_FIELD_NUMBER: _ClassVar[int]
    UNMANAGEABLE_FIELD_NUMBER: _ClassVar[int]
    LACKS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    index: int
    name: str
    driver: str
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    bus: str
    unmanageable: str
    lacks: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, gpu: _Optional[str] = ..., index: _Optional[int] = ..., name: _Optional[str] = ..., driver: _Optional[str] = ..., floor_mw: _Optional[int] = ..., ceiling_mw: _Optional[int] = ..., fallback_mw: _Optional[int] = ..., bus: _Optional[str] = ..., unmanageable: _Optional[str] = ..., lacks: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class EnforceRequest(_message.Message):
    __slots__ = ("greeting", "grants", "renewal")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    grants: GrantBatch
    renewal: Renewal
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., grants: _Optional[_Union[GrantBatch, _Mapping]] = ..., renewal: _Optional[_Union[Renewal, _Mapping]] = ...) -> None: ...

class EnforceResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: NodeReport
    def __init__(self, report: _Optional[_Union[NodeReport, _Mapping]] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("epoch", "controller_id", "report_interval_s")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    REPORT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    controller_id: str
    report_interval_s: float
    def __init__(self, epoch: _Optional[int] = ..., controller_id: _Optional[str] = ..., report_interval_s: _Optional[float] = ...) -> None: ...

class GrantBatch(_message.Message):
    __slots__ = ("incarnation", "controller_id", "mark", "not_after_s", "grants")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    controller_id: str
    mark: _types_pb2.Mark
    not_after_s: float
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, incarnation: _Optional[str] = ..., controller_id: _Optional[str] = ..., mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., not_after_s: _Optional[float] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("gpu", "limit_mw")
    GPU_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MW_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    limit_mw: int
    def __init__(self, gpu: _Optional[str] = ..., limit_mw: _Optional[int] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("incarnation", "controller_id", "epoch", "not_after_s")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    controller_id: str
    epoch: int
    not_after_s: float
    def __init__(self, incarnation: _Optional[str] = ..., controller_id: _Optional[str] = ..., epoch: _Optional[int] = ..., not_after_s: _Optional[float] = ...) -> None: ...

class GpuReport(_message.Message):
    __slots__ = ("gpu", "index", "floor_mw", "ceiling_mw", "fallback_mw", "limit_mw", "limit_since_s", "grant_mw", "void", "draw_mw", "draw_at_s", "energy_mj", "requested_mw", "health", "problem", "watch")
    GPU_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FLOOR_MW_FIELD_NUMBER: _ClassVar[int]
    CEILING_MW_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_SINCE_S_FIELD_NUMBER: _ClassVar[int]
    GRANT_MW_FIELD_NUMBER: _ClassVar[int]
    VOID_FIELD_NUMBER: _ClassVar[int]
    DRAW_MW_FIELD_NUMBER: _ClassVar[int]
    DRAW_AT_S_FIELD_NUMBER: _ClassVar[int]
    ENERGY_MJ_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_MW_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    limit_mw: int
    limit_since_s: float
    grant_mw: int
    void: bool
    draw_mw: int
    draw_at_s: float
    energy_mj: int
    requested_mw: int
    health: GpuHealth
    problem: str
    watch: GpuWatch
    def __init__(self, gpu: _Optional[str] = ..., index: _Optional[int] = ..., floor_mw: _Optional[int] = ..., ceiling_mw: _Optional[int] = ..., fallback_mw: _Optional[int] = ..., limit_mw: _Optional[int] = ..., limit_since_s: _Optional[float] = ..., grant_mw: _Optional[int] = ..., void: _Optional[bool] = ..., draw_mw: _Optional[int] = ..., draw_at_s: _Optional[float] = ..., energy_mj: _Optional[int] = ..., requested_mw: _Optional[int] = ..., health: _Optional[_Union[GpuHealth, str]] = ..., problem: _Optional[str] = ..., watch: _Optional[_Union[GpuWatch, _Mapping]] = ...) -> None: ...

class Moves(_message.Message):
    __slots__ = ("mover", "count")
    MOVER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    mover: Mover
    count: int
    def __init__(self, mover: _Optional[_Union[Mover, str]] = ..., count: _Optional[int] = ...) -> None: ...

class GpuWatch(_message.Message):
    __slots__ = ("unmanaged", "moves", "last_move", "repairs", "xids", "xid", "losses", "over_s", "unmeasured_s", "cap_bound")
    UNMANAGED_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    LAST_MOVE_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_FIELD_NUMBER: _ClassVar[int]
    XIDS_FIELD_NUMBER: _ClassVar[int]
    XID_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    OVER_S_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_S_FIELD_NUMBER: _ClassVar[int]
    CAP_BOUND_FIELD_NUMBER: _ClassVar[int]
    unmanaged: str
    moves: _containers.RepeatedCompositeFieldContainer[Moves]
    last_move: str
    repairs: int
    xids: int
    xid: int
    losses: int
    over_s: float
    unmeasured_s: float
    cap_bound: float
    def __init__(self, unmanaged: _Optional[str] = ..., moves: _Optional[_Iterable[_Union[Moves, _Mapping]]] = ..., last_move: _Optional[str] = ..., repairs: _Optional[int] = ..., xids: _Optional[int] = ..., xid: _Optional[int] = ..., losses: _Optional[int] = ..., over_s: _Optional[float] = ..., unmeasured_s: _Optional[float] = ..., cap_bound: _Optional[float] = ...) -> None: ...

class NodeWatch(_message.Message):
    __slots__ = ("watched_s", "over_s", "unmeasured_s", "excursions", "excursion")
    WATCHED_S_FIELD_NUMBER: _ClassVar[int]
    OVER_S_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_S_FIELD_NUMBER: _ClassVar[int]
    EXCURSIONS_FIELD_NUMBER: _ClassVar[int]
    EXCURSION_FIELD_NUMBER: _ClassVar[int]
    watched_s: float
    over_s: float
    unmeasured_s: float
    excursions: int
    excursion: str
    def __init__(self, watched_s: _Optional[float] = ..., over_s: _Optional[float] = ..., unmeasured_s: _Optional[float] = ..., excursions: _Optional[int] = ..., excursion: _Optional[str] = ...) -> None: ...

class GrantAnswer(_message.Message):
    __slots__ = ("mark", "gpu", "verdict", "detail")
    MARK_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    mark: _types_pb2.Mark
    gpu: str
    verdict: Verdict
    detail: str
    def __init__(self, mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., gpu: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class LoadProblem(_message.Message):
    __slots__ = ("instance", "problem")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    instance: str
    problem: str
    def __init__(self, instance: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class NodeReport(_message.Message):
    __slots__ = ("node", "incarnation", "report_seq", "node_time_s", "mark", "lease_left_s", "gpus", "loads", "answers", "load_problems", "watch")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    NODE_TIME_S_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    LOAD_PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: str
    report_seq: int
    node_time_s: float
    mark: _types_pb2.Mark
    lease_left_s: float
    gpus: _containers.RepeatedCompositeFieldContainer[GpuReport]
    loads: _containers.RepeatedCompositeFieldContainer[_types_pb2.PhaseLoad]
    answers: _containers.RepeatedCompositeFieldContainer[GrantAnswer]
    load_problems: _containers.RepeatedCompositeFieldContainer[LoadProblem]
    watch: NodeWatch
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[str] = ..., report_seq: _Optional[int] = ..., node_time_s: _Optional[float] = ..., mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., lease_left_s: _Optional[float] = ..., gpus: _Optional[_Iterable[_Union[GpuReport, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[_types_pb2.PhaseLoad, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[GrantAnswer, _Mapping]]] = ..., load_problems: _Optional[_Iterable[_Union[LoadProblem, _Mapping]]] = ..., watch: _Optional[_Union[NodeWatch, _Mapping]] = ...) -> None: ...
