"""The decode phase: runs of steps in closed form against one step at a time, and the bounds on what is admitted."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid.core.cluster import Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import DecodeCorner, profile_named
from rapid.sim.model.requests import EngineSettings, Finished, PrefillDone, Pulled, Request
from rapid.sim.model.steps import boundary_s, steps_until
from tests.sim.reference import PlainDecode

MI300X = replace(profile_named("mi300x-8b"), decode_corner=DecodeCorner.PESSIMISTIC)
FULL = LimitCurve.constant(750_000, MI300X.lag)


def prefilled(number: int, at_s: float, input_tokens: int, output_tokens: int) -> PrefillDone:
    return PrefillDone(Request(number, at_s - 0.1, input_tokens, output_tokens), at_s, ttft_s=0.14, source="p0")


def engine(
    capacity_tokens: int = MI300X.kv_capacity_tokens,
    max_sequences: int = 256,
    corner: DecodeCorner = DecodeCorner.PESSIMISTIC,
) -> Instance:
    profile = replace(MI300X, kv_capacity_tokens=capacity_tokens, decode_corner=corner)
    return Instance("d0", Role.DECODE, profile, FULL, settings=EngineSettings(max_sequences=max_sequences))


def finished(instance: Instance, until_s: float = 1e6) -> dict[int, Finished]:
    """Advances as a discrete-event loop would: only when the instance says so."""
    found = {}
    while instance.next_event_s() <= until_s:
        for output in instance.advance(instance.next_event_s()):
            assert isinstance(output, Finished | Pulled)
            if isinstance(output, Finished):
                found[output.request.request_id] = output
    return found


@given(st.floats(1e-4, 0.1), st.floats(0, 1e-4), st.floats(-1, 100))
def test_steps_until_is_the_first_boundary_not_before(first_s: float, growth_s: float, duration_s: float) -> None:
    steps = steps_until(first_s, growth_s, duration_s)
    assert steps >= 1
    assert boundary_s(first_s, growth_s, steps) >= duration_s
    assert steps == 1 or boundary_s(first_s, growth_s, steps - 1) < duration_s


def test_one_sequence_alone_is_the_sum_of_its_steps() -> None:
    instance = engine()
    instance.receive_kv(prefilled(1, 5.0, 1000, 101), 5.0)

    done = finished(instance)[1]

    pull_s = MI300X.pull_s(1000)
    steps_s = sum(MI300X.decode_step_s(1, 1001 + step, 750_000) for step in range(100))
    assert done.at_s == pytest.approx(5.0 + pull_s + steps_s, rel=1e-12)
    assert done.tpot_s == pytest.approx((pull_s + steps_s) / 100, rel=1e-9)  # the transfer is part of TPOT


@pytest.mark.parametrize("corner", list(DecodeCorner))
@pytest.mark.parametrize("seed", range(8))
def test_runs_of_steps_equal_one_step_at_a_time(seed: int, corner: DecodeCorner) -> None:
    dice = Random(seed)
    capacity, most = dice.choice([(9_000, 256), (10**6, 6), (10**6, 256)])
    at_s, offers, limits = 0.0, [], [(0.0, FULL)]
    for number in range(150):
        at_s += dice.expovariate(25.0)
        offers.append((at_s, prefilled(number, at_s, dice.randint(1, 3000), dice.randint(2, 120))))
        if dice.random() < 0.1:
            limits.append((at_s + 1e-4, limits[-1][1].changed(dice.randint(400_000, 750_000), at_s + 1e-4)))
    profile = replace(MI300X, kv_capacity_tokens=capacity, decode_corner=corner)
    plain = PlainDecode(profile, most, list(offers), limits).run()

    instance = engine(capacity, most, corner)
    found: dict[int, Finished] = {}
    news = [(at_s, 0, done, None) for at_s, done in offers] + [(at_s, 1, None, curve) for at_s, curve in limits]
    for at_s, _, done, curve in sorted(news, key=lambda item: item[:2]):
        found |= finished(instance, at_s)
        if done:
            instance.receive_kv(done, at_s)
        if curve:
            instance.set_limit(curve, at_s)
    found |= finished(instance)

    assert found.keys() == plain.keys()
    for number, at_s in plain.items():
        assert found[number].at_s == pytest.approx(at_s, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_looking_often_changes_nothing(seed: int) -> None:
    dice = Random(seed)
    news, at_s, curve = [], 0.0, FULL
    for number in range(60):
        at_s += dice.expovariate(20.0)
        if dice.random() < 0.2:
            curve = curve.changed(dice.randint(400_000, 750_000), at_s)
        news.append((at_s, prefilled(number, at_s, dice.randint(1, 3000), dice.randint(2, 90)), curve))

    def lived(pause_s: float) -> list[Finished]:
        instance, outputs, now_s = engine(), [], 0.0
        for at_s, done, new_curve in news:
            while now_s + pause_s < at_s:
                now_s += pause_s
                outputs += instance.advance(now_s)
            instance.set_limit(new_curve, at_s)
            instance.receive_kv(done, at_s)
            now_s = at_s
        outputs += instance.advance(1e4)
        return [output for output in outputs if isinstance(output, Finished)]

    assert lived(0.003) == lived(1e9)


def test_nothing_comes_out_before_the_next_event() -> None:
    dice = Random(7)
    instance, now_s, early, seen = engine(), 0.0, 0, 0
    for number in range(200):
        now_s += dice.expovariate(20.0)
        instance.receive_kv(prefilled(number, now_s, dice.randint(1, 3000), dice.randint(2, 90)), now_s)
        instance.set_limit(instance_curve(dice, now_s), now_s)
        instance.advance(now_s)
        for _ in range(3):
            promised_s = instance.next_event_s()
            outputs = instance.advance(min(promised_s, now_s + 0.02))
            early += sum(output.at_s < promised_s - 1e-9 for output in outputs)
            seen += len(outputs)
            now_s = min(promised_s, now_s + 0.02)
    assert (early, seen > 50) == (0, True)


def test_a_raised_limit_brings_the_next_event_forward() -> None:
    instance, low = engine(), LimitCurve.constant(200_000, MI300X.lag)
    instance.set_limit(low, 0.0)
    instance.receive_kv(prefilled(1, 0.0, 1000, 200), 0.0)
    instance.advance(0.1)
    instance.set_limit(low.changed(750_000, 0.1), 0.1)
    instance.advance(0.15)  # in the delay: steps are still slow
    promised_s = instance.next_event_s()
    (done,) = instance.advance(100.0)
    assert promised_s <= done.at_s
    assert promised_s > 0.8 * done.at_s


def instance_curve(dice: Random, now_s: float) -> LimitCurve:
    start = LimitCurve.constant(dice.randint(400_000, 750_000), MI300X.lag)
    return start.changed(dice.randint(400_000, 750_000), now_s)


def test_kv_capacity_is_never_exceeded_and_nobody_starves() -> None:
    dice = Random(3)
    instance, requests, now_s, most = engine(capacity_tokens=5000), {}, 0.0, 0.0
    served: dict[int, Finished] = {}
    for number in range(200):
        now_s += dice.expovariate(50.0)
        served |= {item.request.request_id: item for item in instance.advance(now_s) if isinstance(item, Finished)}
        done = prefilled(number, now_s, dice.randint(1, 4000), dice.randint(2, 60))
        requests[number] = done.request
        instance.receive_kv(done, now_s)
        most = max(most, instance.load(now_s).kv_used_fraction)
    served |= finished(instance)
    assert 0.5 < most <= 1.0
    assert served.keys() == requests.keys()
    assert instance.load(1e6).kv_used_fraction == 0.0


def test_a_sequence_waits_for_room_in_the_batch_and_in_the_cache() -> None:
    for small in (engine(max_sequences=2), engine(capacity_tokens=2 * 1011)):
        for number in range(3):
            small.receive_kv(prefilled(number, 0.0, 1000, 11), 0.0)
        at_s = finished(small)
        assert at_s[0].at_s == at_s[1].at_s
        assert at_s[2].at_s > at_s[0].at_s + MI300X.pull_s(1000)


def test_a_request_that_can_never_fit_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="request 1 can never fit"):
        engine(capacity_tokens=1000).receive_kv(prefilled(1, 0.0, 1000, 2), 0.0)


def test_output_tokens_grow_within_a_run() -> None:
    instance = engine()
    instance.receive_kv(prefilled(1, 0.0, 1000, 1001), 0.0)
    start_s = MI300X.pull_s(1000)
    step_s = MI300X.decode_step_s(1, 1001, 750_000)
    assert instance.load(start_s + 0.999 * step_s).output_tokens == 0
    assert instance.load(start_s + 1.001 * step_s).output_tokens == 1
    assert instance.load(start_s + 10.5 * step_s).output_tokens == 10
    assert instance.load(1e4).output_tokens == 1000


def test_a_lower_limit_slows_the_steps_after_the_one_that_runs() -> None:
    instance = engine()
    instance.receive_kv(prefilled(1, 0.0, 1000, 3), 0.0)
    start_s = MI300X.pull_s(1000)
    first_s = MI300X.decode_step_s(1, 1001, 750_000)
    low = LimitCurve.constant(200_000, MI300X.lag)
    instance.set_limit(low, start_s + 0.1 * first_s)
    second_s = MI300X.decode_step_s(1, 1002, 200_000)
    assert second_s > 1.1 * first_s
    assert finished(instance)[1].at_s == pytest.approx(start_s + first_s + second_s, rel=1e-12)


def test_a_limit_that_moves_above_the_draw_costs_no_step() -> None:
    """The run stays one closed form, so the next event is known exactly and not by a bound."""
    instance = engine(corner=DecodeCorner.GENTLE)
    instance.set_limit(FULL.changed(600_000, 0.0), 0.0)
    instance.receive_kv(prefilled(1, 0.0, 1000, 50), 0.0)
    instance.advance(0.05)
    promised_s = instance.next_event_s()
    assert promised_s < FULL.changed(600_000, 0.0).settled_s
    assert finished(instance)[1].at_s == pytest.approx(promised_s, rel=1e-12)
