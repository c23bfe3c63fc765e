"""What the tests of the evaluation share: a grid of a few short runs, and results that nobody simulated."""

from collections.abc import Mapping
from dataclasses import replace

from bench.evaluation.grid import FULL, POLICIES, Cell, Sweep
from bench.evaluation.results import Chosen, Entry, Results, Roles
from bench.evaluation.rule import Load
from rapid.sim.world.scenario import ORACLE

TINY = replace(
    FULL,
    traces=("sonnet",),
    profiles=("mi300x-8b",),
    corners=("shallow,gentle",),
    shares=(0.8,),
    seeds=2,
    seconds=2.0,
    sweep=Sweep(("sonnet",), (0.5,), 1),
    oracle_shares=(0.8,),
    films=("sonnet",),
)
PLANTED = replace(TINY, traces=("azure", "sonnet"), shares=(0.57, 0.8), films=())
NO_ROLE = Roles(None, None, None)
CELLS = {(cell.setting.trace, cell.share): cell for cell in PLANTED.cells}

# By trace and share, the two seeds of each policy.
ATTAINED: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]] = {
    ("azure", 0.57): {"uniform": (0.30, 0.40), "static": (0.20, 0.30), "rapid": (0.32, 0.42)},
    ("azure", 0.8): {"uniform": (0.60, 0.60), "static": (0.70, 0.72), "rapid": (0.40, 0.44)},
    ("sonnet", 0.57): {"uniform": (0.30, 0.30), "static": (0.50, 0.50), "rapid": (0.80, 0.90)},
    ("sonnet", 0.8): {"uniform": (0.58, 0.62), "static": (0.90, 0.90), "rapid": (0.89, 0.90)},
}
OTHERS = {
    "power": (0.25, 0.25),
    "roles": (0.25, 0.25),
    "predictive": (0.25, 0.25),
    "colocated": (0.50, 0.50),
    ORACLE: (0.95, 0.97),
}


def entry(cell: Cell, policy: str, attainment: tuple[float, ...], *, speed: float = 1.0) -> Entry:
    mixed = policy == "colocated"
    return Entry(
        trace=cell.setting.trace,
        profile=cell.setting.profile,
        corner=cell.setting.corner,
        share=cell.share,
        policy=policy,
        speed=speed,
        attainment=attainment,
        ttft_attainment=0.9,
        tpot_attainment=0.9,
        requests_sum=1000,
        unfinished_sum=8 if cell.setting.trace == "azure" else 1,
        over_budget_s=0.0,
        errors_sum=0,
        role_moves=1.5,
        watts_moved=200.0,
        joules_per_output_token=0.5,
        instances=Roles(None, None, 8.0) if mixed else Roles(4.0, 4.0, None),
        limit_w=Roles(None, None, 600.0) if mixed else Roles(700.0, 500.0, None),
        draw_w=Roles(None, None, 550.0) if mixed else Roles(400.0, 480.0, None),
    )


def planted() -> Results:
    """Whose numbers can be worked out by hand."""
    entries = [
        entry(cell, policy, ATTAINED[place].get(policy) or OTHERS[policy])
        for place, cell in CELLS.items()
        for policy in POLICIES
    ]
    entries += [entry(cell, ORACLE, OTHERS[ORACLE]) for cell in PLANTED.oracle_cells]
    sweep = [entry(CELLS["sonnet", 0.8], policy, (0.85,), speed=0.5) for policy in POLICIES]
    loads = [Chosen(setting, Load(12.0, 0.61, 5), apart=setting.trace == "azure") for setting in PLANTED.settings]
    return Results(PLANTED, "0123456789abcdef", 120.0, tuple(loads), tuple(entries), tuple(sweep))
