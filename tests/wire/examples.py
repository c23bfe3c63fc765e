"""One full and valid message of each kind, and how to change one field of it by its path."""

import re
from typing import Any

from google.protobuf.message import Message

from rapid.core import cluster, commands, status
from rapid.core.cluster import EngineHello, GpuHealth, Histogram, Mark, NodeHealth, Phase, PhaseLoad, Role
from rapid.core.facility.nouns import DomainTruth, Schedule, ScheduleStatus
from rapid.core.watched import GpuWatch, Mover, NodeWatch
from rapid.v1 import controller_pb2
from rapid.wire import common, engine, node, operator, schedule
from rapid.wire.status import decode_look, decode_status, encode_status

MARK = Mark(3, 7)
LOAD = PhaseLoad(
    instance="i1",
    role=Role.PREFILL,
    at_s=12.5,
    waiting_requests=2,
    waiting_tokens=900,
    oldest_wait_s=0.25,
    running_requests=4,
    kv_used_fraction=0.5,
    arrived=10,
    finished=6,
    prompt_tokens=5000,
    output_tokens=300,
    ttft=Histogram((0.5, 1.0, 2.0), (3, 2, 1, 0)),
    tpot=Histogram((0.02, 0.04), (1, 2, 3)),
    gpus=("GPU-1",),
)
GPU_WATCH = GpuWatch(
    unmanaged="MIG is on",
    moves=((Mover.PROCESS, 3), (Mover.RELOAD, 1)),
    last_move="another process: 500 W to 700 W",
    repairs=4,
    xids=2,
    xid=79,
    losses=1,
    over_s=2.0,
    unmeasured_s=4.0,
    cap_bound=0.25,
)
NODE_WATCH = NodeWatch(watched_s=60.0, over_s=2.0, unmeasured_s=4.0, excursions=1, excursion="draws 1100 W")
GPU = cluster.GpuReport(
    gpu="GPU-1",
    index=1,
    floor_mw=400_000,
    ceiling_mw=750_000,
    fallback_mw=500_000,
    limit_mw=600_000,
    limit_since_s=11.0,
    grant_mw=600_000,
    void=True,
    draw_mw=550_000,
    draw_at_s=12.4,
    energy_mj=123_456,
    requested_mw=600_000,
    health=GpuHealth.OK,
    problem="warm",
    watch=GPU_WATCH,
)
REPORT = cluster.NodeReport(
    node="h1",
    incarnation="a1",
    report_seq=9,
    node_time_s=12.5,
    mark=MARK,
    lease_left_s=4.5,
    gpus=(GPU,),
    loads=(LOAD,),
    answers=(cluster.GrantAnswer(MARK, "GPU-1", "applied", "as granted"),),
    load_problems=(("i1", "its metrics cannot be read"),),
    watch=NODE_WATCH,
)
BATCH = cluster.GrantBatch("h1", "a1", "c1", MARK, 17.5, (("GPU-1", 600_000), ("GPU-2", 400_000)))
RENEWAL = cluster.Renewal("h1", "a1", "c1", 3, 17.5)
DESCRIPTION = node.NodeDescription(
    node="h1",
    version="0.1.0",
    backend="sim",
    incarnation="a1",
    hard_budget_mw=4_800_000,
    gpus=(
        node.GpuDescription(
            "GPU-1", 1, "MI300X", "6.8", 400_000, 750_000, 500_000, "0000:01:00.0", "MIG", ("Xid",), ("no persistence",)
        ),
    ),
    wall_s=1.7e9,
)
HELLO = EngineHello(
    instance="i1",
    incarnation="e1",
    node="h1",
    gpus=("GPU-1", "GPU-2"),
    role=Role.PREFILL,
    roles=(Role.PREFILL, Role.DECODE),
    mark=MARK,
    engine_time_s=5.0,
    switch_s=1.5,
    engine="sim 1",
    from_role=Role.DECODE,
    to_role=Role.PREFILL,
    parks=True,
    reads_role=True,
)
PROGRESS = cluster.RoleProgress("i1", "e1", MARK, Phase.DRAINING, Role.DECODE, 4, "slow", "put back")
ORDER = commands.OrderRole("i1", "e1", MARK, Role.DECODE, 30.0, 40.0, 0.5, True)
DECISION = cluster.Decision(
    id="d7",
    at_s=12.0,
    wall_s=1.7e9,
    by="rapid",
    reason="TTFT is late",
    inputs=(("ttft_s", 1.4), ("phase", "prefill")),
    changes=(("GPU-1", "600 W", "650 W"),),
    predicted=0.97,
    held=0.81,
    horizon_s=8.0,
    candidates=(cluster.Candidate("5P3D", 0.97, True), cluster.Candidate("4P4D", 0.8)),
    measured=0.95,
)
SCHEDULE = ScheduleStatus(
    Schedule("night", "row", 3_000_000, (0, 4), 64_800.0, 3_600.0, 60.0, 90.0, "ann"), 1.7e9, 1.7e9 + 3600, True
)
STATUS = status.Status(
    at_s=12.5,
    wall_s=1.7e9,
    epoch=3,
    controller_id="c1",
    policy="rapid",
    paused=True,
    domains=(
        status.DomainStatus(
            *("row", "site", 4_800_000, 100_000, 4_600_000, 4_000_000, True, "lower a floor"),
            truth=DomainTruth(standing_mw=5_000_000, held_by="bms: c1"),
        ),
    ),
    nodes=(
        status.NodeStatus(
            node="h1",
            domain="row",
            health=NodeHealth.REPORTING,
            age_s=0.2,
            problem="none",
            gpus=(
                status.GpuStatus(
                    gpu="GPU-1",
                    index=1,
                    floor_mw=400_000,
                    ceiling_mw=750_000,
                    fallback_mw=500_000,
                    target_mw=600_000,
                    limit_mw=600_000,
                    held_mw=600_000,
                    draw_mw=550_000,
                    managed=True,
                    health=GpuHealth.OK,
                    problem="warm",
                    instance="i1",
                    watch=GPU_WATCH,
                ),
            ),
            watch=NODE_WATCH,
        ),
    ),
    instances=(
        status.InstanceStatus(
            "i1", "sim 1", "h1", ("GPU-1",), Role.PREFILL, Phase.SERVING, Role.DECODE, True, "slow", LOAD, 0.5
        ),
    ),
    slo=status.SloStatus(cluster.SloTargets(), 0.5, 0.6, 0.7, 0.03, 100),
    role_moves=2,
    watts_moved_mw=50_000,
    last_decision=DECISION,
    scored=12,
    prediction_error=0.04,
)


def _attach(message: Any) -> Any:
    return engine.decode_attach(message, hello=HELLO)


def _told(message: Any) -> Any:
    return engine.decode_told(message, instance="i1")


def _enforce(message: Any) -> Any:
    return node.decode_enforce(message, node="h1")


# name -> (message, how it is decoded)
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "greeting": (node.encode_greeting(cluster.Greeting(3, "c1"), report_interval_s=0.5), _enforce),
    "grants": (node.encode_grants(BATCH), _enforce),
    "renewal": (node.encode_renewal(RENEWAL), _enforce),
    "report": (node.encode_report(REPORT), node.decode_report),
    "description": (node.encode_description(DESCRIPTION), node.decode_description),
    "push": (common.encode_push(LOAD), common.decode_push),
    "hello": (engine.encode_hello(HELLO), lambda message: engine.decode_attach(message, hello=None)),
    "progress": (engine.encode_progress(PROGRESS), _attach),
    "load": (engine.encode_engine_load(engine.EngineLoad(5.0, LOAD)), _attach),
    "goodbye": (engine.encode_goodbye(engine.Goodbye("done")), _attach),
    "welcome": (engine.encode_welcome(engine.Welcome(3, 0.5)), _told),
    "order": (engine.encode_order(ORDER), _told),
    "cancel": (engine.encode_cancel(commands.CancelRole("i1", "e1", MARK)), _told),
    "decisions": (operator.encode_decisions((DECISION,)), operator.decode_decisions),
    "schedules": (schedule.encode_schedules((SCHEDULE,)), schedule.decode_schedules),
    "plan": (operator.encode_plan(DECISION), operator.decode_plan),
    "status": (controller_pb2.GetStatusResponse(status=encode_status(STATUS)), decode_status),
    "look": (
        controller_pb2.GetStatusResponse(status=encode_status(STATUS), version="0.1.0", wall_s=1.7e9),
        decode_look,
    ),
}


def holder(message: Message, path: str) -> tuple[Any, str]:
    """The innermost message on a path like `report.gpus[0].limit_mw`, and the name of its field."""
    *outer, last = path.split(".")
    for step in outer:
        found = re.fullmatch(r"(\w+)(?:\[(\d+)])?", step)
        assert found is not None, step
        message = getattr(message, found[1])
        if found[2] is not None:
            message = message[int(found[2])]  # type: ignore[index]
    return message, last
