"""What RAPID's role moves bring on NVIDIA Dynamo: one trace that swings, Dynamo alone against Dynamo under RAPID.

    make dynamo
    .venv/bin/python -m bench.dynamo_loop [--seconds 120] [--period 120] [--seeds 3] [--splits]

Frontend, KV router and engines (the mocker) are Dynamo's; RAPID is a real controller that decides by itself from
Dynamo's metrics, a real rapidd on fake NVIDIA GPUs, an adapter per worker. The mocker does not slow down with watts, so
every GPU may draw its ceiling and only roles differ. --splits adds every other fixed split, the best of which nobody
knows before the trace.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

from rapid.core.cluster import Role
from tests.engines import dynamo_swing as swing
from tests.engines.dynamo_cluster import MISSING
from tests.engines.dynamo_swing import Kind, Outcome
from tools.fake_gpu import NoCompiler

WORKERS = len(swing.SPLIT)
ROW = "{:<22} {:>4} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>5} {:>8}"


def roles(prefilling: int) -> list[Role]:
    return [Role.PREFILL] * prefilling + [Role.DECODE] * (WORKERS - prefilling)


def arm(name: str, seed: int, lasts_s: float, period_s: float, policy: str) -> Outcome:
    """One run, in a folder that is gone afterwards."""
    asks = swing.trace(lasts_s, seed, period_s)
    with tempfile.TemporaryDirectory(prefix="dynamo") as folder:
        if name == policy:
            return swing.under_rapid(Path(folder), roles(WORKERS // 2), asks, policy=policy)
        return swing.alone(Path(folder), roles(int(name[0])), asks)


def row(name: str, seed: str, runs: list[Outcome], period_s: float) -> str:
    """Medians over the runs; lost requests are summed, and of power the worst is shown."""

    def mid(values: list[float]) -> float:
        return float(median(values))

    def while_most_are(kind: Kind) -> str:
        return f"{mid([run.heavy_in(kind, period_s).attainment for run in runs]):.1%}"

    ttft = [quantiles([one.ttft_s for one in run.served], n=100) for run in runs]
    tpot = [quantiles([one.tpot_s for one in run.served], n=100) for run in runs]
    over = max(run.worst_mw - run.budget_mw for run in runs)
    return ROW.format(
        name,
        seed,
        f"{mid([run.attainment for run in runs]):.1%}",
        while_most_are(swing.PROMPTS),
        while_most_are(swing.ANSWERS),
        f"{mid([each[49] for each in ttft]):.2f} s",
        f"{mid([each[98] for each in ttft]):.2f} s",
        f"{1e3 * mid([each[89] for each in tpot]):.0f} ms",
        f"{mid([len(run.changes) - 1 for run in runs]):.0f}",
        sum(run.lost for run in runs),
        "-" if not runs[0].budget_mw else f"{max(0, over) / 1000:.0f} W",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="that the trace lasts")
    parser.add_argument(
        "--period", type=float, default=swing.PERIOD_S, help="seconds from one height of it to the next"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--policy", default="predictive")
    parser.add_argument("--splits", action="store_true", help="Dynamo alone in every other fixed split as well")
    options = parser.parse_args()
    if MISSING:
        sys.exit(MISSING)
    splits = [3, 2, 4] if options.splits else [3]
    names = [f"{each} prefill, {WORKERS - each} decode" for each in splits] + [options.policy]
    print(
        f"Dynamo 1.6.1, {WORKERS} mockers of {1e3 / swing.PREFILL_TOKEN_MS:,.0f} prompt tokens/s and "
        f"{swing.DECODE_MS:g} ms + {swing.DECODE_SEQUENCE_MS:g} ms per sequence and token, "
        f"{options.seconds:g} s that swing in {options.period:g} s from all {describe(swing.PROMPTS)} to all "
        f"{describe(swing.ANSWERS)}. "
        f"SLO: TTFT {swing.TTFT_S:g} s, TPOT {1e3 * swing.TPOT_S:g} ms. Power left out: every GPU at its ceiling. "
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores"
    )
    head = (
        "arm",
        "seed",
        "attained",
        "prompts",
        "answers",
        "TTFT p50",
        "TTFT p99",
        "TPOT p90",
        "moves",
        "lost",
        "over",
    )
    print(ROW.format(*head))
    runs: dict[str, list[Outcome]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            runs[name].append(arm(name, seed, options.seconds, options.period, options.policy))
            print(row(name, str(seed), runs[name][-1:], options.period), flush=True)
    if options.seeds > 1:
        for name in names:
            print(row(name, "all", runs[name], options.period))


def describe(kind: Kind) -> str:
    return f"{kind.name} ({kind.rate_rps:g} requests/s of {kind.prompt_tokens} tokens, {kind.answer_tokens} to answer)"


if __name__ == "__main__":
    try:
        main()
    except NoCompiler as error:
        sys.exit(str(error))
