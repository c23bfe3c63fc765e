"""What is new in what a node has noticed: said once to the operator, when a report first shows it.

Counts are those of a daemon's life, and may begin anew; then all of them is news.
"""

from rapid.core.books import Finding
from rapid.core.cluster import GpuReport, NodeReport
from rapid.core.watched import GpuWatch, NodeWatch


def gpu_news(before: GpuWatch, gpu: GpuReport) -> list[Finding]:
    """`before` is what was last heard of it."""
    now = gpu.watch
    news: list[Finding] = []
    moves = _more(sum(count for _, count in before.moves), sum(count for _, count in now.moves))
    if moves:
        times = "" if moves == 1 else f" ({moves} times)"
        news.append(Finding("warning", gpu.gpu, f"its limit was moved{times} by {now.last_move}"))
    if _more(before.xids, now.xids):
        news.append(Finding("error", gpu.gpu, f"the driver reports Xid {now.xid}; see its log on the host"))
    if _more(before.losses, now.losses):
        news.append(Finding("error", gpu.gpu, f"stopped answering: {gpu.problem or 'it is back'}"))
    return news


def node_news(before: NodeWatch, report: NodeReport) -> list[Finding]:
    """`before` is what was last heard of it."""
    now = report.watch
    news: list[Finding] = []
    if _more(before.excursions, now.excursions):
        text = now.excursion or "it drew more than it may, and is below that again"
        news.append(Finding("error", report.node, f"cut its limits by itself: {text}"))
    elif before.excursion and not now.excursion:
        news.append(Finding("info", report.node, "draws less again, and is back at its grants"))
    return news


def _more(before: int, now: int) -> int:
    return now - before if now >= before else now
