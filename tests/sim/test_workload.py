"""Workloads: traces in memory, sped up, mixed, and shifted by halves."""

from pathlib import Path

import pytest

from rapid.core.errors import TraceInvalid
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.loader import load_workload
from rapid.sim.traces.workload import ShiftWorkload, TraceWorkload, split_shift

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


@pytest.mark.parametrize("content", ["0,1,1\n", ""])
def test_a_trace_that_ends_as_it_begins_cannot_be_replayed(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(f"arrival_s,input_tokens,output_tokens\n{content}")
    with pytest.raises(TraceInvalid, match=r"a\.csv: no request arrives after 0 s, so it cannot be replayed$"):
        load_workload(str(tmp_path / "a.csv"), MOST)


def test_a_workload_fits_the_kv_cache(tmp_path: Path) -> None:
    with pytest.raises(TraceInvalid, match=r"line \d+: .* the KV cache of an instance holds 4,000$"):
        load_workload("azure-conv", 4_000)
    assert isinstance(load_workload("azure-conv", MOST), TraceWorkload)
