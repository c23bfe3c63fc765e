"""A simulated GPU as processes share it: daemon, engine and checker on one host open the same small file.

    with SimGpu.create(path, spec, at_s=now_s) as gpu:     # or SimGpu.open(path)
        gpu.set_limit(600_000, now_s)                      # the daemon
        gpu.set_activity(735_000, until_s, now_s)          # the engine
    records(path)                                          # the checker: what the device itself wrote down

There is no process behind the file. Its state is a function of time in closed form, and every caller says what time it
is: seconds of the host's monotonic clock, which all its processes share.
"""

from rapid.simgpu.device import Faults, SimGpu, SimGpuSpec, SimLimit, records
from rapid.simgpu.records import LimitRecord

__all__ = ["Faults", "LimitRecord", "SimGpu", "SimGpuSpec", "SimLimit", "records"]
