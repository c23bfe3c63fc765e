"""One simulated GPU: limits with lag, draw, an exact energy counter, and the faults that real ones have."""

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from rapid.core.errors import DeviceDenied, DeviceLost, LimitRefused
from rapid.sim.model.power import Lag, LimitCurve
from rapid.simgpu.records import LimitLog, LimitRecord, read_log
from rapid.simgpu.store import SlotFile

_HEADER = struct.Struct("<I64s32sqqqddd")
# Limits, curve, energy, faults: the order of _State.packed.
_STATE = struct.Struct("<QQqqq ddqdq qddd Qqq")
_DENIED, _LOST, _STICKS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class SimGpuSpec:
    """What does not change in the life of a simulated GPU. `gpu` is its UUID, at most 64 bytes."""

    gpu: str
    index: int
    name: str
    floor_mw: int
    ceiling_mw: int
    idle_mw: int
    lag: Lag


@dataclass(frozen=True, slots=True)
class SimLimit:
    """The limit that was last asked for, and the one in force: they differ if something else holds a lower one."""

    requested_mw: int
    enforced_mw: int


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the device. A foreign writer is no fault: it is set_limit from another process.

    denied   setting a limit raises DeviceDenied
    lost     everything that a daemon asks raises DeviceLost
    sticks   setting a limit is ignored without a word
    step_mw  the device rounds a limit to the nearest multiple (0: it does not)
    external_limit_mw   another party (BMC, VBIOS) holds this limit; the lower one is in force (0: nobody does)
    """

    denied: bool = False
    lost: bool = False
    sticks: bool = False
    step_mw: int = 0
    external_limit_mw: int = 0


@dataclass(frozen=True, slots=True)
class _State:
    """All that changes, as it lies in a slot. Energy is counted up to as_of_s; what follows is in closed form."""

    seq: int  # changes of the enforced limit so far
    changed_ns: int
    changed_by: int
    requested_mw: int
    enforced_mw: int
    curve: LimitCurve
    natural_mw: int  # until busy_until_s
    busy_until_s: float
    as_of_s: float
    energy_mj: float
    faults: Faults

    def packed(self) -> bytes:
        curve, faults = self.curve, self.faults
        bits = _DENIED * faults.denied | _LOST * faults.lost | _STICKS * faults.sticks
        limits = (self.seq, self.changed_ns, self.changed_by, self.requested_mw, self.enforced_mw)
        course = (curve.start_mw, curve.start_s, curve.target_mw, curve.next_s, curve.next_mw)
        energy = (self.natural_mw, self.busy_until_s, self.as_of_s, self.energy_mj)
        return _STATE.pack(*limits, *course, *energy, bits, faults.step_mw, faults.external_limit_mw)

    @classmethod
    def unpacked(cls, packed: bytes, lag: Lag) -> "_State":
        seq, changed_ns, changed_by, requested_mw, enforced_mw, *rest = _STATE.unpack(packed)
        start_mw, start_s, target_mw, next_s, next_mw, natural_mw, busy_until_s, as_of_s, energy_mj, *rest = rest
        bits, step_mw, external_limit_mw = rest
        return cls(
            seq,
            changed_ns,
            changed_by,
            requested_mw,
            enforced_mw,
            LimitCurve(start_mw, start_s, target_mw, next_s, next_mw, lag),
            natural_mw,
            busy_until_s,
            as_of_s,
            energy_mj,
            Faults(bool(bits & _DENIED), bool(bits & _LOST), bool(bits & _STICKS), step_mw, external_limit_mw),
        )

    def last_record(self) -> LimitRecord | None:
        """None: the limit has never changed."""
        return LimitRecord(self.seq, self.changed_ns, self.enforced_mw, self.changed_by) if self.seq else None

    def lived(self, at_s: float, idle_mw: int) -> "_State":
        """The state at at_s, with the energy up to there: busy for as long as the activity lasts, idle after it."""
        at_s = max(at_s, self.as_of_s)
        return replace(self, as_of_s=at_s, energy_mj=self.energy_at_mj(at_s, idle_mw))

    def energy_at_mj(self, at_s: float, idle_mw: int) -> float:
        """The energy up to at_s, which is not before as_of_s."""
        busy_mj = self.curve.energy_mj(self.natural_mw, self.as_of_s, min(at_s, self.busy_until_s))
        idle_mj = self.curve.energy_mj(idle_mw, max(self.as_of_s, self.busy_until_s), at_s)
        return self.energy_mj + busy_mj + idle_mj


class SimGpu:
    """A handle on the GPU behind a state file. Any number of processes may hold one; threads may share one.

    A time earlier than what the device has already lived through counts as that: its time never goes back.
    """

    def __init__(self, path: Path, store: SlotFile) -> None:
        self._path, self._store = path, store
        self._log = LimitLog(path)
        self.spec = _unpack_spec(store.header(_HEADER.size))
        self._energy_mj = 0  # the greatest that this handle has told
        self._last: tuple[int, _State] | None = None  # what was unpacked last, and of which generation it is

    @classmethod
    def create(cls, path: Path, spec: SimGpuSpec, at_s: float, limit_mw: int | None = None) -> "SimGpu":
        """A GPU fresh from the factory: idle, at its ceiling unless limit_mw says otherwise. The log starts empty.

        Raises DeviceError if there is a file at `path` already.
        """
        limit_mw = spec.ceiling_mw if limit_mw is None else limit_mw
        state = _State(
            seq=0,
            changed_ns=0,
            changed_by=os.getpid(),
            requested_mw=limit_mw,
            enforced_mw=limit_mw,
            curve=LimitCurve.constant(limit_mw, spec.lag),
            natural_mw=spec.idle_mw,
            busy_until_s=at_s,
            as_of_s=at_s,
            energy_mj=0.0,
            faults=Faults(),
        )
        return cls(path, SlotFile.create(path, _pack_spec(spec), state.packed()))

    @classmethod
    def open(cls, path: Path) -> "SimGpu":
        """Raises DeviceError if `path` is not the state file of a simulated GPU."""
        return cls(path, SlotFile.open(path, _STATE.size))

    def close(self) -> None:
        self._log.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what a daemon asks ----

    def set_limit(self, limit_mw: int, at_s: float, writer: int | None = None) -> None:
        """Asks for a limit, as process `writer` (None: this one). Returning says nothing: read it back.

        Raises DeviceLost, DeviceDenied, or LimitRefused outside floor..ceiling.
        """
        spec = self.spec
        with self._store.writing():
            state = self._healthy_state()
            if state.faults.denied:
                raise DeviceDenied(spec.gpu, f"no permission to set a limit of {limit_mw / 1000:g} W")
            if not spec.floor_mw <= limit_mw <= spec.ceiling_mw:
                raise LimitRefused(spec.gpu, asked_mw=limit_mw, floor_mw=spec.floor_mw, ceiling_mw=spec.ceiling_mw)
            if state.faults.sticks:
                return
            self._enforce(replace(state, requested_mw=limit_mw), at_s, os.getpid() if writer is None else writer)

    def read_limit(self) -> SimLimit:
        """Raises DeviceLost."""
        state = self._healthy_state()
        return SimLimit(state.requested_mw, state.enforced_mw)

    def draw_mw(self, at_s: float) -> int:
        """The power at this instant. Raises DeviceLost."""
        state = self._healthy_state()
        at_s = max(at_s, state.as_of_s)
        natural_mw = state.natural_mw if at_s < state.busy_until_s else self.spec.idle_mw
        return round(min(state.curve.at(at_s), natural_mw))

    def energy_mj(self, at_s: float) -> int:
        """The energy since the GPU was made: exact, and never less than this handle has said before.

        Raises DeviceLost.
        """
        state = self._healthy_state()
        energy_mj = state.energy_at_mj(max(at_s, state.as_of_s), self.spec.idle_mw)
        self._energy_mj = max(self._energy_mj, int(energy_mj))
        return self._energy_mj

    # ---- what an engine does and feels ----

    def set_activity(self, natural_mw: int, until_s: float, at_s: float) -> None:
        """The GPU is busy from at_s on and would draw natural_mw without a limit; at until_s it goes idle by itself."""
        with self._store.writing():
            state = self._state().lived(at_s, self.spec.idle_mw)
            self._store.write(replace(state, natural_mw=natural_mw, busy_until_s=until_s).packed())

    def limit_curve(self) -> LimitCurve:
        """The limit in effect as a function of time, as long as nobody sets another."""
        return self._state().curve

    def limit_in_effect_mw(self, at_s: float) -> int:
        """The limit in effect at this instant: it follows the enforced one with the device's lag."""
        return round(self.limit_curve().at(at_s))

    # ---- what a test and the checker want to know ----

    def set_faults(self, faults: Faults, at_s: float) -> None:
        """Replaces all faults. One that changes the enforced limit does so at at_s, and is recorded."""
        with self._store.writing():
            self._enforce(replace(self._state(), faults=faults), at_s, os.getpid())

    def records(self) -> tuple[LimitRecord, ...]:
        """Every change of the enforced limit, in order."""
        return read_log(self._path, self._state().last_record())

    # ---- inside ----

    def _state(self) -> _State:
        """The state now; unpacked only when it has changed, for a daemon reads it many times a second."""
        generation = self._store.generation  # Taken before the read: a value that is newer is only unpacked again.
        last = self._last
        if last is not None and last[0] == generation:
            return last[1]
        state = _State.unpacked(self._store.read(), self.spec.lag)
        self._last = (generation, state)
        return state

    def _healthy_state(self) -> _State:
        state = self._state()
        if state.faults.lost:
            raise DeviceLost(self.spec.gpu, "it has fallen off the bus")
        return state

    def _enforce(self, state: _State, at_s: float, writer: int) -> None:
        """Brings the enforced limit in line with what is requested and with the faults; records it if it changes."""
        enforced_mw = state.requested_mw
        step_mw, external_mw = state.faults.step_mw, state.faults.external_limit_mw
        if step_mw:
            enforced_mw = (2 * enforced_mw + step_mw) // (2 * step_mw) * step_mw
        if external_mw:
            enforced_mw = min(enforced_mw, external_mw)
        if enforced_mw == state.enforced_mw:
            self._store.write(state.packed())
            return
        self._log.check_room(state.seq + 1)
        self._log.complete(state.last_record())
        state = state.lived(at_s, self.spec.idle_mw)
        state = replace(
            state,
            seq=state.seq + 1,
            changed_ns=round(state.as_of_s * 1e9),
            changed_by=writer,
            enforced_mw=enforced_mw,
            curve=state.curve.changed(enforced_mw, state.as_of_s),
        )
        self._store.write(state.packed())
        self._log.complete(state.last_record())


def records(path: Path) -> tuple[LimitRecord, ...]:
    """Every change of the enforced limit of the GPU whose state file is at `path`, in order. Raises DeviceError."""
    with SimGpu.open(path) as gpu:
        return gpu.records()


def _pack_spec(spec: SimGpuSpec) -> bytes:
    assert len(spec.gpu.encode()) <= 64
    lag = spec.lag
    return _HEADER.pack(
        spec.index,
        spec.gpu.encode(),
        spec.name.encode()[:32],
        spec.floor_mw,
        spec.ceiling_mw,
        spec.idle_mw,
        lag.delay_s,
        lag.tau_down_s,
        lag.tau_up_s,
    )


def _unpack_spec(header: bytes) -> SimGpuSpec:
    index, gpu, name, floor_mw, ceiling_mw, idle_mw, *lag = _HEADER.unpack(header)
    return SimGpuSpec(
        gpu=gpu.rstrip(b"\0").decode(),
        index=index,
        name=name.rstrip(b"\0").decode(),
        floor_mw=floor_mw,
        ceiling_mw=ceiling_mw,
        idle_mw=idle_mw,
        lag=Lag(*lag),
    )
