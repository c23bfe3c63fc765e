"""The ledger's books: one booking per GPU, one page per node, and how a report changes them.

The rule of the grant protocol is written here once, in `Booking.held_mw` and `Booking.confirm`: a raise counts when it
is sent, a cut when it is confirmed.
"""

from dataclasses import dataclass, field

from rapid.core.cluster import GpuHealth, GpuReport, Mark, NodeReport, NodeSpec
from rapid.core.errors import watts
from rapid.core.settings import LedgerSettings
from rapid.core.settled import has_settled
from rapid.core.watched import NodeWatch


@dataclass(frozen=True, slots=True)
class Sent:
    """A grant that was sent and that no report has covered yet."""

    mark: Mark
    limit_mw: int


@dataclass(frozen=True, slots=True)
class BookedGpu:
    """One GPU in a snapshot."""

    node: str
    report: GpuReport
    confirmed_mw: int
    sent: tuple[Sent, ...]
    managed: bool


@dataclass(frozen=True, slots=True)
class BookedNode:
    """One node in a snapshot."""

    node: str
    incarnation: str
    report_seq: int
    node_time_s: float
    mark: Mark
    released: bool


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """All that a later life needs to go on without booking a watt too little."""

    mark: Mark
    nodes: tuple[BookedNode, ...]
    gpus: tuple[BookedGpu, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the ledger saw in a report. `deposed`: another controller has a higher epoch."""

    level: str
    about: str
    text: str
    deposed: bool = False


@dataclass(slots=True)
class Booking:
    """One GPU. Invariant: held_mw is never below any limit that may be in force on the device."""

    node: str
    report: GpuReport
    confirmed_mw: int
    sent: list[Sent] = field(default_factory=list)
    managed: bool = True
    present: bool = True
    strikes: int = 0
    amends: int = 0
    asked_mw: int | None = None  # the limit last sent in this life, and when
    sent_at_s: float = 0.0
    no_room: tuple[int, int] | None = None  # a raise that did not fit, and how far it rises; until the booking changes
    problem: str = ""

    @property
    def held_mw(self) -> int:
        """The most this GPU may be drawing: a raise counts when sent, a cut when confirmed."""
        held_mw = max(self.confirmed_mw, max((sent.limit_mw for sent in self.sent), default=0))
        return held_mw if self.managed else max(held_mw, self.report.ceiling_mw)

    @property
    def reach_mw(self) -> int:
        """The highest limit that may be in force by what was reported and sent, whatever is still being drawn."""
        return max([_in_force_mw(self.report), *(sent.limit_mw for sent in self.sent)])

    @property
    def granted_mw(self) -> int | None:
        """The limit last granted, on its way or in force (None: none, or given up)."""
        if self.sent:
            return self.sent[-1].limit_mw
        return None if self.report.void else self.report.grant_mw

    def confirm(self, report: GpuReport, mark: Mark, node_time_s: float, settings: LedgerSettings) -> None:
        """Take a report that covers every order up to `mark`."""
        covered = [sent.limit_mw for sent in self.sent if sent.mark <= mark]
        self.sent = [sent for sent in self.sent if sent.mark > mark]
        before_mw = max([self.confirmed_mw, *covered])
        now_mw = _in_force_mw(report)
        settled = now_mw >= before_mw or has_settled(
            now_mw,
            report.limit_since_s,
            report.draw_mw,
            report.draw_at_s,
            node_time_s,
            settle_s=settings.settle_s,
            draw_tolerance=settings.draw_tolerance,
        )
        self.confirmed_mw = now_mw if settled else before_mw
        self.report = report


@dataclass(slots=True)
class NodeBook:
    """One node. `adopted` says that it has reported in this controller's epoch."""

    spec: NodeSpec
    chain: tuple[str, ...]
    gpus: list[str] = field(default_factory=list)
    incarnation: str = ""
    report_seq: int = 0
    node_time_s: float = 0.0
    mark: Mark = field(default_factory=Mark)
    heard_s: float | None = None
    adopted: bool = False
    released: bool = False
    problem: str = ""
    watch: NodeWatch = NodeWatch()

    @property
    def unseen_mw(self) -> int:
        """What is booked for GPUs that the configuration names and no report has shown."""
        return 0 if self.released else max(0, self.spec.gpus - len(self.gpus)) * self.spec.ceiling_mw


def start_of(incarnation: str) -> int:
    """Which start of its daemon an incarnation "<start>-<word>" is; 0 for one that does not say."""
    start, _, _ = incarnation.partition("-")
    return int(start) if start.isascii() and start.isdigit() else 0


def why_stale(node: NodeBook, report: NodeReport) -> Finding | None:
    """Why a report must be ignored (an empty text: not worth a word); None when it must be heard.

    A text names what was heard last and not what came now, so that every report of a kind gets the same.
    """
    if report.incarnation != node.incarnation:
        start, heard = start_of(report.incarnation), start_of(node.incarnation)
        if not node.incarnation or start > heard:
            return None
        text = (
            f"a report of start {start} came after start {heard} was heard, and is ignored; if rapidd lost its "
            "state_dir, stop it, release the node, and start it again"
        )
        return Finding("warning", report.node, text)
    if report.report_seq <= node.report_seq:
        return Finding("info", report.node, "")
    if report.node_time_s < node.node_time_s:
        text = f"its clock went back below {node.node_time_s:.3f} s in one life"
        return Finding("error", report.node, f"{text}; its reports are ignored until rapidd restarts")
    if report.mark < node.mark:
        text = f"its order number went back below {node.mark.epoch}.{node.mark.seq} in one life"
        return Finding("error", report.node, f"{text}; its reports are ignored until rapidd restarts")
    return None


def _in_force_mw(report: GpuReport) -> int:
    """The highest limit that a report leaves possible. A grant that is not void counts even while the node enforces
    less; it may come back up by itself."""
    return report.limit_mw if report.void else max(report.limit_mw, report.grant_mw)


def judge(booking: Booking, gpu: GpuReport, settings: LedgerSettings) -> list[Finding]:
    """Count the reports in a row in which a GPU does not obey, and those in which it does. One that its node has given
    up is unmanaged at once."""
    if gpu.watch.unmanaged:
        news = booking.managed
        booking.managed, booking.amends, booking.problem = False, min(booking.amends, 0), gpu.watch.unmanaged
        booking.strikes = settings.strikes
        text = f"unmanaged, booked at its ceiling {watts(gpu.ceiling_mw)}: {booking.problem}"
        return [Finding("error", gpu.gpu, text)] if news else []
    long_ago = gpu.draw_at_s - gpu.limit_since_s >= settings.settle_s
    problem = "" if gpu.health is GpuHealth.OK else gpu.problem or gpu.health.value
    if not problem and long_ago and (gpu.draw_mw or 0) > gpu.limit_mw * (1 + settings.draw_tolerance):
        problem = f"draws {watts(gpu.draw_mw or 0)}, above its limit of {watts(gpu.limit_mw)}"
    if problem:
        booking.strikes, booking.amends, booking.problem = booking.strikes + 1, min(booking.amends, 0), problem
        if booking.managed and booking.strikes >= settings.strikes:
            booking.managed = False
            return [Finding("error", gpu.gpu, f"unmanaged, booked at its ceiling {watts(gpu.ceiling_mw)}: {problem}")]
        return []
    booking.strikes, booking.amends = 0, booking.amends + 1
    if booking.managed:
        booking.problem = ""
    elif booking.amends >= settings.amends:
        booking.managed, booking.problem = True, ""
        return [Finding("info", gpu.gpu, "obeys again and is managed again")]
    return []
