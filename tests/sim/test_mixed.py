"""The mixed phase: chunks beside decode against one step at a time, and the bounds on what is admitted."""

from dataclasses import replace
from random import Random

import pytest

from rapid.core.cluster import Phase, Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.mixed import fused_step_s
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import DecodeCorner, profile_named
from rapid.sim.model.requests import Backlog, Die, Drained, EngineSettings, Finished, PrefillDone, Request, Switched
from tests.sim.reference import PlainMixed

MI300X = replace(profile_named("mi300x-8b"), decode_corner=DecodeCorner.PESSIMISTIC)
FULL = LimitCurve.constant(750_000, MI300X.lag)


def engine(
    settings: EngineSettings | None = None, capacity_tokens: int = MI300X.kv_capacity_tokens, die: Die | None = None
) -> Instance:
    profile = replace(MI300X, kv_capacity_tokens=capacity_tokens)
    return Instance("m0", Role.MIXED, profile, FULL, settings=settings or EngineSettings(), die=die or Die())


def finished(instance: Instance, until_s: float = 1e6) -> dict[int, Finished]:
    """Advances as a discrete-event loop would: only when the instance says so."""
    found = {}
    while instance.next_event_s() <= until_s:
        for output in instance.advance(instance.next_event_s()):
            assert isinstance(output, Finished)
            found[output.request.request_id] = output
    return found


def step_s(tokens: int, start: int = 0, batch: int = 0, context: int = 0, limit_mw: float = 750_000) -> float:
    """One prompt's chunk from `start` on, beside a batch."""
    return fused_step_s(
        MI300X,
        tokens=tokens,
        squares=(start + tokens) ** 2 - start**2,
        batch=batch,
        context_tokens=context,
        limit_mw=limit_mw,
        die_speed=1.0,
    )


def test_a_prompt_alone_is_cut_into_chunks_and_then_decoded() -> None:
    instance = engine(EngineSettings(chunk_tokens=1000))
    instance.submit(Request(1, 1.0, 2500, 11), 2.0)

    done = finished(instance)[1]

    chunks_s = step_s(1000, 0) + step_s(1000, 1000) + step_s(500, 2000)
    decode_s = sum(MI300X.decode_step_s(1, 2501 + step, 750_000) for step in range(10))
    assert done.ttft_s == pytest.approx(1.0 + chunks_s + MI300X.front_s, rel=1e-12)
    assert done.tpot_s == pytest.approx(decode_s / 10, rel=1e-12)  # exactly the steps of a decode instance
    assert done.at_s == pytest.approx(2.0 + chunks_s + decode_s, rel=1e-12)


def test_the_chunks_of_a_prompt_cost_its_attention_once() -> None:
    whole_s, host_s = MI300X.prefill_s(8000, 8000**2, 750_000), MI300X.host_s(0)
    assert step_s(8000) == pytest.approx(whole_s + host_s, rel=1e-12)
    pieces_s = sum(step_s(2000, start) for start in range(0, 8000, 2000))
    assert pieces_s == pytest.approx(whole_s + 4 * host_s + 3 * MI300X.prefill_ms / 1e3, rel=1e-12)


def test_a_step_is_bound_by_memory_or_by_arithmetic() -> None:
    """A few prompt tokens ride along for free; many set the pace, and then the decode tokens ride along."""
    alone_s = MI300X.decode_step_s(64, 64_000, 750_000)
    assert step_s(10, 0, 64, 64_000) == pytest.approx(alone_s + MI300X.prefill_square_ms * 100 / 1e3, rel=1e-9)
    beside_s = step_s(2000, 0, 64, 64_000) - step_s(2000)
    assert 0 < beside_s < 0.7 * alone_s
    # A limit slows memory like decode, arithmetic like prefill.
    low_s = MI300X.decode_step_s(64, 64_000, 400_000)
    assert step_s(1, 0, 64, 64_000, 400_000) == pytest.approx(low_s, rel=1e-6)
    slower = (step_s(8000, limit_mw=400_000) - MI300X.host_s(0)) / (step_s(8000) - MI300X.host_s(0))
    assert slower == pytest.approx(1 / MI300X.prefill_speed(400_000), rel=1e-9)


def test_decode_tokens_count_against_the_chunk() -> None:
    instance = engine(EngineSettings(chunk_tokens=300, max_sequences=200))
    instance.submit(Request(101, 0.0, 10, 1), 0.0)  # while it is in its step, the others queue
    for number in range(100):
        instance.submit(Request(number, 0.0, 3, 100), 0.0)
    instance.submit(Request(100, 0.0, 400, 2), 0.0)

    done = finished(instance)[100]

    # The hundred fill the first step; their squares sum to far less than those of one prompt.
    filled_s = step_s(300) - MI300X.prefill_square_ms * (300**2 - 100 * 3**2) / 1e3
    halves_s = step_s(200, 0, 100, 400) + step_s(200, 200, 100, 500)  # the last one goes beside the hundred
    assert done.ttft_s == pytest.approx(step_s(10) + filled_s + halves_s + MI300X.front_s, rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_chunks_and_runs_equal_one_step_at_a_time(seed: int) -> None:
    dice = Random(seed)
    capacity, most, chunk = dice.choice([(9_000, 200, 512), (10**6, 6, 700), (10**6, 256, 2048), (10**6, 30, 31)])
    settings = EngineSettings(max_sequences=most, chunk_tokens=chunk)
    at_s, offers, limits = 0.0, [], [(0.0, FULL)]
    for number in range(150):
        at_s += dice.expovariate(12.0)
        if number % 50 == 0:
            at_s += 5.0  # and now and then nothing
        offers.append((at_s, Request(number, at_s, dice.randint(1, 3000), dice.choice([1, 2, dice.randint(3, 90)]))))
        if dice.random() < 0.1:
            limits.append((at_s + 1e-4, limits[-1][1].changed(dice.randint(400_000, 750_000), at_s + 1e-4)))
    plain = PlainMixed(replace(MI300X, kv_capacity_tokens=capacity), settings, list(offers), limits).run()

    instance = engine(settings, capacity)
    found: dict[int, Finished] = {}
    news = [(at_s, 0, request, None) for at_s, request in offers] + [(at_s, 1, None, curve) for at_s, curve in limits]
    for at_s, _, request, curve in sorted(news, key=lambda item: item[:2]):
        found |= finished(instance, at_s)
        if request:
            instance.submit(request, at_s)
        if curve:
            instance.set_limit(curve, at_s)
    found |= finished(instance)

    assert found.keys() == plain.keys()
    for number, (first_s, last_s) in plain.items():
        done = found[number]
        assert done.at_s == pytest.approx(last_s, abs=1e-7)
        assert done.request.arrival_s + done.ttft_s - MI300X.front_s == pytest.approx(first_s, abs=1e-7)
        if done.tpot_s is not None:
            assert done.tpot_s * (done.request.output_tokens - 1) == pytest.approx(last_s - first_s, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_looking_often_changes_nothing(seed: int) -> None:
    dice = Random(seed)
    news, at_s, curve = [], 0.0, FULL
    for number in range(60):
        at_s += dice.expovariate(10.0)
        if dice.random() < 0.2:
            curve = curve.changed(dice.randint(400_000, 750_000), at_s)
        news.append((at_s, Request(number, at_s, dice.randint(1, 6000), dice.randint(1, 90)), curve))

    def lived(pause_s: float) -> tuple[list[Finished], float]:
        instance, outputs, now_s = engine(), [], 0.0
        for at_s, request, new_curve in news:
            while now_s + pause_s < at_s:
                now_s += pause_s
                outputs += instance.advance(now_s)
                instance.load(now_s)
                instance.energy_mj(now_s)
            instance.set_limit(new_curve, at_s)
            instance.submit(request, at_s)
            now_s = at_s
        outputs += instance.advance(1e4)
        return [output for output in outputs if isinstance(output, Finished)], instance.energy_mj(1e4)

    assert lived(0.003) == lived(1e9)


def test_nothing_comes_out_before_the_next_event() -> None:
    dice = Random(7)
    instance, now_s, early, seen = engine(), 0.0, 0, 0
    for number in range(200):
        now_s += dice.expovariate(20.0)
        instance.submit(Request(number, now_s, dice.randint(1, 3000), dice.randint(1, 90)), now_s)
        start = LimitCurve.constant(dice.randint(400_000, 750_000), MI300X.lag)
        instance.set_limit(start.changed(dice.randint(400_000, 750_000), now_s), now_s)
        instance.advance(now_s)
        for _ in range(5):
            promised_s = instance.next_event_s()
            outputs = instance.advance(min(promised_s, now_s + 0.02))
            early += sum(output.at_s < promised_s - 1e-9 for output in outputs)
            seen += len(outputs)
            now_s = min(promised_s, now_s + 0.02)
    assert (early, seen > 50) == (0, True)


def test_capacity_and_sequences_are_never_exceeded_and_nobody_starves() -> None:
    dice = Random(3)
    instance, now_s, most, longest = engine(EngineSettings(max_sequences=5), 8000), 0.0, 0.0, 0
    served: list[int] = []
    for number in range(200):
        now_s += dice.expovariate(50.0)
        served += [item.request.request_id for item in instance.advance(now_s) if isinstance(item, Finished)]
        instance.submit(Request(number, now_s, dice.randint(1, 4000), dice.randint(1, 60)), now_s)
        load = instance.load(now_s)
        most, longest = max(most, load.kv_used_fraction), max(longest, load.running_requests)
        assert load.waiting_requests + load.running_requests + len(served) == number + 1
    served += finished(instance)
    assert 0.8 < most <= 1.0
    assert longest == 5
    assert sorted(served) == list(range(200))
    load = instance.load(1e6)
    assert (load.kv_used_fraction, load.waiting_tokens, load.arrived, load.finished) == (0.0, 0, 200, 200)


def test_it_draws_like_prefill_with_a_chunk_and_like_decode_without() -> None:
    instance = engine()
    instance.submit(Request(1, 0.0, 1500, 100), 0.0)
    activity = instance.activity()
    assert activity is not None
    assert (activity.role, activity.batch, activity.natural_mw) == (Role.MIXED, 1, MI300X.prefill_natural_mw)
    instance.advance(activity.until_s)
    activity = instance.activity()
    assert activity is not None
    assert activity.natural_mw == MI300X.decode_draw_mw(1)
    instance.advance(100.0)
    assert instance.activity() is None


def test_a_closed_instance_hands_back_what_it_has_not_begun() -> None:
    instance = engine(EngineSettings(max_sequences=2, chunk_tokens=1000))
    requests = [Request(number, 0.0, 1500, 20) for number in range(4)]
    for request in requests:
        instance.submit(request, 0.0)
    instance.advance(step_s(1000) + 1e-6)  # half of the second prompt is in the step that runs
    assert instance.close(0.1) == Backlog(requests=(requests[2], requests[3]))
    *served, drained = instance.advance(10.0)
    assert [item.request for item in served if isinstance(item, Finished)] == requests[:2]
    assert drained == Drained(served[-1].at_s)


def test_it_changes_role_to_prefill_and_back() -> None:
    instance = engine()
    instance.submit(Request(1, 0.0, 1000, 5), 0.0)
    instance.advance(5.0)
    instance.close(5.0)
    instance.switch(Role.PREFILL, 5.0)
    assert instance.advance(7.0)[-1] == Switched(5.0 + MI300X.switch_s, Role.PREFILL)
    instance.submit(Request(2, 7.0, 1000, 5), 7.0)
    (done,) = instance.advance(9.0)
    assert isinstance(done, PrefillDone)
    assert instance.close(9.0) == Backlog()
    instance.release_kv(done, 9.0)
    instance.advance(9.0)
    instance.switch(Role.MIXED, 9.0)
    instance.advance(11.0)
    assert instance.phase is Phase.SERVING
    instance.submit(Request(3, 11.0, 1000, 5), 11.0)
    assert list(finished(instance)) == [3]


def test_a_request_of_one_token_ends_with_its_prompt() -> None:
    instance = engine(die=Die(speed=1.02))
    instance.submit(Request(1, 0.0, 1000, 1), 0.0)
    done = finished(instance)[1]
    assert done.tpot_s is None
    assert done.at_s == pytest.approx((step_s(1000) - MI300X.host_s(0)) / 1.02 + MI300X.host_s(0), rel=1e-12)
    assert instance.load(1.0).kv_used_fraction == 0.0


def test_a_chunk_without_room_beside_a_full_batch_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no room for any prompt"):
        engine(EngineSettings(max_sequences=256, chunk_tokens=256))
