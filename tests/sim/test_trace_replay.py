"""The second pass: which stretch of a trace becomes the requests of a run, and how fast."""

import pytest

from rapid.core.errors import TraceInvalid, UsageError
from rapid.sim.model.requests import Request
from rapid.sim.traces.loader import open_trace
from rapid.sim.traces.reading import Reading
from rapid.sim.traces.replay import Replay, requests
from rapid.sim.traces.stats import scan
from tests.sim.traces import rapid_trace, steady_trace

TRACE = rapid_trace("0,1,1", "1,2,2", "2,3,3", "3,4,4", "4,5,5")


def replay(how: Replay) -> list[Request]:
    return list(requests(TRACE, Reading(), how, scan(TRACE, Reading())))


def test_a_trace_as_it_is() -> None:
    assert replay(Replay()) == [Request(n, float(n), n + 1, n + 1) for n in range(5)]


def test_a_scale_divides_times() -> None:
    assert [item.arrival_s for item in replay(Replay(rate_scale=4.0))] == [0, 0.25, 0.5, 0.75, 1.0]


def test_a_rate_becomes_the_mean_rate_of_what_the_rules_leave() -> None:
    reading = Reading(max_tokens=1_000_000, max_input=8192)
    trace = open_trace("mooncake")
    found = list(requests(trace, reading, Replay(rate_rps=12.0), scan(trace, reading)))
    assert len(found) / (found[-1].arrival_s - found[0].arrival_s) == pytest.approx(12.0)
    assert max(item.input_tokens for item in found) <= 8192


def test_a_stretch_begins_in_the_time_of_the_trace_and_lasts_in_that_of_the_run() -> None:
    found = replay(Replay(rate_scale=2.0, start_s=1.5, seconds=1.0))
    assert found == [Request(0, 0.25, 3, 3), Request(1, 0.75, 4, 4)]


def test_the_end_of_a_stretch_does_not_belong_to_it() -> None:
    assert [item.arrival_s for item in replay(Replay(start_s=1.0, seconds=2.0))] == [0, 1]


def test_a_limit_counts_requests() -> None:
    assert [item.input_tokens for item in replay(Replay(limit=2, start_s=2.0))] == [3, 4]


def test_requests_stream() -> None:
    """Not a line more than needed is asked for: the trace would never end."""
    endless = steady_trace(10**12)
    found = requests(endless, Reading(), Replay(rate_scale=10.0, limit=3))
    assert [item.arrival_s for item in found] == pytest.approx([0, 0.01, 0.02])
    assert len(list(requests(endless, Reading(), Replay(seconds=5.0)))) == 50


def test_a_stretch_without_a_request_is_an_error() -> None:
    with pytest.raises(TraceInvalid, match=r"^trace x: no request in the stretch from 9 s$"):
        replay(Replay(start_s=9.0))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Replay(rate_rps=2.0, rate_scale=3.0), "rate 2 requests/s and rate scale 3: give one of them"),
        (Replay(rate_rps=0.0), "rate 0 is not above 0"),
        (Replay(rate_scale=-1.0), "rate scale -1 is not above 0"),
        (Replay(rate_scale=float("nan")), "rate scale nan is not above 0"),
    ],
)
def test_a_speed_that_cannot_be_is_refused_at_once(how: Replay, words: str) -> None:
    with pytest.raises(UsageError, match=f"^{words}$"):
        requests(TRACE, Reading(), how, scan(TRACE, Reading()))
