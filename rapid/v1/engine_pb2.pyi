from rapid.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("hello", "progress", "load", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: EngineHello
    progress: RoleProgress
    load: EngineLoad
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[EngineHello, _Mapping]] = ..., progress: _Optional[_Union[RoleProgress, _Mapping]] = ..., load: _Optional[_Union[EngineLoad, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("welcome", "order", "cancel")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    order: RoleOrder
    cancel: RoleCancel
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., order: _Optional[_Union[RoleOrder, _Mapping]] = ..., cancel: _Optional[_Union[RoleCancel, _Mapping]] = ...) -> None: ...

class EngineHello(_message.Message):
    __slots__ = ("instance", "incarnation", "node", "gpus", "role", "roles", "phase", "mark", "engine_time_s", "switch_s", "engine", "from_role", "to_role", "parks", "reads_role")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    ENGINE_TIME_S_FIELD_NUMBER: _ClassVar[int]
    SWITCH_S_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    FROM_ROLE_FIELD_NUMBER: _ClassVar[int]
    TO_ROLE_FIELD_NUMBER: _ClassVar[int]
    PARKS_FIELD_NUMBER: _ClassVar[int]
    READS_ROLE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    incarnation: str
    node: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    role: _types_pb2.Role
    roles: _containers.RepeatedScalarFieldContainer[_types_pb2.Role]
    phase: _types_pb2.Phase
    mark: _types_pb2.Mark
    engine_time_s: float
    switch_s: float
    engine: str
    from_role: _types_pb2.Role
    to_role: _types_pb2.Role
    parks: bool
    reads_role: bool
    def __init__(self, instance: _Optional[str] = ..., incarnation: _Optional[str] = ..., node: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[_types_pb2.Role, str]] = ..., roles: _Optional[_Iterable[_Union[_types_pb2.Role, str]]] = ..., phase: _Optional[_Union[_types_pb2.Phase, str]] = ..., mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., engine_time_s: _Optional[float] = ..., switch_s: _Optional[float] = ..., engine: _Optional[str] = ..., from_role: _Optional[_Union[_types_pb2.Role, str]] = ..., to_role: _Optional[_Union[_types_pb2.Role, str]] = ..., parks: _Optional[bool] = ..., reads_role: _Optional[bool] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch", "load_interval_s")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOAD_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    load_interval_s: float
    def __init__(self, epoch: _Optional[int] = ..., load_interval_s: _Optional[float] = ...) -> None: ...

class RoleOrder(_message.Message):
    __slots__ = ("incarnation", "mark", "role", "drain_s", "not_after_s", "quiet_s", "park")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_S_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    QUIET_S_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    mark: _types_pb2.Mark
    role: _types_pb2.Role
    drain_s: float
    not_after_s: float
    quiet_s: float
    park: bool
    def __init__(self, incarnation: _Optional[str] = ..., mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., role: _Optional[_Union[_types_pb2.Role, str]] = ..., drain_s: _Optional[float] = ..., not_after_s: _Optional[float] = ..., quiet_s: _Optional[float] = ..., park: _Optional[bool] = ...) -> None: ...

class RoleCancel(_message.Message):
    __slots__ = ("incarnation", "mark")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    mark: _types_pb2.Mark
    def __init__(self, incarnation: _Optional[str] = ..., mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ...) -> None: ...

class RoleProgress(_message.Message):
    __slots__ = ("mark", "phase", "role", "requests_left", "error", "noticed")
    MARK_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_LEFT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOTICED_FIELD_NUMBER: _ClassVar[int]
    mark: _types_pb2.Mark
    phase: _types_pb2.Phase
    role: _types_pb2.Role
    requests_left: int
    error: str
    noticed: str
    def __init__(self, mark: _Optional[_Union[_types_pb2.Mark, _Mapping]] = ..., phase: _Optional[_Union[_types_pb2.Phase, str]] = ..., role: _Optional[_Union[_types_pb2.Role, str]] = ..., requests_left: _Optional[int] = ..., error: _Optional[str] = ..., noticed: _Optional[str] = ...) -> None: ...

class EngineLoad(_message.Message):
    __slots__ = ("engine_time_s", "load")
    ENGINE_TIME_S_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    engine_time_s: float
    load: _types_pb2.PhaseLoad
    def __init__(self, engine_time_s: _Optional[float] = ..., load: _Optional[_Union[_types_pb2.PhaseLoad, _Mapping]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
