"""A simulated GPU: its limits, draw and energy, its faults, and that no crash and no race tears its state."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost, LimitRefused
from rapid.sim.model.power import Lag, LimitCurve
from rapid.simgpu import Faults, LimitRecord, SimGpu, SimGpuSpec, SimLimit, records
from rapid.simgpu.records import log_path
from tests.wait import wait_for

SPEC = SimGpuSpec("GPU-0a1b", 3, "mi300x-8b", 400_000, 750_000, 140_000, Lag(0.1, 0.3, 0.3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpu3"


@pytest.fixture
def gpu(path: Path) -> Iterator[SimGpu]:
    with SimGpu.create(path, SPEC, at_s=10.0) as made:
        yield made


# ---- limits ----


def test_a_new_gpu_is_idle_at_its_ceiling(gpu: SimGpu, path: Path) -> None:
    assert gpu.read_limit() == SimLimit(750_000, 750_000)
    assert gpu.draw_mw(10.0) == 140_000
    assert gpu.energy_mj(10.0) == 0
    assert records(path) == ()


def test_another_process_sees_the_same_gpu(gpu: SimGpu, path: Path) -> None:
    gpu.set_limit(600_000, 11.0)
    with SimGpu.open(path) as other:
        assert other.spec == SPEC
        assert other.read_limit() == SimLimit(600_000, 600_000)


def test_it_starts_at_another_limit_if_told(path: Path) -> None:
    with SimGpu.create(path, SPEC, at_s=0.0, limit_mw=500_000) as made:
        assert made.read_limit().enforced_mw == 500_000
        assert made.limit_in_effect_mw(0.0) == 500_000


@pytest.mark.parametrize("limit_mw", [399_999, 750_001])
def test_a_limit_outside_the_range_is_refused(gpu: SimGpu, limit_mw: int) -> None:
    with pytest.raises(LimitRefused, match="GPU-0a1b"):
        gpu.set_limit(limit_mw, 11.0)
    assert gpu.read_limit().enforced_mw == 750_000
    assert gpu.records() == ()


def test_the_device_writes_down_every_change_and_only_changes(gpu: SimGpu, path: Path) -> None:
    gpu.set_limit(600_000, 11.0, writer=77)
    gpu.set_limit(600_000, 11.5, writer=77)
    gpu.set_activity(700_000, 20.0, 11.6)
    gpu.set_limit(650_000, 12.25, writer=88)
    expected = (LimitRecord(1, 11_000_000_000, 600_000, 77), LimitRecord(2, 12_250_000_000, 650_000, 88))
    assert records(path) == gpu.records() == expected
    assert expected[1].at_s == 12.25


def test_the_limit_in_effect_follows_with_the_lag_of_the_device(gpu: SimGpu) -> None:
    gpu.set_limit(600_000, 11.0)
    curve = LimitCurve.constant(750_000, SPEC.lag).changed(600_000, 11.0)
    assert gpu.limit_curve() == curve
    assert [gpu.limit_in_effect_mw(at_s) for at_s in (11.0, 11.3, 20.0)] == [750_000, round(curve.at(11.3)), 600_000]
    assert gpu.read_limit().enforced_mw == 600_000  # the register changes at once


# ---- draw and energy ----


def test_it_draws_what_it_does_within_the_limit_in_effect(gpu: SimGpu) -> None:
    gpu.set_activity(700_000, 13.0, 11.0)
    assert gpu.draw_mw(11.0) == 700_000
    gpu.set_limit(500_000, 11.0)
    assert 500_000 < gpu.draw_mw(11.4) < 700_000
    assert gpu.draw_mw(12.9) == 500_000


def test_a_gpu_whose_engine_was_killed_goes_idle_by_itself(gpu: SimGpu) -> None:
    gpu.set_activity(700_000, 11.5, 11.0)
    assert [gpu.draw_mw(at_s) for at_s in (11.499, 11.5, 60.0)] == [700_000, 140_000, 140_000]
    assert gpu.energy_mj(13.0) == 140_000 * 1.0 + 700_000 * 0.5 + 140_000 * 1.5


verbs = st.lists(
    st.tuples(
        st.sampled_from(["limit", "busy", "read"]), st.integers(1, 400), st.integers(400, 750), st.integers(0, 900)
    ),
    min_size=1,
    max_size=12,
)


@given(verbs)
def test_the_energy_counter_is_the_exact_integral_of_the_draw(
    tmp_path_factory: pytest.TempPathFactory, verbs: list[tuple[str, int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("energy") / "gpu"
    cell_s, now, expected_mj = 0.001, 0, 0.0
    with SimGpu.create(path, SPEC, at_s=0.0) as gpu:
        for verb, cells, watts, busy in verbs:
            if verb == "limit":
                gpu.set_limit(watts * 1000, now * cell_s)
            elif verb == "busy":
                gpu.set_activity(watts * 1000, (now + busy) * cell_s, now * cell_s)
            for _ in range(cells):
                expected_mj += gpu.draw_mw((now + 0.5) * cell_s) * cell_s
                now += 1
            assert gpu.energy_mj(now * cell_s) == pytest.approx(expected_mj, rel=1e-4, abs=10)


def test_energy_never_falls_even_if_a_writer_was_late(gpu: SimGpu) -> None:
    gpu.set_activity(700_000, 20.0, 11.0)
    seen = gpu.energy_mj(13.0)
    gpu.set_activity(150_000, 20.0, 12.0)  # its clock was read before the reader's
    assert gpu.energy_mj(13.0) == seen
    assert gpu.energy_mj(19.0) > seen


def test_time_does_not_go_back(gpu: SimGpu) -> None:
    gpu.set_activity(700_000, 20.0, 12.0)
    gpu.set_limit(500_000, 11.0)
    assert gpu.records()[0].at_s == 12.0


# ---- faults ----


def test_without_permission_no_limit_is_set(gpu: SimGpu) -> None:
    gpu.set_faults(Faults(denied=True), 11.0)
    with pytest.raises(DeviceDenied, match="gpu GPU-0a1b: no permission to set a limit of 600 W"):
        gpu.set_limit(600_000, 11.0)
    assert gpu.read_limit().enforced_mw == 750_000
    gpu.set_faults(Faults(), 12.0)
    gpu.set_limit(600_000, 12.0)
    assert gpu.read_limit().enforced_mw == 600_000


def test_a_lost_gpu_answers_nothing(gpu: SimGpu) -> None:
    gpu.set_faults(Faults(lost=True), 11.0)
    for ask in (
        lambda: gpu.set_limit(600_000, 11.0),
        gpu.read_limit,
        lambda: gpu.draw_mw(11.0),
        lambda: gpu.energy_mj(11.0),
    ):
        with pytest.raises(DeviceLost, match="GPU-0a1b"):
            ask()


def test_a_limit_that_sticks_is_seen_only_by_reading_it_back(gpu: SimGpu) -> None:
    gpu.set_limit(600_000, 11.0)
    gpu.set_faults(Faults(sticks=True), 11.0)
    gpu.set_limit(500_000, 12.0)
    assert gpu.read_limit() == SimLimit(600_000, 600_000)
    assert len(gpu.records()) == 1


@pytest.mark.parametrize(("asked_mw", "enforced_mw"), [(612_400, 610_000), (612_600, 615_000)])
def test_a_device_may_round_up_as_well_as_down(gpu: SimGpu, asked_mw: int, enforced_mw: int) -> None:
    gpu.set_faults(Faults(step_mw=5_000), 11.0)
    gpu.set_limit(asked_mw, 11.0)
    assert gpu.read_limit() == SimLimit(asked_mw, enforced_mw)
    assert gpu.records()[-1].limit_mw == enforced_mw


def test_another_party_may_hold_a_lower_limit(gpu: SimGpu) -> None:
    gpu.set_limit(600_000, 11.0)
    gpu.set_faults(Faults(external_limit_mw=450_000), 12.0)
    assert gpu.read_limit() == SimLimit(600_000, 450_000)
    gpu.set_limit(700_000, 13.0)
    assert gpu.read_limit() == SimLimit(700_000, 450_000)
    gpu.set_faults(Faults(), 14.0)
    assert gpu.read_limit() == SimLimit(700_000, 700_000)
    assert [(record.at_s, record.limit_mw) for record in gpu.records()] == [(11, 600_000), (12, 450_000), (14, 700_000)]


def test_faults_survive_everything_else(gpu: SimGpu) -> None:
    faults = Faults(denied=False, lost=False, sticks=False, step_mw=1_000, external_limit_mw=700_000)
    gpu.set_faults(faults, 11.0)
    gpu.set_limit(600_000, 11.0)
    gpu.set_activity(700_000, 20.0, 11.0)
    gpu.set_limit(750_000, 12.0)
    assert gpu.read_limit() == SimLimit(750_000, 700_000)


# ---- the file ----


def test_a_gpu_is_made_once(gpu: SimGpu, path: Path) -> None:
    gpu.set_limit(600_000, 11.0)
    with pytest.raises(DeviceError, match="cannot make its state file: File exists"):
        SimGpu.create(path, SPEC, at_s=0.0)
    assert gpu.read_limit().enforced_mw == 600_000
    assert sorted(item.name for item in path.parent.iterdir()) == ["gpu3", "gpu3.limits"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096, b"RAPIDGPU" + b"\0" * 4088])
def test_a_file_that_is_something_else_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="this is not the state file of a simulated GPU"):
        SimGpu.open(path)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gpu3: cannot open its state file: No such file"):
        SimGpu.open(path)
    assert list(path.parent.iterdir()) == []


def test_a_damaged_slot_is_told_and_not_believed(gpu: SimGpu, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for slot_at in (512, 1024):
        content[slot_at + 30] ^= 1
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="its state file is damaged"):
        gpu.read_limit()


def test_half_of_an_update_in_the_other_slot_is_not_seen(gpu: SimGpu, path: Path) -> None:
    gpu.set_limit(600_000, 11.0)  # generation 1, in the second slot
    content = bytearray(path.read_bytes())
    content[512:560] = b"\xff" * 48
    path.write_bytes(content)
    assert gpu.read_limit().enforced_mw == 600_000
    gpu.set_limit(500_000, 12.0)
    assert gpu.read_limit().enforced_mw == 500_000


def test_a_log_that_lost_records_is_told(gpu: SimGpu, path: Path) -> None:
    for step in range(3):
        gpu.set_limit(500_000 + step, 11.0 + step)
    log_path(path).write_bytes(log_path(path).read_bytes()[32:])
    with pytest.raises(DeviceError, match="its log of limits has lost records"):
        records(path)


def test_threads_may_share_a_handle(gpu: SimGpu) -> None:
    def work(first: int) -> None:
        for step in range(100):
            gpu.set_limit(400_000 + first * 100 + step, 11.0)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [record.seq for record in gpu.records()] == list(range(1, 401))


# ---- crashes ----


def test_a_writer_killed_at_any_line_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simgpu_crash", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    found = [json.loads(line) for line in run.stdout.splitlines()]

    limits = [item for item in found if item["update"] == "set_limit"]
    activities = [item for item in found if item["update"] == "set_activity"]
    assert len(limits) > 30
    assert len(activities) > 15
    old, new = [[1, 600_000]], [[1, 600_000], [2, 450_000]]
    for item in limits:
        assert item["records"] == (old if item["enforced_mw"] == 600_000 else new)
        assert item["enforced_mw"] == item["requested_mw"]
    assert {item["enforced_mw"] for item in limits} == {600_000, 450_000}
    changed = [item["enforced_mw"] == 450_000 for item in limits]
    assert changed == sorted(changed)  # there is one line at which it happens
    assert changed.index(True) < len(changed) - 1  # and the log is written after it
    for item in found:
        # Idle throughout, or busy from 3 s on at the limit of 600 W. The next writer makes the log whole on disk.
        assert item["energy_mj"] in ([420_000, 1_400_000], [420_000, 420_000 + 7 * 600_000])
        assert item["after"][:-1] == [[seq, {1: 1.0, 2: 3.0}[seq], limit_mw] for seq, limit_mw in item["records"]]
        assert item["after"][-1] == [len(item["records"]) + 1, 20.0, 500_000]
        assert item["log_bytes"] == 32 * len(item["after"])
    assert len({item["energy_mj"][1] for item in activities}) == 2


WRITER = """
import sys
from pathlib import Path
from rapid.simgpu import SimGpu
gpu, step = SimGpu.open(Path(sys.argv[1])), 0
while True:
    step += 1
    gpu.set_limit(400_000 + step % 350_000, step * 1e-3)
    gpu.set_activity(500_000 + step % 1000, step * 1e-3 + 0.5, step * 1e-3)
"""


def has_records(gpu: SimGpu, wanted: int) -> bool:
    return len(gpu.records()) >= wanted


def test_writers_killed_again_and_again_lose_nothing(gpu: SimGpu, path: Path) -> None:
    energy_mj = 0
    for _ in range(10):
        wanted = len(gpu.records()) + 50
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            try:
                wait_for(partial(has_records, gpu, wanted), 30, "the writer writes")
            finally:
                writer.kill()
        found = gpu.records()
        assert [record.seq for record in found] == list(range(1, len(found) + 1))
        assert [record.at_ns for record in found] == sorted(record.at_ns for record in found)
        assert found[-1].limit_mw == gpu.read_limit().enforced_mw
        assert found[-1].writer == writer.pid
        now_mj = gpu.energy_mj(found[-1].at_s + 100.0)
        assert now_mj >= energy_mj
        energy_mj = now_mj
        gpu.set_activity(500_000, found[-1].at_s, found[-1].at_s)  # the dead writer holds no lock


def test_readers_see_whole_states_while_two_processes_write(gpu: SimGpu, path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(2)]
    try:
        wait_for(
            lambda: {record.writer for record in gpu.records()} >= {item.pid for item in writers}, 30, "both write"
        )
        for _ in range(3000):
            limit = gpu.read_limit()
            assert limit.requested_mw == limit.enforced_mw
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)
    found = gpu.records()
    assert [record.seq for record in found] == list(range(1, len(found) + 1))
    assert found[-1].limit_mw == gpu.read_limit().enforced_mw


COUNTING_WRITER = """
import sys
from pathlib import Path
from rapid.simgpu import SimGpu
gpu, first = SimGpu.open(Path(sys.argv[1])), int(sys.argv[2])
for step in range(1500):
    gpu.set_limit(first + step, 20.0)
"""


def test_two_processes_that_write_lose_no_change_of_each_other(gpu: SimGpu, path: Path) -> None:
    firsts = (400_000, 500_000)
    writers = [subprocess.Popen([sys.executable, "-c", COUNTING_WRITER, str(path), str(first)]) for first in firsts]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    by_writer = {
        writer.pid: [record.limit_mw for record in gpu.records() if record.writer == writer.pid] for writer in writers
    }
    assert list(by_writer.values()) == [[first + step for step in range(1500)] for first in firsts]


def test_a_spec_comes_back_as_it_went_in(path: Path) -> None:
    spec = replace(SPEC, gpu="GPU-" + "f" * 60, index=15, idle_mw=1, lag=Lag(0.05, 0.1, 0.05))
    with SimGpu.create(path, spec, at_s=0.0):
        pass
    with SimGpu.open(path) as gpu:
        assert gpu.spec == spec
