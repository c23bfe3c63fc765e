"""A small cluster for the command line to show: two nodes of two GPUs in one rack, everything in order."""

from dataclasses import replace

from rapid.core.cluster import Decision, GpuHealth, NodeHealth, Phase, PhaseLoad, Role, SloTargets
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status

NOON_S = 1_794_916_800.0  # 2026-11-17 12:00:00 UTC

MOVE = Decision(
    id="d7",
    at_s=93.5,
    wall_s=NOON_S - 12.0,
    by="rapid",
    reason="TTFT p90 1.40 s is above 1.00 s and TPOT has room: 50 W from decode to prefill",
    inputs=(("ttft_p90_s", 1.4), ("tpot_p90_s", 0.031), ("donor", "decode")),
    changes=(("GPU-aa00", "600 W", "650 W"), ("GPU-aa01", "600 W", "550 W"), ("p0", "decode", "prefill")),
)
OLDER = Decision(
    id="d6",
    at_s=20.0,
    wall_s=NOON_S - 4000.0,
    by="operator ann@ops1",
    reason="budget of rack1 from 2500 W to 2400 W",
    changes=(("rack1", "2500 W", "2400 W"),),
)


def gpu(uuid: str, index: int, *, limit_mw: int = 600_000, instance: str = "") -> GpuStatus:
    """A GPU that obeys."""
    return GpuStatus(
        gpu=uuid,
        index=index,
        floor_mw=400_000,
        ceiling_mw=750_000,
        fallback_mw=500_000,
        target_mw=limit_mw,
        limit_mw=limit_mw,
        held_mw=limit_mw,
        draw_mw=limit_mw - 41_600,
        managed=True,
        health=GpuHealth.OK,
        problem="",
        instance=instance,
    )


def node(name: str, *gpus: GpuStatus, domain: str = "rack1") -> NodeStatus:
    """A node that reports."""
    return NodeStatus(name, domain, NodeHealth.REPORTING, age_s=0.4, problem="", gpus=gpus)


def instance(name: str, on: str, role: Role, *gpus: str, waiting: int = 0, running: int = 0) -> InstanceStatus:
    """An instance that serves."""
    load = PhaseLoad(name, role, at_s=100.0, waiting_requests=waiting, running_requests=running, kv_used_fraction=0.25)
    return InstanceStatus(name, "sim 0.1", on, gpus, role, Phase.SERVING, role, False, "", load)


def picture() -> Status:
    """The cluster in order: nothing is red."""
    return Status(
        at_s=105.5,
        wall_s=NOON_S,
        epoch=3,
        controller_id="c-5f0e",
        policy="rapid",
        paused=False,
        domains=(
            DomainStatus("site", "", 9_000_000, 500_000, 2_400_000, 2_233_600, False, ""),
            DomainStatus("rack1", "site", 2_600_000, 0, 2_400_000, 2_233_600, False, ""),
        ),
        nodes=(
            node("h1", gpu("GPU-aa00", 0, limit_mw=650_000, instance="p0"), gpu("GPU-aa01", 1, instance="d0")),
            node("h2", gpu("GPU-ab00", 0, limit_mw=550_000, instance="d1"), gpu("GPU-b001", 1)),
        ),
        instances=(
            instance("p0", "h1", Role.PREFILL, "GPU-aa00", waiting=12, running=3),
            instance("d0", "h1", Role.DECODE, "GPU-aa01", running=41),
            instance("d1", "h2", Role.DECODE, "GPU-ab00", running=38),
        ),
        slo=SloStatus(SloTargets(), 0.97251, 1.0, 1.4, 0.031, 1234),
        role_moves=2,
        watts_moved_mw=350_000,
        last_decision=MOVE,
    )


def broken() -> Status:
    """The same cluster with one of everything that is red."""
    good = picture()
    site, rack = good.domains
    h1, h2 = good.nodes
    lost = replace(h1.gpus[1], managed=False, health=GpuHealth.MISMATCH, held_mw=750_000, problem="reads back 700 W")
    return replace(
        good,
        domains=(site, replace(rack, held_mw=2_750_000, over_budget=True, advice="2750 W would do")),
        nodes=(
            replace(h1, gpus=(h1.gpus[0], lost)),
            replace(h2, health=NodeHealth.SILENT, age_s=63.0),
            replace(node("h3"), health=NodeHealth.NEVER_HEARD, age_s=float("inf")),
        ),
        instances=(
            replace(good.instances[0], phase=Phase.FAILED, problem="out of memory"),
            replace(good.instances[1], phase=Phase.DRAINING, target_role=Role.PREFILL, pinned=True),
            replace(good.instances[2], phase=Phase.GONE, load=None),
        ),
    )
