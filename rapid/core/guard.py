"""The node's side of the grant protocol: which limit must be in force on each GPU now.

    guard = Guard(node=..., incarnation=..., gpus=..., memory=...)
    perform(guard.begin(now))            # no GPU stays above its fallback
    ... on a message:  perform(guard.grant(batch, now))
    ... on a write:    perform(guard.wrote(gpu, asked_mw, limit_mw, problem, health, now))
    ... on a sample:   perform(guard.sampled(gpu, ...))
    ... on time:       perform(guard.tick(now))
    ... to report:     send(guard.report(now, loads))

`perform` does the duties in the order given. Time is the node's monotonic clock. Nothing here rises without a grant
that is newer than all before it, meant for this incarnation, and not past its time.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rapid.core.cluster import (
    GpuHealth,
    GpuReport,
    GrantAnswer,
    GrantBatch,
    Greeting,
    Mark,
    NodeReport,
    PhaseLoad,
    Renewal,
)
from rapid.core.duties import Duty, GuardedGpu, GuardMemory, Persist, ReportSoon, Say, Write
from rapid.core.errors import LimitRefused, Stale, watts

__all__ = ["Duty", "Guard", "GuardMemory", "GuardedGpu", "Persist", "ReportSoon", "Say", "Write"]

_MAX_ANSWERS = 4096  # the bound of NodeReport.answers; the oldest are forgotten first


@dataclass(slots=True)
class _Gpu:
    """One GPU. grant_mw is the limit wanted; void says that the grant was given up, so that it must never rise to it.

    Invariant: void implies grant_mw <= every limit read back since it became void.
    """

    spec: GuardedGpu
    limit_mw: int
    limit_since_s: float
    grant_mw: int
    void: bool = True
    writing_mw: int | None = None
    tried: tuple[int, int] | None = None  # the last write: asked for, and read back
    tried_at_s: float = 0.0
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

    @property
    def cover_mw(self) -> int:
        """The greatest limit that may be in force now or without further leave."""
        return max(self.limit_mw, self.writing_mw or 0, 0 if self.void else self.grant_mw)

    @property
    def clamped(self) -> bool:
        """The device was asked for the grant, and goes no higher."""
        return self.tried == (self.grant_mw, self.limit_mw) and self.limit_mw < self.grant_mw and not self.write_problem


@dataclass(slots=True)
class Guard:
    """The state machine of one node. Methods take the node's monotonic time and return duties in order.

    `incarnation` is given as a random word and becomes "<start>-<word>": this life of the daemon, later than every one
    with a lower start. The start is on disk before the first report can leave (greet() asks for it), so a report of an
    earlier life that comes late is known for what it is. `memory` is given as it was read from disk.
    """

    node: str
    incarnation: str
    gpus: Sequence[GuardedGpu]
    memory: GuardMemory
    hard_budget_mw: int | None = None
    lease_max_s: float = 60.0
    retry_s: float = 0.5
    mark: Mark = field(init=False)
    _durable: bool = field(init=False, default=False)
    _stopping: bool = field(init=False, default=False)
    _lease_until_s: float | None = field(init=False, default=None)
    _report_seq: int = field(init=False, default=0)
    _gpus: dict[str, _Gpu] = field(init=False)
    _answers: deque[GrantAnswer] = field(init=False)

    def __post_init__(self) -> None:
        self.memory = replace(self.memory, starts=self.memory.starts + 1)
        self.incarnation = f"{self.memory.starts}-{self.incarnation}"
        self.mark = Mark(self.memory.epoch, 0)
        self._answers = deque(maxlen=_MAX_ANSWERS)
        self._gpus = {}
        for spec in self.gpus:
            if spec.limit_mw is None:
                # It may be anything: show the most that it could be, and go to what is no raise in any case.
                self._gpus[spec.gpu] = _Gpu(spec, spec.ceiling_mw, 0.0, spec.floor_mw)
            else:
                self._gpus[spec.gpu] = _Gpu(spec, spec.limit_mw, 0.0, min(spec.limit_mw, spec.fallback_mw))

    # ---- start and stop ----

    @property
    def ready(self) -> bool:
        """Every GPU has been read back at or below its fallback since begin()."""
        return all(gpu.landed for gpu in self._gpus.values())

    def begin(self, at_s: float) -> list[Duty]:
        """Bring every GPU to min(limit in force, fallback), or to its floor if that limit cannot be read. A GPU that is
        there already is written once all the same: that a write works is found out now, not in an emergency."""
        duties: list[Duty] = []
        for gpu in self._gpus.values():
            gpu.limit_since_s = at_s
            duties.append(self._write(gpu, at_s))
        return duties

    def stop(self, at_s: float) -> list[Duty]:
        """Land before the daemon goes. Power goes down or stays; no grant is taken any more."""
        self._stopping = True
        return self._land(at_s, "the daemon stops")

    # ---- the controller's messages ----

    def greet(self, greeting: Greeting, at_s: float) -> list[Duty]:
        """Take the controller's epoch. Raises Stale for a lower epoch, or a second controller in the same one."""
        del at_s
        seen = self.memory
        if greeting.epoch < seen.epoch:
            raise Stale(f"node {self.node}: epoch {greeting.epoch} is lower than epoch {seen.epoch}, which it has seen")
        if greeting.epoch == seen.epoch and seen.controller_id not in ("", greeting.controller_id):
            raise Stale(
                f"node {self.node}: epoch {seen.epoch} belongs to controller {seen.controller_id}, "
                f"not to {greeting.controller_id}"
            )
        memory = replace(seen, epoch=greeting.epoch, controller_id=greeting.controller_id)
        if memory != seen:
            self.memory, self._durable = memory, False
            self.mark = max(self.mark, Mark(greeting.epoch, 0))
        return [ReportSoon()] if self._durable else [Persist(memory), ReportSoon()]

    def persisted(self, memory: GuardMemory) -> None:
        """The memory is on disk."""
        self._durable = self._durable or memory == self.memory

    def grant(self, batch: GrantBatch, at_s: float) -> list[Duty]:
        """Apply a batch, or refuse it; what became of it is in the next report's answers."""
        refusal = self._stale(batch.incarnation, batch.controller_id, batch.mark.epoch)
        if not refusal and batch.mark <= self.mark:
            refusal = f"seq {batch.mark.seq} is not above seq {self.mark.seq}, the last one taken"
        if refusal:
            return self._refuse(batch.mark, "", refusal)
        self.mark = batch.mark
        if at_s >= batch.not_after_s:
            late_s = at_s - batch.not_after_s
            return self._refuse(batch.mark, "", f"arrived {late_s:.3f} s after its time had passed")
        duties = self._land_if_over(at_s)
        self._extend(batch.not_after_s, at_s)
        by_rise = sorted(batch.limits_mw, key=lambda each: each[1] - self._cover_mw(each[0]))
        for name, limit_mw in by_rise:
            duties += self._take(batch.mark, name, limit_mw, at_s)
        return [*duties, ReportSoon()]

    def renew(self, renewal: Renewal, at_s: float) -> list[Duty]:
        """Let the grants in force hold longer. Without a grant in force, or late, it does nothing."""
        refusal = self._stale(renewal.incarnation, renewal.controller_id, renewal.epoch)
        if refusal:
            return [Say("warning", "renewal refused", self.node, refusal)]
        if self._lease_until_s is not None and at_s < self._lease_until_s:
            self._extend(renewal.not_after_s, at_s)
        return []

    # ---- the devices ----

    def wrote(
        self, gpu: str, asked_mw: int, limit_mw: int | None, problem: str, health: GpuHealth, at_s: float
    ) -> list[Duty]:
        """A Write has ended. limit_mw None: it could not be read back, and may be in force."""
        one = self._gpus[gpu]
        assert one.writing_mw == asked_mw, f"{gpu}: a write of {asked_mw} ended that was never begun"
        one.writing_mw = None
        one.write_health, one.write_problem = health, problem
        seen_mw = max(one.limit_mw, asked_mw) if limit_mw is None else limit_mw
        self._see_limit(one, seen_mw, at_s)
        one.tried, one.tried_at_s = (asked_mw, seen_mw), at_s
        duties = [*self._settle_answer(one, asked_mw, problem), *self._land_if_over(at_s), *self._enforce(one, at_s)]
        if problem:
            duties.append(Say("error", "limit not in force", gpu, problem))
        return [*duties, ReportSoon()]

    def sampled(
        self,
        gpu: str,
        *,
        limit_mw: int | None,
        requested_mw: int | None,
        limit_at_s: float,
        draw_mw: int | None,
        draw_at_s: float,
        energy_mj: int | None,
        problem: str,
        health: GpuHealth,
    ) -> list[Duty]:
        """A sample was taken. What could not be read is None and counts as the worst it could be."""
        one = self._gpus[gpu]
        one.draw_mw, one.energy_mj, one.requested_mw = draw_mw, energy_mj, requested_mw
        one.draw_at_s = draw_at_s if draw_mw is not None else one.draw_at_s
        one.read_health, one.read_problem = health, problem
        if limit_mw is None or one.writing_mw is not None:
            return []  # a sample beside a write may show either limit; the write's own read-back decides
        if requested_mw is not None and requested_mw > one.grant_mw:
            # Somebody asked for more, and something else (a BMC, the VBIOS) holds the device lower for now. It would
            # rise by itself when that goes, so it counts as in force, and is written over.
            limit_mw = max(limit_mw, requested_mw)
        moved = limit_mw != one.limit_mw
        before_mw = one.limit_mw
        self._see_limit(one, limit_mw, limit_at_s)
        # A device that lets nobody write may stand where it should; only a write that works shows that it obeys.
        if limit_mw == one.grant_mw and one.write_health is not GpuHealth.DENIED:
            one.write_health, one.write_problem = GpuHealth.OK, ""
        duties = [*self._land_if_over(limit_at_s), *self._enforce(one, limit_at_s)]
        if not moved:
            return [*self._show_cut(one), *duties]
        what = f"limit went from {watts(before_mw)} to {watts(limit_mw)} without us; {watts(one.grant_mw)} is granted"
        return [Say("warning", "limit moved", gpu, what), *duties, ReportSoon()]

    # ---- time ----

    def next_deadline_s(self) -> float | None:
        """When the lease in force ends (None: no lease)."""
        return self._lease_until_s

    def tick(self, at_s: float) -> list[Duty]:
        """Land when the lease is over; try again what has failed."""
        duties = self._land_if_over(at_s)
        return [*duties, *(duty for gpu in self._gpus.values() for duty in self._enforce(gpu, at_s))]

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        """The node now, and the answers since the report before."""
        self._report_seq += 1
        answers = tuple(self._answers)
        self._answers.clear()
        left_s = 0.0 if self._lease_until_s is None else max(0.0, self._lease_until_s - at_s)
        gpus = tuple(_report_gpu(gpu) for gpu in self._gpus.values())
        return NodeReport(self.node, self.incarnation, self._report_seq, at_s, self.mark, left_s, gpus, loads, answers)

    # ---- helpers ----

    def _stale(self, incarnation: str, controller_id: str, epoch: int) -> str:
        """Why a message is not for us now; empty when it is."""
        if self._stopping:
            return "the daemon stops"
        if incarnation != self.incarnation:
            return f"meant for incarnation {incarnation}, this is {self.incarnation}"
        if (epoch, controller_id) != (self.memory.epoch, self.memory.controller_id):
            return f"epoch {epoch} of {controller_id} is not epoch {self.memory.epoch} of {self.memory.controller_id}"
        return "" if self._durable else f"epoch {epoch} is not on disk yet"

    def _extend(self, not_after_s: float, at_s: float) -> None:
        until_s = min(not_after_s, at_s + self.lease_max_s)
        self._lease_until_s = max(self._lease_until_s or until_s, until_s)

    def _take(self, mark: Mark, name: str, limit_mw: int, at_s: float) -> list[Duty]:
        gpu = self._gpus.get(name)
        if gpu is None:
            return self._refuse(mark, name, f"no gpu {name} on node {self.node}")
        spec = gpu.spec
        if not spec.floor_mw <= limit_mw <= spec.ceiling_mw:
            error = LimitRefused(name, asked_mw=limit_mw, floor_mw=spec.floor_mw, ceiling_mw=spec.ceiling_mw)
            return self._refuse(mark, name, str(error))
        over_mw = self._over_hard_budget_mw(gpu, limit_mw)
        if over_mw > 0:
            what = f"limit {watts(limit_mw)} would pass the host's hard budget by {watts(over_mw)}"
            return self._refuse(mark, name, f"gpu {name}: {what}")
        gpu.grant_mw, gpu.void, gpu.owed = limit_mw, False, mark
        if gpu.writing_mw is None and (gpu.limit_mw == limit_mw or gpu.clamped):
            return self._settle_answer(gpu, limit_mw, "")
        return self._enforce(gpu, at_s)

    def _cover_mw(self, name: str) -> int:
        return self._gpus[name].cover_mw if name in self._gpus else 0

    def _over_hard_budget_mw(self, gpu: _Gpu, limit_mw: int) -> int:
        """By how much the node could pass its own bound with this grant (0: it does not rise, or it fits)."""
        if self.hard_budget_mw is None or limit_mw <= gpu.cover_mw:
            return 0
        others_mw = sum(other.cover_mw for other in self._gpus.values() if other is not gpu)
        return max(0, others_mw + limit_mw - self.hard_budget_mw)

    def _refuse(self, mark: Mark, gpu: str, why: str) -> list[Duty]:
        self._answers.append(GrantAnswer(mark, gpu, "refused", why))
        return [Say("warning", "grant refused", gpu or self.node, why), ReportSoon()]

    def _settle_answer(self, gpu: _Gpu, asked_mw: int, problem: str) -> list[Duty]:
        """Answer the grant that waits for this write; a write for an older want answers nothing."""
        if gpu.owed is None or asked_mw != gpu.grant_mw:
            return []
        verdict = "failed" if problem else "applied" if gpu.limit_mw == asked_mw else "clamped"
        detail = problem or ("" if verdict == "applied" else f"device enforces {watts(gpu.limit_mw)}")
        self._answers.append(GrantAnswer(gpu.owed, gpu.spec.gpu, verdict, detail))
        gpu.owed = None
        return []

    def _see_limit(self, gpu: _Gpu, limit_mw: int, at_s: float) -> None:
        if limit_mw != gpu.limit_mw:
            gpu.cut_shown = gpu.cut_shown and limit_mw > gpu.limit_mw
            gpu.limit_mw, gpu.limit_since_s = limit_mw, at_s
        if gpu.void:
            # The controller books a void GPU at what was read back, so it may not come up again by itself.
            gpu.grant_mw = min(gpu.grant_mw, limit_mw)
        gpu.landed = gpu.landed or limit_mw <= gpu.spec.fallback_mw

    def _show_cut(self, gpu: _Gpu) -> list[Duty]:
        """The watts of a cut are free for others once a sample shows it: worth a report at once."""
        if gpu.cut_shown or gpu.draw_mw is None or gpu.draw_at_s < gpu.limit_since_s or gpu.draw_mw > gpu.limit_mw:
            return []
        gpu.cut_shown = True
        return [ReportSoon()]

    def _enforce(self, gpu: _Gpu, at_s: float) -> list[Duty]:
        """Write if the limit is not the one wanted: at once after a change, every retry_s after a failure."""
        done = gpu.limit_mw == gpu.grant_mw and gpu.write_health is not GpuHealth.DENIED
        if gpu.writing_mw is not None or done or gpu.clamped:
            return []
        if gpu.tried is not None and gpu.tried[0] == gpu.grant_mw:
            failed = gpu.tried[1] != gpu.grant_mw or bool(gpu.write_problem)
            if failed and at_s - gpu.tried_at_s < self.retry_s:
                return []
        return [self._write(gpu, at_s)]

    def _write(self, gpu: _Gpu, at_s: float) -> Write:
        gpu.writing_mw, gpu.tried_at_s = gpu.grant_mw, at_s
        return Write(gpu.spec.gpu, gpu.grant_mw)

    def _land_if_over(self, at_s: float) -> list[Duty]:
        """The lease is over when its time is, whoever comes to look first: nothing may be raised on it any more."""
        if self._lease_until_s is None or at_s < self._lease_until_s:
            return []
        return self._land(at_s, "the lease ran out")

    def _land(self, at_s: float, why: str) -> list[Duty]:
        """Give every grant up and go to min(limit in force, fallback)."""
        self._lease_until_s = None
        duties: list[Duty] = []
        for gpu in self._gpus.values():
            gpu.grant_mw = min(gpu.limit_mw, gpu.grant_mw, gpu.spec.fallback_mw)
            gpu.void, gpu.owed = True, None
            duties += self._enforce(gpu, at_s)
        return [*duties, Say("warning", "landed", self.node, why), ReportSoon()]


def _report_gpu(gpu: _Gpu) -> GpuReport:
    spec = gpu.spec
    failed = gpu.write_health is not GpuHealth.OK
    return GpuReport(
        gpu=spec.gpu,
        index=spec.index,
        floor_mw=spec.floor_mw,
        ceiling_mw=spec.ceiling_mw,
        fallback_mw=spec.fallback_mw,
        limit_mw=max(gpu.limit_mw, gpu.writing_mw or 0),
        limit_since_s=gpu.limit_since_s,
        grant_mw=gpu.grant_mw,
        void=gpu.void,
        draw_mw=gpu.draw_mw,
        draw_at_s=gpu.draw_at_s,
        energy_mj=gpu.energy_mj,
        requested_mw=gpu.requested_mw,
        health=gpu.write_health if failed else gpu.read_health,
        problem=gpu.write_problem if failed else gpu.read_problem,
    )
