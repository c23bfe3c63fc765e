"""What the NVML backend tells without being asked, and how GPUs and drivers that have gone come back."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from rapid.core.cluster import EventKind
from rapid.core.errors import DeviceLost
from rapidd.device.base import DeviceEvent, LimitReading
from rapidd.device.nvml import NvmlBackend
from tools.fake_gpu import GPU_IS_LOST, NOT_SUPPORTED, FakeGpus, Gpu

GPU0, GPU1 = (f"GPU-0000000{index}-0000-4000-8000-000000000000" for index in range(2))
DEADLINE_S = 10.0  # no test waits this long unless it fails
SHORT_S = 0.02


@pytest.fixture
def backend(fake_nvml: FakeGpus) -> Iterator[NvmlBackend]:
    backend = NvmlBackend()
    yield backend
    backend.close()


@pytest.fixture
def gpu(fake_nvml: FakeGpus) -> Gpu:
    return fake_nvml.gpus[0]


def event_of(backend: NvmlBackend) -> DeviceEvent:
    event = backend.wait_event(DEADLINE_S)
    assert event is not None
    return event


def kinds(backend: NvmlBackend, count: int) -> list[tuple[str, EventKind]]:
    return [(event.gpu, event.kind) for event in (event_of(backend) for _ in range(count))]


def test_an_xid_comes_with_its_gpu_its_number_and_its_meaning(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    fake_nvml.gpus[1].xids = (79, 12345)
    assert event_of(backend) == DeviceEvent(GPU1, EventKind.XID, 79, "Xid 79: the GPU has fallen off the bus")
    assert event_of(backend) == DeviceEvent(GPU1, EventKind.XID, 12345, "Xid 12345")
    assert backend.wait_event(SHORT_S) is None


def test_an_xid_wakes_whoever_waits(backend: NvmlBackend, gpu: Gpu) -> None:
    found: list[DeviceEvent | None] = []
    thread = threading.Thread(target=lambda: found.append(backend.wait_event(DEADLINE_S)))
    thread.start()
    gpu.xids = (43,)
    thread.join(DEADLINE_S)
    assert [event.code for event in found if event] == [43]


def test_the_xid_of_a_gpu_that_answers_no_more_is_still_that_gpus(backend: NvmlBackend, gpu: Gpu) -> None:
    gpu.answer("nvmlDeviceGetUUID", GPU_IS_LOST)
    gpu.xids = (79,)
    assert event_of(backend).gpu == GPU0


class Counting:
    """The binding, and how often each of its functions was asked for."""

    def __init__(self, nvml: Any) -> None:
        self._nvml, self.asked = nvml, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._nvml, name)


def test_the_end_of_a_wait_is_no_shower_of_driver_calls(backend: NvmlBackend) -> None:
    backend._session.nvml = counting = Counting(backend._session.nvml)
    for _ in range(5):
        assert backend.wait_event(0.0105) is None  # the driver counts whole milliseconds
    assert counting.asked["nvmlEventSetWait_v2"] <= 10


def test_close_ends_a_wait(fake_nvml: FakeGpus) -> None:
    backend = NvmlBackend()
    thread = threading.Thread(target=backend.wait_event, args=(60.0,))
    thread.start()
    backend.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert backend.wait_event(60.0) is None


@pytest.mark.parametrize("call", ["nvmlEventSetCreate", "nvmlEventSetWait_v2"])
def test_without_events_a_wait_takes_its_time_and_ends_on_close(fake_nvml: FakeGpus, call: str) -> None:
    fake_nvml.answer(call, NOT_SUPPORTED)
    backend = NvmlBackend()
    assert backend.wait_event(SHORT_S) is None
    thread = threading.Thread(target=backend.wait_event, args=(60.0,))
    thread.start()
    backend.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_lost_gpu_is_told_and_works_again_when_it_is_back(backend: NvmlBackend, gpu: Gpu) -> None:
    device = backend.devices[0]
    gpu.lost = True
    with pytest.raises(DeviceLost):
        device.read_limit()
    lost = event_of(backend)
    assert (lost.gpu, lost.kind) == (GPU0, EventKind.LOST)
    assert lost.detail.startswith("cannot read the limit: GPU is lost (NVML status 15)")
    assert backend.wait_event(SHORT_S) is None
    gpu.lost = False
    assert kinds(backend, 1) == [(GPU0, EventKind.BACK)]
    device.set_limit(300_000)
    assert device.read_limit() == LimitReading(300_000, 300_000)
    gpu.xids = (31,)
    assert event_of(backend).code == 31, "events are listened for again"


def test_a_gpu_that_comes_back_is_known_by_its_uuid_and_not_by_its_index(
    backend: NvmlBackend, fake_nvml: FakeGpus, gpu: Gpu
) -> None:
    gpu.lost = True
    with pytest.raises(DeviceLost):
        backend.devices[0].read_limit()
    fake_nvml.gpus.reverse()
    gpu.lost = False
    assert kinds(backend, 2) == [(GPU0, EventKind.LOST), (GPU0, EventKind.BACK)]
    assert (backend.devices[0].info.gpu, backend.devices[0].info.index) == (GPU0, 1)
    backend.devices[0].set_limit(250_000)
    assert [(entry.gpu, entry.asked_mw) for entry in fake_nvml.record()] == [(GPU0, 250_000)]


def test_a_gpu_that_is_gone_altogether_is_lost_and_the_other_goes_on(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    (gone,) = fake_nvml.gpus[:1]
    fake_nvml.gpus = fake_nvml.gpus[1:]
    fake_nvml.save()
    with pytest.raises(DeviceLost):
        backend.devices[0].read_power()
    assert kinds(backend, 1) == [(GPU0, EventKind.LOST)]
    backend.devices[1].set_limit(200_000)
    fake_nvml.gpus = [gone, *fake_nvml.gpus]
    fake_nvml.save()
    assert kinds(backend, 1) == [(GPU0, EventKind.BACK)]


def test_a_gpu_that_was_lost_at_the_start_comes_with_its_device_when_it_is_back(fake_nvml: FakeGpus) -> None:
    fake_nvml.gpus[0].lost = True
    backend = NvmlBackend()
    try:
        assert [device.info.gpu for device in backend.devices] == [GPU1]
        assert len(backend.faults) == 1
        assert backend.wait_event(SHORT_S) is None
        fake_nvml.gpus[0].lost = False
        event = event_of(backend)
        assert (event.gpu, event.kind) == (GPU0, EventKind.BACK)
        assert event.device is not None
        event.device.set_limit(250_000)
        assert event.device.read_limit() == LimitReading(250_000, 250_000)
        fake_nvml.gpus[0].xids = (48,)
        assert (xid := event_of(backend)).gpu == GPU0
        assert xid.code == 48
        fake_nvml.gpus[0].lost = True
        with pytest.raises(DeviceLost):
            event.device.read_limit()
        fake_nvml.gpus[0].lost = False
        assert kinds(backend, 2) == [(GPU0, EventKind.LOST), (GPU0, EventKind.BACK)]
        assert event.device.read_limit() == LimitReading(250_000, 250_000)
    finally:
        backend.close()


def test_a_driver_that_is_loaded_again_is_opened_again_for_every_gpu(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    for device in backend.devices:
        device.set_limit(300_000)
    fake_nvml.unload()
    for device in backend.devices:
        with pytest.raises(DeviceLost, match="Driver Not Loaded"):
            device.read_limit()
    assert kinds(backend, 2) == [(GPU0, EventKind.LOST), (GPU1, EventKind.LOST)]
    assert backend.wait_event(SHORT_S) is None
    with pytest.raises(DeviceLost, match="Driver Not Loaded"):
        backend.devices[0].set_limit(300_000)
    fake_nvml.load()
    both = [EventKind.BACK, EventKind.RELOADED]
    assert kinds(backend, 4) == [(gpu, kind) for gpu in (GPU0, GPU1) for kind in both]
    assert [device.read_limit().enforced_mw for device in backend.devices] == [700_000, 700_000]
    backend.devices[0].set_limit(300_000)
    assert backend.devices[0].read_limit().enforced_mw == 300_000
    fake_nvml.gpus[1].xids = (48,)
    assert event_of(backend).code == 48


def test_a_reload_that_one_gpu_noticed_is_told_of_all(backend: NvmlBackend, fake_nvml: FakeGpus) -> None:
    fake_nvml.load()
    with pytest.raises(DeviceLost, match=r"Uninitialized \(NVML status 1\)"):
        backend.devices[1].read_power()
    assert kinds(backend, 4) == [
        (GPU1, EventKind.LOST),
        (GPU0, EventKind.RELOADED),
        (GPU1, EventKind.BACK),
        (GPU1, EventKind.RELOADED),
    ]


def test_a_driver_with_other_abilities_is_probed_anew(backend: NvmlBackend, fake_nvml: FakeGpus, gpu: Gpu) -> None:
    gpu.answer(83, NOT_SUPPORTED)
    gpu.answer("nvmlDeviceGetTotalEnergyConsumption", NOT_SUPPORTED)
    fake_nvml.driver = "1000.1"
    fake_nvml.load()
    with pytest.raises(DeviceLost):
        backend.devices[0].read_power()
    kinds(backend, 4)
    info = backend.devices[0].info
    assert (info.driver, info.lacks) == ("1000.1", ("energy counter",))
    assert backend.devices[0].read_power().energy_mj is None
