"""The bars, section by section: each prints its table and says how far the policy is from its bars."""

from collections.abc import Callable, Mapping, Sequence

from bench.bars.runs import FLIPS, POWER, RAPID, STEADY, UNIFORM, Runner
from bench.bars.show import Bar, bar, print_table
from bench.bars.wrong import RIGHT, WRONGS, believing
from bench.evaluation.grid import Cell, Setting
from rapid.sim.world.scenario import ORACLE
from rapidctl.sim.options import PolicyChoice

ENGINES = (
    ("mi300x-8b", "shallow,gentle"),
    ("mi300x-8b", "steep,sharp"),
    ("mi300x-8b-paper", "shallow,pessimistic"),
    ("h200-8b", "shallow,gentle"),
    ("h200-8b", "steep,sharp"),
)
SHARES = (0.57, 0.70, 0.80)
FIRST_RPS = {"sonnet": 15.0, "azure": 40.0, FLIPS: 15.0, STEADY: 40.0}  # where a search begins
NEAR = 0.80  # attained by power on the mix that flips, near what it can serve
SPEEDS = {"easy": 0.6, "near": 1.0, "over": 1.5}  # by that rate
# Worlds that are not as believed: where decode's speed counts too, and its cliff lies above the floor.
WRONG_PLACES = (
    ("mi300x-8b", "shallow,gentle", 0.70),
    ("mi300x-8b-paper", "steep,gentle", 0.70),
    ("h200-8b", "steep,sharp", 0.57),
)
# At the rate at which another policy sustains so much.
WRONG_LOADS = (("sonnet", UNIFORM, 0.5), ("azure", UNIFORM, 0.6), (FLIPS, POWER, 0.6), (STEADY, RAPID, 0.8))
MIX_LEVELS = (0.5, 0.6, 0.7)
FORESIGHT = PolicyChoice(ORACLE)


def shift(runner: Runner, policy: PolicyChoice) -> list[Bar]:
    """The Sonnet shift, where uniform attains 50 % and rapid 80 %, and the rate sustained."""
    cells = _cells("sonnet")
    uniforms = runner.search(UNIFORM, _firsts(cells), (0.5,))
    rapids = runner.search(RAPID, _firsts(cells), (0.8,))
    mine = runner.search(policy, {cell: rapids[cell].sustained(0.8) or FIRST_RPS["sonnet"] for cell in cells}, (0.8,))
    half, most = ([found[cell].near(level) for cell in cells] for found, level in ((uniforms, 0.5), (rapids, 0.8)))
    at_half = _attained(runner, policy, UNIFORM, list(zip(cells, half, strict=True)))
    at_most = _attained(runner, policy, RAPID, list(zip(cells, most, strict=True)))
    ratios = [_ratio(mine[cell].sustained(0.8), rapids[cell].sustained(0.8)) for cell in cells]
    rows = [
        (cell, rate, *one, more, *two, mine[cell].sustained(0.8), ratio)
        for cell, rate, one, more, two, ratio in zip(cells, half, at_half, most, at_most, ratios, strict=True)
    ]
    heads = ("rate u50", "uniform", "policy", "rate r80", "rapid", "policy", "rate p80", "p80 / r80")
    print_table(
        "Sonnet shift; u50: where uniform attains 50 %, r80 and p80: where rapid and the policy 80 %", heads, rows
    )
    return [
        bar("Sonnet shift, attainment where uniform attains 50 %", 0.95, [one[1] for one in at_half]),
        bar("Sonnet shift, attainment where rapid attains 80 %", 0.95, [two[1] for two in at_most]),
        bar("Sonnet shift, rate sustained at 80 % by that of rapid", 1.25, ratios),
    ]


def flips(runner: Runner, policy: PolicyChoice) -> list[Bar]:
    """A mix that flips every 20 s, against power alone."""
    cells = _cells(FLIPS)
    near = runner.search(POWER, _firsts(cells), (NEAR,))
    bars, rows = [], []
    for name, speed in SPEEDS.items():
        asked = [(cell, None if (rate := near[cell].near(NEAR)) is None else rate * speed) for cell in cells]
        attained = _attained(runner, policy, POWER, asked)
        rows += [
            (f"{cell}, {name}", rate, *both, _lead(both)) for (cell, rate), both in zip(asked, attained, strict=True)
        ]
        bars.append(bar(f"flips every 20 s, {name}: lead over power", 0.0, [_lead(both) for both in attained]))
    title = f"Mix that flips every 20 s; near: where power attains {NEAR:.0%}, easy and over: .6 and 1.5 times that"
    print_table(title, ("rate", "power", "policy", "lead"), sorted(rows))
    return bars


def mix(runner: Runner, policy: PolicyChoice) -> list[Bar]:
    """Azure chat and code where uniform attains 50, 60 and 70 %, and what one who knows the future attains there."""
    cells = _cells("azure")
    found = runner.search(UNIFORM, _firsts(cells), MIX_LEVELS)
    bars, rows, everything = [], [], []
    for level in MIX_LEVELS:
        asked = [(cell, found[cell].near(level)) for cell in cells]
        attained = _attained(runner, policy, UNIFORM, asked)
        known = [one for _, one in _attained(runner, FORESIGHT, UNIFORM, asked)]
        rows += [
            (f"{cell}, {level:.0%}", rate, *both, one)
            for (cell, rate), both, one in zip(asked, attained, known, strict=True)
        ]
        mine = [one for _, one in attained]
        what = f"where uniform attains {level:.0%}"
        bars += [
            bar(f"Azure mix, attainment {what}", 0.90, mine),
            bar(
                f"Azure mix, behind the oracle {what}",
                0.05,
                [_lead(both) for both in zip(mine, known, strict=True)],
                -1,
            ),
        ]
        everything += mine
    bars.append(bar("Azure mix, attainment over these", 0.90, everything))
    heads = ("rate", "uniform", "policy", "oracle")
    print_table("Azure chat and code, where uniform attains so much", heads, sorted(rows))
    return bars


def wrong(runner: Runner, policy: PolicyChoice) -> list[Bar]:
    """Worlds that are not as believed. A gain counts as no loss: a world may also be easier than believed."""
    cells: dict[Cell, float] = {}
    for trace, plain, level in WRONG_LOADS:
        mine = [Cell(Setting(trace, profile, corner), share) for profile, corner, share in WRONG_PLACES]
        for cell, found_there in runner.search(plain, _firsts(mine), (level,)).items():
            rate = found_there.sustained(level)
            assert rate is not None, f"{plain} attains {level:.0%} nowhere: {cell}"
            cells[cell] = rate
    bars = []
    for name, each in (
        ("believing", policy),
        ("without start profile", policy),
        ("rapid", RAPID),
        ("uniform", UNIFORM),
    ):
        told = name == "believing"
        worlds = (RIGHT, *WRONGS)
        asked = [
            runner.trial(believing(each, cell.setting.engine) if told else each, cell, rate, world)
            for cell, rate in cells.items()
            for world in worlds
        ]
        found = runner.means(asked)
        rows, losses = [], []
        for at, cell in enumerate(cells):
            nominal, *others = found[at * len(worlds) : (at + 1) * len(worlds)]
            lost = [nominal - other for other in others]
            losses += [max(0.0, loss) for loss in lost]
            rows.append((cell, cells[cell], nominal, *lost, sum(max(0.0, loss) for loss in lost) / len(lost)))
        label = f"{policy}, {name}" if each is policy else name
        title = f"Wrong models, {label}: attainment where all is as believed, and the loss in each wrong world"
        print_table(title, ("rate", "nominal", *(world.name for world in WRONGS), "mean loss"), rows)
        if each is policy:
            bars.append(bar(f"wrong models, loss, {name}", 0.05, losses, sign=-1))
    return bars


# Cells with what the other policy and the policy attain there; None where there is no such rate.
Both = tuple[float | None, float | None]


def _attained(
    runner: Runner, policy: PolicyChoice, other: PolicyChoice, asked: Sequence[tuple[Cell, float | None]]
) -> list[Both]:
    known = [(cell, rate) for cell, rate in asked if rate is not None]
    others = iter(runner.means([runner.trial(other, cell, rate) for cell, rate in known]))
    mine = iter(runner.means([runner.trial(policy, cell, rate) for cell, rate in known]))
    return [(None, None) if rate is None else (next(others), next(mine)) for _, rate in asked]


def _cells(trace: str) -> list[Cell]:
    return [Cell(Setting(trace, *engine), share) for engine in ENGINES for share in SHARES]


def _firsts(cells: Sequence[Cell]) -> dict[Cell, float]:
    return {cell: FIRST_RPS[cell.setting.trace] for cell in cells}


def _lead(both: Both) -> float | None:
    other, mine = both
    return None if mine is None or other is None else mine - other


def _ratio(mine: float | None, other: float | None) -> float | None:
    return None if mine is None or other is None else mine / other


SECTIONS: Mapping[str, Callable[[Runner, PolicyChoice], list[Bar]]] = {
    "shift": shift,
    "flips": flips,
    "mix": mix,
    "wrong": wrong,
}
