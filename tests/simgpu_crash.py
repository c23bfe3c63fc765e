"""Kills a writer of a simulated GPU at every line of its update in turn, and looks at what is left each time.

Run as a module with an empty folder; prints one JSON object per kill. A process of its own, because it forks.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import rapid.simgpu
from rapid.sim.model.power import Lag
from rapid.simgpu import SimGpu, SimGpuSpec

CODE = str(Path(rapid.simgpu.__file__).parent)
SPEC = SimGpuSpec("GPU-crash", 0, "test", 400_000, 750_000, 140_000, Lag(0.1, 0.3, 0.3))
OLD_MW, NEW_MW, NATURAL_MW = 600_000, 450_000, 700_000
CHANGED_S = 3.0


def set_limit(gpu: SimGpu) -> None:
    gpu.set_limit(NEW_MW, CHANGED_S)


def set_activity(gpu: SimGpu) -> None:
    gpu.set_activity(NATURAL_MW, 100.0, CHANGED_S)


def killed_at(line: int, path: Path, update: Callable[[SimGpu], None]) -> bool:
    """Runs the update in a child that dies before the given line of it, counted from 1. False: it came to its end."""
    child = os.fork()
    if child == 0:
        gpu = SimGpu.open(path)
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(CODE):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        update(gpu)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def left_behind(path: Path) -> dict[str, Any]:
    """What the next process finds, before and after it makes a change of its own."""
    with SimGpu.open(path) as gpu:
        found: dict[str, Any] = {
            "enforced_mw": gpu.read_limit().enforced_mw,
            "requested_mw": gpu.read_limit().requested_mw,
            "energy_mj": [gpu.energy_mj(at_s) for at_s in (3.0, 10.0)],
            "records": [(record.seq, record.limit_mw) for record in gpu.records()],
        }
        gpu.set_limit(500_000, 20.0)
        found["after"] = [(record.seq, record.at_s, record.limit_mw) for record in gpu.records()]
    log = path.with_name(f"{path.name}.limits").read_bytes()
    found["log_bytes"] = len(log)
    return found


def main(folder: Path) -> None:
    for update in (set_limit, set_activity):
        line, killed = 0, True
        while killed:
            line += 1
            path = folder / f"{update.__name__}-{line}"
            with SimGpu.create(path, SPEC, at_s=0.0) as gpu:
                gpu.set_limit(OLD_MW, 1.0)
            killed = killed_at(line, path, update)
            found = {"update": update.__name__, "line": line, "killed": killed, **left_behind(path)}
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
