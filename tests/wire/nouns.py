"""Strategies for every noun that travels, within the bounds of the wire."""

from typing import TypeVar

from hypothesis import strategies as st

from rapid.core import cluster, commands, status, watched
from rapid.core.cluster import Histogram, NodeHealth, Phase, Role
from rapid.core.facility.nouns import DomainTruth, Schedule, ScheduleStatus
from rapid.wire import engine, fields, node
from rapid.wire.status import Look

T = TypeVar("T")

LETTERS = st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"])

names = st.text(LETTERS, min_size=1, max_size=fields.NAME_MAX)
texts = st.text(LETTERS | st.just(" "), max_size=40) | st.just("x" * fields.TEXT_MAX)
words = texts.filter(bool)
times_s = st.floats(0, fields.TIME_MAX_S)
counts = st.integers(0, fields.COUNT_MAX)
numbers_32 = st.integers(0, 2**32 - 1)
fractions = st.floats(0, 1)
gpu_mw = st.integers(1, fields.GPU_POWER_MAX_MW)
gpu_mw_or_zero = st.integers(0, fields.GPU_POWER_MAX_MW)
site_mw = st.integers(1, fields.POWER_MAX_MW)
site_mw_or_zero = st.integers(0, fields.POWER_MAX_MW)
roles = st.sampled_from(Role)
engine_phases = st.sampled_from([phase for phase in Phase if phase is not Phase.GONE])
gpu_lists = st.lists(names, min_size=1, max_size=8, unique=True).map(tuple)


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    bounds_s = tuple(sorted(draw(st.sets(times_s, max_size=12))))
    amounts = st.lists(counts, min_size=len(bounds_s) + 1, max_size=len(bounds_s) + 1)
    return Histogram(bounds_s=bounds_s, counts=tuple(draw(amounts)))


marks = st.builds(cluster.Mark, epoch=counts, seq=counts)
loads = st.builds(
    cluster.PhaseLoad,
    instance=names,
    role=roles,
    at_s=times_s,
    waiting_requests=numbers_32,
    waiting_tokens=counts,
    oldest_wait_s=times_s,
    running_requests=numbers_32,
    kv_used_fraction=fractions,
    arrived=counts,
    finished=counts,
    prompt_tokens=counts,
    output_tokens=counts,
    ttft=histograms(),
    tpot=histograms(),
    gpus=st.just(()) | gpu_lists,
)


gpu_watches = st.builds(
    watched.GpuWatch,
    unmanaged=texts,
    moves=st.lists(st.tuples(st.sampled_from(watched.Mover), st.integers(1, fields.COUNT_MAX)), max_size=4).map(tuple),
    last_move=texts,
    repairs=counts,
    xids=counts,
    xid=numbers_32,
    losses=counts,
    over_s=times_s,
    unmeasured_s=times_s,
    cap_bound=maybe(fractions),
)
node_watches = st.builds(
    watched.NodeWatch,
    watched_s=times_s,
    over_s=times_s,
    unmeasured_s=times_s,
    excursions=counts,
    excursion=texts,
)


@st.composite
def gpu_reports(draw: st.DrawFn, gpu: st.SearchStrategy[str] = names) -> cluster.GpuReport:
    floor_mw, ceiling_mw = sorted([draw(gpu_mw), draw(gpu_mw)])
    return draw(
        st.builds(
            cluster.GpuReport,
            gpu=gpu,
            index=numbers_32,
            floor_mw=st.just(floor_mw),
            ceiling_mw=st.just(ceiling_mw),
            fallback_mw=gpu_mw,
            limit_mw=gpu_mw,
            limit_since_s=times_s,
            grant_mw=gpu_mw_or_zero,
            void=st.booleans(),
            draw_mw=maybe(gpu_mw_or_zero),
            draw_at_s=times_s,
            energy_mj=maybe(counts),
            requested_mw=maybe(gpu_mw_or_zero),
            health=st.sampled_from(cluster.GpuHealth),
            problem=texts,
            watch=gpu_watches,
        )
    )


answers = st.builds(
    cluster.GrantAnswer,
    mark=marks,
    gpu=st.just("") | names,
    verdict=st.sampled_from(["applied", "clamped", "refused", "failed"]),
    detail=texts,
)
load_problems = st.tuples(names, words)
reports = st.builds(
    cluster.NodeReport,
    node=names,
    incarnation=names,
    report_seq=st.integers(1, fields.COUNT_MAX),
    node_time_s=times_s,
    mark=marks,
    lease_left_s=times_s,
    gpus=st.lists(gpu_reports(), min_size=1, max_size=4, unique_by=lambda gpu: gpu.gpu).map(tuple),
    loads=st.lists(loads, max_size=3, unique_by=lambda load: load.instance).map(tuple),
    answers=st.lists(answers, max_size=3).map(tuple),
    load_problems=st.lists(load_problems, max_size=3).map(tuple),
    watch=node_watches,
)
greetings = st.builds(cluster.Greeting, epoch=st.integers(1, fields.COUNT_MAX), controller_id=names)
batches = st.builds(
    cluster.GrantBatch,
    node=names,
    incarnation=names,
    controller_id=names,
    mark=marks,
    not_after_s=times_s,
    limits_mw=st.dictionaries(names, gpu_mw, min_size=1, max_size=8).map(lambda limits: tuple(limits.items())),
)
renewals = st.builds(
    cluster.Renewal,
    node=names,
    incarnation=names,
    controller_id=names,
    epoch=st.integers(1, fields.COUNT_MAX),
    not_after_s=times_s,
)


@st.composite
def gpu_descriptions(draw: st.DrawFn) -> node.GpuDescription:
    floor_mw, ceiling_mw = sorted([draw(gpu_mw), draw(gpu_mw)])
    return draw(
        st.builds(
            node.GpuDescription,
            gpu=names,
            index=numbers_32,
            name=words,
            driver=words,
            floor_mw=st.just(floor_mw),
            ceiling_mw=st.just(ceiling_mw),
            fallback_mw=gpu_mw,
            bus=texts,
            unmanageable=texts,
            lacks=st.lists(texts, max_size=3).map(tuple),
            warnings=st.lists(texts, max_size=3).map(tuple),
        )
    )


descriptions = st.builds(
    node.NodeDescription,
    node=names,
    version=names,
    backend=names,
    incarnation=names,
    hard_budget_mw=maybe(site_mw),
    gpus=st.lists(gpu_descriptions(), max_size=4).map(tuple),
    wall_s=maybe(times_s),
)


@st.composite
def hellos(draw: st.DrawFn) -> cluster.EngineHello:
    served = tuple(draw(st.lists(roles, min_size=1, max_size=3, unique=True)))
    return draw(
        st.builds(
            cluster.EngineHello,
            instance=names,
            incarnation=names,
            node=names,
            gpus=gpu_lists,
            role=st.sampled_from(served),
            roles=st.just(served),
            phase=engine_phases,
            mark=marks,
            engine_time_s=times_s,
            switch_s=times_s,
            engine=texts,
            from_role=maybe(roles),
            to_role=maybe(roles),
            parks=st.booleans(),
            reads_role=st.booleans(),
        )
    )


progresses = st.builds(
    cluster.RoleProgress,
    instance=names,
    incarnation=names,
    mark=marks,
    phase=engine_phases,
    role=roles,
    requests_left=numbers_32,
    error=texts,
    noticed=texts,
)
engine_loads = st.builds(engine.EngineLoad, engine_time_s=times_s, load=loads)
goodbyes = st.builds(engine.Goodbye, reason=texts)
welcomes = st.builds(engine.Welcome, epoch=st.integers(1, fields.COUNT_MAX), load_interval_s=times_s)
orders = st.builds(
    commands.OrderRole,
    instance=names,
    incarnation=names,
    mark=marks,
    role=roles,
    drain_s=times_s,
    not_after_s=times_s,
    quiet_s=times_s,
    park=st.booleans(),
)
cancels = st.builds(commands.CancelRole, instance=names, incarnation=names, mark=marks)

decisions = st.builds(
    cluster.Decision,
    id=names,
    at_s=times_s,
    wall_s=times_s,
    by=words,
    reason=words,
    inputs=st.lists(st.tuples(names, st.floats(allow_nan=False) | texts), max_size=4).map(tuple),
    changes=st.lists(st.tuples(names, words, words), max_size=4).map(tuple),
    predicted=maybe(fractions),
    held=maybe(fractions),
    horizon_s=times_s,
    candidates=st.lists(
        st.builds(cluster.Candidate, words=words, predicted=fractions, chosen=st.booleans()),
        max_size=fields.CANDIDATES_MAX,
    ).map(tuple),
    measured=maybe(fractions),
)
gpu_statuses = st.builds(
    status.GpuStatus,
    gpu=names,
    index=numbers_32,
    floor_mw=gpu_mw,
    ceiling_mw=gpu_mw,
    fallback_mw=gpu_mw,
    target_mw=gpu_mw_or_zero,
    limit_mw=gpu_mw_or_zero,
    held_mw=gpu_mw_or_zero,
    draw_mw=maybe(gpu_mw_or_zero),
    managed=st.booleans(),
    health=st.sampled_from(cluster.GpuHealth),
    problem=texts,
    instance=st.just("") | names,
    watch=gpu_watches,
)
statuses = st.builds(
    status.Status,
    at_s=times_s,
    wall_s=times_s,
    epoch=counts,
    controller_id=names,
    policy=names,
    paused=st.booleans(),
    domains=st.lists(
        st.builds(
            status.DomainStatus,
            domain=names,
            parent=st.just("") | names,
            budget_mw=site_mw,
            reserved_mw=site_mw_or_zero,
            held_mw=site_mw_or_zero,
            draw_mw=maybe(site_mw_or_zero),
            over_budget=st.booleans(),
            advice=texts,
            truth=st.builds(DomainTruth, standing_mw=site_mw_or_zero, held_by=texts),
        ),
        max_size=3,
    ).map(tuple),
    nodes=st.lists(
        st.builds(
            status.NodeStatus,
            node=names,
            domain=names,
            health=st.sampled_from(NodeHealth),
            age_s=times_s | st.just(float("inf")),
            problem=texts,
            gpus=st.lists(gpu_statuses, max_size=3).map(tuple),
            watch=node_watches,
        ),
        max_size=2,
    ).map(tuple),
    instances=st.lists(
        st.builds(
            status.InstanceStatus,
            instance=names,
            engine=texts,
            node=names,
            gpus=gpu_lists,
            role=roles,
            phase=st.sampled_from(Phase),
            target_role=roles,
            pinned=st.booleans(),
            problem=texts,
            load=maybe(loads),
            cap_bound=maybe(fractions),
        ),
        max_size=2,
    ).map(tuple),
    slo=st.builds(
        status.SloStatus,
        targets=st.builds(cluster.SloTargets, ttft_s=times_s, tpot_s=times_s),
        ttft_attainment=maybe(fractions),
        tpot_attainment=maybe(fractions),
        ttft_window_s=maybe(times_s),
        tpot_window_s=maybe(times_s),
        finished=counts,
    ),
    role_moves=counts,
    watts_moved_mw=counts,
    last_decision=maybe(decisions),
    scored=counts,
    prediction_error=maybe(fractions),
)
looks = st.builds(Look, status=statuses, version=names, wall_s=maybe(times_s))
schedules = st.lists(
    st.builds(
        ScheduleStatus,
        st.builds(
            Schedule,
            name=names,
            domain=names,
            budget_mw=site_mw_or_zero,
            days=st.sets(st.integers(0, 6)).map(sorted).map(tuple),
            start_s=times_s,
            duration_s=st.floats(1, 604_800),
            ramp_down_s=st.floats(0, 86_400),
            ramp_up_s=st.floats(0, 86_400),
            by=texts.filter(bool),
        ),
        times_s | st.just(float("inf")),
        times_s | st.just(float("inf")),
        st.booleans(),
    ),
    max_size=3,
).map(tuple)
