"""What is believed of an engine before it has been seen."""

from dataclasses import dataclass

from rapid.core.errors import ConfigInvalid

_GENTLE_KNEE, _GENTLE_GAIN = 0.80, 3.3  # decode under a limit on RTX PRO 6000, by limit / natural draw
_SHARP_KNEE, _SHARP_GAIN = 0.62, 30.0  # on B200
_MEASURED_FROM = 0.50  # below it, speed falls in proportion to the limit (assumed)
_NATURAL_PER_OCTAVE = 0.03  # by which the draw of a decode step grows as the batch doubles (2 to 9 % are composed)


@dataclass(frozen=True, slots=True)
class Start:
    """A start profile. The default is conservative: no engine of the simulator's profiles is much slower (assumed).

    A prompt of L tokens takes prefill_token_ms L + prefill_square_ms L^2, and a batch prefill_ms more, in ms; a decode
    step of B sequences with C tokens of context decode_ms + decode_sequence_ms B + decode_context_ms C, and the host's
    host_ms + host_sequence_ms B, which no limit slows down.

    prefill_exponent   speed of prefill is x ** (this * (1.5 - x)), x = limit / ceiling: steeper as the limit falls. The
                       default lies between the ends of the band of the simulator's profiles
    natural_fraction   draw of a decode step of 32 sequences without a limit, by ceiling
    sure               how far times may be off before they are doubted: one standard deviation, relative
    """

    prefill_ms: float = 2.0
    prefill_token_ms: float = 0.05
    prefill_square_ms: float = 6e-7
    prefill_exponent: float = 0.70
    decode_ms: float = 15.0
    decode_sequence_ms: float = 0.02
    decode_context_ms: float = 5e-5
    host_ms: float = 1.0
    host_sequence_ms: float = 0.01
    natural_fraction: float = 0.80
    sure: float = 1.0

    def __post_init__(self) -> None:
        for key in (
            "prefill_token_ms",
            "decode_ms",
            "decode_sequence_ms",
            "decode_context_ms",
            "natural_fraction",
            "sure",
        ):
            if not getattr(self, key) > 0:
                raise ConfigInvalid(f"policy.start.{key}", f"must be above 0, is {getattr(self, key):g}")
        if not 0 < self.prefill_exponent <= 1:
            raise ConfigInvalid("policy.start.prefill_exponent", f"{self.prefill_exponent:g} is outside 0..1")

    def prefill_speed(self, fraction: float) -> float:
        """By limit / ceiling."""
        return float(fraction ** (self.prefill_exponent * (1.5 - fraction))) if fraction < 1.0 else 1.0

    def decode_speed(self, fraction: float) -> float:
        """By limit / natural draw: the gentle knee, but where it was not seen yet a cliff is to be feared."""
        if fraction < _MEASURED_FROM:
            return self.decode_speed(_MEASURED_FROM) * fraction / _MEASURED_FROM
        gentle = 1.0 - _GENTLE_GAIN * max(0.0, _GENTLE_KNEE - fraction) ** 2
        sharp = 1.0 - _SHARP_GAIN * max(0.0, _SHARP_KNEE - fraction) ** 2
        return min(gentle, sharp)

    def natural_at(self, octave: float) -> float:
        """Natural draw of a decode step by ceiling; octave: log2 of the batch."""
        return self.natural_fraction * (1.0 + _NATURAL_PER_OCTAVE * (octave - 5.0))
