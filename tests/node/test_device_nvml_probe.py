"""What the NVML backend finds out at start: which abilities are missing, which GPUs it must not manage, and why."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from rapid.core.errors import DeviceError, DeviceLost
from rapidd.device.base import DeviceInfo, LimitReading, PowerReading
from rapidd.device.nvml import NvmlBackend
from tools.fake_gpu import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED, FakeGpus, Gpu

GPU0 = "GPU-00000000-0000-4000-8000-000000000000"
ENERGY, DRAW_INSTANT, ENFORCED, REQUESTED = 83, 186, 190, 192
FIELDS = "nvmlDeviceGetFieldValues"
ENFORCED_OLD, REQUESTED_OLD = "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit"
DRAW_OLD, ENERGY_OLD = "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"
REASONS, REASONS_OLD = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
PROCESSES, PROCESSES_OLD = "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"
RANGE = "nvmlDeviceGetPowerManagementLimitConstraints"
ABSENT = [INVALID_ARGUMENT, NOT_SUPPORTED, FUNCTION_NOT_FOUND]


class Opener:
    """Opens backends and closes them in the end."""

    def __init__(self) -> None:
        self.held = ExitStack()

    def __call__(self) -> NvmlBackend:
        backend = NvmlBackend()
        self.held.callback(backend.close)
        return backend


@pytest.fixture
def opened(fake_nvml: FakeGpus) -> Iterator[Opener]:
    opener = Opener()
    with opener.held:
        yield opener


@pytest.fixture
def gpu(fake_nvml: FakeGpus) -> Gpu:
    return fake_nvml.gpus[0]


def info_of(backend: NvmlBackend) -> DeviceInfo:
    assert backend.faults == ()
    return backend.devices[0].info


def test_a_gpu_of_today_lacks_nothing_and_may_be_managed(opened: Opener) -> None:
    info = info_of(opened())
    assert (info.lacks, info.unmanageable, info.warnings) == ((), "", ())


@pytest.mark.parametrize(
    ("absent", "lacks"),
    [
        ((REQUESTED, REQUESTED_OLD), ("requested limit",)),
        ((DRAW_INSTANT,), ("instant draw",)),
        ((DRAW_INSTANT, DRAW_OLD), ("draw", "instant draw")),
        ((ENERGY, ENERGY_OLD), ("energy counter",)),
        (("nvmlDeviceGetClockInfo",), ("clock",)),
        ((REASONS, REASONS_OLD), ("event reasons",)),
        ((PROCESSES, PROCESSES_OLD), ("processes",)),
        (("nvmlEventSetCreate",), ("Xid events",)),
        (("nvmlDeviceGetSupportedEventTypes",), ("Xid events",)),
        (("nvmlDeviceRegisterEvents",), ("Xid events",)),
        # An ability that an older function gives as well is not missing.
        ((FIELDS,), ("instant draw",)),
        ((REQUESTED, ENFORCED, ENERGY, REASONS, PROCESSES), ()),
        (("nvmlDeviceGetMigMode", "nvmlDeviceGetVirtualizationMode", "nvmlDeviceGetPersistenceMode"), ()),
    ],
)
@pytest.mark.parametrize("status", ABSENT)
def test_a_missing_ability_is_named_and_costs_no_other(
    opened: Opener, fake_nvml: FakeGpus, gpu: Gpu, absent: tuple[str | int, ...], lacks: tuple[str, ...], status: int
) -> None:
    gpu.demand_mw, gpu.energy_mj = 800_000, 5
    for key in absent:
        if isinstance(key, str) and key == "nvmlEventSetCreate":
            fake_nvml.answer(key, status)
        else:
            gpu.answer(key, status)
    backend = opened()
    info = info_of(backend)
    assert (info.lacks, info.unmanageable) == (lacks, "")
    device = backend.devices[0]
    assert device.read_limit() == LimitReading(None if "requested limit" in lacks else 700_000, 700_000)
    power = device.read_power()
    assert power.draw_mw == (None if "draw" in lacks else 700_000)
    assert power.energy_mj == (None if "energy counter" in lacks else 5)
    assert power.age_s == (1.1 if "instant draw" in lacks else 0.125)
    assert (power.clock_mhz is None) == ("clock" in lacks)
    assert (power.slowdown is None) == ("event reasons" in lacks)
    device.set_limit(400_000)
    assert device.read_limit().enforced_mw == 400_000


def test_what_is_read_by_older_functions_is_the_same(opened: Opener, gpu: Gpu) -> None:
    gpu.cap_mw, gpu.demand_mw, gpu.energy_mj, gpu.pids = 350_000, 300_000, 2**40, (7,)
    for function in (FIELDS, REASONS, PROCESSES):
        gpu.answer(function, FUNCTION_NOT_FOUND)
    device = opened().devices[0]
    assert device.read_limit() == LimitReading(700_000, 350_000)
    power = device.read_power()
    # The older draw is a mean over a second, so it may reach back further than the instant one.
    assert power == PowerReading(300_000, 2**40, age_s=1.1, clock_mhz=1980, slowdown=power.slowdown)
    assert device.processes() == (7,)


def test_a_field_that_fails_at_start_is_read_by_the_older_function(opened: Opener, gpu: Gpu) -> None:
    gpu.answer(DRAW_INSTANT, 999)
    assert info_of(opened()).lacks == ("instant draw",)


def test_an_older_function_that_fails_at_start_is_not_given_up(opened: Opener, gpu: Gpu) -> None:
    gpu.answer(ENERGY, 999)
    gpu.answer(ENERGY_OLD, 999)
    backend = opened()
    assert info_of(backend).lacks == ()
    gpu.answer(ENERGY_OLD, 0)
    gpu.energy_mj = 3
    assert backend.devices[0].read_power().energy_mj == 3


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetPersistenceMode",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetVirtualizationMode",
        "nvmlDeviceGetSupportedEventTypes",
        "nvmlDeviceRegisterEvents",
    ],
)
def test_a_function_that_is_good_to_have_costs_no_gpu_when_it_fails(opened: Opener, gpu: Gpu, function: str) -> None:
    gpu.answer(function, 999)
    assert info_of(opened()).unmanageable == ""


def test_persistence_mode_off_is_a_warning_that_says_what_happens(opened: Opener, gpu: Gpu) -> None:
    gpu.persistence = False
    (warning,) = info_of(opened()).warnings
    assert warning == (
        "persistence mode is off: when the last process lets go of the GPU, the driver forgets its limit and goes back "
        "to the default; start nvidia-persistenced"
    )


def test_a_gpu_in_mig_mode_is_not_to_be_managed(opened: Opener, gpu: Gpu) -> None:
    gpu.mig = True
    backend = opened()
    assert info_of(backend).unmanageable == (
        "MIG mode is on, and its instances share one limit: turn it off (nvidia-smi -i 0 -mig 0) to have it managed"
    )
    assert backend.devices[1].info.unmanageable == ""
    assert backend.devices[0].read_limit().enforced_mw == 700_000


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0, ""), (1, ""), (2, "it is a vGPU of this"), (3, "it serves vGPUs to"), (4, "it serves vSGA to")],
)
def test_a_gpu_that_virtual_machines_share_is_not_to_be_managed(opened: Opener, gpu: Gpu, mode: int, why: str) -> None:
    gpu.virtualization = mode
    unmanageable = info_of(opened()).unmanageable
    assert unmanageable.startswith(why)
    assert bool(unmanageable) == bool(why)


def test_a_vgpu_without_any_limit_is_a_fault_that_says_so(opened: Opener, gpu: Gpu) -> None:
    gpu.virtualization = 2
    for function in (RANGE, FIELDS, ENFORCED_OLD, REQUESTED_OLD, DRAW_OLD):
        gpu.answer(function, NOT_SUPPORTED)
    (fault,) = opened().faults
    assert str(fault) == (
        f"gpu {GPU0}: it is a vGPU of this virtual machine: its limit is set on the host, so run rapidd there"
    )


def test_a_gpu_without_a_range_is_booked_at_the_most_it_may_come_to_enforce(opened: Opener, gpu: Gpu) -> None:
    gpu.cap_mw = 300_000
    gpu.answer(RANGE, NOT_SUPPORTED)
    info = info_of(opened())
    assert (info.floor_mw, info.ceiling_mw) == (700_000, 700_000)
    assert info.unmanageable == "its limit cannot be changed here: the driver gives no range for it"


def test_a_range_of_one_limit_cannot_be_managed(opened: Opener, gpu: Gpu) -> None:
    gpu.floor_mw = gpu.ceiling_mw
    unmanageable = info_of(opened()).unmanageable
    assert unmanageable == "its limit cannot be changed here: 700 W is both floor and ceiling"


def test_a_gpu_that_does_not_tell_what_it_enforces_cannot_be_managed(opened: Opener, gpu: Gpu) -> None:
    gpu.answer(ENFORCED, NOT_SUPPORTED)
    gpu.answer(ENFORCED_OLD, NOT_SUPPORTED)
    backend = opened()
    assert info_of(backend).unmanageable == (
        "its limit cannot be changed here: the driver does not tell which limit it enforces"
    )
    with pytest.raises(DeviceError, match=f"gpu {GPU0}: the driver does not tell which limit it enforces"):
        backend.devices[0].read_limit()


def test_a_limit_range_without_sense_is_a_fault(opened: Opener, fake_nvml: FakeGpus) -> None:
    fake_nvml.gpus[1].floor_mw = 800_000
    assert [str(fault) for fault in opened().faults] == [
        "gpu GPU-00000001-0000-4000-8000-000000000000: limit range 800 W to 700 W makes no sense"
    ]


@pytest.mark.parametrize("key", [DRAW_INSTANT, REASONS, PROCESSES, "nvmlDeviceGetMigMode", "nvmlDeviceRegisterEvents"])
def test_a_gpu_that_is_lost_while_it_is_probed_is_a_fault(opened: Opener, gpu: Gpu, key: str | int) -> None:
    gpu.answer(key, 15)
    backend = opened()
    assert [device.info.index for device in backend.devices] == [1]
    (fault,) = backend.faults
    assert isinstance(fault, DeviceLost)
    assert str(fault).startswith(f"gpu {GPU0}: cannot read identity and limit range: GPU is lost")


def test_a_gpu_that_is_lost_at_start_does_not_stop_the_others(opened: Opener, gpu: Gpu) -> None:
    gpu.lost = True
    backend = opened()
    assert [device.info.index for device in backend.devices] == [1]
    (fault,) = backend.faults
    assert str(fault).startswith("gpu index 0: cannot read identity and limit range: GPU is lost")
