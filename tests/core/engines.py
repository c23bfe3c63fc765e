"""What an engine says, for tests: its hello, its progress, its load."""

from collections.abc import Iterable

from rapid.core.cluster import EngineHello, Histogram, Mark, Phase, PhaseLoad, Role, RoleProgress
from rapid.core.commands import Command, Notice
from rapid.core.roles import Roles

NO_MARK = Mark()
BOTH = (Role.PREFILL, Role.DECODE)
BOUNDS_S = (0.02, 0.04, 0.08, 0.5, 1.0, 2.0)


def hello(
    instance: str,
    role: Role = Role.PREFILL,
    *,
    gpus: tuple[str, ...] = (),
    node: str = "n1",
    incarnation: str = "first",
    roles: tuple[Role, ...] = BOTH,
    phase: Phase = Phase.SERVING,
    mark: Mark = NO_MARK,
    engine_time_s: float = 0.0,
    way: tuple[Role | None, Role | None] = (None, None),
    parks: bool = False,
    reads_role: bool = False,
) -> EngineHello:
    """By default an instance e1 is on GPU g1. `way` is where the change under way comes from, and where it leads."""
    gpus = gpus or (instance.replace("e", "g"),)
    return EngineHello(
        instance,
        incarnation,
        node,
        gpus,
        role,
        roles,
        phase,
        mark,
        engine_time_s,
        from_role=way[0],
        to_role=way[1],
        parks=parks,
        reads_role=reads_role,
    )


def news(
    instance: str, mark: Mark, phase: Phase, role: Role, *, error: str = "", incarnation: str = "first"
) -> RoleProgress:
    return RoleProgress(instance, incarnation, mark, phase, role, error=error)


def load(
    instance: str,
    role: Role,
    *,
    at_s: float = 0.0,
    waiting: int = 0,
    oldest_wait_s: float = 0.0,
    running: int = 0,
    ttfts: dict[float, int] | None = None,
    tpots: dict[float, int] | None = None,
) -> PhaseLoad:
    """Cumulative counts so far; `ttfts` and `tpots` say how many requests took how many seconds."""
    ttft, tpot = _histogram(ttfts or {}), _histogram(tpots or {})
    finished = sum(tpot.counts)
    return PhaseLoad(
        instance,
        role,
        at_s,
        waiting_requests=waiting,
        oldest_wait_s=oldest_wait_s,
        running_requests=running,
        arrived=sum(ttft.counts) + waiting,
        finished=finished,
        ttft=ttft,
        tpot=tpot,
    )


def _histogram(took: dict[float, int]) -> Histogram:
    counts = [0] * (len(BOUNDS_S) + 1)
    for time_s, count in took.items():
        counts[sum(time_s > bound_s for bound_s in BOUNDS_S)] += count
    return Histogram(BOUNDS_S, tuple(counts))


def told(commands: Iterable[Command]) -> list[str]:
    """The notices among commands."""
    return [f"{each.level} {each.about}: {each.text}" for each in commands if isinstance(each, Notice)]


# ---- instances and their role changes ----

NODES_OF = {f"g{index}": "n1" for index in range(8)} | {"h0": "n2"}
DRAIN_S, SWITCH_S = 10.0, 20.0


def roles_of(*hellos: EngineHello, epoch: int = 1, at_s: float = 0.0) -> Roles:
    roles = Roles(epoch=epoch, drain_s=DRAIN_S, switch_timeout_s=SWITCH_S)
    for each in hellos:
        roles.attach(each, at_s, NODES_OF)
    return roles


def pair_of_each(*, parks: bool = False, reads_role: bool = False) -> Roles:
    served = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    return roles_of(
        *(hello(f"e{index}", role, parks=parks, reads_role=reads_role) for index, role in enumerate(served))
    )


def stands(roles: Roles, instance: str = "e0") -> str:
    one = roles.instances[instance]
    return f"{one.phase.value} {one.role.value}"
