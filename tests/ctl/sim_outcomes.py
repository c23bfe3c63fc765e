"""Outcomes written by hand, and the simulator's command line called in this process."""

from dataclasses import replace

from click.testing import CliRunner, Result

from rapid.sim.world.outcome import Missed, Outcome, PerRole, Spot, Why
from rapidctl.__main__ import cli
from rapidctl.output import Block, render

WHY = Why(
    limit_w=PerRole(600.0, 600.0, None),
    instances=PerRole(4.0, 4.0, None),
    changing=0.0,
    busy=PerRole(0.99, 0.6, None),
    missed=Missed(0.3, 0.02, 0.0, 0.0),
    errors=0,
)


def outcome(policy: str = "uniform", attainment: float = 0.68, seed: int = 0, **fields: object) -> Outcome:
    """A run of 1,000 requests in 100 s."""
    plain = Outcome(
        policy=policy,
        profile="mi300x-8b",
        seed=seed,
        requests=1000,
        attainment=attainment,
        ttft_attainment=0.7,
        tpot_attainment=0.98,
        goodput_rps=attainment * 10,
        ttft_s=Spot(0.2, 1.5, 3.25),
        tpot_s=Spot(0.01, 0.02, 0.0445),
        energy_j=400_000.0,
        joules_per_output_token=1.5,
        qps_per_budget_watt=0.002,
        qps_per_drawn_watt=0.0025,
        role_moves=0,
        watts_moved=0.0,
        over_budget_s=0.0,
        unfinished=0,
        sim_s=110.0,
        wall_s=0.5,
        control_steps=220,
        why=WHY,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def runs(policy: str, *attainments: float, **fields: object) -> tuple[Outcome, ...]:
    """One run per seed."""
    return tuple(outcome(policy, share, seed, **fields) for seed, share in enumerate(attainments))


def sim(*words: object) -> Result:
    """Call `rapidctl sim` with these arguments."""
    return CliRunner().invoke(cli, ["sim", *map(str, words)], prog_name="rapidctl")


def text_of(blocks: list[Block], width: int | None = 80) -> str:
    return "\n".join(render(blocks, width=width, colour=False))
