"""A limit that moves without us: noticed, attributed, counted; and one who fights back is fenced.

    drift.stands(seen)                                        # after a write of ours: so it stands
    mover, seen = drift.look(enforced_mw, requested_mw, ...)  # after a sample: has somebody moved it, and who
    if not drift.repair(mover, now): ...                      # too often: stop writing

A device tells what user space asked for and what is in force; which of the two moved says who it was.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rapid.core.errors import watts
from rapid.core.watched import Mover

SUSPECTS_MAX = 8  # candidates that are named
ASK_EVERY_S = 5.0  # assumed: it takes a walk through all processes


@dataclass(frozen=True, slots=True)
class FenceSettings:
    """Whose limit is moved again after `repairs` repairs within `window_s` goes unmanaged (both assumed: a setting
    changed once a minute is repaired for ever, a loop that sets one every few seconds is a fight)."""

    repairs: int = 5
    window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a device says of its limit: the one in force, and the one that user space asked for (None: not told)."""

    enforced_mw: int
    requested_mw: int | None = None

    @property
    def most_mw(self) -> int:
        """The most that may be in force: what is asked for comes into force when a lower hold from outside goes."""
        return max(self.enforced_mw, self.requested_mw or 0)


@dataclass(slots=True)
class Drift:
    """One GPU. `seen` is how its limit was last known to stand (None: never seen)."""

    settings: FenceSettings = FenceSettings()
    seen: Seen | None = None
    moves: dict[Mover, int] = field(default_factory=dict)
    last: str = ""
    repairs: int = 0
    suspects: tuple[str, ...] = ()
    _asked_s: float = float("-inf")
    _energy_mj: int | None = None
    _repaired_s: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self._repaired_s = deque(maxlen=self.settings.repairs)

    def stands(self, seen: Seen | None) -> None:
        """What was read back after our own write; None: nobody knows."""
        self.seen = seen

    def forget(self) -> None:
        """The driver has begun anew: what was seen before tells nothing of what comes."""
        self.seen = self._energy_mj = None

    def look(
        self, enforced_mw: int, requested_mw: int | None, wanted_mw: int, *, trusted: bool = True
    ) -> tuple[Mover | None, Seen]:
        """A reading beside no write, and who has moved the limit since the one before; None: nobody, or the one before
        can tell nothing any more (not trusted)."""
        before = self.seen
        if before is not None and enforced_mw == before.enforced_mw and requested_mw == before.requested_mw:
            return None, before  # as nearly always
        self.seen = seen = Seen(enforced_mw, requested_mw)
        if before is None or not trusted or (mover := who_moved(before, seen)) is None:
            return None, seen
        return self.note(mover, f"{_words(before)} to {_words(seen)}; {watts(wanted_mw)} is ours"), seen

    def is_reset(self, energy_mj: int | None) -> bool:
        """The energy counter has begun anew, as it does when the driver is loaded. None: it was not read."""
        if energy_mj is None:
            return False
        before_mj, self._energy_mj = self._energy_mj, energy_mj
        return before_mj is not None and energy_mj < before_mj

    def note(self, mover: Mover, what: str) -> Mover:
        """Count a move, and say who it was."""
        self.moves[mover] = self.moves.get(mover, 0) + 1
        self.last = f"{mover.value}: {what}"
        self.suspects = ()
        return mover

    def repair(self, mover: Mover, at_s: float) -> bool:
        """The limit is about to be written over the move: whether it may be; False: it was done too often, fence it.

        Only other hands count. A BMC that holds the device lower takes nothing away from anybody, and a driver that is
        loaded anew does not fight.
        """
        if mover in (Mover.PROCESS, Mover.UNKNOWN):
            kept = self._repaired_s
            if len(kept) == kept.maxlen and at_s - kept[0] <= self.settings.window_s:
                return False
            kept.append(at_s)
        self.repairs += 1
        return True

    def asks(self, at_s: float) -> bool:
        """Whether to look for who holds the device open: not for every move of many, for that is not cheap."""
        if at_s - self._asked_s < ASK_EVERY_S:
            return False
        self._asked_s = at_s
        return True

    def suspect(self, processes: Iterable[str]) -> None:
        """Who holds the device open: one of them may have done it."""
        self.suspects = tuple(processes)[:SUSPECTS_MAX]

    @property
    def story(self) -> str:
        """The last move in one line, with the candidates."""
        if not self.suspects:
            return self.last
        return f"{self.last} (who holds the device: {', '.join(self.suspects)})"

    def forgive(self) -> None:
        """What was repaired so far does not count any more: an operator says that the other writer is gone."""
        self._repaired_s.clear()


def who_moved(before: Seen, now: Seen) -> Mover | None:
    """Who has made one reading into the next, if nobody of ours has; None: they are the same."""
    if now == before:
        return None
    if now.requested_mw is None or before.requested_mw is None:
        return None if now.enforced_mw == before.enforced_mw else Mover.UNKNOWN
    if now.requested_mw != before.requested_mw:
        return Mover.PROCESS
    return Mover.OUTSIDE if now.enforced_mw <= now.requested_mw else Mover.UNKNOWN


def _words(seen: Seen) -> str:
    if seen.requested_mw in (None, seen.enforced_mw):
        return watts(seen.enforced_mw)
    assert seen.requested_mw is not None
    return f"{watts(seen.enforced_mw)} ({watts(seen.requested_mw)} asked for)"
