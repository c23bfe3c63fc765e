"""Speed of a phase under a power limit, relative to no limit: the shapes that measurements suggest.

Every curve maps a fraction (of the ceiling for prefill, of the natural draw for decode) to a speed in (0, 1] and never
falls as the fraction grows. Below the last measured point, speed falls in proportion to the limit (assumed).
"""

from dataclasses import dataclass
from math import exp
from typing import Protocol


class SpeedCurve(Protocol):
    """Relative speed at a fraction of full power."""

    def speed(self, fraction: float) -> float: ...


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """fraction ** exponent down to the knee, and from there on with another exponent."""

    exponent: float
    knee: float = 0.0
    exponent_below: float = 1.0

    def speed(self, fraction: float) -> float:
        if fraction >= 1.0:
            return 1.0
        if fraction >= self.knee:
            return float(fraction**self.exponent)
        return float(self.knee**self.exponent * (fraction / self.knee) ** self.exponent_below)


@dataclass(frozen=True, slots=True)
class Saturating:
    """1 - exp(-(fraction - onset) / scale), normalised to 1 at full power."""

    onset: float
    scale: float
    measured_from: float

    def speed(self, fraction: float) -> float:
        if fraction >= 1.0:
            return 1.0
        if fraction < self.measured_from:
            return self.speed(self.measured_from) * fraction / self.measured_from
        return (1.0 - exp((self.onset - fraction) / self.scale)) / (1.0 - exp((self.onset - 1.0) / self.scale))


@dataclass(frozen=True, slots=True)
class QuadraticKnee:
    """1 - gain * (knee - fraction)^2 below the knee, 1 above it."""

    knee: float
    gain: float
    measured_from: float

    def speed(self, fraction: float) -> float:
        if fraction >= self.knee:
            return 1.0
        if fraction < self.measured_from:
            return self.speed(self.measured_from) * fraction / self.measured_from
        return 1.0 - self.gain * (self.knee - fraction) ** 2
