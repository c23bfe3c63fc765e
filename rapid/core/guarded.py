"""One GPU of a guard: what is granted, what is in force, and what is left to write."""

from dataclasses import dataclass, field

from rapid.core.cluster import GpuHealth, GpuReport, Mark
from rapid.core.compliance import Measured
from rapid.core.drift import Drift, FenceSettings, Seen
from rapid.core.duties import GuardedGpu
from rapid.core.watched import EventKind, GpuWatch, Mover

_NOTHING = GpuWatch()


@dataclass(slots=True)
class GpuState:
    """One GPU. grant_mw is the limit granted; void says that the grant was given up, so that it must never rise to it.

    Invariant: void implies grant_mw <= every limit read back since it became void.
    """

    spec: GuardedGpu
    limit_mw: int
    limit_since_s: float
    grant_mw: int
    drift: Drift = field(default_factory=Drift)
    void: bool = True
    unmanaged: str = ""  # why it is never written; then limit_mw is the worst that was seen
    cut_mw: int | None = None  # an excursion holds it to this for a while
    forgotten: bool = False  # the driver may have forgotten its limit: write it, whatever it is said to be
    writing_mw: int | None = None
    tried: tuple[int, int] | None = None  # the last write: asked for, and read back
    tried_at_s: float = 0.0
    tries: int = 0  # how often in a row that was the outcome
    owed: Mark | None = None  # the grant whose answer waits for a write
    landed: bool = False
    cut_shown: bool = True  # the draw has been seen at or below the limit since it last came down
    draw_mw: int | None = None
    draw_at_s: float = 0.0
    energy_mj: int | None = None
    requested_mw: int | None = None
    write_health: GpuHealth = GpuHealth.OK
    write_problem: str = ""
    read_health: GpuHealth = GpuHealth.OK
    read_problem: str = ""
    xids: int = 0
    xid: int = 0
    losses: int = 0

    @property
    def want_mw(self) -> int:
        """The limit that must be in force: what is granted, or less while an excursion is cut."""
        return self.grant_mw if self.cut_mw is None else min(self.grant_mw, self.cut_mw)

    @property
    def cover_mw(self) -> int:
        """The greatest limit that may be in force now or without further leave."""
        most_mw = max(self.limit_mw, self.writing_mw or 0, 0 if self.void else self.grant_mw)
        return max(most_mw, self.spec.ceiling_mw) if self.unmanaged else most_mw

    @property
    def may_be_aloft(self) -> bool:
        """It may be above its fallback: by what is known, or because what is known may have been forgotten."""
        return self.cover_mw > self.spec.fallback_mw or self.forgotten or self.read_health is GpuHealth.LOST

    @property
    def clamped(self) -> bool:
        """The device was asked for the limit wanted, and goes no higher: it rounds, or something holds it down."""
        if self.limit_mw >= self.want_mw or self.write_problem or self.tried is None or self.tried[0] != self.want_mw:
            return False
        asked_mw = None if self.drift.seen is None else self.drift.seen.requested_mw
        if self.tried[1] != self.limit_mw:
            return asked_mw == self.want_mw  # it moves, and what was asked of it stands
        # Somebody who asked for less just after us looks like a driver that rounds down; a second try tells.
        return self.tries >= 2 or asked_mw is None or asked_mw >= self.want_mw

    def is_due(self, at_s: float, retry_s: float) -> bool:
        """A write is due: at once after a change, every retry_s after a failure."""
        if self.unmanaged or self.writing_mw is not None:
            return False
        if self.forgotten:
            return True
        done = self.limit_mw == self.want_mw and self.write_health is not GpuHealth.DENIED
        if done or self.clamped:
            return False
        if self.tried is None or self.tried[0] != self.want_mw:
            return True
        failed = self.tried[1] != self.want_mw or bool(self.write_problem)
        return not failed or at_s - self.tried_at_s >= retry_s

    def begin_write(self, at_s: float) -> None:
        self.writing_mw, self.tried_at_s, self.forgotten = self.want_mw, at_s, False

    def wrote(self, asked_mw: int, seen: Seen | None, at_s: float) -> None:
        """A write has ended. None: nobody knows what is in force, it may be either."""
        self.writing_mw = None
        if self.forgotten:
            seen = None  # the driver began anew meanwhile, and what was read back may be older than that
        self.drift.stands(seen)
        seen_mw = max(self.limit_mw, asked_mw) if seen is None else self.most_mw(seen)
        self.see_limit(seen_mw, at_s, read=seen is not None)
        self.tries = self.tries + 1 if self.tried == (asked_mw, seen_mw) else 1
        self.tried, self.tried_at_s = (asked_mw, seen_mw), at_s

    def most_mw(self, seen: Seen) -> int:
        """What counts as in force. Somebody asked for more than is wanted, and something else (a BMC, the VBIOS) holds
        the device lower for now: it would rise by itself when that goes."""
        return seen.most_mw if (seen.requested_mw or 0) > self.want_mw else seen.enforced_mw

    def see_limit(self, limit_mw: int, at_s: float, *, read: bool = True) -> None:
        """This limit is in force now, read back or feared to be."""
        if self.void:
            # The controller books a void GPU at what was read back, so it may not come up again by itself.
            self.grant_mw = min(self.grant_mw, limit_mw)
        if self.unmanaged:
            limit_mw = max(limit_mw, self.limit_mw)  # nobody brings it down again, so the worst that was seen counts
        if limit_mw != self.limit_mw:
            self.cut_shown = self.cut_shown and limit_mw > self.limit_mw
            self.limit_mw, self.limit_since_s = limit_mw, at_s
        self.landed = self.landed or (read and limit_mw <= self.spec.fallback_mw)

    def see_health(self, health: GpuHealth, problem: str) -> bool:
        """How reading it went; true when it answers again after it was lost."""
        was_lost, is_lost = self.read_health is GpuHealth.LOST, health is GpuHealth.LOST
        self.losses += is_lost and not was_lost
        self.read_health, self.read_problem = health, problem
        return was_lost and not is_lost

    def happened(self, kind: EventKind, code: int, detail: str, at_s: float) -> None:
        """The driver tells of this GPU."""
        match kind:
            case EventKind.XID:
                self.xids, self.xid = self.xids + 1, code
            case EventKind.LOST:
                self.see_health(GpuHealth.LOST, detail or "the driver lost it")
            case EventKind.RELOADED:
                self.drift.note(Mover.RELOAD, detail or "the driver says so")
                self._forget(at_s)
            case EventKind.BACK:
                self._forget(at_s)

    def _forget(self, at_s: float) -> None:
        """The driver has begun anew: until a write of ours is read back, any limit may be in force."""
        self.forgotten = True
        self.drift.forget()
        self.see_limit(self.spec.ceiling_mw, at_s, read=False)

    def fence(self) -> None:
        """Give it up to who fights for it."""
        fence = self.drift.settings
        self.unmanaged = (
            f"its limit was moved again after {fence.repairs} repairs within {fence.window_s:g} s ({self.drift.last}); "
            "rapidd sets it no more: stop who does, then reload rapidd"
        )
        self.void = True

    def unfence(self) -> None:
        """Take it back, void and at most at its fallback."""
        self.unmanaged, self.forgotten = "", True
        self.grant_mw = min(self.grant_mw, self.spec.fallback_mw)
        self.drift.forgive()

    def cut(self, factor: float | None) -> None:
        """Hold it to this share of what it is at, in whole watts and not below its floor; None: let go."""
        if factor is None:
            self.cut_mw = None
            return
        at_mw = min(self.limit_mw, self.want_mw)
        self.cut_mw = max(self.spec.floor_mw, int(at_mw * factor) // 1000 * 1000)

    def shows_cut(self) -> bool:
        """The watts of a cut are free for others once a sample shows it; true when one has just done so."""
        if (
            self.cut_shown
            or self.draw_mw is None
            or self.draw_at_s < self.limit_since_s
            or self.draw_mw > self.limit_mw
        ):
            return False
        self.cut_shown = True
        return True

    def _watch(self, measured: Measured | None) -> GpuWatch:
        drift = self.drift
        if measured is None:
            if not (drift.moves or self.unmanaged or self.xids or self.losses):
                return _NOTHING
            measured = Measured()
        return GpuWatch(
            unmanaged=self.unmanaged,
            moves=tuple(drift.moves.items()),
            last_move=drift.story,
            repairs=drift.repairs,
            xids=self.xids,
            xid=self.xid,
            losses=self.losses,
            over_s=round(measured.over_s, 3),
            unmeasured_s=round(measured.unmeasured_s, 3),
            cap_bound=None if measured.cap_bound is None else round(measured.cap_bound, 3),
        )

    def report(self, measured: Measured | None) -> GpuReport:
        """None: nobody has measured it."""
        spec = self.spec
        failed = self.write_health is not GpuHealth.OK
        return GpuReport(
            gpu=spec.gpu,
            index=spec.index,
            floor_mw=spec.floor_mw,
            ceiling_mw=spec.ceiling_mw,
            fallback_mw=spec.fallback_mw,
            limit_mw=max(self.limit_mw, self.writing_mw or 0),
            limit_since_s=self.limit_since_s,
            grant_mw=self.grant_mw,
            void=self.void,
            draw_mw=self.draw_mw,
            draw_at_s=self.draw_at_s,
            energy_mj=self.energy_mj,
            requested_mw=self.requested_mw,
            health=self.write_health if failed else self.read_health,
            problem=(self.write_problem if failed else self.read_problem) or self.unmanaged,
            watch=self._watch(measured),
        )


def at_start(spec: GuardedGpu, fence: FenceSettings) -> GpuState:
    """A GPU before anything was written: it shall go to min(limit in force, fallback)."""
    if spec.unmanageable:
        limit_mw, grant_mw = spec.ceiling_mw, 0
    elif spec.limit_mw is None:
        # It may be anything: show the most that it could be, and go to what is no raise in any case.
        limit_mw, grant_mw = spec.ceiling_mw, spec.floor_mw
    else:
        limit_mw, grant_mw = spec.limit_mw, min(spec.limit_mw, spec.fallback_mw)
    return GpuState(spec, limit_mw, 0.0, grant_mw, Drift(fence), unmanaged=spec.unmanageable)
