"""Reading a trace: three forms, every kind of bad line, jitter, mixes."""

import json
import re
import tracemalloc
from itertools import pairwise

import pytest

from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.traces.forms import AZURE, MOONCAKE, RAPID, Arrival, Fault, Form, form_of
from rapid.sim.traces.reading import MAX_HELD_BACK, LineInvalid, MixedTrace, Omitted, Reading, Trace, read
from rapid.sim.traces.stats import scan
from tests.sim.traces import HEADER, rapid_trace, steady_trace, trace_of

MOST = 1_196_000  # tokens that an instance holds
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_2023 = (AZURE_HEADER, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
AZURE_2024 = (AZURE_HEADER, "2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,2399,6")
KIMI = (
    '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}',
    '{"timestamp": 3000, "input_length": 87169, "output_length": 402, "hash_ids": [0]}',
    '{"timestamp": 5999, "input_length": 1053, "output_length": 26, "hash_ids": []}',
)


def as_it_is(trace: Trace) -> list[Arrival]:
    return list(read(trace, Reading(max_tokens=MOST, jitter_s=0.0)))


def test_our_form() -> None:
    arrivals = as_it_is(rapid_trace("0,1,2", "1.5,30,4\r", " 1.5, 5, 6"))
    assert arrivals == [Arrival(0.0, 1, 2), Arrival(1.5, 30, 4), Arrival(1.5, 5, 6)]


def test_azure_as_published_in_2023_counts_from_its_first_request() -> None:
    assert as_it_is(trace_of(*AZURE_2023)) == [Arrival(0.0, 374, 44), Arrival(4.314579, 396, 109)]


def test_azure_as_published_in_2024_has_a_zone_and_drops_zeros() -> None:
    assert as_it_is(trace_of(*AZURE_2024)) == [Arrival(0.0, 2162, 5), Arrival(0.99007, 2399, 6)]


def test_an_azure_trace_can_be_read_twice() -> None:
    trace = trace_of(*AZURE_2023)
    assert as_it_is(trace) == as_it_is(trace)


def test_mooncake_as_published() -> None:
    assert as_it_is(trace_of(*KIMI)) == [Arrival(0.0, 6758, 500), Arrival(3.0, 87169, 402), Arrival(5.999, 1053, 26)]


@pytest.mark.parametrize(
    ("first", "form"),
    [
        (HEADER, RAPID),
        ("arrival_s, input_tokens, output_tokens\r", RAPID),
        (AZURE_HEADER, AZURE),
        (KIMI[0], MOONCAKE),
        ("arrival,in,out", None),
        ("", None),
        ('{"timestamp": 0}', None),
        ("[" * 100_000, None),
        ("7", None),
    ],
)
def test_a_form_is_known_by_its_first_line(first: str, form: Form | None) -> None:
    assert form_of(first) is form


OURS = (HEADER, "0,1,1")
BAD = [
    (OURS, "1,1", Fault.MISSING, "'1,1' is not the 3 values arrival_s,input_tokens,output_tokens"),
    (OURS, "", Fault.MISSING, "'' is not the 3 values"),
    (OURS, "1,1,1,1", Fault.MALFORMED, "'1,1,1,1' is not the 3 values"),
    (OURS, "1,,1", Fault.MISSING, "input_tokens is missing"),
    (OURS, " ,1,1", Fault.MISSING, "arrival_s is missing"),
    (OURS, "x,1,1", Fault.NOT_A_NUMBER, "arrival_s 'x' is not a number of seconds"),
    (OURS, "1,2.5,1", Fault.NOT_A_NUMBER, "input_tokens '2.5' is not a whole number"),
    (OURS, "1,1,x", Fault.NOT_A_NUMBER, "output_tokens 'x' is not a whole number"),
    (OURS, "1,1," + "9" * 10_000, Fault.NOT_A_NUMBER, "output_tokens '9999999"),
    (OURS, "nan,1,1", Fault.NOT_A_NUMBER, "arrival_s nan is not a time"),
    (OURS, "inf,1,1", Fault.NOT_A_NUMBER, "arrival_s inf is not a time"),
    (OURS, "-1,1,1", Fault.NEGATIVE, "arrival_s -1 s is before the start of the trace"),
    (OURS, "1,0,1", Fault.NEGATIVE, "input_tokens 0 is less than 1 token"),
    (OURS, "1,5,-3", Fault.NEGATIVE, "output_tokens -3 is less than 1 token"),
    ((HEADER, "5.5,1,1"), "4,1,1", Fault.UNSORTED, "arrival_s is 1.5 s before that of an earlier line; sort the trace"),
    (OURS, "90000,1,1", Fault.GAP, "arrival_s is 90000 s after the line before, or the start; more than 86400 s is"),
    (
        OURS,
        "1,1195999,2",
        Fault.CAPACITY,
        "1,195,999 input and 2 output tokens; the KV cache of an instance holds 1,196,000",
    ),
    (AZURE_2023, "yesterday,1,1", Fault.NOT_A_NUMBER, "TIMESTAMP 'yesterday' is not a date and time"),
    (AZURE_2023, AZURE_2024[1], Fault.NOT_A_NUMBER, "TIMESTAMP '2024-05-10 00:00:00.009930+00:00' is not a date and"),
    (AZURE_2023, "2023-11-16 18:15:40.6805900,1,1", Fault.UNSORTED, "TIMESTAMP is 10.3146 s before that of an earlier"),
    (AZURE_2023, "2023-11-16 18:15:51,1,", Fault.MISSING, "GeneratedTokens is missing"),
    (AZURE_2023, ",1,1", Fault.MISSING, "TIMESTAMP is missing"),
    (KIMI, "{", Fault.MALFORMED, "'{' is not a JSON object"),
    (KIMI, "[" * 100_000, Fault.MALFORMED, f"'{'[' * 60}' is not a JSON object"),
    (KIMI, '{"timestamp": 6000, "input_length": 1}', Fault.MISSING, "output_length is missing in '{"),
    (
        KIMI,
        '{"timestamp": "6000", "input_length": 1, "output_length": 1}',
        Fault.NOT_A_NUMBER,
        "timestamp '\"6000\"' is not a number of milliseconds",
    ),
    (
        KIMI,
        '{"timestamp": 1' + "0" * 400 + ', "input_length": 1, "output_length": 1}',
        Fault.NOT_A_NUMBER,
        "timestamp '1000000",
    ),
    (
        KIMI,
        '{"timestamp": 6000, "input_length": 1.5, "output_length": 1}',
        Fault.NOT_A_NUMBER,
        "input_length '1.5' is not a whole number",
    ),
    (
        KIMI,
        '{"timestamp": 6000, "input_length": 1, "output_length": true}',
        Fault.NOT_A_NUMBER,
        "output_length 'true' is not a whole number",
    ),
    (KIMI, '{"timestamp": NaN, "input_length": 1, "output_length": 1}', Fault.NOT_A_NUMBER, "timestamp nan is not a"),
    (KIMI, KIMI[0], Fault.UNSORTED, "timestamp is 5.999 s before that of an earlier line"),
]


@pytest.mark.parametrize(("good", "bad", "fault", "words"), BAD)
def test_a_bad_line_is_named_or_skipped_with_its_fault(
    good: tuple[str, ...], bad: str, fault: Fault, words: str
) -> None:
    trace = trace_of(*good, bad)
    with pytest.raises(LineInvalid, match=f"^trace x, line {len(good) + 1}: {re.escape(words)}") as caught:
        as_it_is(trace)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300

    omitted = Omitted()
    kept = list(read(trace, Reading(max_tokens=MOST, skip_bad=True, jitter_s=0.0), omitted=omitted))
    assert kept == as_it_is(trace_of(*good))
    assert omitted.counted() == ((fault, 1),)
    assert omitted.words() == f"1 line skipped ({fault.value})"


def test_every_fault_has_a_bad_line_above() -> None:
    assert {fault for _, _, fault, _ in BAD} == set(Fault)


def test_what_was_skipped_does_not_spoil_what_follows() -> None:
    trace = rapid_trace("0,1,1", "500000,1,1", "x,1,1", "1,1,1", "0.5,1,1", "2,1,1", "y,1,1")
    omitted = Omitted()
    kept = list(read(trace, Reading(skip_bad=True), omitted=omitted))
    assert [arrival.arrival_s for arrival in kept] == [0, 1, 2]
    assert omitted.counted() == ((Fault.NOT_A_NUMBER, 2), (Fault.UNSORTED, 1), (Fault.GAP, 1))
    assert omitted.words() == (
        "2 lines skipped (not a number), 1 line skipped (unsorted), 1 line skipped (a day or more after the last)"
    )


def test_prompts_beyond_max_input_are_left_out_even_where_they_would_be_bad() -> None:
    trace = rapid_trace("0,8192,1", "1,8193,1", "2,5000000,1", "3,10,1")
    omitted = Omitted()
    kept = list(read(trace, Reading(max_tokens=MOST, max_input=8192), omitted=omitted))
    assert [arrival.input_tokens for arrival in kept] == [8192, 10]
    assert (omitted.long_prompts, omitted.bad) == (2, {})
    assert omitted.words() == "2 long prompts left out"
    with pytest.raises(LineInvalid, match="line 4"):
        as_it_is(trace)


def test_round_trip_of_the_three_forms() -> None:
    """The same arrivals, written in each form, are read back."""
    arrivals = [Arrival(0.0, 10, 3), Arrival(0.25, 20, 4), Arrival(61.5, 30, 5)]
    ours = [f"{item.arrival_s},{item.input_tokens},{item.output_tokens}" for item in arrivals]
    azure = [
        f"2024-02-28 23:{59 + int(item.arrival_s // 60):02d}:{item.arrival_s % 60:010.7f},"
        f"{item.input_tokens},{item.output_tokens}"
        for item in arrivals[:2]
    ]
    azure.append("2024-02-29 00:00:01.5000000,30,5")  # over midnight, to a day of a leap year
    kimi = [
        json.dumps(
            {
                "timestamp": round(item.arrival_s * 1000),
                "input_length": item.input_tokens,
                "output_length": item.output_tokens,
            }
        )
        for item in arrivals
    ]
    assert as_it_is(rapid_trace(*ours)) == as_it_is(trace_of(AZURE_HEADER, *azure)) == arrivals
    assert as_it_is(trace_of(*kimi)) == arrivals


def test_jitter_spreads_steps_and_keeps_the_requests_in_order() -> None:
    lines = [f"{3 * (number // 30)},{number + 1},1" for number in range(3000)]
    trace, reading = rapid_trace(*lines), Reading(jitter_s=3.0, seed=7)
    spread = list(read(trace, reading))
    assert all(before.arrival_s <= after.arrival_s for before, after in pairwise(spread))
    put_off_s = [arrival.arrival_s - 3 * ((arrival.input_tokens - 1) // 30) for arrival in spread]
    assert sorted(arrival.input_tokens for arrival in spread) == list(range(1, 3001))
    assert min(put_off_s) >= 0
    assert max(put_off_s) <= 3
    assert sum(put_off_s) / 3000 == pytest.approx(1.5, rel=0.03)
    assert scan(trace, Reading()).gap_cv > 5
    assert scan(trace, reading).gap_cv == pytest.approx(1.0, abs=0.05)
    assert list(read(trace, reading)) == spread
    assert list(read(trace, Reading(jitter_s=3.0, seed=8))) != spread


def test_mooncake_is_jittered_by_its_step_unless_told_otherwise() -> None:
    trace = trace_of(*KIMI)
    assert trace.step_s == 3.0
    by_itself = list(read(trace, Reading()))
    assert by_itself == list(read(trace, Reading(jitter_s=3.0)))
    assert by_itself != as_it_is(trace)


@pytest.mark.parametrize("jitter_s", [-1.0, float("nan"), float("inf")])
def test_jitter_that_is_no_time_is_refused(jitter_s: float) -> None:
    with pytest.raises(UsageError, match=f"^jitter {jitter_s:g} s is not a time from 0 on$"):
        read(rapid_trace("0,1,1"), Reading(jitter_s=jitter_s))


def test_more_requests_than_jitter_can_hold_back_are_an_error() -> None:
    trace = steady_trace(MAX_HELD_BACK + 2, gap_s=0.0)
    with pytest.raises(TraceInvalid, match=r"^trace steady: more than 200,000 requests within 1 s of jitter$"):
        next(read(trace, Reading(jitter_s=1.0)))


def test_a_mix_is_in_order_and_lasts_as_long_as_its_shortest_part() -> None:
    long = rapid_trace("0,1,1", "1,1,1", "2,1,1", "2.5,1,1", "3,1,1", "4,1,1")
    short = rapid_trace("0.5,2,2", "1.5,2,2", "2.5,2,2")
    arrivals = as_it_is(MixedTrace("both", (long, short)))
    assert [(item.arrival_s, item.input_tokens) for item in arrivals] == [
        (0, 1),
        (0.5, 2),
        (1, 1),
        (1.5, 2),
        (2, 1),
        (2.5, 1),
        (2.5, 2),
    ]
    assert arrivals == as_it_is(MixedTrace("both", (short, long)))


def test_a_mix_with_an_empty_part_is_over_at_once() -> None:
    assert as_it_is(MixedTrace("both", (rapid_trace("1,1,1"), rapid_trace()))) == []


def test_memory_does_not_grow_with_the_trace() -> None:
    """Planted: to keep the arrivals of the longer one takes more than 2 MB."""

    def peak_bytes(requests: int, *, keep: bool = False) -> int:
        trace = MixedTrace("both", (steady_trace(requests), steady_trace(requests)))
        tracemalloc.start()
        try:
            if keep:
                list(read(trace, Reading()))
            else:
                assert scan(trace, Reading(jitter_s=1.0)).requests == 2 * requests
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(100)  # What is made once, as the digits of a number, is made here.
    small, large = peak_bytes(2_000), peak_bytes(20_000)
    assert large < small + 20_000
    assert peak_bytes(20_000, keep=True) > small + 2_000_000


def test_progress_rises_to_the_end() -> None:
    shares: list[float] = []
    scan(steady_trace(1000), Reading(), progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) == 11
    assert shares[-1] == 0.9
