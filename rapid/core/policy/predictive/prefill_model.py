"""What prefill costs and how it slows down under a limit, learned from tokens and busy time."""

from math import exp, log

from rapid.core.policy.predictive.curve import KNOTS, TOP, XS, Curve, bend_of, bent, concave, nearest, prior_values
from rapid.core.policy.predictive.start import Start

# Busy time is sampled, so an interval that is busy for certain tells more than one of which only the ends were seen.
_CERTAIN_WEIGHT = 4.0
_CERTAIN_VARIANCE = 0.03  # of the tokens of an interval, by what they take: batches end when they end (assumed)
_SAMPLED_VARIANCE = 0.20  # of the busy share of an interval of which the ends were seen (a coin's is .25)
_STIFFNESS = 1 / 0.02**2  # from knot to knot the shape may be off by 2 % (assumed)
_GIVE = 0.5  # its exponent by half (assumed)
_FULL_BATCH = 2000.0  # tokens that share the fixed part of a batch, at least (assumed)
_SURE_PRECISION = 150.0  # of the level; there half of the confidence is reached

PrefillState = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]


class PrefillModel:
    """Sums per knot of limit / ceiling, with forgetting: busy time at prior speed, work at prior cost, variance."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._prior = prior_values(start.prefill_speed)
        self._shape = [log(value) for value in self._prior]
        self._busy_s = [0.0] * KNOTS
        self._work_s = [0.0] * KNOTS
        self._variance = [0.0] * KNOTS
        self._bend = [0.0] * KNOTS  # log of true speed over prior speed, the level of the cost included
        self._pull = 1 / start.sure**2
        self._apply()

    # ---- questions ----

    def token_s(self, prompt_tokens: float, spread: float) -> float:
        """Seconds per token at full speed. spread: mean square of the prompts' lengths over their squared mean."""
        return self.slowness * self.prior_token_s(prompt_tokens, spread)

    def prior_token_s(self, prompt_tokens: float, spread: float) -> float:
        """The same, as the start profile has it."""
        start = self._start
        fixed_ms = start.prefill_ms / max(_FULL_BATCH, prompt_tokens)
        return (start.prefill_token_ms + start.prefill_square_ms * prompt_tokens * spread + fixed_ms) / 1e3

    # ---- evidence ----

    def add(self, x: float, busy_s: float, prior_work_s: float, interval_s: float, certain: bool) -> None:
        """An interval at limit / ceiling x: how long it was busy, and what its tokens cost by the start profile."""
        weight = _CERTAIN_WEIGHT if certain else 1.0
        variance = _CERTAIN_VARIANCE if certain else _SAMPLED_VARIANCE
        prior_speed = self._start.prefill_speed(x)
        knot = nearest(x)
        self._busy_s[knot] += weight * busy_s * prior_speed
        self._work_s[knot] += weight * prior_work_s
        self._variance[knot] += variance * (weight * interval_s * prior_speed) ** 2

    def forget(self, keep: float) -> None:
        """All evidence counts `keep` of what it did."""
        self._busy_s = [value * keep for value in self._busy_s]
        self._work_s = [value * keep for value in self._work_s]
        self._variance = [value * keep for value in self._variance]

    def refit(self) -> None:
        """Take the evidence in: a step of Newton's, which a knot without a single token survives."""
        weights = self._weights()
        seen = self._bend.copy()
        for knot, weight in enumerate(weights):
            if weight:
                expected_s = self._busy_s[knot] * exp(self._bend[knot])
                seen[knot] += min(1.5, max(-0.7, self._work_s[knot] / expected_s - 1.0))
        self._bend = bend_of(seen, weights, self._shape, stiffness=_STIFFNESS, pull=self._pull, give=_GIVE)
        self._apply()

    # ---- memory ----

    def state(self) -> PrefillState:
        return tuple(self._busy_s), tuple(self._work_s), tuple(self._variance), tuple(self._bend)

    def restore(self, state: PrefillState) -> None:
        busy_s, work_s, variance, bend = state
        self._busy_s, self._work_s, self._variance, self._bend = list(busy_s), list(work_s), list(variance), list(bend)
        self._apply()

    def _weights(self) -> list[float]:
        """The precision of the log speed at each knot."""
        sums = zip(self._busy_s, self._variance, strict=True)
        return [busy_s * busy_s / variance if busy_s > 1e-6 else 0.0 for busy_s, variance in sums]

    def _apply(self) -> None:
        weights = self._weights()
        values = concave(bent(self._prior, self._bend), [weight + 1.0 for weight in weights])
        self.slowness = 1.0 / values[TOP]  # of the true cost by the start profile's
        self.speed = Curve([value / values[TOP] for value in values])
        precision = sum(weights) + self._pull
        self.confidence = precision / (precision + _SURE_PRECISION)  # 0 to 1


assert XS[TOP] > 0.999, "the last knot is full power"
