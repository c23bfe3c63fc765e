"""Read-only checks of the NVML backend on a real GPU; skipped without one. tools/read_nvml.py says what is read."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rapidd.device.nvml_status import ABSENT

ROOT = Path(__file__).parents[2]
ANSWERS = {0, *ABSENT}  # a function works, or this driver or GPU does not have it
SAMPLE_US = 50_000  # reading limit and power must fit a sample interval of 100 ms, with room for the rest

# What a sample cannot do without, as (field, function of old): one of each pair must be there, or `lacks` says so.
PAIRS = {
    "enforced limit": ("LIMIT_ENFORCED", "nvmlDeviceGetEnforcedPowerLimit"),
    "requested limit": ("LIMIT_REQUESTED", "nvmlDeviceGetPowerManagementLimit"),
    "draw": ("DRAW_INSTANT", "nvmlDeviceGetPowerUsage"),
    "energy counter": ("ENERGY", "nvmlDeviceGetTotalEnergyConsumption"),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.read_nvml", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if "absent" in found or not found["gpus"]:
        pytest.skip(found.get("absent") or f"no NVIDIA GPU can be read: {found['faults']}")
    return found


@pytest.fixture(scope="module")
def gpus(found: dict[str, Any]) -> list[dict[str, Any]]:
    return list(found["gpus"])


def test_every_gpu_has_a_uuid_of_its_own_a_range_and_a_place(gpus: list[dict[str, Any]]) -> None:
    uuids = [gpu["info"]["gpu"] for gpu in gpus]
    assert len(set(uuids)) == len(uuids)
    assert all(uuid.startswith("GPU-") for uuid in uuids)
    assert all(0 < gpu["info"]["floor_mw"] <= gpu["info"]["ceiling_mw"] for gpu in gpus)
    assert all(re.fullmatch(r"[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.0", gpu["info"]["bus"]) for gpu in gpus)


def test_every_function_answers_or_is_known_to_be_absent(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        answers = {name: answer["status"] for name, answer in (gpu["getters"] | gpu["fields"]).items()}
        assert {name: status for name, status in answers.items() if status not in ANSWERS} == {}


@pytest.mark.parametrize("ability", PAIRS)
def test_what_is_missing_is_what_was_said_to_be_missing(gpus: list[dict[str, Any]], ability: str) -> None:
    field, getter = PAIRS[ability]
    for gpu in gpus:
        there = 0 in (gpu["fields"][field]["status"], gpu["getters"][getter]["status"])
        missing = ability in gpu["info"]["lacks"] or ability in gpu["info"]["unmanageable"]
        assert there != missing


@pytest.mark.parametrize("ability", ["enforced limit", "requested limit"])
def test_new_and_old_functions_tell_the_same_limit(gpus: list[dict[str, Any]], ability: str) -> None:
    field, getter = PAIRS[ability]
    for gpu in gpus:
        new, old = gpu["fields"][field], gpu["getters"][getter]
        if new["status"] == old["status"] == 0:
            assert new["value"] == old["value"]


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


def test_the_clock_is_a_clock_and_a_slowdown_is_told(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        after, lacks = gpu["after"], gpu["info"]["lacks"]
        assert "clock" in lacks or 50 <= after["clock_mhz"] <= 10_000
        assert ("event reasons" in lacks) == (after["slowdown"] is None)


def test_processes_have_pids(gpus: list[dict[str, Any]]) -> None:
    assert all(pid > 0 for gpu in gpus for pid in gpu["processes"])


def test_a_sample_fits_its_interval(gpus: list[dict[str, Any]]) -> None:
    for gpu in gpus:
        cuts_us = gpu["latencies_us"]
        assert cuts_us["read_both and clock"]["p99"] < SAMPLE_US, cuts_us


def test_a_wait_for_events_ends_in_time(found: dict[str, Any]) -> None:
    if found["event"] is None:
        assert 0.4 <= found["waited_s"] < 10.0


def test_nothing_was_set(gpus: list[dict[str, Any]]) -> None:
    assert all(gpu["limit_in_the_end"] == gpu["limit"] for gpu in gpus)
