from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_PREFILL: _ClassVar[Role]
    ROLE_DECODE: _ClassVar[Role]
    ROLE_MIXED: _ClassVar[Role]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_SERVING: _ClassVar[Phase]
    PHASE_DRAINING: _ClassVar[Phase]
    PHASE_SWITCHING: _ClassVar[Phase]
    PHASE_WARMING: _ClassVar[Phase]
    PHASE_ROLLING_BACK: _ClassVar[Phase]
    PHASE_FAILED: _ClassVar[Phase]
    PHASE_GONE: _ClassVar[Phase]
    PHASE_PARKED: _ClassVar[Phase]
    PHASE_UNCERTAIN: _ClassVar[Phase]
ROLE_UNSPECIFIED: Role
ROLE_PREFILL: Role
ROLE_DECODE: Role
ROLE_MIXED: Role
PHASE_UNSPECIFIED: Phase
PHASE_SERVING: Phase
PHASE_DRAINING: Phase
PHASE_SWITCHING: Phase
PHASE_WARMING: Phase
PHASE_ROLLING_BACK: Phase
PHASE_FAILED: Phase
PHASE_GONE: Phase
PHASE_PARKED: Phase
PHASE_UNCERTAIN: Phase

class Histogram(_message.Message):
    __slots__ = ("bounds_s", "counts")
    BOUNDS_S_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    bounds_s: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, bounds_s: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class PhaseLoad(_message.Message):
    __slots__ = ("instance", "role", "at_s", "waiting_requests", "waiting_tokens", "oldest_wait_s", "running_requests", "kv_used_fraction", "arrived", "finished", "prompt_tokens", "output_tokens", "ttft", "tpot", "gpus")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    AT_S_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    KV_USED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TTFT_FIELD_NUMBER: _ClassVar[int]
    TPOT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    instance: str
    role: Role
    at_s: float
    waiting_requests: int
    waiting_tokens: int
    oldest_wait_s: float
    running_requests: int
    kv_used_fraction: float
    arrived: int
    finished: int
    prompt_tokens: int
    output_tokens: int
    ttft: Histogram
    tpot: Histogram
    gpus: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instance: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., at_s: _Optional[float] = ..., waiting_requests: _Optional[int] = ..., waiting_tokens: _Optional[int] = ..., oldest_wait_s: _Optional[float] = ..., running_requests: _Optional[int] = ..., kv_used_fraction: _Optional[float] = ..., arrived: _Optional[int] = ..., finished: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., ttft: _Optional[_Union[Histogram, _Mapping]] = ..., tpot: _Optional[_Union[Histogram, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("epoch", "seq")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    seq: int
    def __init__(self, epoch: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...
