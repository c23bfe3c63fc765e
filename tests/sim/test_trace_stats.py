"""The statistics of traces: those published with the shipped ones, and small ones counted by hand."""

import csv
import gzip
from importlib import resources

import numpy as np
import pytest

from rapid.core.errors import TraceInvalid
from rapid.sim.traces.loader import open_trace
from rapid.sim.traces.reading import Reading
from rapid.sim.traces.stats import Lengths, TraceStats, scan
from tests.sim.traces import rapid_trace, trace_of

AS_IT_IS = Reading(jitter_s=0.0)

# As computed by others when the traces were prepared: requests, duration s, rate /s, CV of gaps, peak/mean minute,
# Fano factor, input mean, p50, p95, p99, output mean, p50, p95, p99, in:out.
PUBLISHED = """
azure-code         6521  2055  3.17 12.85 3.33 161.6 2040  1460 7382  7436  27   13   87   248   74.65
azure-conv         12340 2100  5.88 1.08  1.44 15.5  1246  1024 4086  4123  204  115  451  602   6.11
mooncake           6848  2121  3.23 2.95  1.24 2.6   12566 7347 41086 89868 347  355  711  1162  36.21
mooncake-synthetic 2319  613   3.78 1.01  1.10 0.7   12552 4608 41977 56635 189  147  569  776   66.43
longbench          4000  3972  1.01 1.02  1.51 1.1   4109  3847 7600  8072  117  64   489  512   35.05
longbench-trunc8k  4000  4022  0.99 1.00  1.34 0.9   6269  8192 8192  8192  86   64   455  512   72.87
sonnet4            4000  4046  0.99 0.95  1.31 1.1   4352  4352 8192  8192  320  320  512  512   13.60
sonnet             2000  1929  1.04 1.02  1.30 0.9   4352  4352 8192  8192  320  320  512  512   13.60
servegen-mlarge    65491 21600 3.03 1.41  2.72 15.5  990   586  2413  3812  210  105  503  868   4.72
servegen-r1        32864 21599 1.52 1.09  3.00 11.1  975   56   4973  18687 1368 1074 3581 10774 0.71
"""


def numbers(stats: TraceStats) -> list[float]:
    assert stats.peak_to_mean is not None
    assert stats.fano is not None
    pace = [stats.requests, stats.duration_s, stats.rate_rps, stats.gap_cv, stats.peak_to_mean, stats.fano]
    lengths = [value for side in (stats.input, stats.output) for value in (side.mean, side.p50, side.p95, side.p99)]
    return [*pace, *lengths, stats.in_out_ratio]


@pytest.mark.parametrize("row", PUBLISHED.strip().splitlines(), ids=lambda row: row.split()[0])
def test_a_shipped_trace_is_as_its_source_says(row: str) -> None:
    name, *published = row.split()
    for found, text in zip(numbers(scan(open_trace(name), AS_IT_IS)), published, strict=True):
        last_digit = 10.0 ** -len(text.partition(".")[2])
        # Half of the last digit, and a little: some were rounded twice.
        assert found == pytest.approx(float(text), abs=0.56 * last_digit), (name, text)


def test_mooncake_becomes_poisson_by_its_own_jitter() -> None:
    stats = scan(open_trace("mooncake"), Reading())
    assert stats.jitter_s == 3.0
    assert stats.gap_cv == pytest.approx(1.0, abs=0.02)


def test_quantiles_and_gaps_are_those_of_numpy() -> None:
    packed = resources.files("rapid.sim").joinpath("data", "azure2023_code_dev.csv.gz").read_bytes()
    rows = list(csv.reader(gzip.decompress(packed).decode().splitlines()))[1:]
    times, inputs = np.array([float(row[0]) for row in rows]), np.array([int(row[1]) for row in rows])
    gaps = np.diff(times)
    stats = scan(open_trace("azure-code"), AS_IT_IS)
    assert (stats.input.p50, stats.input.p95, stats.input.p99) == pytest.approx(
        tuple(np.quantile(inputs, [0.5, 0.95, 0.99]))
    )
    assert stats.input.most == inputs.max()
    assert stats.gap_cv == pytest.approx(gaps.std() / gaps.mean())


def test_by_hand() -> None:
    """Minutes from the first request: 1, 0, 3, 0 requests, and one that is cut short and does not count."""
    lines = ("10,100,10", "130,200,10", "140,300,10", "189.9,400,30", "250,500,40")
    stats = scan(rapid_trace(*lines), Reading())
    assert (stats.requests, stats.duration_s, stats.rate_rps) == (5, 240, 5 / 240)
    assert stats.peak_to_mean == 3.0
    assert stats.fano == pytest.approx((10 / 4 - 1) / 1)
    assert stats.input == Lengths(300, 300, 480, 496, 500)
    assert stats.output.most == 40
    assert stats.in_out_ratio == 15.0
    assert stats.gap_cv == pytest.approx(np.std([120, 10, 49.9, 60.1]) / 60)


def test_even_gaps_have_no_variation() -> None:
    stats = scan(rapid_trace(*(f"{0.1 * number},1,1" for number in range(1000))), Reading())
    assert stats.gap_cv < 1e-6


def test_less_than_two_minutes_have_no_busiest_one() -> None:
    stats = scan(rapid_trace("0,1,1", "119.9,1,1"), Reading())
    assert (stats.peak_to_mean, stats.fano) == (None, None)
    assert scan(rapid_trace("0,1,1", "120,1,1"), Reading()).peak_to_mean == 2.0


def test_what_is_left_out_is_counted_and_does_not_count() -> None:
    lines = ("0,100,1", "1,9000,1", "x,1,1", "2,300,1", "1,1,1", "y,1,1")
    stats = scan(rapid_trace(*lines), Reading(max_input=8192, skip_bad=True))
    assert (stats.requests, stats.input.mean, stats.rate_rps) == (2, 200, 1.0)
    assert stats.long_prompts == 1
    assert stats.skipped == (("not a number", 2), ("unsorted", 1))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "it has no request$"),
        (("0,1,1",), "all requests arrive at once, so it has no rate$"),
        (("7,1,1", "7,1,1"), "all requests arrive at once, so it has no rate$"),
        (("x,1,1", "0,99,1"), r"it has no request; 1 long prompt left out, 1 line skipped \(not a number\)$"),
    ],
)
def test_a_trace_without_a_rate_says_why(lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(TraceInvalid, match=f"^trace x: {words}"):
        scan(rapid_trace(*lines), Reading(max_input=50, skip_bad=True))


def test_the_scan_checks_to_the_last_line() -> None:
    last = '{"timestamp": 9000, "input_length": 1}'
    first = '{"timestamp": 0, "input_length": 1, "output_length": 1}'
    with pytest.raises(TraceInvalid, match=r"^trace x, line 3: output_length is missing"):
        scan(trace_of(first, first, last), Reading())
