"""Reading values through whichever way this driver and GPU have: NVML knows a newer and an older one for each."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from struct import Struct
from typing import Any

from rapid.core.cluster import Slowdown
from rapidd.device.nvml_status import ABSENT, LOST

Handle = Any  # what pynvml makes of nvmlDevice_t
Getter = Callable[..., Any]


class Field(IntEnum):
    """Fields of nvmlDeviceGetFieldValues; power in milliwatts, energy in millijoules since the driver was loaded."""

    ENERGY = 83
    DRAW_INSTANT = 186
    LIMIT_ENFORCED = 190
    LIMIT_REQUESTED = 192


# The end of nvmlFieldValue_t: type, status, and eight bytes of which a type may use but some.
_FIELD_VALUE = Struct("@24xIIQ")
_MASKS = {1: 0xFFFF_FFFF, 2: 0xFFFF_FFFF_FFFF_FFFF, 3: 0xFFFF_FFFF_FFFF_FFFF}  # nvmlValueType_t: those without a sign

# nvmlClocksEventReasons. HW_SLOWDOWN stands for two of the others, or for a reason without a bit of its own.
_GPU_IDLE, _SW_POWER_CAP, _HW_SLOWDOWN = 0x01, 0x04, 0x08
_THERMAL, _POWER_BRAKE = 0x20 | 0x40, 0x80


class Values:
    """Reads several values at once, each by its field or, where the field is absent, by its getter of old.

    `read` raises NVMLError if one of them cannot be read now.
    """

    def __init__(self, nvml: Any, handle: Handle, ways: Sequence[Field | Getter | None]) -> None:
        self._nvml, self._handle, self.ways = nvml, handle, ways
        fields = [way for way in ways if isinstance(way, Field)]
        # The binding's own function makes these anew for every call, and takes longer for that than many a driver.
        self._get = getattr(nvml.nvmlLib, "nvmlDeviceGetFieldValues", None) if fields else None
        self._values = (nvml.c_nvmlFieldValue_t * len(fields))()
        for value, field in zip(self._values, fields, strict=True):
            value.fieldId = field

    @classmethod
    def probe(cls, nvml: Any, handle: Handle, wanted: Sequence[tuple[Field, Getter]]) -> "Values":
        """Find out which way there is to each. Raises NVMLError for a lost GPU only."""
        return cls(nvml, handle, [_way(nvml, handle, field, getter) for field, getter in wanted])

    def __add__(self, other: "Values") -> "Values":
        """The values of both, still in one call for all that have a field."""
        return Values(self._nvml, self._handle, [*self.ways, *other.ways])

    def read(self) -> list[int | None]:
        """One value for each that was wanted, None for one that this driver or GPU does not tell."""
        values = self._values
        if self._get is None or self._failed(self._get(self._handle, len(values), values)):
            told: list[int | None] = [None] * len(values)
        else:
            # Each value has a status of its own; the status of the call says nothing about it.
            told = [
                None if (status and self._failed(status)) or kind not in _MASKS else value & _MASKS[kind]
                for kind, status, value in _FIELD_VALUE.iter_unpack(values)
            ]
        if len(told) == len(self.ways):
            return told
        fields = iter(told)
        return [next(fields) if isinstance(way, Field) else maybe(self._nvml, way, self._handle) for way in self.ways]

    def _failed(self, status: int) -> bool:
        """False for success, true for what is absent. Raises NVMLError for all else."""
        if not status:
            return False
        if status not in ABSENT:
            raise self._nvml.NVMLError(status)
        return True


def _way(nvml: Any, handle: Handle, field: Field, getter: Getter) -> Field | Getter | None:
    try:
        if Values(nvml, handle, [field]).read() != [None]:
            return field
    except nvml.NVMLError as error:
        if error.value in LOST:
            raise
    return first_of(nvml, [getter], handle)


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
