"""What devices tell besides limit and draw, and what a node notices while it holds its GPUs to their limits."""

from dataclasses import dataclass
from enum import Enum, Flag, auto


class Slowdown(Flag):
    """Why a device runs slower than it could, as it says itself; several may hold at once."""

    POWER_CAP = auto()  # its power limit
    THERMAL = auto()
    POWER_BRAKE = auto()  # a signal from outside: the power supply, the BMC
    OTHER = auto()


class EventKind(Enum):
    """What a driver tells without being asked."""

    XID = "xid"  # an error report of the NVIDIA driver, with its number
    LOST = "lost"  # the GPU does not answer any more
    BACK = "back"  # it answers again
    RELOADED = "reloaded"  # the driver has started anew: limits and counters may be any


class Mover(Enum):
    """Who moved a limit without us, as far as the device tells."""

    PROCESS = "another process"  # what user space asks for has changed
    OUTSIDE = "out of band"  # less is in force than user space asks for: a BMC, the VBIOS
    RELOAD = "driver reload"  # the energy counter began anew, or the driver says so
    UNKNOWN = "unknown writer"  # the device does not tell what was asked for


@dataclass(frozen=True, slots=True)
class GpuWatch:
    """One GPU since its daemon started; counts only grow.

    unmanaged     why the node does not set its limit, in one line; empty: it does
    moves         how often its limit was moved without us, by whom; those that never did are left out
    last_move     the last of them, in one line for a person
    repairs       how often the node wrote its own limit over another's
    xids, xid     error reports of the driver, and the number of the last
    losses        how often it stopped answering
    over_s        seconds in which its energy counter showed more than it had leave for
    unmeasured_s  seconds in which nothing could be shown; they count against us
    cap_bound     share of the last ten seconds in which its limit was what slowed it (None: it cannot be told)
    """

    unmanaged: str = ""
    moves: tuple[tuple[Mover, int], ...] = ()
    last_move: str = ""
    repairs: int = 0
    xids: int = 0
    xid: int = 0
    losses: int = 0
    over_s: float = 0.0
    unmeasured_s: float = 0.0
    cap_bound: float | None = None


@dataclass(frozen=True, slots=True)
class NodeWatch:
    """A node since its daemon started; counts only grow.

    watched_s     seconds that were judged; in over_s of them the energy counters showed more than the node had leave
                  for, in unmeasured_s one of them was stale or missing
    excursions    how often it cut limits by itself because its draw passed what it has leave for
    excursion     the one that goes on, in one line; empty: none
    """

    watched_s: float = 0.0
    over_s: float = 0.0
    unmeasured_s: float = 0.0
    excursions: int = 0
    excursion: str = ""
