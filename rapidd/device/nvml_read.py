"""Reading values through whichever way this driver and GPU have: NVML knows a newer and an older one for each."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from rapid.core.cluster import Slowdown
from rapidd.device.nvml_status import ABSENT, LOST, Status

Handle = Any  # what pynvml makes of nvmlDevice_t
Getter = Callable[..., Any]


class Field(IntEnum):
    """Fields of nvmlDeviceGetFieldValues; power in milliwatts, energy in millijoules since the driver was loaded."""

    ENERGY = 83
    DRAW_INSTANT = 186
    LIMIT_ENFORCED = 190
    LIMIT_REQUESTED = 192


# By nvmlValueType_t: the member of nvmlValue_t that holds the value.
_MEMBER = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

# nvmlClocksEventReasons. HW_SLOWDOWN stands for two of the others, or for a reason without a bit of its own.
_GPU_IDLE, _SW_POWER_CAP, _HW_SLOWDOWN = 0x01, 0x04, 0x08
_THERMAL, _POWER_BRAKE = 0x20 | 0x40, 0x80


class Values:
    """Reads several values at once, each by its field or, where the field is absent, by its getter of old.

    The constructor finds out which. Both raise NVMLError; the constructor for a lost GPU only.
    """

    def __init__(self, nvml: Any, handle: Handle, wanted: Sequence[tuple[Field, Getter]]) -> None:
        self._nvml, self._handle = nvml, handle
        self.ways: list[Field | Getter | None] = [self._way(field, getter) for field, getter in wanted]
        self._fields = [way for way in self.ways if isinstance(way, Field)]

    def read(self) -> list[int | None]:
        """One value for each that was wanted, None for one that this driver or GPU does not tell."""
        values = iter(self._read_fields(self._fields) if self._fields else ())
        return [next(values) if isinstance(way, Field) else maybe(self._nvml, way, self._handle) for way in self.ways]

    def _way(self, field: Field, getter: Getter) -> Field | Getter | None:
        try:
            if self._read_fields([field]) != [None]:
                return field
        except self._nvml.NVMLError as error:
            if error.value in LOST:
                raise
        return first_of(self._nvml, [getter], self._handle)

    def _read_fields(self, fields: Sequence[Field]) -> list[int | None]:
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(self._handle, fields)
        except self._nvml.NVMLError as error:
            if error.value not in ABSENT:
                raise
            return [None] * len(fields)
        return [self._value(value) for value in values]

    def _value(self, value: Any) -> int | None:
        # Each value has a status of its own; the status of the call says nothing about it.
        status = value.nvmlReturn
        if status == Status.SUCCESS:
            return int(getattr(value.value, _MEMBER[value.valueType]))
        if status in ABSENT:
            return None
        raise self._nvml.NVMLError(status)


def maybe(nvml: Any, getter: Getter | None, *arguments: Any) -> Any | None:
    """What the getter says; None for no getter, or for one that this driver or GPU does not have."""
    if getter is None:
        return None
    try:
        return getter(*arguments)
    except nvml.NVMLError as error:
        if error.value not in ABSENT:
            raise
        return None


def perhaps(nvml: Any, getter: Getter | None, *arguments: Any) -> Any | None:
    """What the getter says of something that is good to know; None for one that is absent, or fails just now."""
    if getter is None:
        return None
    try:
        return getter(*arguments)
    except nvml.NVMLError as error:
        if error.value in LOST:
            raise
        return None


def first_of(nvml: Any, getters: Sequence[Getter], *arguments: Any) -> Getter | None:
    """The first of the getters that this driver and GPU have; one that fails just now is one that they have."""
    for getter in getters:
        try:
            if maybe(nvml, getter, *arguments) is not None:
                return getter
        except nvml.NVMLError as error:
            if error.value in LOST:
                raise
            return getter
    return None


def slowdown_of(reasons: int) -> Slowdown:
    """nvmlClocksEventReasons in our words; a bit that nobody knows yet is OTHER."""
    found = Slowdown(0)
    if reasons & _SW_POWER_CAP:
        found |= Slowdown.POWER_CAP
    if reasons & _THERMAL:
        found |= Slowdown.THERMAL
    if reasons & _POWER_BRAKE:
        found |= Slowdown.POWER_BRAKE
    explained = _GPU_IDLE | _SW_POWER_CAP | _THERMAL | _POWER_BRAKE
    if reasons & (_THERMAL | _POWER_BRAKE):
        explained |= _HW_SLOWDOWN
    return found | Slowdown.OTHER if reasons & ~explained else found
