"""Measured compliance: for how long the energy counters showed more than was allowed, and how often a limit binds.

    compliance.read(gpu, reading, leave_mw, now)   # on every sample
    compliance.judge(now, hard_mw)                 # in every turn; closes a window every WINDOW_S
    compliance.of(gpu), compliance.node            # what has been found

Energy is mean power without gaps, which no sample of the draw is. What cannot be shown counts as not kept.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rapid.core.cluster import Slowdown

# Counters are renewed every 20 to 100 ms (Yang, Adamek, Armour, arXiv 2312.02741): over 2 s that is at most 5 % of the
# energy, no more than the error that is allowed for.
WINDOW_S = 2.0
STALE_S = 1.0  # between two readings that are further apart nothing is known (assumed: ten samples of rapidd)
ENERGY_TOLERANCE = 0.05  # as the ledger allows for draws
CLOCK_STALE_S = 2.5  # the same for clocks, which rapidd reads once a second
BOUND_AT = 0.97  # a GPU that draws this share of its limit may be slowed by it,
CLOCK_FALLEN = 0.98  # and is, if its clock is below this share of the highest that it has shown (assumed)
_WINDOWS_KEPT = 5  # what cap_bound looks back over


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample of one GPU. None: the device cannot tell, or clock and slowdown were not asked for this time."""

    energy_mj: int | None
    draw_mw: int | None
    limit_mw: int
    clock_mhz: int | None = None
    slowdown: Slowdown | None = None

    def is_cap_bound(self, peak_mhz: int) -> bool | None:
        """Its limit is what slows it: it draws what it may, and its clock is down. None: it cannot be told.

        The power-cap bit is not asked: boards set it also while they lose nothing. Heat and a power brake bring the
        clock down, too, and then it is not the limit.
        """
        if self.draw_mw is None or self.clock_mhz is None:
            return None
        if self.draw_mw < BOUND_AT * self.limit_mw or self.clock_mhz >= CLOCK_FALLEN * peak_mhz:
            return False
        return self.slowdown is None or not self.slowdown & (Slowdown.THERMAL | Slowdown.POWER_BRAKE)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one GPU or of all: seconds judged; those in which it drew more than it had leave for; those in which nothing
    could be shown. `cap_bound` is the share of the last ten seconds in which the limit bound it (None: it cannot be
    told, or this is of all)."""

    watched_s: float = 0.0
    over_s: float = 0.0
    unmeasured_s: float = 0.0
    cap_bound: float | None = None

    def after(self, window_s: float, kept: bool | None, cap_bound: float | None = None) -> "Measured":
        """With one window more, in which it kept to its leave, or did not, or nothing was shown (None)."""
        over_s = self.over_s + (window_s if kept is False else 0.0)
        unmeasured_s = self.unmeasured_s + (window_s if kept is None else 0.0)
        return Measured(self.watched_s + window_s, over_s, unmeasured_s, cap_bound)


@dataclass(slots=True)
class _Meter:
    """The energy of one GPU in the window that is open: from first_mj at first_s to last_mj at last_s (None: nothing
    was read yet), with leave for may_mj in between."""

    first_mj: int = 0
    first_s: float = 0.0
    last_mj: int | None = None
    last_s: float = 0.0
    leave_mw: int = 0
    may_mj: float = 0.0

    def read(self, energy_mj: int, leave_mw: int, at_s: float) -> None:
        if self.last_mj is None or energy_mj < self.last_mj or at_s - self.last_s > STALE_S:
            self.first_mj, self.first_s, self.may_mj = energy_mj, at_s, 0.0
        else:
            self.may_mj += max(leave_mw, self.leave_mw) * (at_s - self.last_s)
        self.last_mj, self.last_s, self.leave_mw = energy_mj, at_s, leave_mw

    def close(self, window_s: float) -> tuple[float, float] | None:
        """The mean power of the window and the mean that was allowed, in milliwatts; None: too little of it was
        measured. The next window goes on from the last reading."""
        if self.last_mj is None:
            return None
        energy_mj, covered_s, may_mj = self.last_mj - self.first_mj, self.last_s - self.first_s, self.may_mj
        self.first_mj, self.first_s, self.may_mj = self.last_mj, self.last_s, 0.0
        if covered_s <= 0 or covered_s < window_s - STALE_S:
            return None
        return energy_mj / covered_s, may_mj / covered_s


@dataclass(slots=True)
class _Clock:
    """Seconds in which the limit of one GPU bound it, and in which that could be told, window by window."""

    peak_mhz: int = 0
    read_s: float = float("-inf")
    bound_s: float = 0.0
    known_s: float = 0.0
    windows: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOWS_KEPT))

    def read(self, reading: Reading, at_s: float) -> None:
        """A reading speaks for the time since the one before that told a clock; not every sample asks for it."""
        if reading.clock_mhz is None:
            return
        since_s, self.read_s = at_s - self.read_s, at_s
        self.peak_mhz = max(self.peak_mhz, reading.clock_mhz)
        bound = reading.is_cap_bound(self.peak_mhz)
        if bound is not None and since_s <= CLOCK_STALE_S:
            self.known_s += since_s
            self.bound_s += since_s * bound

    def close(self) -> float | None:
        """The share of the last windows; None: it could not be told in any of them."""
        self.windows.append((self.bound_s, self.known_s))
        self.bound_s = self.known_s = 0.0
        known_s = sum(known_s for _, known_s in self.windows)
        return sum(bound_s for bound_s, _ in self.windows) / known_s if known_s > 0 else None


class Compliance:
    """One node, on its own clock."""

    def __init__(self, gpus: Iterable[str]) -> None:
        self.node = Measured()
        self._meters = {gpu: _Meter() for gpu in gpus}
        self._clocks = {gpu: _Clock() for gpu in self._meters}
        self._found = dict.fromkeys(self._meters, Measured())
        self._opened_s: float | None = None

    def of(self, gpu: str) -> Measured:
        """What has been found of one GPU."""
        return self._found[gpu]

    def add(self, gpu: str) -> None:
        """One GPU more, from now on."""
        self._meters[gpu], self._clocks[gpu], self._found[gpu] = _Meter(), _Clock(), Measured()

    def read(self, gpu: str, reading: Reading, leave_mw: int, at_s: float) -> None:
        """A sample of a GPU that now has leave for leave_mw."""
        self._clocks[gpu].read(reading, at_s)
        if reading.energy_mj is not None:
            self._meters[gpu].read(reading.energy_mj, leave_mw, at_s)

    def judge(self, at_s: float, hard_mw: int | None = None) -> None:
        """Close the window when it is over. hard_mw is what all of the GPUs may draw whatever their leave (None: no
        such bound)."""
        if self._opened_s is None:
            self._opened_s = at_s
        window_s = at_s - self._opened_s
        if window_s < WINDOW_S:
            return
        self._opened_s = at_s
        draw_mw = may_mw = 0.0
        complete = True
        for gpu, meter in self._meters.items():
            means_mw = meter.close(window_s)
            kept = None if means_mw is None else means_mw[0] <= means_mw[1] * (1 + ENERGY_TOLERANCE)
            self._found[gpu] = self._found[gpu].after(window_s, kept, self._clocks[gpu].close())
            if means_mw is None:
                complete = False
            else:
                draw_mw, may_mw = draw_mw + means_mw[0], may_mw + means_mw[1]
        within = draw_mw <= may_mw * (1 + ENERGY_TOLERANCE) and (hard_mw is None or draw_mw <= hard_mw)
        self.node = self.node.after(window_s, within if complete else None)
