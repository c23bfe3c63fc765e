"""The prefill phase and the bounds of its batches; test_theory.py holds its queue against theory."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Die, EngineSettings, Finished, PrefillDone, Request

MI300X = profile_named("mi300x-8b")
FULL = LimitCurve.constant(750_000, MI300X.lag)
ALONE = EngineSettings(max_batch_requests=1)


def engine(settings: EngineSettings = ALONE, die: Die | None = None) -> Instance:
    return Instance("p0", Role.PREFILL, MI300X, FULL, settings=settings, die=die or Die())


def advance(instance: Instance, now_s: float) -> list[PrefillDone]:
    """What came out; all of it is pulled at once."""
    outputs = instance.advance(now_s)
    done = [output for output in outputs if isinstance(output, PrefillDone)]
    assert done == outputs
    for each in done:
        instance.release_kv(each, now_s)
    return done


def test_ttft_is_wait_and_prefill_and_front_end() -> None:
    instance = engine()
    instance.submit(Request(1, 2.0, 1000, 50), 2.5)
    (done,) = advance(instance, 10.0)
    service_s = MI300X.prefill_s(1000, 1000**2, 750_000)
    assert done.at_s == pytest.approx(2.5 + service_s, rel=1e-12)
    assert done.ttft_s == pytest.approx(0.5 + service_s + 0.040, rel=1e-12)


def test_a_request_of_one_token_ends_with_its_prefill() -> None:
    instance = engine()
    instance.submit(Request(1, 0.0, 1000, 1), 0.0)
    (done,) = instance.advance(10.0)
    assert isinstance(done, Finished)
    assert done.tpot_s is None


def test_batches_are_first_come_first_served_and_limited_in_tokens() -> None:
    instance = engine(EngineSettings(max_batch_tokens=4000))
    lengths = [9000, 1500, 1500, 1500, 9000, 100]
    for number, length in enumerate(lengths):
        instance.submit(Request(number, 0.0, length, 2), 0.0)

    outputs = advance(instance, 100.0)

    batches: dict[float, list[int]] = {}
    for done in outputs:
        batches.setdefault(done.at_s, []).append(done.request.request_id)
    # A prompt over the bound runs alone; nobody overtakes.
    assert list(batches.values()) == [[0], [1, 2], [3], [4], [5]]
    times_s = [
        MI300X.prefill_s(sum(lengths[number] for number in batch), sum(lengths[n] ** 2 for n in batch), 750_000)
        for batch in batches.values()
    ]
    ends_s = [sum(times_s[: index + 1]) for index in range(len(times_s))]
    assert list(batches) == pytest.approx(ends_s, rel=1e-12)


def test_a_batch_holds_at_most_its_bound_of_requests() -> None:
    instance = engine(EngineSettings(max_batch_requests=3))
    for number in range(8):
        instance.submit(Request(number, 0.0, 100, 2), 0.0)
    ends_s = [done.at_s for done in advance(instance, 10.0)]
    assert [ends_s.count(end_s) for end_s in sorted(set(ends_s))] == [1, 3, 3, 1]


def test_a_batch_keeps_the_pace_it_started_with() -> None:
    instance = engine()
    for number in (1, 2):
        instance.submit(Request(number, 0.0, 4000, 2), 0.0)
    instance.set_limit(LimitCurve.constant(400_000, MI300X.lag), 0.01)
    first, second = advance(instance, 100.0)
    full_s, low_s = (MI300X.prefill_s(4000, 4000**2, limit_mw) for limit_mw in (750_000, 400_000))
    assert first.at_s == pytest.approx(full_s, rel=1e-12)
    assert second.at_s == pytest.approx(full_s + low_s, rel=1e-12)


def test_a_fast_die_is_faster_and_a_hot_one_idles_hotter() -> None:
    instance = engine(die=Die(speed=1.02, idle=1.1))
    instance.submit(Request(1, 0.0, 4000, 2), 0.0)
    (done,) = advance(instance, 100.0)
    assert done.at_s == pytest.approx(MI300X.prefill_s(4000, 4000**2, 750_000) / 1.02, rel=1e-12)
    busy_mj = MI300X.prefill_natural_mw * done.at_s
    assert instance.energy_mj(100.0) == pytest.approx(busy_mj + 1.1 * MI300X.idle_mw * (100.0 - done.at_s), rel=1e-12)


def test_the_load_counts_what_waits_and_what_runs() -> None:
    instance = engine()
    for number in range(4):
        instance.submit(Request(number, 1.0 + number, 1000 + number, 2), 5.0)
    load = instance.load(5.01)
    assert (load.waiting_requests, load.waiting_tokens, load.running_requests) == (3, 3006, 1)
    assert load.oldest_wait_s == pytest.approx(3.01)  # of the head of the queue: the first one is running
    assert (load.arrived, load.finished, load.prompt_tokens, load.output_tokens) == (4, 0, 0, 0)
    load = instance.load(100.0)
    assert (load.waiting_requests, load.waiting_tokens, load.running_requests, load.oldest_wait_s) == (0, 0, 0, 0.0)
    assert (load.arrived, load.finished, load.prompt_tokens, load.output_tokens) == (4, 4, 4006, 4)
    assert sum(load.ttft.counts) == 4


def test_histograms_tell_exactly_who_met_the_targets() -> None:
    instance = Instance("p0", Role.PREFILL, replace(MI300X, front_s=0.0), FULL, settings=ALONE)
    service_s = MI300X.prefill_s(1000, 1000**2, 750_000)
    for number in range(100):
        instance.submit(Request(number, 0.0, 1000, 2), 0.0)
    histogram = instance.load(1e3).ttft
    met = sum(histogram.counts[: histogram.bounds_s.index(1.0) + 1])
    assert met == int(1.0 / service_s)
    assert {0.025, 0.040} < set(histogram.bounds_s)
    assert (histogram.bounds_s[0], histogram.bounds_s[-1]) == (0.001, 60.0)
    assert list(histogram.bounds_s) == sorted(set(histogram.bounds_s))
    assert len(histogram.counts) == len(histogram.bounds_s) + 1
