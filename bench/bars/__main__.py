"""The bars, as a command."""

import argparse
import platform
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

import bench.bars
from bench.bars.runs import Runner
from bench.bars.sections import ENGINES, SECTIONS, SHARES
from bench.bars.show import Bar, print_bars
from rapidctl.sim.options import policy_choice

MEMORY = Path(tempfile.gettempdir()) / "rapid-bars.json"
SEEDS, SECONDS = 5, 60.0
QUICK_SEEDS, QUICK_SECONDS = 2, 40.0
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=bench.bars.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("policy", nargs="?", type=policy_choice, default=policy_choice("predictive"))
    parser.add_argument("--seeds", type=int, help=f"default: {SEEDS}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds and {QUICK_SECONDS:g} s")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be given again")
    parser.add_argument("--fresh", action="store_true", help="remember nothing of earlier calls")
    options = parser.parse_args()
    began_s = time.monotonic()
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    engines = ", ".join(f"{profile} ({corner})" for profile, corner in ENGINES)
    print(
        f"{options.policy}: {seeds} seeds, arrivals for {seconds:g} s, 8 GPUs at "
        f"{', '.join(f'{share:.0%}' for share in SHARES)} of their ceilings, TTFT 1 s, TPOT 40 ms, on {engines}; "
        f"CPython {platform.python_version()}",
        flush=True,
    )
    bars: list[Bar] = []
    with Pool(PROCESSES) as pool:
        runner = Runner(pool, MEMORY, seeds=seeds, seconds=seconds, fresh=options.fresh)
        for name in options.only or SECTIONS:
            found = SECTIONS[name](runner, options.policy)
            print_bars(f"{name}, after {time.monotonic() - began_s:.0f} s", found)
            bars += found
    if len(bars) > len(found):
        print_bars(f"All bars of {options.policy}; no run was over its budget", bars)


if __name__ == "__main__":
    main()
