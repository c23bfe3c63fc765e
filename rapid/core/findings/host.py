"""What `rapidd --check` finds on a GPU host. Nothing here asks for a change, so nothing was changed to find it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapid.core.errors import watts
from rapid.core.findings.base import Finding, green, red, yellow
from rapid.core.watched import Mover

# Hold every GPU open by their calling, and set no limit.
HARMLESS = ("nvidia-persistenced", "nvidia-fabricmanager", "nv-fabricmanager")
START = "systemctl start rapidd"
ROOT = "root"  # in RightsFacts.needs


@dataclass(frozen=True, slots=True)
class HolderFacts:
    """A process that holds a GPU open."""

    pid: int
    name: str
    user: str


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU as the driver shows it now; None: it does not tell. `fallback_mw` None: the configuration has none.

    unmanageable, lacks, warnings   as in rapidd.device.base.DeviceInfo
    moves                           how often the running rapidd saw others move its limit, by whom
    given_up                        the running rapidd does not set its limit any more
    problem                         why it could not be read; empty: it could
    """

    gpu: str
    index: int
    floor_mw: int
    ceiling_mw: int
    fallback_mw: int | None
    enforced_mw: int | None
    requested_mw: int | None
    unmanageable: str = ""
    lacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    holders: tuple[HolderFacts, ...] = ()
    moves: tuple[tuple[Mover, int], ...] = ()
    given_up: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        return f"gpu {self.index}"

    @property
    def landed_mw(self) -> int:
        """The most that may be in force once rapidd has landed this GPU: the ceiling where it cannot, or may not."""
        if self.unmanageable or self.given_up or self.problem or self.fallback_mw is None:
            return self.ceiling_mw
        return self.fallback_mw


@dataclass(frozen=True, slots=True)
class RightsFacts:
    """Whether limits can be set.

    who     the process that was asked about, in words
    needs   what the backend asks for, a capability or "root"; empty: nothing
    """

    who: str
    needs: str
    has: bool
    is_daemon: bool


@dataclass(frozen=True, slots=True)
class LossFacts:
    """What this host holds to by itself. `uncounted` GPUs are there and could not be looked at, or are left alone."""

    lease_max_s: float
    hard_budget_mw: int | None
    uncounted: int = 0


def daemon_finding(pid: int | None) -> Finding:
    """Whether rapidd runs on this host; `pid` None: no."""
    if pid is None:
        return yellow("rapidd", "does not run: the GPUs keep whatever limits they have", START)
    return green("rapidd", f"runs (pid {pid})")


def rights_finding(facts: RightsFacts) -> Finding:
    if not facts.needs:
        return green("permission", "simulated GPUs need none")
    if not facts.has:
        todo = f"systemd: AmbientCapabilities={facts.needs}; container: --cap-add={facts.needs.removeprefix('CAP_')}"
        if facts.needs == ROOT:
            todo = "systemd: User=root, as in rapidd-amd.conf; container: --user 0, with /sys writable"
        if not facts.is_daemon:
            todo = f"run this check as root; {todo}"
        is_not = "is not root" if facts.needs == ROOT else f"lacks {facts.needs}"
        return red("permission", f"{facts.who} {is_not}: no limit can be set", todo)
    has = "is root" if facts.needs == ROOT else f"has {facts.needs}"
    if not facts.is_daemon:
        return green("permission", f"{facts.who} {has}; rapidd.service sees to it that rapidd does too")
    return green("permission", f"{facts.who} {has}")


def gpu_findings(gpus: Sequence[GpuFacts], *, running: bool) -> list[Finding]:
    """All that is to be said of each GPU, by topic. `running`: rapidd enforces their limits now."""
    looks = (_managed, _range, _limit, _told, _warned)
    return [finding for look in looks for gpu in gpus for finding in look(gpu, running)]


def _managed(gpu: GpuFacts, running: bool) -> list[Finding]:
    if gpu.problem:
        todo = "look for Xid errors in dmesg; the GPU needs a reset, or the host a reboot"
        return [red("gpu", f"cannot be read: {gpu.problem}", todo, gpu.name)]
    if gpu.unmanageable:
        what = f"cannot be managed: {gpu.unmanageable}"
        todo = f"put it right, or let its domain's budget have room for its ceiling, {watts(gpu.ceiling_mw)}"
        return [yellow("gpu", what, todo, gpu.name)]
    if gpu.given_up:
        what = "is not managed any more: others fight over its limit"
        return [red("gpu", what, "stop them, as listed under writers, then: systemctl reload rapidd", gpu.name)]
    return [green("gpu", "can be read", gpu.name)]


def _range(gpu: GpuFacts, running: bool) -> list[Finding]:
    told = f"{watts(gpu.floor_mw)}..{watts(gpu.ceiling_mw)}"
    if gpu.fallback_mw is None:
        what = "has no fallback: rapidd will not start"
        return [red("range", what, f'set power.fallback for {gpu.gpu}, or its "default"', gpu.name)]
    if not gpu.floor_mw <= gpu.fallback_mw <= gpu.ceiling_mw:
        what = f"fallback {watts(gpu.fallback_mw)} is outside what it accepts, {told}: rapidd will not start"
        return [red("range", what, "set power.fallback within that range", gpu.name)]
    if gpu.floor_mw == gpu.ceiling_mw and not gpu.unmanageable:
        what = f"accepts {watts(gpu.floor_mw)} and nothing else: its power cannot be moved"
        return [
            yellow("range", what, "ask the vendor for a VBIOS with a range, or leave it out: device.gpus", gpu.name)
        ]
    return [green("range", f"accepts {told}, fallback {watts(gpu.fallback_mw)}", gpu.name)]


def _limit(gpu: GpuFacts, running: bool) -> list[Finding]:
    """The limit in force, against the one that was asked for last."""
    enforced_mw, requested_mw = gpu.enforced_mw, gpu.requested_mw
    if enforced_mw is None:
        return []  # _managed has said why
    if requested_mw is not None and enforced_mw < requested_mw:
        what = f"enforces {watts(enforced_mw)}, though {watts(requested_mw)} was asked for: a BMC or the VBIOS holds it"
        return [yellow("limit", what, "look for a power limit in the BMC's settings of this host", gpu.name)]
    if enforced_mw <= gpu.landed_mw or running:
        return [green("limit", f"enforces {watts(enforced_mw)}", gpu.name)]
    what = f"enforces {watts(enforced_mw)}, above its fallback {watts(gpu.landed_mw)}"
    return [yellow("limit", what, f"{START}: it brings the GPU down before anything else", gpu.name)]


def _told(gpu: GpuFacts, running: bool) -> list[Finding]:
    if not gpu.lacks:
        return []
    what = f"this driver or GPU has no {', no '.join(gpu.lacks)}"
    return [yellow("driver", what, "a newer driver may; until then, what is not told counts as the worst", gpu.name)]


def _warned(gpu: GpuFacts, running: bool) -> list[Finding]:
    found = []
    for warning in gpu.warnings:
        topic, todo = "driver", "put it right, then restart rapidd"
        if "persistence" in warning.lower():
            topic, todo = "persistence", "systemctl enable --now nvidia-persistenced"
        found.append(yellow(topic, warning, todo, gpu.name))
    return found


def writer_findings(gpus: Sequence[GpuFacts], *, sees_all: bool) -> list[Finding]:
    """Who else could set limits. That somebody could is no fault yet; rapidd writes over it and says who it was.

    `sees_all`: the processes of every user could be looked at.
    """
    todo = "make sure that it sets none; rapidd writes over what others set, and stops managing a GPU they fight over"
    found = [
        yellow("writers", f"{holder.name} (pid {holder.pid}{_of_user(holder)}) could set its limit too", todo, gpu.name)
        for gpu in gpus
        for holder in gpu.holders
        if holder.name not in HARMLESS
    ]
    for gpu in gpus:
        if moves := {mover: count for mover, count in gpu.moves if count and mover is not Mover.RELOAD}:
            by = ", ".join(f"{count} by {mover.value}" for mover, count in moves.items())
            what = f"since rapidd started, its limit was moved by others ({by}) and set back"
            found.append(yellow("writers", what, "find out who, and stop it; rapidd's log names candidates", gpu.name))
    if not sees_all:
        found.append(yellow("writers", "what other users run cannot be seen from here", "run this check as root"))
    return found or [green("writers", "nobody else who could set limits holds a GPU open now")]


def _of_user(holder: HolderFacts) -> str:
    return f", user {holder.user}" if holder.user else ""


def left_alone_finding(gpus: int) -> Finding:
    """GPUs that the configuration leaves out on purpose."""
    what = f"{gpus} of this host's GPUs left alone, as device.gpus says; their domain must have room for their ceilings"
    return green("gpu", what)


def loss_findings(gpus: Sequence[GpuFacts], facts: LossFacts) -> list[Finding]:
    """What becomes of this host when its controller is lost."""
    sum_mw = sum(gpu.landed_mw for gpu in gpus)
    above = sum(gpu.landed_mw != gpu.fallback_mw for gpu in gpus)
    why = f" ({above} counted at the ceiling, as rapidd cannot bring it down)" if above else ""
    who = f"{len(gpus)} GPUs together" if len(gpus) > 1 else "1 GPU"
    what = f"within {facts.lease_max_s:g} s {who} may draw {watts(sum_mw)} at most{why}"
    if facts.hard_budget_mw is not None and sum_mw > facts.hard_budget_mw:
        what = f"{what}, above power.hard_budget, {watts(facts.hard_budget_mw)}"
        return [red("on loss", what, "lower power.fallback, or raise power.hard_budget")]
    if facts.uncounted:
        what = f"{what}; {facts.uncounted} more are not counted"
        todo = "put them right, or let their domain's budget have room for their ceilings"
        return [yellow("on loss", what, todo)]
    if facts.hard_budget_mw is None:
        return [green("on loss", f"{what}; power.hard_budget sets no bound of this host's own")]
    return [green("on loss", f"{what}; power.hard_budget is {watts(facts.hard_budget_mw)}")]
