"""The counters of an instance."""

from rapid.core.latency_counter import LatencyCounter
from rapid.sim.model.tally import Tally


def test_a_histogram_is_made_anew_only_after_a_new_duration() -> None:
    counter = LatencyCounter()
    counter.observe(0.5)
    first = counter.histogram()
    assert counter.histogram() is first
    counter.observe(0.5)
    assert (sum(first.counts), sum(counter.histogram().counts)) == (1, 2)


def test_a_copy_counts_for_itself() -> None:
    tally = Tally()
    tally.first_token(100, 0.5)
    before = tally.ttft.histogram()
    copied = tally.copy()
    copied.first_token(10, 0.5)
    copied.tpot.observe(0.02)
    assert (tally.prompt_tokens, tally.output_tokens, tally.ttft.histogram()) == (100, 1, before)
    assert (copied.prompt_tokens, copied.output_tokens, sum(copied.ttft.histogram().counts)) == (110, 2, 2)
    assert (sum(tally.tpot.histogram().counts), sum(copied.tpot.histogram().counts)) == (0, 1)
