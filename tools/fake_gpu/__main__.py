"""Run the real rapidd on GPUs that are not there: `make fake-nvml`, or `python -m tools.fake_gpu --help`.

The daemon, the binding (nvidia-ml-py or amdsmi) and all that is between them are the real ones; only the driver's
library is compiled here. What the GPUs do is a text file, which may be edited while the daemon runs: lower the load,
let a GPU fall off the bus, report an Xid, unload the driver, be another program that sets limits. Every limit that
takes effect is on record, with the process that set it. Exit code: the daemon's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.fake_gpu import LIBRARIES, MAX_GPUS, FakeGpus, NoBinding, NoCompiler, build

START_S = 20.0
DEMAND_MW = 650_000  # so that there is something to see
CONFIG = """\
[node]
name = "laptop"
state_dir = "state"
[power]
fallback = "400W"
[device]
backend = "{backend}"
[listen]
address = "127.0.0.1:0"
load_socket = "{folder}/run/load.sock"
metrics = "127.0.0.1:0"
"""
GUIDE = """
rapidd runs on {count} fake GPUs and listens on {address}; Ctrl-C ends it. In another terminal:

  edit {script}
      what the GPUs do, and what each key means. Save, and it is so: try lost = yes, cap_mw = 300000, xids = 79,
      foreign_mw = 700000, sticks = yes, loaded = no
  tail -F {record}
      every limit that took effect: time, GPU, limit asked, limit enforced, process
  curl -s http://{metrics}/metrics
  {variables} PROGRAM
      any other program on the same GPUs
"""


def main() -> int:
    options = _parse()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("gpus.script*"):
        old.unlink()
    try:
        library = build(folder, options.backend)
    except (NoCompiler, NoBinding) as error:
        sys.stderr.write(f"fake_gpu: {error}\n")
        return 1
    gpus = FakeGpus(folder, options.backend, gpus=options.gpus)
    for gpu in gpus.gpus:
        gpu.demand_mw = DEMAND_MW
    config = folder / "rapidd.toml"
    config.write_text(CONFIG.format(backend=options.backend, folder=folder))
    return run(gpus, library, [sys.executable, "-m", "rapidd", "--config", str(config)])


def run(gpus: FakeGpus, library: Path, command: list[str]) -> int:
    """Run the daemon, tell how to play with it when it is there, and wait for its end; its exit code."""
    endpoints, env = gpus.path.parent / "state" / "endpoints.json", gpus.env(library)
    endpoints.unlink(missing_ok=True)
    with subprocess.Popen(command, env={**os.environ, **env}) as daemon:
        signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to the daemon too
        signal.signal(signal.SIGTERM, lambda *_: daemon.terminate())
        until_s = time.monotonic() + START_S
        while not endpoints.exists() and daemon.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
        if endpoints.exists():
            found = json.loads(endpoints.read_text())
            print(
                GUIDE.format(
                    count=len(gpus.gpus),
                    address=found["address"],
                    metrics=found["metrics"],
                    script=gpus.path,
                    record=gpus.record_path,
                    variables=" ".join(f"{name}={value}" for name, value in env.items()),
                ),
                flush=True,
            )
        return daemon.wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fake_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backend", choices=list(LIBRARIES), default="nvml", help="default: nvml")
    parser.add_argument("--gpus", type=int, choices=range(1, MAX_GPUS + 1), default=2, metavar="N", help="default: 2")
    folder = Path("build/fake-gpu")
    parser.add_argument("--folder", type=Path, default=folder, help=f"where all files go; default: {folder}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
