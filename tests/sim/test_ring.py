"""The KV ring between prefill and decode: bounded, in order, and never the end of everything."""

from dataclasses import replace
from heapq import heappop, heappush
from random import Random

import pytest

from rapid.core.cluster import Phase, Role
from rapid.sim.model.instance import Instance
from rapid.sim.model.power import LimitCurve
from rapid.sim.model.profile import profile_named
from rapid.sim.model.requests import Drained, EngineSettings, Finished, PrefillDone, Pulled, Request
from tests.sim.reference import PlainPrefill

MI300X = profile_named("mi300x-8b")
FULL = LimitCurve.constant(750_000, MI300X.lag)


def prefill(ring_tokens: int, **bounds: int) -> Instance:
    return Instance("p0", Role.PREFILL, MI300X, FULL, settings=EngineSettings(ring_tokens=ring_tokens, **bounds))


def processed(instance: Instance, now_s: float = 1e3) -> list[PrefillDone]:
    return [output for output in instance.advance(now_s) if isinstance(output, PrefillDone)]


def test_a_full_ring_stops_prefill_until_a_cache_is_released() -> None:
    instance = prefill(2500, max_batch_requests=1)
    for number in range(4):
        instance.submit(Request(number, 0.0, 1000, 2), 0.0)
    first, second = processed(instance, 10.0)
    assert instance.next_event_s() == float("inf")
    assert instance.activity() is None  # it draws as if it were idle
    load = instance.load(10.0)
    assert (load.waiting_requests, load.running_requests, load.kv_used_fraction) == (2, 0, 0.8)

    instance.release_kv(second, 10.0)

    (third,) = processed(instance, 20.0)
    assert third.at_s == pytest.approx(10.0 + MI300X.prefill_s(1000, 1000**2, 750_000), rel=1e-12)
    assert instance.unpulled == (first, third)
    assert instance.energy_mj(10.0 + 10.0) == pytest.approx(
        3 * MI300X.prefill_s(1000, 1000**2, 750_000) * MI300X.prefill_natural_mw
        + MI300X.idle_mw * (20.0 - 3 * MI300X.prefill_s(1000, 1000**2, 750_000)),
        rel=1e-9,
    )


def test_a_batch_takes_only_prompts_that_fit_and_nobody_overtakes() -> None:
    instance = prefill(5000)
    instance.submit(Request(0, 0.0, 1000, 2), 0.0)
    for number, length in [(1, 1500), (2, 2000), (3, 1000), (4, 100)]:
        instance.submit(Request(number, 0.0, length, 2), 0.0)
    done = processed(instance)
    assert [item.request.request_id for item in done] == [0, 1, 2]  # 4 would fit beside them, but 3 is before it
    assert len({item.at_s for item in done}) == 2
    assert instance.load(1e3).kv_used_fraction == 0.9


def test_a_prompt_longer_than_the_ring_goes_when_it_is_empty() -> None:
    instance = prefill(5000)
    for number, length in [(0, 1000), (1, 9000), (2, 10)]:
        instance.submit(Request(number, 0.0, length, 2), 0.0)
    (first,) = processed(instance, 10.0)
    instance.release_kv(first, 10.0)
    (longest,) = processed(instance, 20.0)
    assert longest.request.input_tokens == 9000
    assert instance.load(20.0).kv_used_fraction == 1.0
    instance.release_kv(longest, 20.0)
    assert len(processed(instance, 30.0)) == 1


def test_an_answer_of_one_token_never_takes_room() -> None:
    instance = prefill(1000, max_batch_requests=1)
    for number, output_tokens in enumerate([2, 1, 1]):
        instance.submit(Request(number, 0.0, 1000, output_tokens), 0.0)
    assert [type(output) for output in instance.advance(10.0)] == [PrefillDone, Finished, Finished]
    assert len(instance.unpulled) == 1


def test_what_is_not_in_the_ring_cannot_be_released() -> None:
    instance = prefill(5000)
    instance.submit(Request(0, 0.0, 1000, 2), 0.0)
    (done,) = processed(instance, 10.0)
    for other in (replace(done, at_s=3.0), replace(done, request=Request(9, 0.0, 1000, 2))):
        assert not instance.holds(other)
        with pytest.raises(AssertionError, match="p0 does not hold the KV cache of request"):
            instance.release_kv(other, 10.0)
    instance.release_kv(done, 10.0)
    with pytest.raises(AssertionError, match="does not hold"):
        instance.release_kv(done, 10.0)


@pytest.mark.parametrize("seed", range(8))
def test_batches_before_a_ring_equal_the_plain_ones(seed: int) -> None:
    dice = Random(seed)
    settings = EngineSettings(
        ring_tokens=dice.choice([3000, 8000, 40_000]), max_batch_tokens=4000, max_batch_requests=dice.choice([3, 256])
    )
    at_s, offers, hold_s = 0.0, [], {}
    for number in range(150):
        at_s += dice.expovariate(25.0)
        offers.append((at_s, Request(number, at_s, dice.randint(1, 4000), dice.choice([1, 5, 5, 5]))))
        if offers[-1][1].output_tokens > 1:
            hold_s[number] = dice.expovariate(5.0)
    plain = PlainPrefill(MI300X, settings, FULL, list(offers), hold_s).run()

    instance, found = Instance("p0", Role.PREFILL, MI300X, FULL, settings=settings), dict[int, float]()
    releases: list[tuple[float, int, PrefillDone]] = []
    while offers or releases or instance.requests_left:
        now_s = min([instance.next_event_s(), *(at_s for at_s, _ in offers[:1]), *(item[0] for item in releases[:1])])
        for output in instance.advance(now_s):
            assert isinstance(output, PrefillDone | Finished)
            number = output.request.request_id
            found[number] = output.at_s
            if isinstance(output, PrefillDone):
                heappush(releases, (now_s + hold_s[number], number, output))
        if releases and releases[0][0] <= now_s:
            instance.release_kv(heappop(releases)[2], now_s)
        if offers and offers[0][0] <= now_s:
            instance.submit(offers.pop(0)[1], now_s)

    assert found == pytest.approx(plain, abs=1e-9)


class Pipe:
    """One prefill and two decode instances, wired by hand. It watches every bound at every event."""

    def __init__(self, ring_tokens: int, capacity_tokens: int, max_sequences: int) -> None:
        self._ring_tokens = ring_tokens
        settings = EngineSettings(ring_tokens=ring_tokens, max_sequences=max_sequences)
        profile = replace(MI300X, kv_capacity_tokens=capacity_tokens)
        self.source = Instance("p0", Role.PREFILL, profile, FULL, settings=settings)
        self.decoders = [
            Instance(name, Role.DECODE, profile, FULL, settings=settings, start_s=0.0) for name in ("d0", "d1")
        ]
        self.now_s = 0.0
        self.finished: list[Finished] = []
        self.drained = 0
        self.fullest = 0
        self.held: dict[int, int] = {}  # by request: tokens in the ring

    def live(self, until_s: float) -> None:
        while (next_s := min(each.next_event_s() for each in [self.source, *self.decoders])) <= until_s:
            self.now_s = max(self.now_s, next_s)
            for output in self.source.advance(self.now_s):
                if isinstance(output, PrefillDone):
                    self.held[output.request.request_id] = output.request.input_tokens
                    self.give(output)
                elif isinstance(output, Finished):
                    self.finished.append(output)
                elif isinstance(output, Drained):
                    self.drained += 1
            for decoder in self.decoders:
                self._take(decoder)
            self._watch()
        self.now_s = until_s

    def give(self, done: PrefillDone) -> None:
        serving = [each for each in self.decoders if each.phase is Phase.SERVING]
        min(serving, key=lambda each: each.requests_left).receive_kv(done, self.now_s)

    def close(self, decoder: Instance) -> None:
        for done in decoder.close(self.now_s).kvs:
            self.give(done)

    def _take(self, decoder: Instance) -> None:
        for output in decoder.advance(self.now_s):
            if isinstance(output, Pulled):
                assert output.done.source == "p0"
                del self.held[output.done.request.request_id]
                self.source.release_kv(output.done, self.now_s)
            elif isinstance(output, Finished):
                self.finished.append(output)

    def _watch(self) -> None:
        held = sum(self.held.values())
        self.fullest = max(self.fullest, held)
        assert held <= self._ring_tokens
        assert sum(done.request.input_tokens for done in self.source.unpulled) == held
        for each in [self.source, *self.decoders]:
            assert each.load(self.now_s).kv_used_fraction <= 1.0


@pytest.mark.parametrize("seed", range(6))
def test_every_request_finishes_once_however_small_the_bounds(seed: int) -> None:
    """Decode is far too slow for what comes, closes now and then, and hands back what it has not pulled."""
    dice = Random(seed)
    pipe = Pipe(ring_tokens=dice.choice([4000, 9000, 30_000]), capacity_tokens=5000, max_sequences=dice.choice([1, 4]))
    at_s, closed = 0.0, 0
    for number in range(150):
        at_s += dice.expovariate(40.0)
        pipe.live(at_s)
        pipe.source.submit(Request(number, at_s, dice.randint(10, 4000), dice.choice([1, dice.randint(2, 60)])), at_s)
        decoder = dice.choice(pipe.decoders)
        if decoder.phase is not Phase.SERVING:
            decoder.reopen(at_s)
        elif dice.random() < 0.2 and all(each.phase is Phase.SERVING for each in pipe.decoders):
            closed += 1
            pipe.close(decoder)
    pipe.live(1e4)
    assert sorted(item.request.request_id for item in pipe.finished) == list(range(150))
    assert closed > 5
    assert pipe.held == {}
    assert pipe.source.load(1e4).kv_used_fraction == 0.0
    assert pipe.fullest > 3500


def test_slow_decode_slows_prefill_down_to_its_own_pace() -> None:
    """Back-pressure: the prefill side may be ahead by a ring and no more."""
    quick, slow = Pipe(10**6, 10**6, 256), Pipe(8000, 5000, 1)
    for pipe in (quick, slow):
        for number in range(60):
            pipe.source.submit(Request(number, 0.0, 2000, 100), 0.0)
        pipe.live(5.0)
    assert quick.source.load(5.0).finished == 60
    ahead = slow.source.load(5.0).finished - len(slow.finished)
    assert 4 <= ahead <= 4 + 2  # a ring, and what each decode instance has pulled
    assert slow.source.load(5.0).finished < 30


def test_a_prefill_instance_is_drained_when_its_last_cache_has_been_pulled() -> None:
    pipe = Pipe(30_000, 10_000, 1)
    for number in range(8):
        pipe.source.submit(Request(number, 0.0, 2000, 100), 0.0)
    pipe.live(0.2)
    pipe.source.close(0.2)
    busy_s = 0.0
    while not pipe.drained:
        busy_s = pipe.now_s if pipe.held else busy_s
        pipe.live(pipe.now_s + 0.05)
    assert pipe.held == {}
    assert busy_s > 0.5
    pipe.source.switch(Role.DECODE, pipe.now_s)


def test_pulled_comes_out_when_the_sequence_joins() -> None:
    decoder = Instance("d0", Role.DECODE, MI300X, FULL)
    first, second = (PrefillDone(Request(number, 0.0, 1000, 50), 0.0, 0.1, "p0") for number in (1, 2))
    decoder.receive_kv(first, 0.0)
    pull_s = MI300X.pull_s(1000)
    assert decoder.advance(pull_s) == [Pulled(first, pull_s)]
    decoder.receive_kv(second, pull_s, remote=True)
    remote_s = MI300X.pull_s(1000, remote=True)
    assert remote_s != pull_s
    steps_s = [MI300X.decode_step_s(1, 1001 + step, 750_000) for step in range(20)]
    ends_s = [pull_s + sum(steps_s[: step + 1]) for step in range(20)]
    joins_s = next(
        end_s for end_s in ends_s if end_s >= pull_s + remote_s
    )  # the end of the step in which the pull ends
    (pulled,) = decoder.advance(joins_s + 1e-6)
    assert pulled == Pulled(second, pulled.at_s)
    assert pulled.at_s == pytest.approx(joins_s, rel=1e-12)
