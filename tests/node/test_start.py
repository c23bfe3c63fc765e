"""From devices to a node: what becomes of a GPU that rapidd must not manage, and what is said of each."""

import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import structlog
from structlog.testing import CapturingLogger

from rapid.config import NodeConfig
from rapid.config.node import parse_node_config
from rapid.core.errors import DeviceError
from rapidd.device.base import Device, DeviceEvent
from rapidd.start import Crew, begin, fallbacks_of
from rapidd.state import State
from tests.node.caller import DEADLINE_S
from tests.node.live import MemoryDevice
from tests.node.rig import CEILING_MW, FALLBACK_MW, GPUS
from tests.wait import wait_until

TEXT = '[node]\nname = "n1"\n[power]\nfallback = "400W"\nhard_budget = "1kW"'
CONFIG = parse_node_config(TEXT, path=Path("/etc/rapid/rapidd.toml"))
MIG = "MIG is on, so a limit would be everybody's"


class MemoryBackend:
    """Devices that live in memory; obeys `Backend`."""

    faults: tuple[DeviceError, ...] = ()

    def __init__(self, *devices: Device) -> None:
        self.devices = devices
        self._closed = Event()

    def wait_event(self, timeout_s: float) -> DeviceEvent | None:
        self._closed.wait(timeout_s)
        return None

    def close(self) -> None:
        self._closed.set()


def two() -> tuple[MemoryDevice, MemoryDevice]:
    """The first in MIG mode, the second with something to put right."""
    mig, other = MemoryDevice(0), MemoryDevice(1)
    mig.info = replace(mig.info, unmanageable=MIG, bus="0000:01:00.0")
    other.info = replace(other.info, lacks=("Xid events",), warnings=("persistence mode is off",))
    return mig, other


def test_a_gpu_that_cannot_be_managed_falls_back_to_its_ceiling_and_needs_no_room_in_the_hard_budget() -> None:
    mig, other = two()
    assert fallbacks_of([mig, other], CONFIG) == {mig.info.gpu: CEILING_MW, other.info.gpu: FALLBACK_MW}


def crew(device: Device, lines: CapturingLogger, config: NodeConfig = CONFIG) -> Crew:
    log = structlog.wrap_logger(lines, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
    return Crew([device], fallbacks_of([device], config), config, lambda event: None, time.monotonic, log)


def test_a_gpu_that_comes_later_is_taken_with_its_fallback_and_nothing_is_believed_of_its_limit() -> None:
    first, second = MemoryDevice(0), MemoryDevice(1)
    taken = crew(first, CapturingLogger())
    adopted = taken.adopt(second)
    assert adopted is not None
    worker, spec = adopted
    assert (worker.gpu, spec.fallback_mw, spec.limit_mw) == (second.info.gpu, FALLBACK_MW, None)
    assert taken.devices == [first, second]
    for each in taken.workers:
        assert each.stop(DEADLINE_S)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('hard_budget = "1kW"', 'hard_budget = "500W"', "at their fallbacks may draw 800 W, above power.hard_budget"),
        ('fallback = "400W"', f'fallback = {{ {GPUS[0]} = "400W" }}', f"gpu {GPUS[1]} has none"),
    ],
)
def test_a_gpu_that_comes_later_and_does_not_fit_the_configuration_is_left_alone_and_says_why(
    old: str, new: str, why: str
) -> None:
    lines, first = CapturingLogger(), MemoryDevice(0)
    taken = crew(first, lines, parse_node_config(TEXT.replace(old, new), path=Path("/etc/rapid/rapidd.toml")))
    assert taken.adopt(MemoryDevice(1)) is None
    assert taken.devices == [first]
    (line,) = lines.calls
    assert line.kwargs["event"] == "gpu not adopted"
    assert why in line.kwargs["detail"]
    for each in taken.workers:
        assert each.stop(DEADLINE_S)


async def test_what_devices_say_of_themselves_is_logged_described_and_reported(tmp_path: Path) -> None:
    mig, other = two()
    lines = CapturingLogger()
    log = structlog.wrap_logger(lines, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0))
    node = await begin([mig, other], MemoryBackend(mig, other), CONFIG, State(tmp_path), time.monotonic, log)
    try:
        await wait_until(lambda: node.agent.turn() > 0 and node.agent.ready.is_set(), DEADLINE_S, "ready")
        report = node.agent.report()
    finally:
        assert node.stop_workers()
    assert (mig.limit_mw, other.limit_mw) == (CEILING_MW, FALLBACK_MW)
    shown = {gpu.gpu: (gpu.limit_mw, gpu.fallback_mw, gpu.void, gpu.watch.unmanaged) for gpu in report.gpus}
    assert shown == {
        mig.info.gpu: (CEILING_MW, CEILING_MW, True, MIG),
        other.info.gpu: (FALLBACK_MW, FALLBACK_MW, True, ""),
    }
    first, second = node.describe().gpus
    assert (first.unmanageable, first.bus) == (MIG, "0000:01:00.0")
    assert (second.lacks, second.warnings) == (("Xid events",), ("persistence mode is off",))
    said = {(call.args[0] if call.args else call.kwargs["event"], call.kwargs["detail"]) for call in lines.calls}
    assert {("gpu not managed", MIG), ("gpu warning", "persistence mode is off")} <= said
