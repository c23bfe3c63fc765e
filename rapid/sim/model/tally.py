"""What an instance counts: cumulative counters and latency histograms, as engines export them."""

from dataclasses import dataclass, field

from rapid.core.latency_counter import LatencyCounter


@dataclass(slots=True)
class Tally:
    """The counters of one instance. They only grow, through role changes too."""

    arrived: int = 0  # with those that were handed back later
    finished: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft: LatencyCounter = field(default_factory=LatencyCounter)
    tpot: LatencyCounter = field(default_factory=LatencyCounter)

    def first_token(self, prompt_tokens: int, ttft_s: float) -> None:
        """A prompt has been processed."""
        self.prompt_tokens += prompt_tokens
        self.output_tokens += 1
        self.ttft.observe(ttft_s)

    def copy(self) -> "Tally":
        return Tally(
            self.arrived, self.finished, self.prompt_tokens, self.output_tokens, self.ttft.copy(), self.tpot.copy()
        )
