"""What `rapidctl doctor` finds in a controller and its nodes, from a status and from what each node says of itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapid.core.cluster import GpuHealth, NodeHealth, Phase
from rapid.core.errors import watts
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.core.findings.files import CertificateFacts, certificate_finding, skew_finding
from rapid.core.status import DomainStatus, GpuStatus, NodeStatus, Status
from rapid.core.watched import Mover

UNPROVEN_SHARE = 0.01  # assumed: of the watched time, what may be over or unmeasured before somebody should look


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node that was asked itself, beside what its controller says of it.

    problem        why it did not answer; empty: it did
    version        of its rapidd
    skew_s         its wall clock less the controller's, known to doubt_s; None: one of the two did not tell
    unmanageable, warnings   by GPU, in the words of rapidd.device.base.DeviceInfo
    certificate    what it shows; None: no TLS, or it showed none
    """

    node: str
    problem: str = ""
    version: str = ""
    skew_s: float | None = None
    doubt_s: float = 0.0
    unmanageable: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    certificate: CertificateFacts | None = None


def version_findings(own: str, controller: str, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """All should be of one version; the protocol only grows, so that another one is no fault."""
    found = []
    if controller and controller != own:
        what = f"rapidctl is {own}, the controller {controller}"
        found.append(yellow("version", what, "install the same version on both"))
    against = controller or own
    for node in nodes:
        if node.version and node.version != against:
            what = f"rapidd is {node.version}, the controller {against}"
            found.append(yellow("version", what, f"install {against} there, then systemctl restart rapidd", node.node))
    if not found and not controller and not any(node.version for node in nodes):
        return []  # nobody has told
    return found or [green("version", f"{against} everywhere it could be seen")]


def node_findings(nodes: Sequence[NodeStatus]) -> list[Finding]:
    """Which nodes the controller hears."""
    found = []
    for node in nodes:
        look = "there: systemctl status rapidd, rapidd --check"
        why = f": {node.problem}" if node.problem else ""
        if node.health is NodeHealth.NEVER_HEARD:
            what = f"was never heard and is booked at its ceilings{why}"
            found.append(red("node", what, look, node.node))
        elif node.health is NodeHealth.SILENT:
            held = watts(sum(gpu.held_mw for gpu in node.gpus))
            what = f"has been silent for {node.age_s:.0f} s and is still booked for {held}{why}"
            found.append(red("node", what, f"{look}; if it has no power: rapidctl node release NODE", node.node))
        elif node.health is NodeHealth.RELEASED:
            what = "was released: an operator said that it is off, and nothing is booked for it"
            found.append(yellow("node", what, "start its rapidd, or take it out of the configuration", node.node))
        else:
            found.append(green("node", "reports", node.node))
    return found


def asked_findings(nodes: Iterable[NodeFacts]) -> list[Finding]:
    """What nodes say of themselves."""
    found = []
    for node in nodes:
        if node.problem:
            todo = "see that its rapidd runs, and that the way there is open; there: rapidd --check"
            found.append(yellow("reach", f"could not be asked: {node.problem}", todo, node.node))
        else:
            found.append(green("reach", "answers", node.node))
        if node.skew_s is not None:
            found.append(skew_finding(node.node, node.skew_s, node.doubt_s))
        for gpu, why in node.unmanageable:
            todo = "put it right, or let its domain's budget have room for its ceiling"
            found.append(yellow("gpu", f"cannot be managed: {why}", todo, gpu))
        for gpu, warning in node.warnings:
            found.append(yellow("driver", warning, "put it right, then restart rapidd there", gpu))
        if node.certificate is not None:
            found.append(certificate_finding(node.certificate, f"rapidd on {node.node}"))
    return found


def gpu_findings(nodes: Iterable[NodeStatus]) -> list[Finding]:
    """Which GPUs do not obey, of the nodes that report."""
    found = []
    for node in nodes:
        if node.health is not NodeHealth.REPORTING:
            continue
        for gpu in node.gpus:
            found += _gpu(node, gpu)
    return found


def _gpu(node: NodeStatus, gpu: GpuStatus) -> list[Finding]:
    name, why = f"{node.node}/{gpu.index}", f": {gpu.problem}" if gpu.problem else ""
    todo = f"there: rapidd --check; {_REMEDIES[gpu.health]}"
    if not gpu.managed:
        if gpu.watch.unmanaged:
            todo = "put that right, then there: systemctl reload rapidd"
        what = f"is not managed, and booked at {watts(gpu.held_mw)}{why or _because(gpu.watch.unmanaged)}"
        return [red("gpu", what, todo, name)]
    if gpu.health is not GpuHealth.OK:
        return [red("gpu", f"{gpu.health.value}{why}", todo, name)]
    return [green("gpu", "obeys", name)]


def _because(why: str) -> str:
    return f": {why}" if why else ""


def watch_findings(nodes: Iterable[NodeStatus]) -> list[Finding]:
    """What nodes have noticed since their daemons started: other writers, driver errors, too much draw."""
    found = []
    for node in nodes:
        for gpu in node.gpus:
            found += _writers(node, gpu)
            if gpu.watch.xids:
                what = f"the driver has reported {gpu.watch.xids} errors, the last is Xid {gpu.watch.xid}"
                todo = "there: dmesg | grep Xid; the vendor's list says what each means"
                found.append(yellow("xid", what, todo, f"{node.node}/{gpu.index}"))
        watch = node.watch
        if watch.excursion:
            todo = "wait: the node cuts by itself; if it stays, find the GPU that draws above its limit"
            found.append(red("excursion", watch.excursion, todo, node.node))
        elif watch.excursions:
            what = f"has cut limits by itself {watch.excursions} times, as its draw passed what it had leave for"
            found.append(
                yellow("excursion", what, "rapidctl status shows which GPUs draw above their limits", node.node)
            )
        unproven_s = watch.over_s + watch.unmeasured_s
        if watch.watched_s and unproven_s / watch.watched_s > UNPROVEN_SHARE:
            what = f"over its leave for {watch.over_s:.0f} s, unmeasured for {watch.unmeasured_s:.0f} s"
            todo = "there: rapidd --check, for what the driver does not tell"
            found.append(yellow("compliance", f"{what}, of {watch.watched_s:.0f} s", todo, node.node))
    return found


def _writers(node: NodeStatus, gpu: GpuStatus) -> list[Finding]:
    """A limit that moved without us. A driver that is loaded anew is no writer."""
    moves = {mover: count for mover, count in gpu.watch.moves if mover is not Mover.RELOAD}
    if not moves:
        return []
    by = ", ".join(f"{count} by {mover.value}" for mover, count in moves.items())
    what = (
        f"its limit was moved without us ({by}) and set back {gpu.watch.repairs} times; the last: {gpu.watch.last_move}"
    )
    todo = "find out what else sets power limits there, and stop it: rapidd --check lists candidates"
    return [yellow("writers", what, todo, f"{node.node}/{gpu.index}")]


_REMEDIES: Mapping[GpuHealth, str] = {
    GpuHealth.OK: "if only its meter reads high, raise ledger.draw_tolerance; it is managed again when it obeys",
    GpuHealth.DENIED: "give rapidd CAP_SYS_ADMIN",
    GpuHealth.LOST: "look for Xid errors in dmesg; the GPU needs a reset, or the host a reboot",
    GpuHealth.MISMATCH: "find out who else sets its limit",
}


def domain_findings(status: Status, node: str = "") -> list[Finding]:
    """Whether each domain is within its budget, now, at all floors, and when the controller is lost.

    With `node`, only those that it draws from.
    """
    found = []
    above = {each.domain for each in status.nodes if each.node == node}
    while more := {each.parent for each in status.domains if each.domain in above and each.parent} - above:
        above |= more
    for domain in status.domains:
        if node and domain.domain not in above:
            continue
        name, budget = domain.domain, watts(domain.budget_mw)
        held_mw = domain.held_mw + domain.reserved_mw
        floors_mw, lands_mw = (domain.reserved_mw + part for part in _worst(status, domain))
        if domain.over_budget:
            what = f"over budget: {watts(held_mw)} held or reserved, above {budget}"
            found.append(red("budget", what, domain.advice or "raise the budget, or stop what draws", name))
        if floors_mw > domain.budget_mw:
            what = f"even all floors need {watts(floors_mw)}, above its budget {budget}"
            found.append(red("budget", what, f"rapidctl budget set {name} {_w(floors_mw)}, or take GPUs out", name))
        if lands_mw > domain.budget_mw:
            what = f"when the controller is lost, {watts(lands_mw)} may be drawn, above its budget {budget}"
            todo = f"lower power.fallback on its nodes, or: rapidctl budget set {name} {_w(lands_mw)}"
            found.append(red("on loss", what, todo, name))
        else:
            what = f"when the controller is lost, {watts(lands_mw)} may be drawn at most, of {budget}"
            found.append(green("on loss", what, name))
    return found


def _worst(status: Status, domain: DomainStatus) -> tuple[int, int]:
    """The most that a domain's GPUs may draw: with all that obey at their floors; and at their fallbacks.

    Who does not obey, or is not heard, keeps what is held for it. What is booked for nodes that show no GPU is in the
    domain's held watts and in no GPU's.
    """
    inside = _below(status.domains, domain.domain)
    nodes = [node for node in status.nodes if node.domain in inside]
    unseen_mw = domain.held_mw - sum(gpu.held_mw for node in nodes for gpu in node.gpus)
    floors_mw = lands_mw = max(0, unseen_mw)
    for node in nodes:
        for gpu in node.gpus:
            floors_mw += gpu.floor_mw if _obeys(node, gpu) else gpu.held_mw
            lands_mw += lost_mw(node, gpu)
    return floors_mw, lands_mw


def lost_mw(node: NodeStatus, gpu: GpuStatus) -> int:
    """The most that a GPU may draw when the controller is lost: who obeys lands, and nobody knows of the others."""
    return gpu.fallback_mw if _obeys(node, gpu) else gpu.held_mw


def _obeys(node: NodeStatus, gpu: GpuStatus) -> bool:
    return node.health is NodeHealth.REPORTING and gpu.managed


def _below(domains: Sequence[DomainStatus], name: str) -> set[str]:
    """The domain and every domain in it."""
    inside = {name}
    while more := {each.domain for each in domains if each.parent in inside} - inside:
        inside |= more
    return inside


def policy_findings(status: Status) -> list[Finding]:
    """Whether somebody decides, and whether the engines follow."""
    found = []
    if status.paused:
        what = f"{status.policy} is paused: budgets hold, but power stays where it is"
        found.append(yellow("policy", what, "rapidctl resume"))
    else:
        found.append(green("policy", f"{status.policy} decides"))
    present = [each for each in status.instances if each.phase is not Phase.GONE]
    failed = [each for each in present if each.needs_person]
    for each in failed:
        what = f"{each.phase.value}: {each.problem}" if each.problem else each.phase.value
        found.append(red("engine", what, f"look at its log on {each.node}, then start it again", each.instance))
    for each in present:
        if each.needs_person or not each.problem:
            continue
        where = f" on {each.node}" if each.node else " on its host"
        found.append(yellow("engine", each.problem, f"rapidd --check{where} looks closer", each.instance))
    attached = len(present) - len(failed)
    if not attached:
        what = "none is attached: the policy has nothing to go by"
        found.append(yellow("engine", what, "point the engines at the controller, or let rapidd scrape them"))
    else:
        found.append(green("engine", f"{attached} attached"))
    return found


def _w(power_mw: int) -> str:
    """As a command line takes it, rounded up to the watt."""
    return f"{-(-power_mw // 1000)}W"
