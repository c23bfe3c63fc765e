"""An instance through role changes: no work is lost, and every joule is counted."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from rapid.core.cluster import Phase, Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import DecodeCorner, profile_named
from rapid.sim.model.requests import Backlog, Drained, EngineSettings, Finished, PrefillDone, Pulled, Request, Switched

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


@pytest.mark.parametrize("role", list(Role))
def test_energy_is_the_integral_of_the_draw(role: Role) -> None:
    """Steps through time in small cells, reading activity and limit in each, against the instance's own account."""
    dice, now_s, numeric_mj, noise = Random(2), 0.0, 0.0, 1.0
    instance, curve, number = Instance("i0", role, MI300X, LIMIT), LIMIT, 0
    cell_s = 0.0005
    for cell in range(12_000):
        if dice.random() < 0.003:
            number += 1
            if role is not Role.DECODE:
                instance.submit(Request(number, now_s, dice.randint(100, 4000), 2), now_s)
            else:
                instance.receive_kv(kv(number, dice.randint(2, 100)), now_s)
        if cell % 900 == 0:
            curve = curve.changed(dice.randint(400_000, 750_000), now_s)
            instance.set_limit(curve, now_s)
        if cell % 500 == 0:
            noise = dice.gauss(1.0, 0.1)
            instance.set_noise(noise, now_s)
        instance.advance(now_s + cell_s / 2)
        activity = instance.activity()
        natural_mw = activity.natural_mw if activity else MI300X.idle_mw
        numeric_mj += noise * min(curve.at(now_s + cell_s / 2), natural_mw) * cell_s
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


def test_busy_time_is_the_time_at_work() -> None:
    prefill, decode = engine(Role.PREFILL), engine(Role.DECODE)
    for at_s in (1.0, 3.0):
        prefill.submit(Request(int(at_s), at_s, 4000, 1), at_s)
        decode.receive_kv(kv(int(at_s), 11), at_s)
    batch_s = MI300X.prefill_s(4000, 4000**2, 600_000)
    assert prefill.busy_s(3.0 + batch_s / 2) == pytest.approx(1.5 * batch_s, rel=1e-9)
    assert prefill.busy_s(10.0) == pytest.approx(2 * batch_s, rel=1e-9)
    steps_s = sum(MI300X.decode_step_s(1, 1001 + step, 600_000) for step in range(10))
    assert decode.busy_s(10.0) == pytest.approx(2 * steps_s, rel=1e-9)


# ---- several GPUs ----

TWO = replace(MI300X, gpus=2, decode_corner=DecodeCorner.PESSIMISTIC)


def pair(role: Role, *limits_mw: int) -> Instance:
    return Instance("i0", role, TWO, tuple(LimitCurve.constant(limit_mw, TWO.lag) for limit_mw in limits_mw))


@pytest.mark.parametrize("role", list(Role))
def test_the_slowest_gpu_sets_the_pace_and_each_draws_its_own(role: Role) -> None:
    """Tensor parallel: the limits of 450 and 700 W are as fast as twice 450 W."""
    done_s, energies_mj = [], []
    for limits_mw in [(450_000, 450_000), (700_000, 450_000), (450_000, 700_000), (700_000, 700_000)]:
        instance = pair(role, *limits_mw)
        if role is Role.DECODE:
            instance.receive_kv(kv(1, 100), 0.0)
        else:
            instance.submit(Request(1, 0.0, 8000, 100), 0.0)
        done_s.append(instance.advance(100.0)[-1].at_s)
        energies_mj.append((instance.energy_mj(100.0, gpu=0), instance.energy_mj(100.0, gpu=1)))
        assert instance.energy_mj(100.0) == sum(energies_mj[-1])
    assert done_s[0] == done_s[1] == done_s[2]
    assert energies_mj[0][0] == energies_mj[0][1]
    assert energies_mj[1] == energies_mj[2][::-1]
    if role is not Role.DECODE:  # which draws less than 450 W alone, so that no limit binds
        assert done_s[3] < done_s[0]
        assert energies_mj[1][0] > energies_mj[1][1]


def test_limits_of_two_gpus_that_move_at_different_times() -> None:
    """Against one GPU that follows the lesser of the two all the time."""
    limits = [(0.2, 0, 500_000, 0.06), (0.21, 1, 450_000, 0.14), (0.8, 1, 740_000, None), (0.9, 0, 720_000, None)]
    instance, curves = pair(Role.DECODE, 700_000, 700_000), [LimitCurve.constant(700_000, TWO.lag)] * 2
    for number in range(8):
        instance.receive_kv(kv(number, 120), 0.0)
    for at_s, gpu, limit_mw, delay_s in limits:
        instance.advance(at_s)
        curves[gpu] = curves[gpu].changed(limit_mw, at_s, delay_s)
        instance.set_limit(curves[gpu], at_s, gpu)
    done_s = [item.at_s for item in instance.advance(100.0) if isinstance(item, Finished)]

    # Step by step, with the two curves as they were at each time.
    history = {gpu: [(0.0, LimitCurve.constant(700_000, TWO.lag))] for gpu in (0, 1)}
    for at_s, gpu, limit_mw, delay_s in limits:
        history[gpu].append((at_s, history[gpu][-1][1].changed(limit_mw, at_s, delay_s)))
    now_s, batch, context, steps = TWO.pull_s(1000), 8, 8 * 1001, list[float]()
    for _ in range(119):
        slowest_mw = min([curve for at_s, curve in history[gpu] if at_s <= now_s][-1].at(now_s) for gpu in (0, 1))
        steps.append(TWO.decode_step_s(batch, context, slowest_mw))
        now_s += steps[-1]
        context += batch
    assert done_s == pytest.approx([now_s] * 8, rel=1e-9)
    assert max(steps) > 1.05 * min(steps)


def test_one_curve_stands_for_all_gpus_and_too_few_for_none() -> None:
    instance = Instance("i0", Role.PREFILL, TWO, LIMIT)
    assert instance.energy_mj(2.0) == 2 * 2.0 * MI300X.idle_mw
    with pytest.raises(AssertionError, match="i0 has 2 GPUs and 1 curves"):
        Instance("i0", Role.PREFILL, TWO, (LIMIT,))


def test_noise_multiplies_the_draw_of_one_gpu_from_then_on() -> None:
    instance = pair(Role.PREFILL, 600_000, 600_000)
    instance.set_noise(1.01, 10.0, gpu=1)
    instance.set_noise(0.98, 20.0, gpu=1)
    assert instance.energy_mj(30.0, gpu=0) == pytest.approx(30 * MI300X.idle_mw, rel=1e-12)
    assert instance.energy_mj(30.0, gpu=1) == pytest.approx((10 + 10.1 + 9.8) * MI300X.idle_mw, rel=1e-12)


# ---- copies ----


Deed = Callable[[Instance, float], object]


def scripted(seed: int) -> list[tuple[float, Deed]]:
    """What happens to an instance, in order of time; the same seed gives the same."""
    dice, at_s, curve = Random(seed), 0.0, LIMIT
    script: list[tuple[float, Deed]] = []
    for number in range(80):
        at_s += dice.expovariate(15.0)
        request = Request(number, at_s, dice.randint(10, 4000), dice.randint(2, 80))
        script.append((at_s, partial(give, request)))
        if dice.random() < 0.2:
            curve = curve.changed(dice.randint(400_000, 750_000), at_s)
            script.append((at_s, partial(limit, curve)))
        if dice.random() < 0.1:
            script.append((at_s, partial(make_noise, dice.gauss(1.0, 0.01))))
        if dice.random() < 0.2:
            script.append((at_s, pull_oldest))
    return script


def give(request: Request, instance: Instance, at_s: float) -> None:
    if instance.role is Role.DECODE:
        instance.receive_kv(PrefillDone(request, at_s, 0.1, "p9"), at_s)
    else:
        instance.submit(request, at_s)


def limit(curve: LimitCurve, instance: Instance, at_s: float) -> None:
    instance.set_limit(curve, at_s)


def make_noise(factor: float, instance: Instance, at_s: float) -> None:
    instance.set_noise(factor, at_s)


def pull_oldest(instance: Instance, at_s: float) -> None:
    for done in instance.unpulled[:8]:
        instance.release_kv(done, at_s)


def told(instance: Instance, script: list[tuple[float, Deed]]) -> list[object]:
    """Everything that can be seen of an instance that lives through the script."""
    seen: list[object] = []
    for at_s, do in script:
        seen += instance.advance(at_s)
        do(instance, at_s)
        seen.append((instance.load(at_s), instance.activity(), instance.next_event_s(), instance.unpulled))
    seen += instance.advance(100.0)
    return [*seen, instance.energy_mj(100.0), instance.busy_s(100.0)]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("seed", range(5))
def test_a_copy_and_its_original_go_separate_ways(role: Role, seed: int) -> None:
    settings = EngineSettings(ring_tokens=20_000, max_sequences=3)
    script, other_script = scripted(seed), scripted(seed + 100)
    half = len(script) // 2
    fork_s = script[half][0]
    after = [(at_s, do) for at_s, do in script if at_s > fork_s]
    elsewhere = [(at_s, do) for at_s, do in other_script if at_s > fork_s]

    def lived() -> Instance:
        instance = Instance("i0", role, MI300X, LIMIT, settings=settings)
        for at_s, do in script:
            if at_s <= fork_s:
                do(instance, at_s)
        return instance

    alone, original = lived(), lived()
    copied, second = original.copy(), original.copy()
    expected = told(alone, after)
    told(second, elsewhere)  # what happens to one copy
    assert told(copied, after) == expected  # does not show in another,
    assert told(original, after) == expected  # nor in the original
    assert len(expected) > 60
