"""Traces: what is shipped, how they are sped up, and what a bad line is told."""

import gzip
from pathlib import Path

import pytest

from rapid.core.errors import TraceInvalid
from rapid.sim.loader import load_workload
from rapid.sim.workload import HEADER, Arrival, ShiftWorkload, TraceWorkload, mixed, parse_trace, split_shift

GOOD = f"{HEADER}\n0.0,100,10\n1.5,200,1\n"
MOST = 1_196_000


def test_azure_is_both_services_as_they_arrived() -> None:
    azure = load_workload("azure", MOST)
    requests = azure.requests(1.0, 2000.0)
    assert len(requests) == pytest.approx(2000 * (5.88 + 3.17), rel=0.05)
    assert [item.request_id for item in requests] == list(range(len(requests)))
    arrivals_s = [item.arrival_s for item in requests]
    assert arrivals_s == sorted(arrivals_s)
    assert requests[0] == requests[0].__class__(0, 0.0, 374, 44)  # the first line of the chat service
    code = [item for item in requests if item.input_tokens == 4808 and item.output_tokens == 10]
    assert code[0].arrival_s == 0.0  # and of the code service: both start at the start


def test_speeding_up_keeps_requests_and_divides_gaps() -> None:
    azure = load_workload("azure", MOST)
    slow, fast = azure.requests(1.0, 300.0), azure.requests(10.0, 30.0)
    assert len(slow) == len(fast)
    assert [item.arrival_s / 10 for item in slow] == pytest.approx([item.arrival_s for item in fast])
    assert max(item.arrival_s for item in fast) < 30.0


def test_a_trace_that_is_over_too_soon_says_which_speed_would_do() -> None:
    with pytest.raises(TraceInvalid, match=r"trace azure: at rate scale 50 it is over before 60 s; .* is 34\.\d\d$"):
        load_workload("azure", MOST).requests(50.0, 60.0)


@pytest.mark.parametrize("rate_rps", [5.0, 12.0, 60.0])
def test_sonnet_is_half_long_prompts_and_half_long_answers(rate_rps: float) -> None:
    requests = load_workload("sonnet", MOST).requests(rate_rps, 60.0)
    first = [item for item in requests if item.arrival_s < 30.0]
    second = requests[len(first) :]
    assert {(item.input_tokens, item.output_tokens) for item in first} == {(8192, 128)}
    assert {(item.input_tokens, item.output_tokens) for item in second} == {(512, 512)}
    assert len(first) == pytest.approx(30 * rate_rps, rel=0.15)
    assert len(second) == pytest.approx(30 * rate_rps, rel=0.15)
    assert requests[-1].arrival_s < 60.0


def test_a_steady_load_repeats_when_it_is_over() -> None:
    shift = ShiftWorkload("x", (Arrival(1.0, 1, 1), Arrival(2.0, 2, 2)), (Arrival(0.5, 3, 3), Arrival(4.0, 4, 4)))
    arrivals = [(item.arrival_s, item.input_tokens) for item in shift.requests(1.0, 12.0)]
    assert arrivals == [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6.5, 3), (10, 4), (10.5, 3)]


def test_the_halves_of_a_shift_keep_their_gaps() -> None:
    trace = tuple(Arrival(at_s, 1, 1) for at_s in (1.0, 3.0, 4.5, 7.0))
    shift = split_shift("x", trace)
    assert [item.arrival_s for item in shift.first] == [1.0, 3.0]
    assert [item.arrival_s for item in shift.second] == [1.5, 4.0]


def test_a_mix_lasts_as_long_as_its_shortest_trace() -> None:
    one = tuple(Arrival(float(at_s), 1, 1) for at_s in range(5))
    other = tuple(Arrival(at_s + 0.5, 2, 2) for at_s in range(3))
    assert [item.arrival_s for item in mixed("x", one, other).arrivals] == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_file_is_a_workload_plain_or_packed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    plain, packed = (load_workload(str(tmp_path / name), MOST) for name in ("a.csv", "a.csv.gz"))
    assert isinstance(plain, TraceWorkload)
    assert isinstance(packed, TraceWorkload)
    assert plain.arrivals == packed.arrivals == (Arrival(0.0, 100, 10), Arrival(1.5, 200, 1))


BAD = [
    ("arrival,in,out\n0,1,1\n", "line 1: header 'arrival,in,out' is not 'arrival_s,input_tokens,output_tokens'"),
    ("", "line 1: header '' is not"),
    (f"{HEADER}\n0,1\n", "line 2: '0,1' is not a number of seconds and two whole numbers of tokens"),
    (f"{HEADER}\n0,1,1\n1,x,1\n", "line 3: '1,x,1' is not a number of seconds"),
    (f"{HEADER}\n0,1,1\n1,2.5,1\n", "line 3: '1,2.5,1' is not"),
    (f"{HEADER}\n0,1,1\n\n1,1,1\n", "line 3: '' is not"),
    (f"{HEADER}\n5,1,1\n4,1,1\n", "line 3: arrival_s 4.0 is before 5.0 of the line before; sort the trace"),
    (f"{HEADER}\n-1,1,1\n", "line 2: arrival_s -1.0 is not a time from 0 on"),
    (f"{HEADER}\nnan,1,1\n", "line 2: arrival_s nan is not a time from 0 on"),
    (f"{HEADER}\ninf,1,1\n", "line 2: arrival_s inf is not a time from 0 on"),
    (f"{HEADER}\n0,0,1\n", "line 2: 0 input and 1 output tokens; at least 1 of each is needed"),
    (f"{HEADER}\n0,5,-3\n", "line 2: 5 input and -3 output tokens; at least 1 of each is needed"),
    (f"{HEADER}\n0,1195999,2\n", "line 2: 1,196,001 tokens together; the KV cache of an instance holds 1,196,000"),
    (f"{HEADER}\n", "no request arrives after 0 s, so it cannot be replayed"),
    (f"{HEADER}\n0,1,1\n", "no request arrives after 0 s, so it cannot be replayed"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(TraceInvalid) as caught:
        load_workload(str(path), MOST)
    assert str(caught.value).startswith(f"trace {path}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_names_what_is() -> None:
    with pytest.raises(
        TraceInvalid, match=r"^trace azur: No such file or directory; give a file, or one of: azure, sonnet"
    ):
        load_workload("azur", MOST)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.csv.gz", gzip.compress(GOOD.encode())[:-9], "not a whole gzip file"),
        ("plain.csv.gz", GOOD.encode(), "not a whole gzip file"),
        ("packed.csv", gzip.compress(GOOD.encode()), "byte 1 is not text; a trace is CSV or CSV in gzip"),
    ],
)
def test_a_broken_file_says_how(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceInvalid, match=message):
        load_workload(str(tmp_path / name), MOST)


def test_the_bound_on_the_length_of_an_error_line() -> None:
    with pytest.raises(TraceInvalid) as caught:
        parse_trace("x", [HEADER, "9" * 10_000], MOST)
    assert len(str(caught.value)) < 200
