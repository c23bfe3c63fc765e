"""The limit in effect after a change, and the energy drawn under it, in closed form.

A device polls for a new limit and then regulates towards it: nothing happens for a delay, then the limit in effect
moves to the new one by a first-order lag. After five time constants (1 % of the step left) it has landed (assumed).
"""

from dataclasses import dataclass, field
from math import exp, inf, log
from typing import Protocol

# After so many time constants the regulator holds the limit exactly (assumed; e^-5 is 0.7 % of the step).
LANDED_AFTER_TAUS = 5.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How slowly a device follows a new limit."""

    delay_s: float
    tau_down_s: float
    tau_up_s: float


@dataclass(frozen=True, slots=True)
class LimitCurve:
    """The limit in effect as a function of time, through at most one change that is still to take hold.

    From start_s on it moves from start_mw to target_mw; at next_s (infinite: no change waits) it turns to next_mw. It
    remembers nothing of the time before the last change, and takes the limit before start_s for constant.
    """

    start_mw: float
    start_s: float
    target_mw: int
    next_s: float
    next_mw: int
    lag: Lag
    settled_s: float = field(init=False, repr=False, compare=False)  # from here on the limit in effect is constant:
    settled_mw: int = field(init=False, repr=False, compare=False)  # this
    _tau_s: float = field(init=False, repr=False, compare=False)  # before next_s
    _next_tau_s: float = field(init=False, repr=False, compare=False)  # after it
    _turn_mw: float = field(init=False, repr=False, compare=False)  # the limit in effect at next_s

    def __post_init__(self) -> None:
        # Worked out once: a decode step asks for the limit in effect, and a change happens once in hundreds of steps.
        set_once, waits = object.__setattr__, self.next_s < inf
        tau_s = self._tau_between_s(self.start_mw, self.target_mw)
        set_once(self, "_tau_s", tau_s)
        turn_mw = _on_the_way(self.start_mw, self.target_mw, self.next_s - self.start_s, tau_s)
        set_once(self, "_turn_mw", turn_mw)
        next_tau_s = self._tau_between_s(turn_mw, self.next_mw)
        set_once(self, "_next_tau_s", next_tau_s)
        settled_s = self.start_s + LANDED_AFTER_TAUS * tau_s if self.start_mw != self.target_mw else -inf
        set_once(self, "settled_s", self.next_s + LANDED_AFTER_TAUS * next_tau_s if waits else settled_s)
        set_once(self, "settled_mw", self.next_mw if waits else self.target_mw)

    @classmethod
    def constant(cls, limit_mw: int, lag: Lag) -> "LimitCurve":
        """A limit that has been in effect for ever."""
        return cls(start_mw=limit_mw, start_s=-inf, target_mw=limit_mw, next_s=inf, next_mw=limit_mw, lag=lag)

    def changed(self, limit_mw: int, at_s: float, delay_s: float | None = None) -> "LimitCurve":
        """The curve after a new limit has been set at at_s; delay_s: of this one change (None: the lag's own).

        A change that comes while another still waits is picked up by the same poll of the device: it replaces it.
        """
        curve = self._turned() if at_s >= self.next_s else self
        next_s = curve.next_s if curve.next_s < inf else at_s + (self.lag.delay_s if delay_s is None else delay_s)
        return LimitCurve(curve.start_mw, curve.start_s, curve.target_mw, next_s, limit_mw, self.lag)

    def at(self, time_s: float) -> float:
        """The limit in effect, in mW."""
        if time_s >= self.settled_s:
            return self.settled_mw
        if time_s < self.next_s:
            return _on_the_way(self.start_mw, self.target_mw, time_s - self.start_s, self._tau_s)
        return _on_the_way(self._turn_mw, self.next_mw, time_s - self.next_s, self._next_tau_s)

    def greatest_mw(self, from_s: float) -> float:
        """It is never greater from from_s on."""
        return max(self.at(from_s), self.target_mw, self.settled_mw)

    def least_mw(self, from_s: float) -> float:
        """It is never less from from_s on."""
        return min(self.at(from_s), self.target_mw, self.settled_mw)

    def energy_mj(self, natural_mw: float, from_s: float, until_s: float) -> float:
        """The exact integral of min(limit in effect, natural draw) over the interval, in mJ."""
        if until_s <= from_s:
            return 0.0
        if from_s < self.start_s:  # as at() has it
            early_s = min(until_s, self.start_s) - from_s
            return min(self.start_mw, natural_mw) * early_s + self.energy_mj(natural_mw, self.start_s, until_s)
        if from_s >= self.next_s:
            return self._turned().energy_mj(natural_mw, from_s, until_s)
        if until_s > self.next_s:
            return self._piece_mj(natural_mw, from_s, self.next_s) + self._turned().energy_mj(
                natural_mw, self.next_s, until_s
            )
        return self._piece_mj(natural_mw, from_s, until_s)

    def _piece_mj(self, natural_mw: float, from_s: float, until_s: float) -> float:
        """The same, for an interval between start_s and next_s: a decaying step, then constant."""
        tau_s = self._tau_s
        landed_s = self.start_s + LANDED_AFTER_TAUS * tau_s
        if from_s >= landed_s or self.start_mw == self.target_mw:
            return min(self.target_mw, natural_mw) * (until_s - from_s)
        decay_mj = self._decay_mj(natural_mw, from_s, min(until_s, landed_s), tau_s)
        return decay_mj + min(self.target_mw, natural_mw) * max(0.0, until_s - landed_s)

    def _decay_mj(self, natural_mw: float, from_s: float, until_s: float, tau_s: float) -> float:
        """The same, while the step decays. The curve is monotone, so it crosses the natural draw at most once."""
        above_from, above_until = self.at(from_s) > natural_mw, self.at(until_s) > natural_mw
        if above_from and above_until:
            return natural_mw * (until_s - from_s)
        if not above_from and not above_until:
            return self._free_decay_mj(from_s, until_s, tau_s)
        crossing_s = until_s
        if natural_mw != self.target_mw:  # else only the landing crosses it
            crossing_s = self.start_s + tau_s * log((self.start_mw - self.target_mw) / (natural_mw - self.target_mw))
            crossing_s = min(max(crossing_s, from_s), until_s)
        if above_from:
            return natural_mw * (crossing_s - from_s) + self._free_decay_mj(crossing_s, until_s, tau_s)
        return self._free_decay_mj(from_s, crossing_s, tau_s) + natural_mw * (until_s - crossing_s)

    def _free_decay_mj(self, from_s: float, until_s: float, tau_s: float) -> float:
        fall = exp(-(from_s - self.start_s) / tau_s) - exp(-(until_s - self.start_s) / tau_s)
        return self.target_mw * (until_s - from_s) + (self.start_mw - self.target_mw) * tau_s * fall

    def _tau_between_s(self, start_mw: float, target_mw: int) -> float:
        return self.lag.tau_down_s if target_mw < start_mw else self.lag.tau_up_s

    def _turned(self) -> "LimitCurve":
        """The curve seen from next_s on."""
        return LimitCurve(self._turn_mw, self.next_s, self.next_mw, inf, self.next_mw, self.lag)


def _on_the_way(start_mw: float, target_mw: int, age_s: float, tau_s: float) -> float:
    """The limit in effect age_s after it began to move from start_mw to target_mw."""
    if age_s <= 0.0:
        return start_mw
    if age_s >= LANDED_AFTER_TAUS * tau_s:
        return target_mw
    return target_mw + (start_mw - target_mw) * exp(-age_s / tau_s)


class Pace(Protocol):
    """The limit in effect that an engine's speed follows."""

    def at(self, time_s: float) -> float:
        """The limit in effect, in mW."""

    @property
    def settled_s(self) -> float:
        """From here on it is constant."""

    def greatest_mw(self, from_s: float) -> float:
        """It is never greater from from_s on."""

    def least_mw(self, from_s: float) -> float:
        """It is never less from from_s on."""


@dataclass(frozen=True, slots=True)
class LeastOf:
    """The least of several limits in effect: GPUs that share every layer wait for the slowest of them."""

    curves: tuple[LimitCurve, ...]

    def at(self, time_s: float) -> float:
        return min([curve.at(time_s) for curve in self.curves])

    @property
    def settled_s(self) -> float:
        return max([curve.settled_s for curve in self.curves])

    def greatest_mw(self, from_s: float) -> float:
        return min([curve.greatest_mw(from_s) for curve in self.curves])

    def least_mw(self, from_s: float) -> float:
        return min([curve.least_mw(from_s) for curve in self.curves])


def pace_of(curves: tuple[LimitCurve, ...]) -> Pace:
    """The pace of an engine on GPUs that follow these curves."""
    return curves[0] if curves.count(curves[0]) == len(curves) else LeastOf(curves)


class PowerMeter:
    """Adds up the energy of one GPU, interval after interval."""

    def __init__(self, curve: LimitCurve, at_s: float) -> None:
        self._at_s = at_s
        self._energy_mj = 0.0
        self._noise = 1.0
        self.follow(curve)

    def copy(self) -> "PowerMeter":
        other = PowerMeter.__new__(PowerMeter)
        other.__dict__.update(self.__dict__)
        return other

    def follow(self, curve: LimitCurve) -> None:
        """From the end of the last interval on, this curve is the limit in effect."""
        self.curve = curve
        self._settled_s, self._settled_mw = curve.settled_s, curve.settled_mw

    def make_noise(self, factor: float) -> None:
        """From the end of the last interval on, the draw is so many times what limit and natural draw make of it."""
        self._noise = factor

    def spend(self, natural_mw: float, until_s: float) -> None:
        """Counts a natural draw of natural_mw from where the last interval ended; earlier times count nothing."""
        if until_s > self._at_s:
            self._energy_mj = self.energy_mj(natural_mw, until_s)
            self._at_s = until_s

    def energy_mj(self, natural_mw: float, until_s: float) -> float:
        """What would have been counted after such a spend(). Looking changes nothing."""
        from_s = self._at_s
        if until_s <= from_s:
            return self._energy_mj
        if from_s >= self._settled_s:  # nearly always, and much cheaper
            return self._energy_mj + self._noise * min(self._settled_mw, natural_mw) * (until_s - from_s)
        return self._energy_mj + self._noise * self.curve.energy_mj(natural_mw, from_s, until_s)
