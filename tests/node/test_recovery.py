"""Lost devices are looked for in turns: one by one while others work, with the whole library if the driver has gone."""

from collections.abc import Collection
from threading import Lock
from typing import cast

import pytest

from rapid.core.cluster import EventKind
from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost
from rapidd.device.base import DeviceEvent
from rapidd.device.recovery import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SEARCH_FIRST_S,
    SEARCH_LONGEST_S,
    Calling,
    Loss,
    Recovery,
)
from tests.node.live import MemoryDevice

OFF_THE_BUS = Loss("has fallen off the bus", whole_driver=False)
NO_DRIVER = Loss("no driver", whole_driver=True)


class Gpu:
    """A device that can be found again when `present`."""

    def __init__(self, gpu: str) -> None:
        self.gpu = gpu
        self.loss: Loss | None = None
        self.lock = Lock()
        self.present = True
        self.tries = 0

    def open_again(self) -> None:
        assert self.lock.locked()
        self.tries += 1
        if not self.present:
            raise DeviceLost(self.gpu, "not found")


class MemoryGpu(MemoryDevice):
    """A whole device that can be lost."""

    def __init__(self, gpu: str) -> None:
        super().__init__(0)
        self.gpu, self.lock = gpu, Lock()
        self.loss: Loss | None = None

    def open_again(self) -> None:
        """It is always there."""


class DriverSaid(Exception):
    """What this driver raises: a number."""


class Driven(Gpu):
    """A device whose driver says 1 for a right that is missing, 2 for a lost GPU and 3 when it is going itself."""

    def understand(self, what: str, error: BaseException) -> tuple[DeviceError, bool] | None:
        if not isinstance(error, DriverSaid):
            return None
        kind = DeviceDenied if error.args == (1,) else DeviceLost
        return kind(self.gpu, f"cannot {what}"), error.args == (3,)


class Rig:
    """Two devices, a library that counts its restarts, and a clock."""

    def __init__(self) -> None:
        self.a, self.b = self.gpus = (Gpu("a"), Gpu("b"))
        self.now_s, self.restarts, self.driver = 100.0, 0, True
        self.recovery = Recovery(self.gpus, self._restart, lambda: self.now_s)

    def _restart(self) -> None:
        assert all(gpu.lock.locked() for gpu in self.gpus)
        self.restarts += 1
        if not self.driver:
            raise DeviceLost("(all)", "no driver")

    def turn(self, after_s: float = 10.0) -> list[tuple[str, EventKind]]:
        """What a turn tells, so much later."""
        self.now_s += after_s
        self.recovery.turn()
        events: list[DeviceEvent] = []
        while event := self.recovery.next_event():
            events.append(event)
        return [(event.gpu, event.kind) for event in events]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_while_nothing_is_lost_nothing_is_touched(rig: Rig) -> None:
    assert rig.turn() == []
    assert (rig.a.tries, rig.restarts) == (0, 0)


def test_a_loss_is_told_once_and_so_is_the_return(rig: Rig) -> None:
    rig.a.loss, rig.a.present = OFF_THE_BUS, False
    assert rig.turn() == [("a", EventKind.LOST)]
    assert rig.turn() == []
    rig.a.present = True
    assert rig.turn() == [("a", EventKind.BACK)]
    assert rig.a.loss is None
    assert rig.turn() == []


def test_the_library_is_not_restarted_while_another_gpu_is_in_use(rig: Rig) -> None:
    rig.a.loss, rig.a.present = OFF_THE_BUS, False
    for _ in range(20):
        rig.turn()
    assert (rig.restarts, rig.b.tries) == (0, 0)


def test_when_all_are_lost_a_restart_may_find_them(rig: Rig) -> None:
    for gpu in rig.gpus:
        gpu.loss, gpu.present = OFF_THE_BUS, False
    rig.turn()
    assert rig.restarts == 1


def test_a_driver_that_has_gone_takes_all_and_brings_all_back(rig: Rig) -> None:
    rig.a.loss, rig.driver = NO_DRIVER, False
    assert rig.turn() == [("a", EventKind.LOST)]
    assert (rig.restarts, rig.a.tries) == (1, 0)
    rig.driver = True
    # b was not seen lost, but its handle is as old as a's, and its limit as new.
    assert rig.turn() == [("a", EventKind.BACK), ("a", EventKind.RELOADED), ("b", EventKind.RELOADED)]
    assert rig.b.tries == 1


def test_a_gpu_that_a_reloaded_driver_does_not_show_is_lost_from_then_on(rig: Rig) -> None:
    rig.a.loss, rig.b.present = NO_DRIVER, False
    assert rig.turn() == [("a", EventKind.LOST), ("a", EventKind.BACK), ("a", EventKind.RELOADED)]
    assert rig.b.loss == Loss("not found", whole_driver=False)
    assert rig.turn() == [("b", EventKind.LOST)]
    assert rig.restarts == 1


def test_nothing_is_pulled_from_under_a_call_that_hangs(rig: Rig) -> None:
    rig.a.loss = NO_DRIVER
    with rig.b.lock:
        rig.turn()
    assert rig.restarts == 0
    assert not rig.a.lock.locked()
    rig.turn()
    assert (rig.restarts, rig.a.loss) == (1, None)


def test_tries_come_at_once_then_ever_slower_but_never_rarer_than_the_bound(rig: Rig) -> None:
    rig.a.loss, rig.a.present = OFF_THE_BUS, False
    rig.turn(0.0)
    assert rig.a.tries == 1
    rig.turn(FIRST_PAUSE_S / 2)
    assert rig.a.tries == 1
    rig.turn(FIRST_PAUSE_S / 2)
    assert rig.a.tries == 2
    for tries in range(3, 10):
        rig.turn(LONGEST_PAUSE_S)
        assert rig.a.tries == tries
    rig.turn(LONGEST_PAUSE_S / 2)
    assert rig.a.tries == 9


def test_what_nobody_asks_for_is_bounded(rig: Rig) -> None:
    for _ in range(1000):
        rig.a.loss = OFF_THE_BUS
        rig.now_s += 10.0
        rig.recovery.turn()
    told = 0
    while rig.recovery.next_event():
        told += 1
    assert told == 256


# ---- GPUs that were dead at the start ----


class Shown:
    """What a driver shows besides the known."""

    def __init__(self, *gpus: MemoryGpu) -> None:
        self.gpus, self.asked = list(gpus), 0

    def __call__(self, known: Collection[str]) -> list[MemoryGpu]:
        self.asked += 1
        return [gpu for gpu in self.gpus if gpu.gpu not in known]


def searching(shown: Shown, missing: int) -> tuple[Rig, Recovery]:
    rig = Rig()
    rig.recovery = Recovery(rig.gpus, rig._restart, lambda: rig.now_s, missing=missing, search=shown)
    return rig, rig.recovery


def test_one_that_was_dead_at_the_start_is_looked_for_and_told_with_its_device_once() -> None:
    shown = Shown()
    rig, recovery = searching(shown, missing=1)
    rig.turn(SEARCH_FIRST_S)
    assert (shown.asked, recovery.next_event()) == (1, None)
    shown.gpus.append(found := MemoryGpu("c"))
    rig.now_s += SEARCH_LONGEST_S
    recovery.turn()
    assert recovery.next_event() == DeviceEvent("c", EventKind.BACK, device=found)
    assert rig.turn(100.0) == []
    assert shown.asked == 2, "nobody is missing any more"


def test_one_that_was_found_is_a_device_like_any_other() -> None:
    found = MemoryGpu("c")
    rig, _ = searching(Shown(found), missing=1)
    assert rig.turn() == [("c", EventKind.BACK)]
    found.loss = OFF_THE_BUS
    assert rig.turn() == [("c", EventKind.LOST), ("c", EventKind.BACK)]


def test_nobody_is_looked_for_where_nobody_is_missing() -> None:
    shown = Shown(MemoryGpu("c"))
    rig, _ = searching(shown, missing=0)
    assert rig.turn(100.0) == []
    assert shown.asked == 0


def test_searches_become_rarer_but_not_beyond_a_bound() -> None:
    shown = Shown()
    rig, _ = searching(shown, missing=1)
    for _ in range(600):
        rig.turn(0.1)
    assert 5 <= shown.asked <= 10
    before = shown.asked
    rig.turn(SEARCH_LONGEST_S)
    assert shown.asked == before + 1


# ---- calls of a driver ----


def test_a_driver_is_called_for_one_thing_at_a_time() -> None:
    gpu = Driven("a")
    with Calling(gpu, "read"):
        assert gpu.lock.locked()
    assert not gpu.lock.locked()


@pytest.mark.parametrize(
    ("said", "kind", "loss"),
    [
        (1, DeviceDenied, None),
        (2, DeviceLost, Loss("cannot read", whole_driver=False)),
        (3, DeviceLost, Loss("cannot read", whole_driver=True)),
    ],
)
def test_what_a_driver_says_is_understood_and_a_loss_remembered(
    said: int, kind: type[DeviceError], loss: Loss | None
) -> None:
    gpu = Driven("a")
    with pytest.raises(kind, match="gpu a: cannot read") as caught, Calling(gpu, "read"):
        raise DriverSaid(said)
    assert isinstance(caught.value.__cause__, DriverSaid)
    assert gpu.loss == loss
    assert not gpu.lock.locked()


def test_what_the_driver_did_not_say_is_passed_on() -> None:
    gpu = Driven("a")
    with pytest.raises(ZeroDivisionError), Calling(gpu, "read"):
        raise ZeroDivisionError
    assert gpu.loss is None
    assert not gpu.lock.locked()


def test_a_lost_device_is_not_called_and_nobody_waits_for_who_looks_for_it() -> None:
    gpu = Driven("a")
    gpu.loss = OFF_THE_BUS
    with gpu.lock, pytest.raises(DeviceLost, match="has fallen off the bus"), Calling(gpu, "read"):
        pytest.fail("it was called")


class SlowLock:
    """A lock whose device is lost while somebody waits for it."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self.held = gpu, False

    def acquire(self) -> bool:
        self._gpu.loss = OFF_THE_BUS
        self.held = True
        return True

    def release(self) -> None:
        self.held = False


def test_a_device_that_was_lost_while_its_turn_was_waited_for_is_not_called() -> None:
    gpu = Driven("a")
    lock = SlowLock(gpu)
    gpu.lock = cast(Lock, lock)
    with pytest.raises(DeviceLost, match="has fallen off the bus"), Calling(gpu, "read"):
        pytest.fail("it was called")
    assert not lock.held
