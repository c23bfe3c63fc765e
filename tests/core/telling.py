"""Stories for the ledger: reports written by hand, so that a test says exactly what the books hear.

`Story.hear(g0="600/500 draw=550 since=0.1")` is a report of node n1 in which g0 reads back 600 W, has a grant of 500 W,
draws 550 W, and has had its limit for 0.1 s. Left out: grant = limit, draw = limit, since = 10 s, sampled just now.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rapid.core.books import Finding, LedgerSnapshot
from rapid.core.cluster import Domain, GpuHealth, GpuReport, GrantBatch, Mark, NodeReport, NodeSpec
from rapid.core.errors import watts
from rapid.core.ledger import Ledger
from rapid.core.settings import LedgerSettings
from tests.core.hosts import CEILING, FALLBACK, FLOOR, W

SILENT_S, LEASE_S = 2.0, 5.0
SETTINGS = LedgerSettings(settle_s=0.5, draw_tolerance=0.05, strikes=3, amends=4)


def gpu_report(gpu: str, words: str, now: float, index: int = 0) -> GpuReport:
    """One GPU of a report; the words are explained above."""
    first, *rest = words.split()
    limit, _, grant = first.partition("/")
    said = dict(word.partition("=")[::2] for word in rest)
    unknown = said.keys() - {"void", "draw", "since", "sampled", "ill", "fallback", "ceiling"}
    assert not unknown, f"no such word: {unknown}"
    limit_mw = int(float(limit) * W)
    draw = said.get("draw", limit)
    return GpuReport(
        gpu=gpu,
        index=index,
        floor_mw=FLOOR,
        ceiling_mw=int(said.get("ceiling", CEILING // W)) * W,
        fallback_mw=int(said.get("fallback", FALLBACK // W)) * W,
        limit_mw=limit_mw,
        limit_since_s=now - float(said.get("since", 10)),
        grant_mw=int(float(grant) * W) if grant else limit_mw,
        void="void" in said,
        draw_mw=None if draw == "none" else int(float(draw) * W),
        draw_at_s=0.0 if draw == "none" else now - float(said.get("sampled", 0)),
        health=GpuHealth(said.get("ill", "ok")),
        problem=f"gpu {gpu}: {said['ill']}" if "ill" in said else "",
    )


@dataclass
class Teller:
    """One node that reports; its clock is its own."""

    name: str
    incarnation: str = "1-life"
    seq: int = 0
    now: float = 5_000.0
    mark: Mark = field(default_factory=Mark)

    def report(self, gpus: Mapping[str, str], *, mark: Mark | None = None) -> NodeReport:
        """A report that covers everything up to `mark` (default: what the one before covered)."""
        self.seq, self.now, self.mark = self.seq + 1, self.now + 0.01, mark or self.mark
        shown = tuple(gpu_report(gpu, words, self.now, index) for index, (gpu, words) in enumerate(gpus.items()))
        return NodeReport(self.name, self.incarnation, self.seq, self.now, self.mark, 5.0, shown)

    def restart(self) -> None:
        """rapidd starts again."""
        start = int(self.incarnation.partition("-")[0])
        self.incarnation, self.seq, self.mark = f"{start + 1}-life", 0, Mark(self.mark.epoch, 0)


class Story:
    """A ledger in epoch 1 and the nodes that talk to it. By default one room of 1,200 W and n1 with two GPUs."""

    def __init__(
        self,
        *,
        budget_w: int = 1_200,
        domains: Iterable[Domain] = (),
        specs: Iterable[NodeSpec] = (),
        settings: LedgerSettings = SETTINGS,
        ledger: type[Ledger] = Ledger,
    ) -> None:
        self.domains = tuple(domains) or (Domain("room", budget_w * W),)
        self.specs = tuple(specs) or (NodeSpec("n1", self.domains[0].name, 2, FLOOR, CEILING, FALLBACK),)
        self.settings, self._class = settings, ledger
        self.now = 1_000.0
        self.tellers = {spec.name: Teller(spec.name) for spec in self.specs}
        self.begin(epoch=1)

    def begin(self, *, epoch: int, snapshot: LedgerSnapshot | None = None, controller_id: str = "c") -> None:
        """A controller life."""
        self.ledger = self._class(
            self.domains, self.specs, self.settings, epoch=epoch, controller_id=controller_id, snapshot=snapshot
        )

    # ---- what happens ----

    def hear(self, node: str = "n1", *, covers: GrantBatch | Mark | None = None, **gpus: str) -> list[str]:
        """A report comes in that covers the batch given, or else what the last one did. What the ledger finds."""
        teller = self.tellers[node]
        mark = covers.mark if isinstance(covers, GrantBatch) else covers
        if teller.mark == Mark():
            mark = mark or Mark(self.ledger.epoch, 0)  # it has been greeted
        return self.take(teller.report(gpus, mark=mark))

    def take(self, report: NodeReport) -> list[str]:
        self.now += 0.01
        return [said(finding) for finding in self.ledger.hear(report, self.now)]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for teller in self.tellers.values():
            teller.now += seconds

    def ask(self, **targets_w: float) -> GrantBatch:
        """Ask for limits; exactly one node gets a batch."""
        (batch,) = self.asked(**targets_w)
        return batch

    def asked(self, **targets_w: float) -> list[GrantBatch]:
        targets_mw = {gpu: int(target_w * W) for gpu, target_w in targets_w.items()}
        return self.ledger.grant(targets_mw, self.now, LEASE_S)

    def landed(self) -> None:
        """n1 has come up: both its GPUs are at their fallback."""
        self.hear(g0="400 void", g1="400 void")

    # ---- what can be seen ----

    def held(self) -> dict[str, float]:
        """What is booked for each GPU that was seen, in watts."""
        return {gpu: self.ledger.held_mw(gpu) / W for gpu in self.ledger.gpus}

    def room_w(self, domain: str = "room") -> float:
        return self.ledger.domain_held_mw(domain) / W

    def movable(self) -> list[str]:
        return self.ledger.movable(self.now, SILENT_S)

    def problem(self, node: str = "n1") -> str:
        return self.ledger.nodes[node].problem


def limits_of(batch: GrantBatch) -> dict[str, float]:
    return {gpu: limit_mw / W for gpu, limit_mw in batch.limits_mw}


def said(finding: Finding) -> str:
    return f"{finding.level} {finding.about}: {finding.text}" + (" [deposed]" if finding.deposed else "")


def older(report: NodeReport, by: int = 1) -> NodeReport:
    return replace(report, report_seq=report.report_seq - by)


__all__ = ["LEASE_S", "SETTINGS", "SILENT_S", "Story", "Teller", "gpu_report", "limits_of", "older", "said", "watts"]
