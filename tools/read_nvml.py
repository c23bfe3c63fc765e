"""Read everything that the NVML backend reads, on the GPUs of this machine, and time it. Sets nothing.

`python -m tools.read_nvml` prints a table; with --json what the tests look at. The tests run it in a process
of its own, because others load a fake library into theirs, for good.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from msgspec import structs

from rapid.core.errors import RapidError
from rapidd.device.base import Device
from rapidd.device.nvml_read import Field
from rapidd.device.open import open_backend

CALLS, CALLS_S = 200, 0.3  # of each, for the quantiles: so many, or as many as fit into so much time
PAUSE_S = 0.25  # between two readings of the energy counter
EVENT_WAIT_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        found = look()
    except RapidError as error:
        found = {"absent": str(error)}
    sys.stdout.write((json.dumps(found) if options.json else table(found)) + "\n")
    return 0


def look() -> dict[str, Any]:
    """All there is to say. Raises RapidError where NVML does not start."""
    backend = open_backend("nvml")
    gpus = [look_at(device) for device in backend.devices]
    begun_s = time.monotonic()
    event = backend.wait_event(EVENT_WAIT_S)
    waited_s = time.monotonic() - begun_s
    backend.close()
    faults = [str(fault) for fault in backend.faults]
    return {"gpus": gpus, "faults": faults, "event": str(event) if event else None, "waited_s": waited_s}


def look_at(device: Device) -> dict[str, Any]:
    import pynvml

    limit, before = device.read_limit(), device.read_power()
    time.sleep(PAUSE_S)
    after = device.read_power()
    handle = pynvml.nvmlDeviceGetHandleByUUID(device.info.gpu)
    verbs: dict[str, Callable[[], object]] = {
        "read_limit": device.read_limit,
        "read_power": device.read_power,
        "read_both": partial(device.read_both, clock=False),
        "read_both and clock": partial(device.read_both, clock=True),
        "processes": device.processes,
    }
    return {
        "info": asdict(device.info),
        "limit": structs.asdict(limit),
        "before": told(before),
        "after": told(after),
        "processes": device.processes(),
        "holders": [asdict(holder) for holder in device.holders()],
        "fields": {field.name: field_of(pynvml, handle, field) for field in Field},
        "getters": {name: value_of(pynvml, get) for name, get in getters(pynvml, handle).items()},
        "latencies_us": {name: quantiles_us(pynvml, call) for name, call in (verbs | getters(pynvml, handle)).items()},
        "limit_in_the_end": structs.asdict(device.read_limit()),
    }


def told(power: Any) -> dict[str, Any]:
    return structs.asdict(power) | {"slowdown": None if power.slowdown is None else power.slowdown.value}


def getters(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    """Every function that the backend asks about a GPU, by its name."""
    names = (
        *("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetIndex", "nvmlDeviceGetMinorNumber"),
        *("nvmlDeviceGetPersistenceMode", "nvmlDeviceGetMigMode", "nvmlDeviceGetVirtualizationMode"),
        *("nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetEnforcedPowerLimit"),
        *("nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"),
        *("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        *("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetSupportedEventTypes"),
    )
    calls: dict[str, Callable[[], Any]] = {name: partial(getattr(nvml, name), handle) for name in names}
    calls["nvmlDeviceGetClockInfo"] = lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
    calls["nvmlDeviceGetFieldValues, 2 fields"] = lambda: nvml.nvmlDeviceGetFieldValues(
        handle, [Field.DRAW_INSTANT, Field.ENERGY]
    )
    return calls


def field_of(nvml: Any, handle: Any, field: Field) -> dict[str, int]:
    """Status, type and integer value of one field."""
    try:
        (value,) = nvml.nvmlDeviceGetFieldValues(handle, [field])
    except nvml.NVMLError as error:
        return {"status": error.value, "type": 0, "value": 0}
    # The members of the value share their first bytes; the rest is zero, on a machine that has the low byte first.
    return {"status": value.nvmlReturn, "type": value.valueType, "value": value.value.ullVal}


def value_of(nvml: Any, get: Callable[[], Any]) -> dict[str, Any]:
    """Status of a getter, and its value if it is a number or some."""
    try:
        value = get()
    except nvml.NVMLError as error:
        return {"status": error.value, "value": None}
    plain = isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value))
    return {"status": 0, "value": value if plain else None}


def quantiles_us(nvml: Any, call: Callable[[], Any]) -> dict[str, float] | None:
    """p50 and p99 of a call, None for one that is not there."""
    taken_s: list[float] = []
    while len(taken_s) < 2 or (len(taken_s) < CALLS and sum(taken_s) < CALLS_S):
        begun_s = time.perf_counter()
        try:
            call()
        except nvml.NVMLError:
            return None
        taken_s.append(time.perf_counter() - begun_s)
    cuts = statistics.quantiles(taken_s, n=100, method="inclusive")
    return {"p50": 1e6 * cuts[49], "p99": 1e6 * cuts[98]}


def table(found: dict[str, Any]) -> str:
    if "absent" in found:
        return str(found["absent"])
    rows: list[str] = []
    for gpu in found["gpus"]:
        info = gpu["info"]
        rows += [
            f"{info['name']}, driver {info['driver']}, {info['floor_mw']} to {info['ceiling_mw']} mW, {info['gpu']}",
            f"  lacks {', '.join(info['lacks']) or 'nothing'}; {info['unmanageable'] or 'may be managed'}",
            *(f"  warning: {warning}" for warning in info["warnings"]),
            f"  {gpu['limit']}, {gpu['after']}",
            f"  fields {gpu['fields']}",
        ]
        for name, cuts in gpu["latencies_us"].items():
            status = gpu["getters"].get(name, {"status": 0})["status"]
            cost = f"p50 {cuts['p50']:8.1f} us  p99 {cuts['p99']:8.1f} us" if cuts else f"status {status}"
            rows.append(f"  {name:<46}{cost}")
    return "\n".join([*rows, *found["faults"]])


if __name__ == "__main__":
    sys.exit(main())
