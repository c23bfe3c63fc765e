"""One thread and one bounded queue per GPU: order, bounds, read-back, and that nothing a device does is lost."""

import queue
import threading
from collections.abc import Iterator

import pytest

from rapid.core.errors import DeviceDenied, DeviceError, DeviceLost, DeviceMismatch, LimitRefused
from rapidd.device.base import Holder, LimitReading, PowerReading
from rapidd.worker import Event, HeldBy, Sampled, Worker, WriteDone
from tests.node.at_work import TIMEOUT_S
from tests.node.scripted_device import Rig, ScriptedDevice, scripted


@pytest.fixture
def rig() -> Iterator[Rig]:
    with scripted() as rig:
        yield rig


def test_a_write_is_read_back_at_once(rig: Rig) -> None:
    done = rig.write(500_000)
    assert done == WriteDone("GPU-a", 500_000, LimitReading(500_000, 500_000), None, at_s=2.0)
    assert rig.device.calls == ["set 500", "limit"]


def test_rounding_down_is_no_error_and_the_reading_tells_it(rig: Rig) -> None:
    rig.device.step_mw = 1_000
    done = rig.write(412_345)
    assert (done.error, done.reading) == (None, LimitReading(412_000, 412_000))


def test_a_clamp_from_outside_is_no_error_and_the_reading_tells_it(rig: Rig) -> None:
    rig.device.cap_mw = 350_000
    done = rig.write(500_000)
    assert (done.error, done.reading) == (None, LimitReading(500_000, 350_000))


def test_a_cut_that_does_not_stick_is_a_mismatch_with_its_reading(rig: Rig) -> None:
    rig.device.sticks = True
    done = rig.write(400_000)
    assert isinstance(done.error, DeviceMismatch)
    assert str(done.error) == "gpu GPU-a: limit set to 400 W but the device reads back 700 W"
    assert done.reading == LimitReading(700_000, 700_000)


def test_a_cut_that_only_an_outside_cap_keeps_is_a_mismatch(rig: Rig) -> None:
    # Enforced is below what was asked, but would jump to 700 W the moment the outside cap goes away.
    rig.device.sticks, rig.device.cap_mw = True, 350_000
    done = rig.write(400_000)
    assert isinstance(done.error, DeviceMismatch)
    assert done.reading == LimitReading(700_000, 350_000)


def test_one_milliwatt_above_is_already_a_mismatch(rig: Rig) -> None:
    rig.device.sticks, rig.device.requested_mw = True, 400_001
    assert isinstance(rig.write(400_000).error, DeviceMismatch)


def test_a_refused_limit_is_an_event_with_the_bound_in_its_message(rig: Rig) -> None:
    done = rig.write(90_000)
    assert isinstance(done.error, LimitRefused)
    assert str(done.error) == "gpu GPU-a: limit 90 W refused, device floor is 100 W"
    assert done.reading == LimitReading(700_000, 700_000)


def test_after_a_failed_set_the_limit_in_force_is_still_read(rig: Rig) -> None:
    denied = DeviceDenied("GPU-a", "no")
    rig.device.raises = {"set_limit": denied}
    done = rig.write(400_000)
    assert done.error is denied
    assert done.reading == LimitReading(700_000, 700_000)


def test_a_failed_read_back_leaves_a_write_unproven(rig: Rig) -> None:
    lost = DeviceLost("GPU-a", "gone")
    rig.device.raises = {"read_limit": lost}
    done = rig.write(400_000)
    assert (done.error, done.reading) == (lost, None)


def test_a_lost_gpu_comes_as_events_and_the_worker_goes_on(rig: Rig) -> None:
    lost = DeviceLost("GPU-a", "gone")
    rig.device.raises = dict.fromkeys(("set_limit", "read_limit", "read_power"), lost)
    assert rig.write(400_000).error is lost
    sample = rig.sample()
    assert (sample.error, sample.limit, sample.power) == (lost, None, None)
    rig.device.raises = {}
    assert rig.sample().error is None


@pytest.mark.parametrize("verb", ["set_limit", "read_limit"])
def test_a_backends_own_mistake_is_an_event_that_keeps_its_cause(rig: Rig, verb: str) -> None:
    cause = ZeroDivisionError("oops")
    rig.device.raises = {verb: cause}
    error = rig.write(400_000).error
    assert type(error) is DeviceError
    assert str(error) == "gpu GPU-a: unexpected ZeroDivisionError from the device backend: oops"
    assert error.__cause__ is cause
    rig.device.raises = {}
    assert rig.write(400_000).error is None


def test_a_sample_keeps_what_could_be_read(rig: Rig) -> None:
    broken = DeviceError("GPU-a", "sensor broken")
    rig.device.raises = {"read_power": broken}
    sample = rig.sample()
    assert (sample.limit, sample.power, sample.error) == (LimitReading(700_000, 700_000), None, broken)


def test_of_two_failed_reads_the_first_is_told(rig: Rig) -> None:
    first, second = DeviceLost("GPU-a", "first"), DeviceLost("GPU-a", "second")
    rig.device.raises = {"read_limit": first, "read_power": second}
    assert rig.sample().error is first


def test_limit_and_draw_are_read_in_one_call_and_each_time_errs_to_its_side(rig: Rig) -> None:
    """Promise 3: only what was drawn after a limit was read back shows that it is obeyed. The call lasts from 0.0 to
    1.0: the limit may be as young as its end, the draw as old as its beginning."""
    sample = rig.sample()
    assert (sample.limit_at_s, sample.power_at_s) == (1.0, 0.0)
    assert rig.device.calls == ["both and clock"]


def test_the_clock_is_left_out_unless_it_is_asked_for(rig: Rig) -> None:
    rig.sample(clock=False)
    assert rig.device.calls == ["both"]


def test_what_is_read_apart_proves_that_the_draw_came_after_the_limit(rig: Rig) -> None:
    # Both fail at 1.0; the limit is read in the second before 2.0, the power in the second after.
    rig.device.raises = {"read_both": DeviceError("GPU-a", "not together")}
    sample = rig.sample()
    assert (sample.limit_at_s, sample.power_at_s, sample.error) == (2.0, 2.0, None)
    assert (sample.limit, sample.power) == (LimitReading(700_000, 700_000), rig.device.power)


@pytest.mark.parametrize("apart", [False, True])
def test_an_averaged_draw_does_not_pass_for_one_measured_after_the_limit(rig: Rig, apart: bool) -> None:
    rig.device.raises = {"read_both": DeviceError("GPU-a", "not together")} if apart else {}
    rig.device.power = PowerReading(300_000, 1, age_s=0.25)
    sample = rig.sample()
    assert sample.power_at_s == (1.75 if apart else -0.25) < sample.limit_at_s


def test_a_write_goes_before_a_waiting_sample(rig: Rig) -> None:
    rig.hold()
    rig.worker.submit_sample(clock=False)
    rig.worker.submit_write(500_000)
    rig.device.may_go.set()
    kinds = [type(rig.event()) for _ in range(3)]
    assert kinds == [Sampled, WriteDone, Sampled]


def test_a_second_write_while_one_is_outstanding_is_our_own_mistake(rig: Rig) -> None:
    rig.hold()
    rig.worker.submit_write(500_000)
    with pytest.raises(AssertionError, match="gpu GPU-a: write of 400000 mW while another is outstanding"):
        rig.worker.submit_write(400_000)
    rig.device.may_go.set()
    assert isinstance(rig.event(), Sampled)
    assert isinstance(rig.event(), WriteDone)
    assert rig.write(400_000).error is None


def test_the_next_write_may_be_submitted_from_within_deliver() -> None:
    device = ScriptedDevice()
    limits, done = iter((500_000, 400_000, 300_000)), threading.Event()

    def deliver(event: Event) -> None:
        limit_mw = next(limits, None)
        done.set() if limit_mw is None else worker.submit_write(limit_mw)

    worker = Worker(device, deliver, device.clock)
    worker.start()
    worker.submit_write(600_000)
    assert done.wait(TIMEOUT_S)
    assert worker.stop(TIMEOUT_S)
    assert device.calls[::2] == ["set 600", "set 500", "set 400", "set 300"]


def test_a_hanging_call_shows_since_when(rig: Rig) -> None:
    ages = [rig.worker.busy_since_s]
    rig.device.now_s = 41.0
    rig.hold()
    ages.append(rig.worker.busy_since_s)
    rig.device.may_go.set()
    rig.event()
    ages.append(rig.worker.busy_since_s)
    assert ages == [None, 41.0, None]


def test_stop_is_bounded_when_a_call_hangs_and_drops_what_has_not_begun(rig: Rig) -> None:
    rig.hold()
    rig.worker.submit_write(500_000)
    assert rig.worker.stop(timeout_s=0.01) is False
    rig.device.may_go.set()
    assert rig.worker.stop(TIMEOUT_S) is True
    assert isinstance(rig.event(), Sampled)
    assert rig.events.empty()
    assert rig.device.calls == ["both"]


def test_a_write_after_stop_is_our_own_mistake(rig: Rig) -> None:
    assert rig.worker.stop(TIMEOUT_S)
    with pytest.raises(AssertionError, match="gpu GPU-a: write of 400000 mW after stop"):
        rig.worker.submit_write(400_000)


def test_a_worker_that_was_never_started_stops() -> None:
    device = ScriptedDevice()
    assert Worker(device, queue.Queue[Event]().put, device.clock).stop(TIMEOUT_S)


def test_workers_of_several_gpus_do_not_wait_for_each_other() -> None:
    rigs = [Rig(), Rig()]
    rigs[0].hold()
    assert rigs[1].write(500_000).error is None
    rigs[0].device.may_go.set()
    for rig in rigs:
        rig.stop()


def test_submitting_never_waits_for_the_device(rig: Rig) -> None:
    rig.hold()
    finished = threading.Event()

    def submit() -> None:
        rig.worker.submit_write(500_000)
        for _ in range(100):
            rig.worker.submit_sample(clock=False)
            rig.worker.submit_list(lambda _: None)
        finished.set()

    threading.Thread(target=submit).start()
    assert finished.wait(TIMEOUT_S)


# ---- who holds the device ----


def test_who_holds_the_device_is_found_while_a_call_is_under_way(rig: Rig) -> None:
    rig.device.holding = (Holder(7, "dcgmi", "root"),)
    rig.hold()
    rig.worker.find_holders()
    assert rig.event() == HeldBy("GPU-a", (Holder(7, "dcgmi", "root"),))
    rig.device.may_go.set()


def test_a_search_that_fails_finds_nobody(rig: Rig) -> None:
    rig.device.raises["holders"] = OSError("no /proc here")
    rig.worker.find_holders()
    assert rig.event() == HeldBy("GPU-a", ())


def test_one_search_at_a_time_is_enough(rig: Rig) -> None:
    rig.device.searching.clear()
    for _ in range(3):
        rig.worker.find_holders()
    rig.device.searching.set()
    assert rig.event() == HeldBy("GPU-a", ())
    rig.worker.find_holders()
    assert rig.event() == HeldBy("GPU-a", ())
    assert rig.device.searches == 2


def test_a_worker_that_stops_searches_no_more(rig: Rig) -> None:
    rig.stop()
    rig.worker.find_holders()
    assert rig.device.searches == 0
