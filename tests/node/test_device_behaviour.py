"""What every backend promises, run on each: NVML and AMD SMI through their bindings on fake drivers, simulated GPUs."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from msgspec import structs

from rapid.core.errors import DeviceDenied, DeviceLost, DeviceMismatch, LimitRefused
from rapid.sim.model.power import Lag
from rapid.simgpu import Faults, SimGpu, SimGpuSpec
from rapidd.device.amdsmi import AmdSmiBackend
from rapidd.device.base import Backend, Device, LimitReading
from rapidd.device.nvml import NvmlBackend
from rapidd.device.sim import SimBackend
from tests.node.at_work import AtWork
from tools.fake_gpu import NO_PERMISSION, FakeGpus

AMD_NO_PERM = 10
FLOOR_MW, CEILING_MW = 100_000, 700_000


class Host(Protocol):
    """A host of two GPUs, at their ceiling and busy at 300 W, and what a test can do to the first of them."""

    @property
    def gpu(self) -> str:
        """The UUID of the first."""

    def reads(self, requested_mw: int, enforced_mw: int) -> LimitReading:
        """This limit asked for and that enforced, as far as this host tells both."""

    def open(self) -> Backend: ...
    def deny(self) -> None: ...
    def lose(self) -> None: ...
    def stick(self) -> None: ...
    def round_to(self, step_mw: int) -> None: ...
    def cap(self, limit_mw: int) -> None:
        """Another party holds this limit; 0: it lets go."""

    def write_from_elsewhere(self, limit_mw: int) -> None: ...
    def records(self) -> list[int]:
        """The limits that the first GPU enforced, in order, by its own record."""


class FakeHost:
    """A fake driver: `setter` is its function that sets a limit, `denied` what it answers to those who may not."""

    def __init__(self, fake: FakeGpus, open_backend: Callable[[], Backend], setter: str, denied: int) -> None:
        self._fake, self._gpu, self.open = fake, fake.gpus[0], open_backend
        self._setter, self._denied, self.gpu = setter, denied, self._gpu.uuid
        for gpu in fake.gpus:
            gpu.demand_mw = 300_000

    def reads(self, requested_mw: int, enforced_mw: int) -> LimitReading:
        # AMD has one cap, the one in force.
        return LimitReading(requested_mw if self._setter.startswith("nvml") else None, enforced_mw)

    def deny(self) -> None:
        self._gpu.answer(self._setter, self._denied)

    def lose(self) -> None:
        self._gpu.lost = True

    def stick(self) -> None:
        self._gpu.sticks = True

    def round_to(self, step_mw: int) -> None:
        self._gpu.step_mw = step_mw

    def cap(self, limit_mw: int) -> None:
        self._gpu.cap_mw = limit_mw

    def write_from_elsewhere(self, limit_mw: int) -> None:
        self._gpu.write(limit_mw)

    def records(self) -> list[int]:
        mine = [record for record in self._fake.record() if record.gpu == self.gpu and record.pid == os.getpid()]
        return [record.enforced_mw for record in mine]


class SimHost:
    gpu = "GPU-00000000-0000-4000-8000-000000000000"

    def __init__(self, folder: Path) -> None:
        self._folder, self._faults = folder, Faults()
        for index in (1, 0):
            spec = SimGpuSpec(
                gpu=f"GPU-{index:08x}-0000-4000-8000-000000000000",
                index=index,
                name="sim",
                floor_mw=FLOOR_MW,
                ceiling_mw=CEILING_MW,
                idle_mw=50_000,
                lag=Lag(0.0, 0.001, 0.001),
            )
            # Named so that the order of the files is not the order of the indices.
            self._gpu = SimGpu.create(folder / f"{9 - index}.gpu", spec, at_s=0.0)
            self._gpu.set_activity(300_000, until_s=1e9, at_s=0.0)

    def open(self) -> Backend:
        return SimBackend(self._folder, lambda: 1.0, noise=0.0)

    def reads(self, requested_mw: int, enforced_mw: int) -> LimitReading:
        return LimitReading(requested_mw, enforced_mw)

    def deny(self) -> None:
        self._change(replace(self._faults, denied=True))

    def lose(self) -> None:
        self._change(replace(self._faults, lost=True))

    def stick(self) -> None:
        self._change(replace(self._faults, sticks=True))

    def round_to(self, step_mw: int) -> None:
        self._change(replace(self._faults, step_mw=step_mw))

    def cap(self, limit_mw: int) -> None:
        self._change(replace(self._faults, external_limit_mw=limit_mw))

    def write_from_elsewhere(self, limit_mw: int) -> None:
        self._gpu.set_limit(limit_mw, 1.0, writer=1)

    def records(self) -> list[int]:
        return [record.limit_mw for record in self._gpu.records()]

    def _change(self, faults: Faults) -> None:
        self._faults = faults
        self._gpu.set_faults(faults, 1.0)


@pytest.fixture(params=["nvml", "amdsmi", "sim"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    if request.param == "nvml":
        fake = request.getfixturevalue("fake_nvml")
        return FakeHost(fake, NvmlBackend, "nvmlDeviceSetPowerManagementLimit", NO_PERMISSION)
    if request.param == "amdsmi":
        return FakeHost(request.getfixturevalue("fake_amdsmi"), AmdSmiBackend, "amdsmi_set_power_cap", AMD_NO_PERM)
    return SimHost(tmp_path)


@pytest.fixture
def backend(host: Host) -> Iterator[Backend]:
    backend = host.open()
    yield backend
    backend.close()


@pytest.fixture
def device(backend: Backend) -> Device:
    return backend.devices[0]


@pytest.fixture
def at_work(device: Device) -> Iterator[AtWork]:
    at_work = AtWork(device, lambda: 1.0)
    yield at_work
    at_work.stop()


def test_devices_come_by_index_each_with_uuid_and_range(host: Host, backend: Backend) -> None:
    infos = [device.info for device in backend.devices]
    assert [info.index for info in infos] == [0, 1]
    assert infos[0].gpu == host.gpu
    assert {(info.floor_mw, info.ceiling_mw) for info in infos} == {(FLOOR_MW, CEILING_MW)}
    assert backend.faults == ()


def test_a_set_limit_is_read_back_and_on_the_devices_own_record(host: Host, device: Device) -> None:
    device.set_limit(500_000)
    assert device.read_limit() == host.reads(500_000, 500_000)
    device.set_limit(300_000)
    assert device.read_limit() == host.reads(300_000, 300_000)
    assert host.records() == [500_000, 300_000]


def test_a_limit_moves_one_gpu_only(backend: Backend) -> None:
    backend.devices[1].set_limit(200_000)
    assert [device.read_limit().enforced_mw for device in backend.devices] == [CEILING_MW, 200_000]


def test_the_ends_of_the_range_are_inside(host: Host, device: Device) -> None:
    device.set_limit(FLOOR_MW)
    device.set_limit(CEILING_MW)
    assert host.records() == [FLOOR_MW, CEILING_MW]


@pytest.mark.parametrize(
    ("limit_mw", "message"),
    [
        (90_000, "limit 90 W refused, device floor is 100 W"),
        (99_999, "limit 100.0 W refused, device floor is 100 W"),
        (700_001, "limit 700.0 W refused, device ceiling is 700 W"),
    ],
)
def test_a_limit_out_of_range_is_refused_with_the_bound(
    host: Host, device: Device, limit_mw: int, message: str
) -> None:
    with pytest.raises(LimitRefused) as caught:
        device.set_limit(limit_mw)
    assert str(caught.value) == f"gpu {host.gpu}: {message}"
    assert host.records() == []


def test_without_permission_nothing_changes(host: Host, device: Device) -> None:
    host.deny()
    with pytest.raises(DeviceDenied, match=f"gpu {host.gpu}: .*500 W"):
        device.set_limit(500_000)
    assert device.read_limit() == host.reads(CEILING_MW, CEILING_MW)
    assert host.records() == []


def test_a_lost_gpu_answers_nothing_and_the_other_goes_on(host: Host, backend: Backend) -> None:
    host.lose()
    device = backend.devices[0]
    for verb in (
        lambda: device.set_limit(500_000),
        device.read_limit,
        device.read_power,
        lambda: device.read_both(clock=False),
    ):
        with pytest.raises(DeviceLost, match=f"gpu {host.gpu}: "):
            verb()
    assert backend.devices[1].read_limit().enforced_mw == CEILING_MW


def test_a_foreign_writer_shows_as_another_reading(host: Host, device: Device) -> None:
    device.set_limit(300_000)
    host.write_from_elsewhere(600_000)
    assert device.read_limit() == host.reads(600_000, 600_000)


def test_a_cap_from_outside_holds_below_the_request_until_it_goes(host: Host, device: Device) -> None:
    host.cap(350_000)
    device.set_limit(500_000)
    assert device.read_limit() == host.reads(500_000, 350_000)
    host.cap(0)
    assert device.read_limit() == host.reads(500_000, 500_000)


def test_draw_follows_load_and_limit(device: Device) -> None:
    assert device.read_power().draw_mw == 300_000


def test_limit_and_draw_read_together_are_what_they_are_apart(host: Host, device: Device) -> None:
    device.set_limit(250_000)
    host.cap(200_000)
    apart = device.read_limit(), device.read_power()
    limit, power = device.read_both(clock=True)
    assert (limit, structs.replace(power, energy_mj=apart[1].energy_mj)) == apart
    assert limit == host.reads(250_000, 200_000)
    brief = device.read_both(clock=False)[1]
    assert brief == structs.replace(power, energy_mj=brief.energy_mj, clock_mhz=None, slowdown=None)


def test_two_backends_see_the_same_device(host: Host, device: Device) -> None:
    other = host.open()
    try:
        other.devices[0].set_limit(250_000)
        assert device.read_limit().enforced_mw == 250_000
    finally:
        other.close()


def test_worker_and_device_agree_on_a_write(host: Host, at_work: AtWork) -> None:
    done = at_work.write(500_000)
    assert (done.gpu, done.reading, done.error) == (host.gpu, host.reads(500_000, 500_000), None)


def test_rounding_down_is_no_error(host: Host, at_work: AtWork) -> None:
    host.round_to(5_000)
    done = at_work.write(412_000)
    assert done.error is None
    assert done.reading is not None
    assert done.reading.enforced_mw == 410_000


def test_a_cut_that_does_not_stick_is_a_mismatch_by_name_and_number(host: Host, at_work: AtWork) -> None:
    host.stick()
    done = at_work.write(400_000)
    assert isinstance(done.error, DeviceMismatch)
    assert str(done.error) == f"gpu {host.gpu}: limit set to 400 W but the device reads back 700 W"
    assert done.reading == host.reads(CEILING_MW, CEILING_MW)


def test_a_lost_gpu_comes_as_events(host: Host, at_work: AtWork) -> None:
    host.lose()
    done, sample = at_work.write(400_000), at_work.sample()
    assert isinstance(done.error, DeviceLost)
    assert isinstance(sample.error, DeviceLost)
    assert (done.reading, sample.limit, sample.power) == (None, None, None)


def test_a_denied_write_still_tells_the_limit_in_force(host: Host, at_work: AtWork) -> None:
    host.deny()
    done = at_work.write(400_000)
    assert isinstance(done.error, DeviceDenied)
    assert done.reading == host.reads(CEILING_MW, CEILING_MW)


def test_a_refused_write_is_an_event(host: Host, at_work: AtWork) -> None:
    assert str(at_work.write(90_000).error) == f"gpu {host.gpu}: limit 90 W refused, device floor is 100 W"
