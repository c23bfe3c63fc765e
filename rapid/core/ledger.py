"""The power ledger: what every GPU may be drawing, so that the sum never passes a budget.

A raise is granted only beside everything that may be in force; a cut frees watts only when it is confirmed (books.py).
Nothing else in the project decides how many watts are free.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rapid.core.books import (
    BookedGpu,
    BookedNode,
    Booking,
    Finding,
    LedgerSnapshot,
    NodeBook,
    Sent,
    judge,
    why_stale,
)
from rapid.core.cluster import Domain, GpuReport, GrantBatch, Mark, NodeReport, NodeSpec, Renewal
from rapid.core.errors import BudgetRefused, NotFound, Refused, watts
from rapid.core.news import gpu_news, node_news
from rapid.core.settings import LedgerSettings, chains_of

_MAX_SENT = 16  # grants on the way to one GPU; at the bound nothing more is sent until its node has reported
_RESEND_S = 1.0  # a grant that no report has covered after this long is sent anew


class Ledger:
    """Power grants of one controller life. Their worst-case sum never passes a budget.

    Raises NotFound, BudgetRefused and Refused for what an operator asks; reports never raise, they give findings.
    """

    def __init__(
        self,
        domains: Iterable[Domain],
        nodes: Iterable[NodeSpec],
        settings: LedgerSettings,
        *,
        epoch: int,
        controller_id: str,
        snapshot: LedgerSnapshot | None = None,
    ) -> None:
        self.domains = {domain.name: domain for domain in domains}
        self.chains = chains_of(tuple(self.domains.values()))
        self.nodes = {spec.name: NodeBook(spec, self.chains[spec.domain]) for spec in nodes}
        self.gpus: dict[str, Booking] = {}
        self.controller_id = controller_id
        self._settings = settings
        self._mark = Mark(epoch, 0)
        self._reserved_mw = dict.fromkeys(self.domains, 0)
        for domain in self.domains.values():
            for name in self.chains[domain.name]:
                self._reserved_mw[name] += domain.reserved_mw
        if snapshot is not None:
            self._restore(snapshot)
        self._held_mw = dict.fromkeys(self.domains, 0)
        for node in self.nodes.values():
            self._add(node, self._node_held_mw(node))

    # ---- what is booked ----

    @property
    def epoch(self) -> int:
        return self._mark.epoch

    def held_mw(self, gpu: str) -> int:
        """What is booked for a GPU, in milliwatts."""
        return self.gpus[gpu].held_mw

    def domain_held_mw(self, domain: str) -> int:
        """What is booked below a domain, in milliwatts, without the reserved power."""
        return self._held_mw[domain]

    def reserved_mw(self, domain: str) -> int:
        """The reserved power of a domain and all below it."""
        return self._reserved_mw[domain]

    def over_mw(self, domain: str) -> int:
        """By how much a domain is over its budget (0: it is not)."""
        return max(0, self._held_mw[domain] + self._reserved_mw[domain] - self.domains[domain].budget_mw)

    def movable(self, at_s: float, silent_after_s: float) -> list[str]:
        """The GPUs that a policy may move now: managed, present, and heard lately in this epoch."""
        return [
            name
            for node in self.nodes.values()
            if self.is_fresh(node.spec.name, at_s, silent_after_s)
            for name in node.gpus
            if self.gpus[name].managed and self.gpus[name].present
        ]

    def is_fresh(self, node: str, at_s: float, silent_after_s: float) -> bool:
        """The node has reported in this epoch, and lately."""
        book = self.nodes[node]
        return book.adopted and book.heard_s is not None and at_s - book.heard_s <= silent_after_s

    def rooms_mw(self, movable: Iterable[str]) -> dict[str, int]:
        """What the movable GPUs may share in each domain: budget less reserved and less all that cannot be moved."""
        rooms = {
            name: domain.budget_mw - self._reserved_mw[name] - self._held_mw[name]
            for name, domain in self.domains.items()
        }
        for gpu in movable:
            booking = self.gpus[gpu]
            held_mw = booking.held_mw
            for name in self.nodes[booking.node].chain:
                rooms[name] += held_mw
        return rooms

    def floors_mw(self, domain: str) -> int:
        """The least budget that the GPUs of a domain can keep, reserved power included."""
        floors_mw = self._reserved_mw[domain]
        for node in self.nodes.values():
            if domain in node.chain and not node.released:
                unseen = max(0, node.spec.gpus - len(node.gpus))
                floors_mw += unseen * node.spec.floor_mw + sum(self.gpus[gpu].report.floor_mw for gpu in node.gpus)
        return floors_mw

    def fallbacks_mw(self, domain: str) -> int:
        """What the GPUs of a domain come up with when their hosts boot, reserved power included."""
        inside = [node for node in self.nodes.values() if domain in node.chain and not node.released]
        known_mw = sum(self.gpus[gpu].report.fallback_mw for node in inside for gpu in node.gpus)
        unseen_mw = sum(max(0, node.spec.gpus - len(node.gpus)) * node.spec.fallback_mw for node in inside)
        return self._reserved_mw[domain] + known_mw + unseen_mw

    # ---- what changes it ----

    def hear(self, report: NodeReport, at_s: float) -> list[Finding]:
        """Take a report. One that is older than what was heard, or from a life that is over, changes nothing."""
        node = self.nodes.get(report.node)
        if node is None:
            return [Finding("error", report.node, "a node reports that is not in the configuration; it is ignored")]
        stale = why_stale(node, report)
        if stale is not None:
            news = bool(stale.text) and stale.text != node.problem
            node.problem = stale.text or node.problem
            return [stale] if news else []
        if report.mark.epoch > self.epoch:
            text = f"node {report.node} has seen epoch {report.mark.epoch}, ours is {self.epoch}: another one leads"
            return [Finding("error", report.node, text, deposed=True)]
        before_mw = self._node_held_mw(node)
        findings = self._turn_life(node, report)
        node.report_seq, node.node_time_s, node.mark = report.report_seq, report.node_time_s, report.mark
        node.heard_s, node.released = at_s, False
        adopted = report.mark.epoch == self.epoch
        node.adopted = adopted
        findings += [*node_news(node.watch, report), *self._hear_gpus(node, report, adopted)]
        node.watch = report.watch
        for gpu in node.gpus:
            self.gpus[gpu].no_room = None  # what it needs may be less now
        self._add(node, self._node_held_mw(node) - before_mw)
        return findings

    def set_budget(self, domain: str, budget_mw: int, *, force: bool = False) -> None:
        """Change a budget. Raises BudgetRefused with the least that would do, unless forced."""
        if domain not in self.domains:
            raise NotFound("domain", domain, tuple(self.domains))
        floors_mw = self.floors_mw(domain)
        if budget_mw < floors_mw and not force:
            raise BudgetRefused(
                f"domain {domain}: budget {watts(budget_mw)} refused, the floors of its GPUs and reserved power need "
                f"{watts(floors_mw)}; ask for {watts(floors_mw)} or more, or force it (all go to their floors, "
                f"and it stays over budget by {watts(floors_mw - budget_mw)})"
            )
        self.domains[domain] = replace(self.domains[domain], budget_mw=budget_mw)

    def release(self, node: str, at_s: float, silent_after_s: float) -> None:
        """An operator says that a silent node is off: free what is booked for it, until it reports again."""
        if node not in self.nodes:
            raise NotFound("node", node, tuple(self.nodes))
        book = self.nodes[node]
        if book.heard_s is not None and at_s - book.heard_s <= silent_after_s:
            raise Refused(f"node {node} reported {at_s - book.heard_s:.1f} s ago; stop it before you release it")
        before_mw = self._node_held_mw(book)
        # All that was known of it is forgotten; what comes back reports itself.
        book.released, book.adopted, book.incarnation, book.problem = True, False, "", ""
        book.report_seq, book.node_time_s, book.mark = 0, 0.0, Mark()
        for gpu in book.gpus:
            del self.gpus[gpu]
        book.gpus = []
        self._add(book, -before_mw)

    def grant(self, targets_mw: Mapping[str, int], at_s: float, lease_s: float) -> list[GrantBatch]:
        """Send what is wanted and fits: every cut now, a raise only beside everything that may be in force.

        `targets_mw` names movable GPUs; limits are taken within floor..ceiling. What does not fit yet is asked for
        again with the next call.
        """
        cuts: list[tuple[str, int, int]] = []
        raises: list[tuple[str, int, int]] = []
        for gpu, target_mw in targets_mw.items():
            booking = self.gpus[gpu]
            limit_mw = min(max(target_mw, booking.report.floor_mw), booking.report.ceiling_mw)
            waits = booking.no_room
            if waits is not None and waits[0] == limit_mw:
                raises.append((gpu, *waits))
            elif self._wants(booking, limit_mw, at_s):
                # What is booked may be more than what can be in force (a cut that is not confirmed, a GPU just heard).
                # A raise into that is free, but not while the books say that the domain is over its budget.
                rise_mw = max(0, limit_mw - booking.held_mw)
                (cuts if limit_mw <= booking.reach_mw else raises).append((gpu, limit_mw, rise_mw))
        orders: dict[str, list[tuple[str, int]]] = {}
        marks: dict[str, Mark] = {}
        for number, (gpu, limit_mw, rise_mw) in enumerate([*cuts, *raises]):
            booking = self.gpus[gpu]
            node = self.nodes[booking.node]
            if number >= len(cuts) and not self._fits(node, rise_mw):
                booking.no_room = (limit_mw, rise_mw)
                continue
            if booking.node not in marks:
                marks[booking.node] = self._next_mark()
            booking.sent.append(Sent(marks[booking.node], limit_mw))
            booking.asked_mw, booking.sent_at_s, booking.no_room = limit_mw, at_s, None
            self._add(node, rise_mw)
            orders.setdefault(booking.node, []).append((gpu, limit_mw))
        return [self._batch(name, marks[name], tuple(limits), lease_s) for name, limits in orders.items()]

    def renew(self, at_s: float, silent_after_s: float, lease_s: float) -> list[Renewal]:
        """Renew the lease of every node that was heard lately, in that node's own time."""
        return [
            Renewal(name, node.incarnation, self.controller_id, self.epoch, node.node_time_s + lease_s)
            for name, node in self.nodes.items()
            if self.is_fresh(name, at_s, silent_after_s)
        ]

    def settled(self, targets_mw: Mapping[str, int]) -> bool:
        """Every target is granted, covered by a report, and nothing more than it is booked."""
        bookings = ((self.gpus[gpu], target_mw) for gpu, target_mw in targets_mw.items())
        return all(not booking.sent and booking.held_mw == target_mw for booking, target_mw in bookings)

    def snapshot(self) -> LedgerSnapshot:
        """The books, for the next life."""
        nodes = tuple(
            BookedNode(name, node.incarnation, node.report_seq, node.node_time_s, node.mark, node.released)
            for name, node in self.nodes.items()
        )
        gpus = tuple(
            BookedGpu(booking.node, booking.report, booking.confirmed_mw, tuple(booking.sent), booking.managed)
            for booking in self.gpus.values()
        )
        return LedgerSnapshot(self._mark, nodes, gpus)

    # ---- helpers ----

    def _restore(self, snapshot: LedgerSnapshot) -> None:
        """Go on from the books of an earlier life. In a new epoch its order numbers start again."""
        if snapshot.mark.epoch == self.epoch:
            self._mark = snapshot.mark
        for kept in snapshot.nodes:
            node = self.nodes.get(kept.node)
            if node is not None:
                node.incarnation = kept.incarnation
                node.report_seq, node.node_time_s, node.mark = kept.report_seq, kept.node_time_s, kept.mark
                node.released = kept.released
        for gpu in snapshot.gpus:
            if gpu.node in self.nodes:
                booking = self._open(self.nodes[gpu.node], gpu.report)
                booking.confirmed_mw, booking.sent = gpu.confirmed_mw, list(gpu.sent)
                booking.managed = booking.managed and gpu.managed

    def _turn_life(self, node: NodeBook, report: NodeReport) -> list[Finding]:
        """A new incarnation refuses what was meant for the one before, so nothing is on its way any more."""
        if report.incarnation == node.incarnation:
            return []
        first = not node.incarnation
        node.incarnation = report.incarnation
        for gpu in node.gpus:
            booking = self.gpus[gpu]
            booking.confirmed_mw = max([booking.confirmed_mw, *(sent.limit_mw for sent in booking.sent)])
            booking.sent = []
        return [] if first else [Finding("warning", report.node, f"rapidd restarted (now {report.incarnation})")]

    def _hear_gpus(self, node: NodeBook, report: NodeReport, adopted: bool) -> list[Finding]:
        findings: list[Finding] = []
        problems: list[str] = []
        shown = {gpu.gpu for gpu in report.gpus}
        for gpu in report.gpus:
            booking = self.gpus.get(gpu.gpu)
            if booking is not None and booking.node != report.node:
                problems.append(f"gpu {gpu.gpu} is also reported by node {booking.node}")
                continue
            if booking is None:
                if not adopted:
                    continue  # unseen in this epoch: it stays booked at its ceiling
                booking = self._open(node, gpu)
            if not adopted:
                booking.confirmed_mw = max(booking.confirmed_mw, gpu.limit_mw, gpu.grant_mw)
                continue
            before = booking.report.watch
            booking.confirm(gpu, report.mark, report.node_time_s, self._settings)
            findings += [*gpu_news(before, gpu), *judge(booking, gpu, self._settings)]
            if gpu.ceiling_mw > node.spec.ceiling_mw:
                problems.append(
                    f"gpu {gpu.index} can be set to {watts(gpu.ceiling_mw)}, the controller's configuration says "
                    f"{watts(node.spec.ceiling_mw)}"
                )
            if gpu.fallback_mw > node.spec.fallback_mw:
                problems.append(
                    f"gpu {gpu.index} falls back to {watts(gpu.fallback_mw)}, the controller's configuration says "
                    f"{watts(node.spec.fallback_mw)}"
                )
        for name in node.gpus:
            self.gpus[name].present = name in shown
        gone = [name for name in node.gpus if name not in shown]
        if gone:
            problems.append(
                f"gpu {', '.join(gone)} no longer reported; its watts stay booked until you release the node"
            )
        if len(node.gpus) > node.spec.gpus:
            problems.append(f"reports {len(node.gpus)} GPUs in all, the configuration says {node.spec.gpus}")
        problem = "; ".join(problems)
        if problem and problem != node.problem:
            findings.append(Finding("error", report.node, problem))
        node.problem = problem
        return findings

    def _open(self, node: NodeBook, gpu: GpuReport) -> Booking:
        """Book a GPU that is seen for the first time. One more than configured is never moved."""
        extra = len(node.gpus) >= node.spec.gpus
        booking = Booking(node.spec.name, gpu, max(gpu.ceiling_mw, gpu.limit_mw), managed=not extra)
        if extra:
            booking.problem = f"not in the configuration, which says {node.spec.gpus} GPUs"
            booking.amends = -(10**9)  # behaving well does not make it a configured GPU
        node.gpus.append(gpu.gpu)
        self.gpus[gpu.gpu] = booking
        return booking

    def _wants(self, booking: Booking, limit_mw: int, at_s: float) -> bool:
        """Something has to be sent: another limit than granted, or one that seems to have been lost."""
        done = not booking.sent and booking.granted_mw == limit_mw
        if done or len(booking.sent) >= _MAX_SENT:
            return False
        return booking.asked_mw != limit_mw or at_s - booking.sent_at_s >= _RESEND_S

    def _fits(self, node: NodeBook, rise_mw: int) -> bool:
        for name in node.chain:
            if self._held_mw[name] + self._reserved_mw[name] + rise_mw > self.domains[name].budget_mw:
                return False
        return True

    def _next_mark(self) -> Mark:
        self._mark = Mark(self._mark.epoch, self._mark.seq + 1)
        return self._mark

    def _batch(self, name: str, mark: Mark, limits_mw: tuple[tuple[str, int], ...], lease_s: float) -> GrantBatch:
        node = self.nodes[name]
        not_after_s = node.node_time_s + lease_s
        return GrantBatch(name, node.incarnation, self.controller_id, mark, not_after_s, limits_mw)

    def _node_held_mw(self, node: NodeBook) -> int:
        return node.unseen_mw + sum(self.gpus[gpu].held_mw for gpu in node.gpus)

    def _add(self, node: NodeBook, change_mw: int) -> None:
        for name in node.chain:
            self._held_mw[name] += change_mw
