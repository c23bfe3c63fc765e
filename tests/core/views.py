"""What a policy sees, for tests: one node of eight GPUs as in the RAPID paper (arXiv 2601.12241), or any other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rapid.core.cluster import GpuView, InstanceView, Latencies, Phase, PhaseLoad, Role, SloTargets, Targets, View
from rapid.core.policy import Policy, StatefulPolicy
from tests.core.engines import BOTH, load
from tests.core.hosts import W

NEVER_S = float("inf")
FLOOR_W, CEILING_W, BUDGET_W = 400, 750, 4_800


def gpu(
    name: str, limit_w: float, *, node: str = "n", floor_w: float = FLOOR_W, ceiling_w: float = CEILING_W
) -> GpuView:
    return GpuView(name, node, round(floor_w * W), round(ceiling_w * W), round(limit_w * W), None, None)


def instance(
    name: str,
    role: Role,
    gpus: Iterable[str],
    *,
    phase: Phase = Phase.SERVING,
    roles: tuple[Role, ...] = BOTH,
    pinned: bool = False,
    queue: PhaseLoad | None = None,
) -> InstanceView:
    return InstanceView(name, tuple(gpus), role, phase, roles, queue, 1.0, pinned)


def view(
    gpus: Iterable[GpuView],
    instances: Iterable[InstanceView],
    *,
    rooms_w: Mapping[str, float] | None = None,
    chains: Mapping[str, tuple[str, ...]] | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    oldest_wait_s: float = 0.0,
    settled: bool = True,
    since_power_s: float = NEVER_S,
    since_role_s: float = NEVER_S,
) -> View:
    rooms_w = {"room": BUDGET_W} if rooms_w is None else rooms_w
    gpus = tuple(gpus)
    return View(
        at_s=1_000.0,
        slo=SloTargets(ttft_s=1.0, tpot_s=0.040),
        latencies=Latencies(ttft_s, tpot_s, oldest_wait_s),
        gpus=gpus,
        instances=tuple(instances),
        rooms_mw={name: round(room_w * W) for name, room_w in rooms_w.items()},
        chains=chains or {each.node: ("room",) for each in gpus},
        settled=settled,
        since_power_s=since_power_s,
        since_role_s=since_role_s,
    )


def paper(
    *,
    prefill_w: float = 600,
    decode_w: float = 600,
    waiting_prefill: int = 0,
    waiting_decode: int = 0,
    prefill: int = 4,
    budget_w: float | None = None,
    ttft_s: float | None = 0.3,
    tpot_s: float | None = 0.020,
    **more: object,
) -> View:
    """Eight GPUs, an instance each: p0.. prefill, d4.. decode. Waiting requests are per instance. Without a budget
    there is just room for the limits as they are."""
    gpus: list[GpuView] = []
    instances: list[InstanceView] = []
    for index in range(8):
        role = Role.PREFILL if index < prefill else Role.DECODE
        name = f"{role.value[0]}{index}"
        waiting = waiting_prefill if role is Role.PREFILL else waiting_decode
        gpus.append(gpu(f"g{index}", prefill_w if role is Role.PREFILL else decode_w))
        instances.append(instance(name, role, [f"g{index}"], queue=load(name, role, waiting=waiting, running=index)))
    rooms_w = {"room": sum(each.limit_mw for each in gpus) / W if budget_w is None else budget_w}
    return view(gpus, instances, rooms_w=rooms_w, ttft_s=ttft_s, tpot_s=tpot_s, **more)  # type: ignore[arg-type]


PREFILL_SHORT = {"ttft_s": 1.5, "waiting_prefill": 5}
DECODE_SHORT = {"tpot_s": 0.050}


def changed(seen: View, **changes: InstanceView) -> View:
    """The same with some instances as they are given, by name."""
    return replace(seen, instances=tuple(changes.get(one.instance, one) for one in seen.instances))


def after_w(seen: View, targets: Targets) -> dict[str, float]:
    """All limits when the targets are in force, in watts."""
    return {each.gpu: targets.limits_mw.get(each.gpu, each.limit_mw) / W for each in seen.gpus}


def goes_on(make: Callable[[], Policy], seen: Sequence[View], break_at: int) -> bool:
    """Whether a policy that takes over from another after some views, with its state if it has any, wants the same from
    then on as one without a break."""
    whole, first, second = make(), make(), make()
    wants = [whole.decide(view) for view in seen]
    for view in seen[:break_at]:
        first.decide(view)
    if isinstance(first, StatefulPolicy) and isinstance(second, StatefulPolicy):
        second.restore(first.state())
    return [second.decide(view) for view in seen[break_at:]] == wants[break_at:]
