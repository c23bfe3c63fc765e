"""What is run: cells of trace, engine, corner and budget, with every policy and several seeds in each."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rapid.core.cluster import SloTargets
from rapid.sim.model.profile import Profile, corners, profile_named
from rapid.sim.world.scenario import COLOCATED, ORACLE, Scenario
from rapidctl.sim.question import split_limits

POLICIES = ("uniform", "static", "power", "roles", "rapid", "predictive", COLOCATED)
LOAD_SHARE = 0.80  # of the ceilings: the budget at which the load is chosen
GPUS = 8  # of a node
CORNERS = ("shallow,gentle", "shallow,sharp", "steep,gentle", "steep,sharp")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What serves: nodes of 8 GPUs under one budget, and what users expect of it."""

    nodes: int = 1
    slo: SloTargets = field(default_factory=SloTargets)


# Four GPUs make one engine of 70B, so one node is one prefill and one decode instance and no role could move; and a
# prompt takes three times as long, so users are taken to wait twice as long (assumed).
FLEETS = {
    "mi300x-8b": Fleet(),
    "h200-8b": Fleet(),
    "h100-70b-tp4": Fleet(nodes=2, slo=SloTargets(ttft_s=2.0)),
    "mi300x-8b-paper": Fleet(),  # for tuning
}


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What a load is chosen for. corner: as `rapidctl sim --corner` takes it."""

    trace: str
    profile: str
    corner: str

    @property
    def engine(self) -> Profile:
        return profile_named(self.profile).with_corners(*corners(self.corner))

    @property
    def fleet(self) -> Fleet:
        return FLEETS[self.profile]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """share: the budget as a share of all ceilings."""

    setting: Setting
    share: float

    def __str__(self) -> str:
        setting = self.setting
        return f"{setting.trace} on {setting.profile} ({setting.corner}) at {100 * self.share:.0f} %"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Attainment against rate: the windows of the first seeds, replayed `speeds` times as fast."""

    traces: tuple[str, ...]
    speeds: tuple[float, ...]
    seeds: int


@dataclass(frozen=True, slots=True)
class Grid:
    """All that is run. The sweep, the oracle and the films are on one engine, in one corner.

    seconds   how long requests arrive in a run
    films     traces of which a run is shown over time
    """

    traces: tuple[str, ...]
    profiles: tuple[str, ...]
    corners: tuple[str, ...]
    shares: tuple[float, ...]
    policies: tuple[str, ...]
    seeds: int
    seconds: float
    sweep: Sweep
    oracle_shares: tuple[float, ...]
    films: tuple[str, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(
            Setting(trace, profile, corner)
            for trace in self.traces
            for profile in self.profiles
            for corner in self.corners
        )

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(setting, share) for setting in self.settings for share in self.shares)

    @property
    def oracle_cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(self.shown(trace), share) for trace in self.traces for share in self.oracle_shares)

    @property
    def sweep_cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(self.shown(trace), LOAD_SHARE) for trace in self.sweep.traces)

    def shown(self, trace: str) -> Setting:
        """Where sweep, oracle and films are."""
        return Setting(trace, self.profiles[0], self.corners[0])

    def entries(self) -> Iterator[tuple[Cell, str]]:
        """Every cell with every policy that runs in it."""
        for cell in self.cells:
            for policy in self.policies:
                yield cell, policy
        for cell in self.oracle_cells:
            yield cell, ORACLE

    @property
    def runs(self) -> int:
        """How many there are, but for those that choose the loads."""
        swept = len(self.sweep_cells) * len(self.sweep.speeds) * len(self.policies) * self.sweep.seeds
        return sum(self.seeds for _ in self.entries()) + swept


SPEEDS = (0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3, 1.6, 2.0)
FULL = Grid(
    traces=("azure", "mooncake", "servegen-r1", "longbench", "sonnet", "burst"),
    profiles=("mi300x-8b", "h100-70b-tp4"),
    corners=CORNERS,
    shares=(0.57, 0.70, 0.80, 0.86),
    policies=POLICIES,
    seeds=5,
    seconds=60.0,
    sweep=Sweep(("azure", "servegen-r1", "longbench", "sonnet"), SPEEDS, 3),
    oracle_shares=(0.57, 0.80),
    films=("sonnet", "azure"),
)
QUICK = replace(
    FULL,
    traces=("azure", "sonnet"),
    profiles=("mi300x-8b",),
    corners=("shallow,gentle", "steep,sharp"),
    shares=(0.57, 0.80),
    seeds=2,
    seconds=30.0,
    sweep=Sweep(("sonnet",), (0.5, 0.8, 1.26), 1),
    oracle_shares=(0.80,),
)


def budget_mw(cell: Cell) -> int:
    """Of the whole fleet. Where the share is less than the floors are, it is the floors'."""
    engine, gpus = cell.setting.engine, GPUS * cell.setting.fleet.nodes
    return max(round(cell.share * engine.ceiling_mw * gpus), engine.floor_mw * gpus)


def scenario(cell: Cell, policy: str, seed: int) -> Scenario:
    """Half of the instances of every node start in prefill. `static` gives prefill its ceiling and decode the rest, as
    the best static split of the RAPID paper (arXiv 2601.12241); all other settings are the defaults."""
    engine, fleet = cell.setting.engine, cell.setting.fleet
    total_mw, instances = budget_mw(cell), GPUS // engine.gpus
    prefill = instances // 2
    static = split_limits(engine, total_mw // fleet.nodes, prefill, instances - prefill)
    return Scenario(
        profile=engine,
        budget_mw=total_mw,
        prefill=prefill,
        policy=policy,
        policy_settings=static if policy == "static" else {},
        nodes=fleet.nodes,
        gpus=GPUS,
        slo=fleet.slo,
        seed=seed,
    )
