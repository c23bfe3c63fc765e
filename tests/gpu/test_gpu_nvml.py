"""Read-only checks of the NVML backend on a real GPU; skipped without one.

NVML runs in a process of its own: the tests of the node load a fake library into theirs, for good.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

READ = """
import json, time
from dataclasses import asdict
from rapid.core.errors import RapidError
from rapidd.device.open import open_backend
try:
    backend = open_backend("nvml")
except RapidError as error:
    print(json.dumps({"absent": str(error)}))
    raise SystemExit
gpus = []
for device in backend.devices:
    before = device.read_power()
    time.sleep(0.25)
    start_s = time.monotonic()
    limit, after = device.read_limit(), device.read_power()
    took_s = time.monotonic() - start_s
    gpu = {"info": device.info, "limit": limit, "before": before, "after": after}
    gpus.append({key: asdict(value) for key, value in gpu.items()} | {"took_s": took_s})
backend.close()
print(json.dumps({"gpus": gpus, "faults": [str(fault) for fault in backend.faults]}))
"""


@pytest.fixture(scope="module")
def gpus() -> list[dict[str, Any]]:
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    if "absent" in found or not found["gpus"]:
        pytest.skip(found.get("absent") or f"no NVIDIA GPU can be read: {found['faults']}")
    return list(found["gpus"])


def test_every_gpu_has_a_uuid_of_its_own_and_a_range(gpus: list[dict[str, Any]]) -> None:
    uuids = [gpu["info"]["gpu"] for gpu in gpus]
    assert len(set(uuids)) == len(uuids)
    assert all(uuid.startswith("GPU-") for uuid in uuids)
    assert all(0 < gpu["info"]["floor_mw"] <= gpu["info"]["ceiling_mw"] for gpu in gpus)


def test_the_enforced_limit_is_known_and_not_above_ceiling_or_request(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        enforced_mw, requested_mw = gpu["limit"]["enforced_mw"], gpu["limit"]["requested_mw"]
        assert 0 < enforced_mw <= gpu["info"]["ceiling_mw"]
        assert requested_mw is None or enforced_mw <= requested_mw


def test_draw_is_watts_and_energy_grows_with_it(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        before, after, ceiling_mw = gpu["before"], gpu["after"], gpu["info"]["ceiling_mw"]
        assert 1_000 < after["draw_mw"] < 2 * ceiling_mw
        if before["energy_mj"] is not None:
            # At least a watt over the quarter second between the two, at most twice the ceiling over ten.
            assert 250 <= after["energy_mj"] - before["energy_mj"] <= 2 * ceiling_mw * 10


def test_one_round_of_readings_fits_a_tenth_of_a_second(gpus: list[dict[str, Any]]) -> None:
    assert all(gpu["took_s"] < 0.1 for gpu in gpus), [gpu["took_s"] for gpu in gpus]
