"""The status as an operator reads it, the most important first: a live view is cut at the bottom."""

from collections.abc import Iterable

from rapid.core.cluster import Decision, GpuHealth, NodeHealth, Phase
from rapid.core.errors import watts
from rapid.core.status import DomainStatus, GpuStatus, InstanceStatus, NodeStatus, SloStatus, Status
from rapidctl.commands._words import ago, clock, count, draw_w, gpu_label, latency, noticed, number_w, share
from rapidctl.output import Block, Cell, Column, Line, Table, Tone, line

GPUS_SHOWN = 64  # without --all, a longer list shrinks to what needs a look

DOMAIN_COLUMNS = (
    Column("DOMAIN", elastic=True),
    Column("BUDGET W", right=True),
    Column("RESERVED W", right=True),
    Column("HELD W", right=True),
    Column("FREE W", right=True),
    Column("DRAW W", right=True),
    Column("STATE", elastic=True),
)
NODE_COLUMNS = (
    Column("NODE", elastic=True),
    Column("DOMAIN", elastic=True),
    Column("GPUS", right=True),
    Column("HELD W", right=True),
    Column("DRAW W", right=True),
    Column("STATE", elastic=True),
)
KEPT_COLUMN = Column("KEPT", right=True)
UNKEPT = 0.01  # of the watched time, over the leave or not measured, from which it is worth a colour (assumed)
GPU_COLUMNS = (
    Column("GPU"),
    Column("INSTANCE", elastic=True),
    Column("ROLE"),
    Column("LIMIT W", right=True),
    Column("DRAW W", right=True),
    Column("WAIT", right=True),
    Column("RUN", right=True),
    Column("STATE", elastic=True),
)
SLO_COLUMNS = (Column("SLO"), *(Column(title, right=True) for title in ("TARGET", "ATTAINED", "NOW")))


def status_blocks(status: Status, *, every_gpu: bool) -> tuple[Block, ...]:
    """The whole picture; with more than GPUS_SHOWN GPUs and not `every_gpu`, only those that need a look."""
    shown, hidden = _gpu_rows(status, every_gpu)
    blocks: list[Block] = [_head(status)]
    if status.last_decision:
        blocks.append(_last(status.last_decision, status.wall_s))
    for table in (_slo_table(status.slo), domain_table(status.domains), _node_table(status.nodes)):
        blocks += [line(), table] if table.rows else []
    blocks += _cap_bound(status.instances)
    if shown:
        blocks += [line(), Table(GPU_COLUMNS, shown)]
    if hidden:
        blocks += [line(), line(f"{count(hidden, 'GPU')} in order and not shown; --all shows them", Tone.DIM)]
    return tuple(blocks)


def domain_table(domains: Iterable[DomainStatus]) -> Table:
    """Budgets, a child indented below its parent where the parent stands above it."""
    depths: dict[str, int] = {}
    rows = []
    for domain in domains:
        depths[domain.domain] = depths.get(domain.parent, -1) + 1
        free_mw = domain.budget_mw - domain.reserved_mw - domain.held_mw
        tone = Tone.BAD if domain.over_budget else Tone.PLAIN
        state = "over budget" + (f": {domain.advice}" if domain.advice else "") if domain.over_budget else "ok"
        if held_by := domain.truth.held_by:
            state += f"; by order of {held_by}, {watts(domain.truth.standing_mw)} without"
        rows.append(
            (
                Cell("  " * depths[domain.domain] + domain.domain, Tone.STRONG),
                Cell(number_w(domain.budget_mw)),
                Cell(number_w(domain.reserved_mw)),
                Cell(number_w(domain.held_mw), tone),
                Cell(number_w(free_mw), tone),
                Cell(draw_w(domain.draw_mw)),
                Cell(state, tone if domain.over_budget else Tone.GOOD),
            )
        )
    return Table(DOMAIN_COLUMNS, tuple(rows))


def one_line(status: Status, red: list[str]) -> str:
    """The picture in one line, for a log."""
    roots = [domain for domain in status.domains if not domain.parent]
    power = ", ".join(
        f"{root.domain} held {watts(root.held_mw)} of {watts(root.budget_mw)}, draw {draw_w(root.draw_mw)} W"
        for root in roots
    )
    loads = [instance.load for instance in status.instances if instance.load]
    parts = [
        clock(status.wall_s),
        power,
        _roles(status.instances),
        f"{sum(load.waiting_requests for load in loads)} waiting",
        f"TTFT {latency(status.slo.ttft_window_s)} TPOT {latency(status.slo.tpot_window_s)}",
        "paused" if status.paused else "",
        f"{status.last_decision.id}: {status.last_decision.reason}" if status.last_decision else "",
        f"RED: {'; '.join(red)}" if red else "",
    ]
    return " | ".join(filter(None, parts))


def _head(status: Status) -> Line:
    sizes = (
        (len(status.nodes), "node"),
        (sum(len(node.gpus) for node in status.nodes), "GPU"),
        (len(status.instances), "instance"),
    )
    about = f"  epoch {status.epoch}  " + ", ".join(count(size, what) for size, what in sizes)
    paused = (Cell("  "), Cell("paused", Tone.WARN)) if status.paused else ()
    when = Cell(f"  {clock(status.wall_s)}", Tone.DIM)
    return Line((Cell(f"policy {status.policy}", Tone.STRONG), *paused, Cell(about), when))


def _node_table(nodes: tuple[NodeStatus, ...]) -> Table:
    """With what share of the watched time each kept to its leave, once one of them has been watched."""
    watched = any(node.watch.watched_s for node in nodes)
    rows = []
    for node in nodes:
        draws = [gpu.draw_mw for gpu in node.gpus]
        total_mw = None if None in draws or not draws else sum(draw for draw in draws if draw is not None)
        rows.append(
            (
                Cell(node.node, Tone.STRONG),
                Cell(node.domain),
                Cell(str(len(node.gpus))),
                Cell(number_w(sum(gpu.held_mw for gpu in node.gpus))),
                Cell(draw_w(total_mw)),
                *([_kept(node)] if watched else []),
                _node_state(node),
            )
        )
    *columns, state = NODE_COLUMNS
    return Table((*columns, *([KEPT_COLUMN] if watched else []), state), tuple(rows))


def _kept(node: NodeStatus) -> Cell:
    watch = node.watch
    if not watch.watched_s:
        return Cell("-")
    lost = (watch.over_s + watch.unmeasured_s) / watch.watched_s
    return Cell(share(max(0.0, 1.0 - lost)), Tone.WARN if lost > UNKEPT else Tone.PLAIN)


def _cap_bound(instances: Iterable[InstanceStatus]) -> list[Block]:
    """How much of the last seconds each phase was slowed by its limits, where that can be told."""
    shares: dict[str, list[float]] = {}
    for instance in instances:
        if instance.cap_bound is not None:
            shares.setdefault(instance.role.value, []).append(instance.cap_bound)
    told = [f"{role} {share(sum(each) / len(each))}" for role, each in sorted(shares.items())]
    return [line(), line(f"slowed by their limits: {', '.join(told)}")] if told else []


def _node_state(node: NodeStatus) -> Cell:
    why = f": {node.problem}" if node.problem else ""
    if node.health is NodeHealth.SILENT:
        return Cell(f"silent for {ago(node.age_s)}{why}", Tone.BAD)
    if node.health is NodeHealth.REPORTING and node.watch.excursion:
        return Cell(f"excursion: {node.watch.excursion}", Tone.BAD)
    if node.unheard:
        return Cell(f"{node.health.value}{why}", Tone.BAD)
    if node.health is NodeHealth.RELEASED:
        return Cell(f"released{why}", Tone.DIM)
    if any(gpu.disobeys for gpu in node.gpus):
        return Cell(f"a GPU does not obey{why}", Tone.BAD)
    return Cell(f"{node.health.value}{why}", Tone.WARN if why else Tone.GOOD)


def _gpu_rows(status: Status, every_gpu: bool) -> tuple[tuple[tuple[Cell, ...], ...], int]:
    """The rows to show and how many are not; instances whose GPUs no node reports get rows of their own."""
    instances = {instance.instance: instance for instance in status.instances}
    gpus = [(node, gpu, instances.get(gpu.instance)) for node in status.nodes for gpu in node.gpus]
    shown = gpus
    if not every_gpu and len(gpus) > GPUS_SHOWN:
        shown = [(node, gpu, instance) for node, gpu, instance in gpus if _needs_a_look(node, gpu, instance)]
    rows = [_gpu_row(node, gpu, instance) for node, gpu, instance in shown]
    with_gpu = {gpu.instance for _, gpu, _ in gpus}
    rows += [_homeless_row(instance) for instance in status.instances if instance.instance not in with_gpu]
    return tuple(rows), len(gpus) - len(shown)


def _needs_a_look(node: NodeStatus, gpu: GpuStatus, instance: InstanceStatus | None) -> bool:
    """Red, or in the middle of a change, on a node that reports: one of a silent node says no more than the node."""
    changing = instance is not None and instance.phase not in (Phase.SERVING, Phase.GONE)
    return node.health is NodeHealth.REPORTING and (gpu.disobeys or changing)


def _gpu_row(node: NodeStatus, gpu: GpuStatus, instance: InstanceStatus | None) -> tuple[Cell, ...]:
    return (
        Cell(gpu_label(node.node, gpu), Tone.STRONG),
        Cell(gpu.instance or "-"),
        Cell(instance.role.value if instance else "-"),
        _limit(gpu),
        Cell(draw_w(gpu.draw_mw)),
        *_load_cells(instance if instance and instance.gpus[:1] in ((), (gpu.gpu,)) else None),
        _gpu_state(node, gpu, instance),
    )


def _limit(gpu: GpuStatus) -> Cell:
    """The limit in force, and the one that it is on its way to."""
    limit = number_w(gpu.limit_mw) if gpu.limit_mw else "?"
    if gpu.target_mw in (0, gpu.limit_mw):
        return Cell(limit)
    return Cell(f"{limit} > {number_w(gpu.target_mw)}", Tone.WARN)


def _homeless_row(instance: InstanceStatus) -> tuple[Cell, ...]:
    nothing = Cell("-")
    role, name = Cell(instance.role.value), Cell(instance.instance)
    return (nothing, name, role, nothing, nothing, *_load_cells(instance), _instance_state(instance))


def _load_cells(instance: InstanceStatus | None) -> tuple[Cell, Cell]:
    """Waiting and running requests, shown on the first GPU of the instance alone, so that a column can be summed."""
    if instance is None or instance.load is None:
        return Cell("-"), Cell("-")
    return Cell(str(instance.load.waiting_requests)), Cell(str(instance.load.running_requests))


def _gpu_state(node: NodeStatus, gpu: GpuStatus, instance: InstanceStatus | None) -> Cell:
    if node.health is not NodeHealth.REPORTING:
        return Cell(f"node {node.health.value}", Tone.BAD if node.unheard else Tone.DIM)
    if gpu.disobeys:
        words = ("" if gpu.managed else "not managed", "" if gpu.health is GpuHealth.OK else gpu.health.value)
        return Cell(": ".join(filter(None, (", ".join(filter(None, words)), gpu.problem))), Tone.BAD)
    state = _instance_state(instance) if instance else Cell("no engine", Tone.DIM)
    others = noticed(gpu.watch)
    return Cell(f"{state.text}; {others}", Tone.WARN) if others else state


def _instance_state(instance: InstanceStatus) -> Cell:
    why = f": {instance.problem}" if instance.problem else ""
    pinned = ", pinned" if instance.pinned else ""
    if instance.needs_person:
        return Cell(f"{instance.phase.value}{why}", Tone.BAD)
    if instance.phase is Phase.SERVING:
        return Cell(f"serving{pinned}{why}", Tone.WARN if why else Tone.GOOD)
    if instance.phase in (Phase.GONE, Phase.PARKED):
        return Cell(f"{instance.phase.value}{why}", Tone.WARN)
    # On the way to be parked it keeps its role.
    aim = f" for {instance.target_role.value}" if instance.target_role is not instance.role else ""
    return Cell(f"{instance.phase.value}{aim}{pinned}{why}", Tone.WARN)


def _slo_table(slo: SloStatus) -> Table:
    measures = (
        ("TTFT", slo.targets.ttft_s, slo.ttft_attainment, slo.ttft_window_s),
        ("TPOT", slo.targets.tpot_s, slo.tpot_attainment, slo.tpot_window_s),
    )
    rows = []
    for name, target_s, attained, now_s in measures:
        missed = now_s is not None and now_s > target_s
        rows.append(
            (
                Cell(name, Tone.STRONG),
                Cell(latency(target_s)),
                Cell(share(attained)),
                Cell(latency(now_s), Tone.WARN if missed else Tone.PLAIN),
            )
        )
    return Table(SLO_COLUMNS, tuple(rows))


def _last(decision: Decision, now_wall_s: float) -> Line:
    age = ago(max(0.0, now_wall_s - decision.wall_s))
    return Line((Cell(decision.id, Tone.STRONG), Cell(f"  {age} ago by {decision.by}: {decision.reason}")))


def _roles(instances: Iterable[InstanceStatus]) -> str:
    counts: dict[str, int] = {}
    for instance in instances:
        if instance.phase is not Phase.GONE:
            counts[instance.role.value] = counts.get(instance.role.value, 0) + 1
    return " ".join(f"{count} {role}" for role, count in sorted(counts.items())) or "no instance"
