"""What the power meter of one board shows: a short look at a tenth-second's power, through a gain of its own.

A100 and H100 measure part of the time: a reading is the mean draw over 25 ms and is renewed every 100 ms, so three
quarters of what a GPU draws is never seen; boards differ in gain by some percent (Yang, Adamek and Armour, arXiv
2312.02741). The energy counter is taken to be exact (assumed).
"""

from math import ceil
from random import Random

PERIOD_S = 0.100  # a new reading so often
BOX_S = 0.025  # the stretch of time before it that a reading is the mean of
GAIN_SIGMA = 0.03  # from board to board
NOISE_SIGMA = 0.01  # of the draw itself, about what the phase and the limit say (assumed)


def noise(dice: Random) -> float:
    """A factor on the draw of a GPU: what runs is never twice the same."""
    return dice.gauss(1.0, NOISE_SIGMA)


class Sensor:
    """One board's meter, with its gain and the phase of its clock. Tell it the exact energy whenever it wants to look:

    while sensor.next_s <= now_s:
        sensor.look(sensor.next_s, the energy drawn until sensor.next_s)
    """

    def __init__(self, dice: Random, start_s: float = 0.0) -> None:
        self._gain = dice.gauss(1.0, GAIN_SIGMA)
        self._phase_s = dice.random() * PERIOD_S
        # Boxes are counted, not added up: their times must not drift. The first one lies wholly after start_s.
        self._box = ceil((start_s - self._phase_s) / PERIOD_S)
        self._done = self._box - 1  # the last box that has ended or been missed
        self._opened_mj: float | None = None  # the energy at the start of the box that is open
        self._reading: tuple[int, float] | None = None
        self._counter_mj = 0

    @property
    def next_s(self) -> float:
        """When it wants to look next: at the start or the end of a box."""
        starts_s = self._phase_s + self._box * PERIOD_S
        return starts_s if self._opened_mj is None else starts_s + BOX_S

    @property
    def is_open(self) -> bool:
        """It has looked at the start of a box and not yet at its end."""
        return self._opened_mj is not None

    def aim(self, at_s: float) -> None:
        """Pass over the boxes that start before at_s: nobody will ask for their readings. Not while one is open."""
        assert self._opened_mj is None, "a box is open"
        self._box = max(self._done + 1, ceil((at_s - self._phase_s) / PERIOD_S))

    def look(self, at_s: float, energy_mj: float) -> None:
        """Takes the exact energy drawn until at_s, which is next_s."""
        assert at_s == self.next_s, f"look at {at_s}, wanted at {self.next_s}"
        if self._opened_mj is None:
            self._opened_mj = energy_mj
            return
        self._reading = (round(self._gain * (energy_mj - self._opened_mj) / BOX_S), at_s)
        self._opened_mj, self._done = None, self._box
        self._box += 1

    def reading(self) -> tuple[int, float] | None:
        """The draw that it shows, in mW, and when the box of it ended. None: no box has ended yet."""
        return self._reading

    def counter_mj(self, energy_mj: float) -> int:
        """The energy counter when energy_mj has been drawn: whole mJ, and never less than before."""
        self._counter_mj = max(self._counter_mj, int(energy_mj))
        return self._counter_mj
