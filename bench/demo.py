"""What policy `rapid` gains over uniform limits in the demo: whole runs in real time, several seeds, medians.

    .venv/bin/python -m bench.demo [--seconds 60] [--seeds 3] [--policy rapid]

A seed casts the small differences between the GPUs of a host; both hosts have the same ones and the same requests.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from statistics import median
from typing import Any

WORKLOADS = ("azure", "sonnet")
ROW = "{:<8} {:>5} {:>8} {:>8} {:>6} {:>9} {:>8} {:>12} {:>11} {:>11} {:>7}"


def run(workload: str, seconds: float, seed: int, policy: str) -> dict[str, Any]:
    """One demo; its JSON. A run that was over budget, or failed, ends the benchmark."""
    command = [sys.executable, "-m", "rapidctl", "demo", "--json", "--workload", workload, "--policy", policy]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds * 4 + 120, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def row(workload: str, seed: str, runs: list[dict[str, Any]], policy: str) -> str:
    """Medians of the runs; the ratio is the median of the ratios run by run."""
    uniform = [each["hosts"]["uniform"] for each in runs]
    other = [each["hosts"][policy] for each in runs]

    def ratio(key: str) -> str:
        return f"{median(b[key] / a[key] for a, b in zip(uniform, other, strict=True)):.2f}x"

    return ROW.format(
        workload,
        seed,
        f"{median(each['attainment'] for each in uniform):.1%}",
        f"{median(each['attainment'] for each in other):.1%}",
        ratio("attainment"),
        f"{median(b['goodput_rps'] for b in other):.1f}/s",
        ratio("ttft_p99_s"),
        ratio("joules_per_output_token"),
        f"{median(each['role_moves'] for each in other):.0f}",
        f"{median(each['watts_moved'] for each in other):.0f}",
        f"{max(each['over_budget_s'] for each in runs):.3f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--policy", default="rapid")
    options = parser.parse_args()
    print(
        f"rapidctl demo, {options.seconds:g} s each, policy {options.policy} against uniform, profile mi300x-8b, "
        f"8 GPUs under 4,800 W each; rate by the rule (uniform attains 50 to 70 %). {platform.python_implementation()} "
        f"{platform.python_version()}, {os.cpu_count()} cores"
    )
    print(
        ROW.format(
            "workload",
            "seed",
            "uniform",
            options.policy,
            "ratio",
            "goodput",
            "TTFTp99",
            "J per token",
            "role moves",
            "watts moved",
            "over s",
        )
    )
    for workload in WORKLOADS:
        runs = []
        for seed in range(options.seeds):
            runs.append(run(workload, options.seconds, seed, options.policy))
            print(row(workload, str(seed), runs[-1:], options.policy), flush=True)
        print(row(workload, "all", runs, options.policy), flush=True)


if __name__ == "__main__":
    main()
