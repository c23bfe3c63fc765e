"""The node's side of the grant protocol: which limit must be in force on each GPU now.

    guard = Guard(node=..., incarnation=..., gpus=..., memory=...)
    perform(guard.begin(now))            # no GPU stays above its fallback
    ... on a message:  perform(guard.grant(batch, now))
    ... on a write:    perform(guard.wrote(gpu, asked_mw, limit_mw, problem, health, now))
    ... on a sample:   perform(guard.sampled(gpu, ...))
    ... on an event:   perform(guard.happened(gpu, kind, code, detail, now))
    ... on time:       perform(guard.tick(now))
    ... to report:     send(guard.report(now, loads))

`perform` does the duties in the order given. Time is the node's monotonic clock. Nothing here rises without a grant
that is newer than all before it, meant for this incarnation, and not past its time.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rapid.core.cluster import (
    EventKind,
    GpuHealth,
    GrantAnswer,
    GrantBatch,
    Greeting,
    Mark,
    NodeReport,
    PhaseLoad,
    Renewal,
    Slowdown,
)
from rapid.core.compliance import Reading
from rapid.core.drift import FenceSettings, Seen
from rapid.core.duties import Duty, FindHolders, GuardedGpu, GuardMemory, Persist, ReportSoon, Say, Write
from rapid.core.errors import LimitRefused, Stale, watts
from rapid.core.excursion import Cut
from rapid.core.guarded import GpuState, at_start
from rapid.core.vigil import Vigil
from rapid.core.watched import Mover, NodeWatch

__all__ = ["Duty", "FindHolders", "Guard", "GuardMemory", "GuardedGpu", "Persist", "ReportSoon", "Say", "Write"]

_MAX_ANSWERS = 4096  # the bound of NodeReport.answers; the oldest are forgotten first


@dataclass(slots=True)
class Guard:
    """The state machine of one node. Methods take the node's monotonic time and return duties in order.

    `incarnation` is given as a random word and becomes "<start>-<word>": this life of the daemon, later than every one
    with a lower start. The start is on disk before the first report can leave (greet() asks for it), so a report of an
    earlier life that comes late is known for what it is. `memory` is given as it was read from disk. Without a `vigil`
    nobody watches the draw.
    """

    node: str
    incarnation: str
    gpus: Sequence[GuardedGpu]
    memory: GuardMemory
    hard_budget_mw: int | None = None
    lease_max_s: float = 60.0
    retry_s: float = 0.5
    fence: FenceSettings = FenceSettings()
    vigil: Vigil | None = None
    mark: Mark = field(init=False)
    _durable: bool = field(init=False, default=False)
    _stopping: bool = field(init=False, default=False)
    _lease_until_s: float | None = field(init=False, default=None)
    _report_seq: int = field(init=False, default=0)
    _gpus: dict[str, GpuState] = field(init=False)
    _answers: deque[GrantAnswer] = field(init=False)

    def __post_init__(self) -> None:
        self.memory = replace(self.memory, starts=self.memory.starts + 1)
        self.incarnation = f"{self.memory.starts}-{self.incarnation}"
        self.mark = Mark(self.memory.epoch, 0)
        self._answers = deque(maxlen=_MAX_ANSWERS)
        self._gpus = {spec.gpu: at_start(spec, self.fence) for spec in self.gpus}

    # ---- start and stop ----

    @property
    def ready(self) -> bool:
        """Every managed GPU has been read back at or below its fallback since begin()."""
        return not self.unlanded

    @property
    def unlanded(self) -> tuple[str, ...]:
        """The managed GPUs that have not been read back at or below their fallbacks since begin()."""
        return tuple(name for name, gpu in self._gpus.items() if not (gpu.landed or gpu.unmanaged))

    @property
    def aloft(self) -> tuple[str, ...]:
        """The managed GPUs that may be above their fallbacks now; of one that does not answer nobody knows."""
        return tuple(name for name, gpu in self._gpus.items() if gpu.may_be_aloft and not gpu.unmanaged)

    def begin(self, at_s: float) -> list[Duty]:
        """Bring every GPU to min(limit in force, fallback), or to its floor if that limit cannot be read. A GPU that is
        there already is written once all the same: that a write works is found out now, not in an emergency."""
        duties: list[Duty] = []
        for gpu in self._gpus.values():
            gpu.limit_since_s = at_s
            if not gpu.unmanaged:
                duties.append(self._write(gpu, at_s))
        if self.vigil is not None:
            self.vigil.begin(self._gpus.values(), at_s)
        return duties

    def add(self, spec: GuardedGpu, at_s: float) -> list[Duty]:
        """Take care of a GPU that was not there at begin(). Nobody knows what is in force on it, so it goes to its
        floor; if the others leave no room for that in the host's own bound, they land."""
        assert spec.gpu not in self._gpus, f"{spec.gpu} is here already"
        self._gpus[spec.gpu] = gpu = at_start(replace(spec, limit_mw=None), self.fence)
        gpu.limit_since_s = at_s
        if self.vigil is not None:
            self.vigil.add(gpu)
        duties = self._enforce(gpu, at_s)
        if self._excess_mw(gpu, gpu.cover_mw if gpu.unmanaged else spec.floor_mw):
            duties += self._land(at_s, f"gpu {spec.gpu} was found, and there is no room for it")
        return [*duties, ReportSoon()]

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
            self.memory, self._durable, self.mark = memory, False, max(self.mark, Mark(greeting.epoch, 0))
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
        if (late_s := at_s - batch.not_after_s) >= 0:
            return self._refuse(batch.mark, "", f"arrived {late_s:.3f} s after its time had passed")
        duties = self._land_if_over(at_s)
        self._extend(batch.not_after_s, at_s)
        for name, limit_mw in sorted(batch.limits_mw, key=lambda each: each[1] - self._cover_mw(each[0])):
            duties += self._take(batch.mark, name, limit_mw, at_s)
        return [*duties, ReportSoon()]

    def renew(self, renewal: Renewal, at_s: float) -> list[Duty]:
        """Let the grants in force hold longer. Without a grant in force, or late, it does nothing."""
        if refusal := self._stale(renewal.incarnation, renewal.controller_id, renewal.epoch):
            return [Say("warning", "renewal refused", self.node, refusal)]
        if self._lease_until_s is not None and at_s < self._lease_until_s:
            self._extend(renewal.not_after_s, at_s)
        return []

    # ---- the devices ----

    def wrote(
        self,
        gpu: str,
        asked_mw: int,
        limit_mw: int | None,
        problem: str,
        health: GpuHealth,
        at_s: float,
        requested_mw: int | None = None,
    ) -> list[Duty]:
        """A Write has ended. limit_mw None: it could not be read back, and may be in force."""
        one = self._gpus[gpu]
        assert one.writing_mw == asked_mw, f"{gpu}: a write of {asked_mw} ended that was never begun"
        one.write_health, one.write_problem = health, problem
        one.wrote(asked_mw, None if limit_mw is None else Seen(limit_mw, requested_mw), at_s)
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
        clock_mhz: int | None = None,
        slowdown: Slowdown | None = None,
    ) -> list[Duty]:
        """A sample was taken. What could not be read is None and counts as the worst it could be."""
        one = self._gpus[gpu]
        one.draw_mw, one.energy_mj, one.requested_mw = draw_mw, energy_mj, requested_mw
        one.draw_at_s = draw_at_s if draw_mw is not None else one.draw_at_s
        back = one.see_health(health, problem)
        reloaded = one.drift.is_reset(energy_mj)
        one.forgotten = one.forgotten or back or reloaded
        before_mw, reading = one.limit_mw, None
        if self.vigil is not None:
            reading = Reading(energy_mj, draw_mw, before_mw, clock_mhz, slowdown)
        if limit_mw is None or one.writing_mw is not None:
            # A sample beside a write may show either limit; the write's own read-back decides.
            return self._watch_draw(one, reading, limit_at_s)
        mover, seen = one.drift.look(limit_mw, requested_mw, one.want_mw, trusted=not (back or reloaded))
        if reloaded:
            mover = one.drift.note(Mover.RELOAD, "the energy counter began anew")
        one.see_limit(one.most_mw(seen), limit_at_s)
        # A device that lets nobody write may stand where it should; only a write that works shows that it obeys.
        if limit_mw == one.want_mw and one.write_health is not GpuHealth.DENIED:
            one.write_health, one.write_problem = GpuHealth.OK, ""
        duties = self._land_if_over(limit_at_s)
        if mover is not None:
            duties += self._answer_move(one, mover, limit_at_s)
        duties += [*self._enforce(one, limit_at_s), *self._watch_draw(one, reading, limit_at_s)]
        if mover is not None or one.limit_mw != before_mw or one.shows_cut():
            duties.append(ReportSoon())
        return duties

    def happened(self, gpu: str, kind: EventKind, code: int, detail: str, at_s: float) -> list[Duty]:
        """The driver told something of a GPU, of one of ours or of another."""
        one = self._gpus.get(gpu)
        say = Say("info" if kind is EventKind.BACK else "error", f"gpu {kind.value}", gpu, detail or f"number {code}")
        if one is None:
            return [say]
        one.happened(kind, code, detail, at_s)
        return [say, *self._enforce(one, at_s), ReportSoon()]

    def suspects(self, gpu: str, processes: Sequence[str]) -> list[Duty]:
        """Which processes hold the GPU open, as FindHolders asked: one of them may have moved its limit."""
        drift = self._gpus[gpu].drift
        drift.suspect(processes)
        return [Say("warning", "who may have moved it", gpu, drift.story), ReportSoon()] if processes else []

    def unfence(self, at_s: float) -> list[Duty]:
        """An operator says that whoever fought for a limit is gone: manage it again, from its fallback."""
        duties: list[Duty] = []
        for name, gpu in self._gpus.items():
            if gpu.unmanaged and not gpu.spec.unmanageable:
                gpu.unfence()
                duties += [Say("info", "gpu managed again", name, ""), *self._enforce(gpu, at_s), ReportSoon()]
        return duties

    # ---- time ----

    def next_deadline_s(self) -> float | None:
        """When the lease in force ends (None: no lease)."""
        return self._lease_until_s

    def alarms_mw(self) -> Mapping[str, int]:
        """By GPU, the draw above which the samples should be brought at once: the node may draw too much."""
        return {} if self.vigil is None else self.vigil.alarms_mw()

    def tick(self, at_s: float) -> list[Duty]:
        """Land when the lease is over; try again what has failed."""
        if self.vigil is not None:
            self.vigil.tick(at_s)
        duties = self._land_if_over(at_s)
        return [*duties, *(duty for gpu in self._gpus.values() for duty in self._enforce(gpu, at_s))]

    def report(self, at_s: float, loads: tuple[PhaseLoad, ...] = ()) -> NodeReport:
        """The node now, and the answers since the report before."""
        self._report_seq += 1
        answers = tuple(self._answers)
        self._answers.clear()
        left_s = 0.0 if self._lease_until_s is None else max(0.0, self._lease_until_s - at_s)
        vigil = self.vigil
        gpus = tuple(gpu.report(vigil.of(name) if vigil else None) for name, gpu in self._gpus.items())
        watch = vigil.report() if vigil else NodeWatch()
        about = (self.node, self.incarnation, self._report_seq, at_s, self.mark, left_s)
        return NodeReport(*about, gpus, loads, answers, watch=watch)

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
        if gpu.unmanaged:
            return self._refuse(mark, name, f"gpu {name} is not managed: {gpu.unmanaged}")
        spec = gpu.spec
        if not spec.floor_mw <= limit_mw <= spec.ceiling_mw:
            error = LimitRefused(name, asked_mw=limit_mw, floor_mw=spec.floor_mw, ceiling_mw=spec.ceiling_mw)
            return self._refuse(mark, name, str(error))
        if limit_mw > gpu.cover_mw and (over_mw := self._excess_mw(gpu, limit_mw)):
            what = f"limit {watts(limit_mw)} would pass the host's hard budget by {watts(over_mw)}"
            return self._refuse(mark, name, f"gpu {name}: {what}")
        if self.vigil is not None:
            self.vigil.granting(gpu, limit_mw)
        gpu.grant_mw, gpu.void, gpu.owed = limit_mw, False, mark
        if gpu.writing_mw is None and (gpu.limit_mw == gpu.want_mw or gpu.clamped):
            return self._settle_answer(gpu, gpu.want_mw, "")
        return self._enforce(gpu, at_s)

    def _cover_mw(self, name: str) -> int:
        return self._gpus[name].cover_mw if name in self._gpus else 0

    def _excess_mw(self, gpu: GpuState, limit_mw: int) -> int:
        """By how much the node could pass its own bound with this limit on this GPU (0: not at all)."""
        if self.hard_budget_mw is None:
            return 0
        others_mw = sum(other.cover_mw for other in self._gpus.values() if other is not gpu)
        return max(0, others_mw + limit_mw - self.hard_budget_mw)

    def _refuse(self, mark: Mark, gpu: str, why: str) -> list[Duty]:
        self._answers.append(GrantAnswer(mark, gpu, "refused", why))
        return [Say("warning", "grant refused", gpu or self.node, why), ReportSoon()]

    def _settle_answer(self, gpu: GpuState, asked_mw: int, problem: str) -> list[Duty]:
        """Answer the grant that waits for this write; a write for an older want answers nothing."""
        if gpu.owed is None or asked_mw != gpu.want_mw:
            return []
        verdict = "failed" if problem else "applied" if gpu.limit_mw == gpu.grant_mw else "clamped"
        cut = f"{self.vigil.text}: " if self.vigil is not None and gpu.cut_mw is not None else ""
        detail = problem or ("" if verdict == "applied" else f"{cut}device enforces {watts(gpu.limit_mw)}")
        self._answers.append(GrantAnswer(gpu.owed, gpu.spec.gpu, verdict, detail))
        gpu.owed = None
        return []

    def _answer_move(self, gpu: GpuState, mover: Mover, at_s: float) -> list[Duty]:
        """Somebody has moved a limit. Whoever does so again and again is given the GPU: a fight helps nobody."""
        drift, name = gpu.drift, gpu.spec.gpu
        duties: list[Duty] = [Say("warning", "limit moved", name, drift.last)]
        if gpu.is_due(at_s, self.retry_s) and not drift.repair(mover, at_s):
            gpu.fence()
            if gpu.owed is not None:
                self._answers.append(GrantAnswer(gpu.owed, name, "failed", gpu.unmanaged))
                gpu.owed = None
            duties.append(Say("error", "gpu fenced", name, gpu.unmanaged))
        if mover in (Mover.PROCESS, Mover.UNKNOWN) and drift.asks(at_s):
            duties.append(FindHolders(name))
        return duties

    def _watch_draw(self, gpu: GpuState, reading: Reading | None, at_s: float) -> list[Duty]:
        """Cut every limit at once if the node draws more than it may; let go when that is over."""
        if self.vigil is None or reading is None or (verdict := self.vigil.sampled(gpu, reading, at_s)) is None:
            return []
        managed = [each for each in self._gpus.values() if not each.unmanaged]
        for each in managed:
            each.cut(verdict.factor if isinstance(verdict, Cut) else None)
        writes = [duty for each in managed for duty in self._enforce(each, at_s)]
        say = Say("info", "excursion over", self.node, "limits go back to what is granted")
        if isinstance(verdict, Cut):
            say = Say("error", "excursion", self.node, self.vigil.text)
        return [*writes, say, ReportSoon()]

    def _enforce(self, gpu: GpuState, at_s: float) -> list[Duty]:
        return [self._write(gpu, at_s)] if gpu.is_due(at_s, self.retry_s) else []

    def _write(self, gpu: GpuState, at_s: float) -> Write:
        gpu.begin_write(at_s)
        return Write(gpu.spec.gpu, gpu.want_mw)

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
