"""From an engine's own counters to the load that is reported: lives, roles, waits, and counters that go back."""

from dataclasses import replace

import pytest

from rapid.core.cluster import Histogram, PhaseLoad, Role, SloTargets
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Follower, Scraped, histogram
from rapid.core.slo import Slo

BOUNDS_S = (0.1, 1.0)


def counted(*counts: int) -> Histogram:
    return Histogram(BOUNDS_S, counts)


START = Scraped(0, 0, 0, ttft=counted(0, 0, 0), tpot=counted(0, 0, 0))
LATER = Scraped(
    waiting_requests=3,
    running_requests=2,
    finished=100,
    kv_used_fraction=0.5,
    computed_tokens=50_000,
    asked_tokens=50_000,
    asked_requests=100,
    output_tokens=9_000,
    ttft=counted(80, 15, 5),
    tpot=counted(90, 8, 2),
)


def after(said: Scraped, finished: int = 10, **changes: object) -> Scraped:
    """Ten requests more of 500 prompt tokens and 90 output tokens, all of them fast."""
    assert said.ttft is not None
    more = replace(
        said,
        finished=said.finished + finished,
        computed_tokens=said.computed_tokens + 500 * finished,
        asked_tokens=said.asked_tokens + 500 * finished,
        asked_requests=said.asked_requests + finished,
        output_tokens=said.output_tokens + 90 * finished,
        ttft=counted(said.ttft.counts[0] + finished, *said.ttft.counts[1:]),
        tpot=said.tpot and counted(said.tpot.counts[0] + finished, *said.tpot.counts[1:]),
    )
    return replace(more, **changes)  # type: ignore[arg-type]


def follow(*looks: Scraped, role: Role | None = None) -> PhaseLoad:
    """The load after these looks, one a second from 0 s on."""
    follower = Follower("i0", role)
    for at_s, said in enumerate(looks):
        load = follower.take(said, float(at_s))
    return load


# ---- counting ----


def test_the_first_look_is_the_base_and_gauges_count_at_once() -> None:
    load = follow(LATER)
    assert (load.waiting_requests, load.running_requests, load.kv_used_fraction) == (3, 2, 0.5)
    assert (load.finished, load.prompt_tokens, load.output_tokens) == (0, 0, 0)
    assert (load.ttft, load.tpot) == (counted(0, 0, 0), counted(0, 0, 0))
    assert load.arrived == 5


def test_what_was_added_between_two_looks_is_counted() -> None:
    load = follow(LATER, after(LATER), after(after(LATER)))
    assert (load.finished, load.prompt_tokens, load.output_tokens) == (20, 10_000, 1_800)
    assert (load.ttft.counts, load.tpot.counts) == ((20, 0, 0), (20, 0, 0))
    assert (load.at_s, load.arrived) == (2.0, 25)


@pytest.mark.parametrize("told", [True, False])
def test_a_restarted_engine_adds_what_it_has_done_since(told: bool) -> None:
    lives = ("a", "b") if told else ("", "")
    new = replace(after(START, 4), life=lives[1])
    follower = Follower("i0")
    follower.take(replace(LATER, life=lives[0]), 0.0)
    assert follower.lives == 0
    load = follower.take(new, 1.0)
    assert follower.lives == 1
    assert (load.finished, load.output_tokens, load.ttft.counts) == (4, 360, (4, 0, 0))
    assert follower.take(after(new), 2.0).finished == 14


def test_a_new_life_is_known_by_its_name_when_it_has_already_done_more_than_the_old() -> None:
    follower = Follower("i0")
    follower.take(replace(after(START, 4), life="a"), 0.0)
    load = follower.take(replace(LATER, life="b"), 1.0)
    assert (follower.lives, load.finished) == (1, 100)


def test_an_engine_with_other_buckets_is_another_life() -> None:
    follower = Follower("i0")
    follower.take(LATER, 0.0)
    other = Histogram((0.5,), (7, 1))
    load = follower.take(replace(after(START, 8), ttft=other), 1.0)
    assert follower.lives == 1
    assert (load.ttft, load.finished) == (other, 8)


@pytest.mark.parametrize("life", ["", "a"])
def test_a_counter_that_goes_back_costs_one_look_and_is_named(life: str) -> None:
    follower = Follower("i0")
    follower.take(replace(LATER, life=life), 0.0)
    wrong = after(replace(LATER, life=life), output_tokens=8_000)
    with pytest.raises(ScrapeFailed) as caught:
        follower.take(wrong, 1.0)
    assert str(caught.value) == (
        "output tokens went back from 9000 to 8000, and the engine did not restart; its load is left out once"
    )
    load = follower.take(after(replace(LATER, life=life)), 2.0)  # a glitch: it is as if it had not been
    assert (follower.lives, load.finished, load.output_tokens) == (0, 10, 900)


def test_a_counter_that_stays_back_is_where_counting_begins_anew() -> None:
    follower = Follower("i0")
    follower.take(LATER, 0.0)
    wrong = after(LATER, output_tokens=8_000)
    with pytest.raises(ScrapeFailed):
        follower.take(wrong, 1.0)
    assert follower.take(wrong, 2.0).output_tokens == 0
    assert follower.take(after(wrong), 3.0).output_tokens == 900


def test_a_bucket_that_goes_back_is_named() -> None:
    follower = Follower("i0")
    follower.take(LATER, 0.0)
    with pytest.raises(ScrapeFailed, match=r"^TTFT bucket 2 went back from 15 to 14, "):
        follower.take(after(LATER, ttft=counted(95, 14, 5)), 1.0)


def test_nothing_that_an_engine_does_makes_the_load_fall() -> None:
    looks = [LATER, after(LATER), START, after(START), LATER, replace(START, life="x"), after(LATER, life="y"), START]
    follower, slo = Follower("i0"), Slo(SloTargets(1.0, 0.04), 30.0)
    before = PhaseLoad("i0", Role.MIXED, 0.0)
    for at_s, said in enumerate(looks):
        try:
            load = follower.take(said, float(at_s))
        except ScrapeFailed:
            continue
        assert (load.arrived, load.finished, load.prompt_tokens, load.output_tokens) >= (
            before.arrived,
            before.finished,
            before.prompt_tokens,
            before.output_tokens,
        )
        if before.ttft.bounds_s:
            assert all(now >= then for now, then in zip(load.ttft.counts, before.ttft.counts, strict=True))
        slo.take(load, float(at_s))
        before = load
    assert slo.finished == load.finished


# ---- roles ----


def prefilling(said: Scraped, requests: int = 8) -> Scraped:
    """Each request computes its prompt, and ends with its first token."""
    return after(said, requests, output_tokens=said.output_tokens + requests)


def decoding(said: Scraped, requests: int = 8) -> Scraped:
    """Each request's prompt comes from a peer, but for its last tokens."""
    return after(
        said,
        requests,
        computed_tokens=said.computed_tokens + 16 * requests,
        received_tokens=said.received_tokens + 484 * requests,
    )


@pytest.mark.parametrize(("work", "role"), [(prefilling, Role.PREFILL), (decoding, Role.DECODE), (after, Role.MIXED)])
def test_what_an_engine_does_tells_its_role(work: object, role: Role) -> None:
    assert follow(START, work(START, 8)).role is role  # type: ignore[operator]


def test_a_decode_engine_that_computes_no_prompt_is_known_without_being_told_of_transfers() -> None:
    assert follow(START, after(START, 8, computed_tokens=0)).role is Role.DECODE


def test_seven_requests_tell_no_role_and_eight_do() -> None:
    assert follow(START, prefilling(START, 7)).role is Role.MIXED
    assert follow(START, prefilling(START, 7), prefilling(START, 8)).role is Role.PREFILL


def test_an_engine_that_has_served_before_is_known_at_once() -> None:
    assert follow(prefilling(START, 100)).role is Role.PREFILL


def test_a_role_change_is_seen_and_each_role_adds_to_its_own_latency() -> None:
    first = prefilling(START, 10)
    second = decoding(first, 10)
    load = follow(START, first, second)
    assert (load.role, sum(load.ttft.counts), sum(load.tpot.counts)) == (Role.DECODE, 10, 10)
    assert load.prompt_tokens == 5_000
    load = follow(START, first, second, prefilling(second, 10))
    assert (load.role, sum(load.ttft.counts), sum(load.tpot.counts)) == (Role.PREFILL, 20, 10)
    assert load.prompt_tokens == 10_000


def test_a_window_with_both_roles_in_it_is_mixed_until_the_next() -> None:
    few = prefilling(START, 8)
    both = decoding(prefilling(few, 4), 6)
    assert [follow(START, few).role, follow(START, few, both).role] == [Role.PREFILL, Role.MIXED]
    assert follow(START, few, both, decoding(both)).role is Role.DECODE


def test_what_the_engine_says_counts_before_what_it_does() -> None:
    assert follow(START, replace(prefilling(START), role=Role.DECODE)).role is Role.DECODE


def test_the_configured_role_counts_and_a_disagreement_says_what_to_do() -> None:
    follower = Follower("i0", Role.DECODE)
    follower.take(START, 0.0)
    assert follower.problem == ""
    load = follower.take(prefilling(START), 1.0)
    assert load.role is Role.DECODE
    assert follower.problem == (
        "configured as decode, its metrics say prefill; correct engine.i0.role, or leave it out if the role may change"
    )


def test_a_request_of_a_pair_counts_its_first_token_where_that_engine_measures_it() -> None:
    by_decode = replace(START, ttft_role=Role.DECODE)
    assert sum(follow(by_decode, after(by_decode), role=Role.DECODE).ttft.counts) == 10
    assert sum(follow(START, after(START), role=Role.DECODE).ttft.counts) == 0
    assert sum(follow(START, after(START), role=Role.PREFILL).tpot.counts) == 0


def test_a_latency_that_nobody_measures_is_said() -> None:
    follower = Follower("i0", Role.DECODE)
    follower.take(replace(START, tpot=None), 0.0)
    assert follower.problem == ""  # it has served nothing: its histogram may be still to come
    follower.take(decoding(replace(START, tpot=None)), 1.0)
    assert follower.problem == "its metrics have no histogram of TPOT, so as decode its TPOT is not measured"


# ---- waiting ----


def waiting(finished: int, running: int, waits: int) -> Scraped:
    return replace(START, finished=finished, running_requests=running, waiting_requests=waits)


def test_the_longest_wait_is_followed_first_come_first_served() -> None:
    follower = Follower("i0")
    # (finished, running, waiting) and what the oldest has been seen to wait
    looks = [
        ((0, 1, 0), 0.0),
        ((0, 1, 2), 0.0),
        ((0, 1, 2), 1.0),
        ((0, 1, 3), 2.0),
        ((2, 1, 1), 1.0),  # the first two have gone; the third was first seen a second ago
        ((3, 1, 0), 0.0),
    ]
    for at_s, (said, wait_s) in enumerate(looks):
        assert follower.take(waiting(*said), float(at_s)).oldest_wait_s == wait_s, at_s


def test_after_a_restart_nobody_has_waited_yet() -> None:
    follower = Follower("i0")
    follower.take(replace(waiting(50, 4, 30), life="a"), 0.0)
    assert follower.take(replace(waiting(50, 4, 30), life="a"), 1.0).oldest_wait_s == 1.0
    assert follower.take(replace(waiting(0, 1, 2), life="b"), 2.0).oldest_wait_s == 0.0
    assert follower.take(replace(waiting(0, 1, 2), life="b"), 3.0).oldest_wait_s == 1.0


def test_waiting_tokens_follow_the_prompts_of_late() -> None:
    assert follow(LATER).waiting_tokens == 1_500  # 500 each, over all it has served
    longer = after(LATER, 200, asked_tokens=LATER.asked_tokens + 200 * 4_000)
    assert 3 * 3_500 < follow(LATER, longer).waiting_tokens <= 3 * 4_000
    assert follow(START, replace(START, waiting_requests=3)).waiting_tokens == 0


# ---- Prometheus's buckets ----


def test_buckets_that_count_all_below_become_counts_of_their_own() -> None:
    assert histogram({1.0: 5, float("inf"): 9, 0.1: 3}) == Histogram((0.1, 1.0), (3, 2, 4))
    assert histogram({float("inf"): 9}) == Histogram((), (9,))


@pytest.mark.parametrize(
    ("buckets", "text"),
    [
        ({0.1: 1, 1.0: 2}, 'has no bucket le="+Inf"'),
        ({}, 'has no bucket le="+Inf"'),
        ({0.1: 3, 1.0: 2, float("inf"): 5}, "its bucket le=1 holds 2, fewer than the 3 of le=0.1"),
    ],
)
def test_buckets_that_make_no_histogram_are_refused(buckets: dict[float, int], text: str) -> None:
    with pytest.raises(ScrapeFailed) as caught:
        histogram(buckets)
    assert str(caught.value) == text
