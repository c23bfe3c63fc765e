"""An instance through role changes: no work is lost, and every joule is counted."""

from random import Random

import pytest

from rapid.core.cluster import Phase, Role
from rapid.sim.instance import Instance
from rapid.sim.power import LimitCurve
from rapid.sim.profile import profile_named
from rapid.sim.requests import Backlog, Drained, EngineSettings, Finished, PrefillDone, Pulled, Request, Switched

MI300X = profile_named("mi300x-8b")
LIMIT = LimitCurve.constant(600_000, MI300X.lag)


def engine(role: Role) -> Instance:
    return Instance("i0", role, MI300X, LIMIT, settings=EngineSettings(max_batch_requests=1, max_sequences=2))


def kv(number: int, output_tokens: int) -> PrefillDone:
    return PrefillDone(Request(number, 0.0, 1000, output_tokens), 0.0, ttft_s=0.1, source="p9")


def test_a_closed_prefill_instance_finishes_its_batch_and_hands_back_its_queue() -> None:
    instance = engine(Role.PREFILL)
    requests = [Request(number, 0.0, 4000, 2) for number in range(3)]
    for request in requests:
        instance.submit(request, 0.0)

    assert instance.close(0.01) == Backlog(requests=(requests[1], requests[2]))

    assert instance.phase is Phase.DRAINING
    (done,) = instance.advance(10.0)
    assert isinstance(done, PrefillDone)
    assert done.request == requests[0]
    assert instance.load(10.0).waiting_tokens == 0
    # Its KV cache is still there to be pulled.
    assert (instance.requests_left, instance.unpulled) == (1, (done,))
    instance.release_kv(done, 11.0)
    assert instance.advance(11.0) == [Drained(11.0)]


def test_a_closed_decode_instance_finishes_its_sequences_and_hands_back_what_waits() -> None:
    instance = engine(Role.DECODE)
    for number in range(4):
        instance.receive_kv(kv(number, 20), 0.0)

    assert instance.close(0.05) == Backlog(kvs=(kv(2, 20), kv(3, 20)))

    *finished, drained = instance.advance(10.0)
    assert [item.request.request_id for item in finished if isinstance(item, Finished)] == [0, 1]
    assert drained == Drained(finished[-1].at_s)


def test_an_empty_instance_is_drained_at_once() -> None:
    instance = engine(Role.PREFILL)
    assert instance.close(3.0) == Backlog()
    assert instance.next_event_s() == 3.0
    assert instance.advance(3.0) == [Drained(3.0)]


def test_a_switch_takes_its_time_and_draws_idle_power() -> None:
    instance = engine(Role.PREFILL)
    instance.close(3.0)
    instance.advance(3.0)
    instance.switch(Role.DECODE, 4.0)

    assert (instance.phase, instance.role) == (Phase.SWITCHING, Role.DECODE)
    assert instance.next_event_s() == 4.0 + MI300X.switch_s
    assert instance.advance(4.0 + MI300X.switch_s) == [Switched(4.0 + MI300X.switch_s, Role.DECODE)]
    assert instance.energy_mj(5.5) == pytest.approx(MI300X.idle_mw * 5.5)
    instance.receive_kv(kv(1, 20), 5.5)
    assert [type(item) for item in instance.advance(10.0)] == [Pulled, Finished]


def test_counters_survive_a_role_change() -> None:
    instance = engine(Role.PREFILL)
    instance.submit(Request(1, 0.0, 1000, 5), 0.0)
    (done,) = instance.advance(1.0)
    assert isinstance(done, PrefillDone)
    instance.release_kv(done, 1.0)
    instance.close(1.0)
    instance.switch(Role.DECODE, 1.0)
    instance.receive_kv(kv(1, 5), 3.0)
    load = instance.load(10.0)
    assert (load.arrived, load.finished, load.prompt_tokens, load.output_tokens) == (2, 2, 1000, 5)
    assert (sum(load.ttft.counts), sum(load.tpot.counts)) == (1, 1)


def test_a_drain_can_be_called_off() -> None:
    instance = engine(Role.PREFILL)
    instance.submit(Request(1, 0.0, 4000, 2), 0.0)
    instance.close(0.01)
    instance.reopen(0.02)
    instance.submit(Request(2, 0.02, 4000, 2), 0.02)
    assert [type(item) for item in instance.advance(10.0)] == [PrefillDone, PrefillDone]  # and never Drained


def test_work_for_a_closed_or_other_instance_is_our_own_mistake() -> None:
    instance = engine(Role.PREFILL)
    with pytest.raises(AssertionError, match="i0 takes no KV caches"):
        instance.receive_kv(kv(1, 5), 0.0)
    instance.submit(Request(1, 0.0, 4000, 2), 0.0)
    instance.close(0.0)
    with pytest.raises(AssertionError, match="i0 is draining"):
        instance.submit(Request(2, 0.0, 4000, 2), 0.0)
    with pytest.raises(AssertionError, match="i0 still has 1 requests"):
        instance.switch(Role.DECODE, 0.0)
    with pytest.raises(AssertionError, match="time goes from"):
        instance.advance(-1.0)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_energy_is_the_integral_of_the_draw(role: Role) -> None:
    """Steps through time in small cells, reading activity and limit in each, against the instance's own account."""
    dice, now_s, numeric_mj = Random(2), 0.0, 0.0
    instance, curve, number = Instance("i0", role, MI300X, LIMIT), LIMIT, 0
    cell_s = 0.0005
    for cell in range(12_000):
        if dice.random() < 0.003:
            number += 1
            if role is Role.PREFILL:
                instance.submit(Request(number, now_s, dice.randint(100, 4000), 2), now_s)
            else:
                instance.receive_kv(kv(number, dice.randint(2, 100)), now_s)
        if cell % 900 == 0:
            curve = curve.changed(dice.randint(400_000, 750_000), now_s)
            instance.set_limit(curve, now_s)
        instance.advance(now_s + cell_s / 2)
        activity = instance.activity()
        natural_mw = activity.natural_mw if activity else MI300X.idle_mw
        numeric_mj += min(curve.at(now_s + cell_s / 2), natural_mw) * cell_s
        now_s += cell_s
    assert number > 20
    assert instance.energy_mj(now_s) == pytest.approx(numeric_mj, rel=2e-4)


def test_energy_before_a_new_limit_is_counted_under_the_old_one() -> None:
    instance = Instance("i0", Role.PREFILL, MI300X, LimitCurve.constant(750_000, MI300X.lag))
    instance.submit(Request(1, 0.0, 8000, 2), 1.0)
    instance.set_limit(LimitCurve.constant(400_000, MI300X.lag), 1.1)
    assert instance.energy_mj(1.15) == pytest.approx(MI300X.idle_mw + 735_000 * 0.1 + 400_000 * 0.05, rel=1e-12)


def test_activity_lasts_until_the_next_event() -> None:
    """A real-time process writes down the activity and sleeps: its GPU must not look idle meanwhile."""
    instance = engine(Role.DECODE)
    instance.receive_kv(kv(1, 500), 0.0)
    instance.set_limit(LIMIT.changed(450_000, 0.0), 0.0)  # the limit moves: every step has a pace of its own
    instance.advance(0.2)
    activity = instance.activity()
    assert activity is not None
    assert activity.until_s >= instance.next_event_s() > 0.5
