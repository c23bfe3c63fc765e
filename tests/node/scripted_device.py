"""A worker on a device whose driver does as a test says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rapidd.device.base import DeviceInfo, Holder, LimitReading, PowerReading
from tests.node.at_work import TIMEOUT_S, AtWork


class ScriptedDevice:
    """A device whose driver does as told; obeys `Device`. Every call takes a second of the test's clock."""

    def __init__(self) -> None:
        self.info = DeviceInfo("GPU-a", 0, "scripted", "1", floor_mw=100_000, ceiling_mw=700_000)
        self.now_s = 0.0
        self.calls: list[str] = []
        self.requested_mw = 700_000
        self.cap_mw = 700_000
        self.step_mw = 1
        self.sticks = False
        self.power = PowerReading(300_000, 1)
        self.raises: dict[str, Exception] = {}
        self.holding: tuple[Holder, ...] = ()
        self.searches = 0
        self.searching = threading.Event()
        self.searching.set()
        self.entered, self.may_go = threading.Event(), threading.Event()
        self.may_go.set()

    def clock(self) -> float:
        return self.now_s

    def set_limit(self, limit_mw: int) -> None:
        self._call(f"set {limit_mw // 1000}", "set_limit")
        self.info.check_range(limit_mw)
        if not self.sticks:
            self.requested_mw = limit_mw - limit_mw % self.step_mw

    def read_limit(self) -> LimitReading:
        self._call("limit", "read_limit")
        return LimitReading(self.requested_mw, min(self.requested_mw, self.cap_mw))

    def read_power(self) -> PowerReading:
        self._call("power", "read_power")
        return self.power

    def read_both(self, *, clock: bool) -> tuple[LimitReading, PowerReading]:
        self._call("both and clock" if clock else "both", "read_both")
        # Nothing that fails alone may be read in this way.
        for failure in (self.raises[verb] for verb in ("read_limit", "read_power") if verb in self.raises):
            raise failure
        return LimitReading(self.requested_mw, min(self.requested_mw, self.cap_mw)), self.power

    def processes(self) -> tuple[int, ...]:
        return ()

    def holders(self) -> tuple[Holder, ...]:
        self.searches += 1
        assert self.searching.wait(TIMEOUT_S)
        if "holders" in self.raises:
            raise self.raises["holders"]
        return self.holding

    def _call(self, word: str, verb: str) -> None:
        self.calls.append(word)
        self.entered.set()
        assert self.may_go.wait(TIMEOUT_S)
        self.now_s += 1.0
        if verb in self.raises:
            raise self.raises[verb]


class Rig(AtWork):
    """A worker on a scripted device."""

    def __init__(self) -> None:
        self.device = ScriptedDevice()
        super().__init__(self.device, self.device.clock)

    def hold(self) -> None:
        """Begin a sample whose call does not end before the device `may_go`."""
        self.device.may_go.clear()
        self.device.entered.clear()
        self.worker.submit_sample(clock=False)
        assert self.device.entered.wait(TIMEOUT_S)


@contextmanager
def scripted() -> Iterator[Rig]:
    """A rig that is stopped at the end, whatever hangs."""
    rig = Rig()
    yield rig
    rig.device.may_go.set()
    rig.stop()
