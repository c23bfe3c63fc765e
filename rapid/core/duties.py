"""What the guard is told of its node at start, and what it asks of the daemon, to be done in the order given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuardedGpu:
    """A GPU at start. limit_mw None: it could not be read; it is shown at its ceiling, and goes to its floor.

    `unmanageable` says why it must never be written (empty: it may be): it is shown at its ceiling for good.
    """

    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int
    limit_mw: int | None
    unmanageable: str = ""


@dataclass(frozen=True, slots=True)
class GuardMemory:
    """What a node keeps on disk: the highest epoch it has seen, whose it is, and how often the daemon has started."""

    epoch: int = 0
    controller_id: str = ""
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Persist:
    """Put the memory on disk, then call guard.persisted(memory). Until then the guard takes no grant of that epoch."""

    memory: GuardMemory


@dataclass(frozen=True, slots=True)
class Write:
    """Set the limit, read it back, answer with guard.wrote(). At most one is outstanding per GPU."""

    gpu: str
    limit_mw: int


@dataclass(frozen=True, slots=True)
class FindHolders:
    """Find out which processes hold the GPU open, and answer with guard.suspects(). It may take its time."""

    gpu: str


@dataclass(frozen=True, slots=True)
class Say:
    """One log line."""

    level: str
    event: str
    about: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReportSoon:
    """The controller should hear now rather than at the next interval."""


Duty = Persist | Write | FindHolders | Say | ReportSoon
