"""`burst`: a made trace whose mix flips every 20 s between long prompts and long answers.

The two mixes are those of the RAPID paper's dynamic test (arXiv 2601.12241), which flips once in a thousand requests;
flips every few seconds ask how fast a controller is, and what its moves cost.
"""

from collections.abc import Iterator
from random import Random

from rapid.sim.traces.forms import RAPID
from rapid.sim.traces.reading import Piece, TextTrace

RATE_RPS = 12.0  # Poisson
FLIP_S = 20.0
LENGTH_S = 600.0
MIXES = ((8192, 128), (512, 512))  # input and output tokens


def burst_trace() -> TextTrace:
    """Always the same one, at 12 requests/s; sped up, it flips as much faster."""
    return TextTrace("burst", RAPID, _pieces, RAPID.step_s)


def _pieces() -> Iterator[Piece]:
    yield Piece([",".join(RAPID.columns)], 0.0)
    dice = Random("burst")
    now_s = dice.expovariate(RATE_RPS)
    while now_s < LENGTH_S:
        input_tokens, output_tokens = MIXES[int(now_s // FLIP_S) % len(MIXES)]
        yield Piece([f"{now_s:.5f},{input_tokens},{output_tokens}"], now_s / LENGTH_S)
        now_s += dice.expovariate(RATE_RPS)
