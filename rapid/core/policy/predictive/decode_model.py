"""How long a decode step takes and how it slows down under a limit, learned from tokens and running sequences.

    step = (a + b B + c C) / speed(limit / natural draw) + host

Per knot of limit / natural draw the normal equations of a, b, c are kept, at prior speed; from these the coefficients
and the bend of the speed curve are found in turns. Coefficients are relative to the start profile's.
"""

from math import exp, log, log2

from rapid.core.policy.predictive.curve import KNOTS, TOP, Curve, bent, nearest, prior_values, rising, smooth
from rapid.core.policy.predictive.start import Start

_STIFFNESS = 1 / 0.05**2  # from knot to knot the shape may be off by 5 % (assumed)
_APART = 0.5  # how far one coefficient may be off by itself (assumed), besides the error that all three share
_LEAST = 0.05  # a coefficient by the start profile's
_SURE_PRECISION = 3000.0  # of the level; there half of the confidence is reached
_TERMS = 9  # of a knot: aa, ab, ac, bb, bc, cc; a, b, c
_GONE = 1e-6  # evidence that weighs no more than this is none
_OCTAVES = 10  # batches 1, 2, 4 .. 512
_OCTAVE_STIFFNESS = 1 / 0.04**2
_UNBOUND = 0.90  # a GPU that draws less than this part of its limit is not held back by it
_DRAW_PRECISION = 1 / 0.06**2  # of one reading, by the board's gain and what it catches of a step (assumed)

Three = tuple[float, float, float]
DecodeState = tuple[tuple[tuple[float, ...], ...], tuple[float, ...], Three, tuple[tuple[float, ...], ...]]


class Natural:
    """The draw of a decode step without a limit, by ceiling and batch: seen whenever a limit leaves it room."""

    def __init__(self, start: Start) -> None:
        self._prior = [start.natural_at(float(octave)) for octave in range(_OCTAVES)]
        self._weights = [0.0] * _OCTAVES
        self._sums = [0.0] * _OCTAVES  # of weight times log of draw over prior
        self._apply()

    def at(self, batch: float) -> float:
        """Natural draw / ceiling."""
        if batch <= 1.0:
            return self._values[0]
        octave = log2(batch)
        left = int(octave)
        if left >= _OCTAVES - 1:
            return self._values[-1]
        return self._values[left] + (self._values[left + 1] - self._values[left]) * (octave - left)

    def add(self, batch: float, limit: float, draw: float) -> None:
        """A reading, limit and draw by ceiling."""
        if draw < _UNBOUND * limit:
            octave = min(_OCTAVES - 1, int(log2(max(1.0, batch)) + 0.5))
            self._weights[octave] += _DRAW_PRECISION
            self._sums[octave] += _DRAW_PRECISION * log(min(1.2, max(0.2, draw)) / self._prior[octave])

    def forget(self, keep: float) -> None:
        self._weights = [weight * keep for weight in self._weights]
        self._sums = [each * keep for each in self._sums]

    def refit(self) -> None:
        self._apply()

    def state(self) -> tuple[tuple[float, ...], ...]:
        return tuple(self._weights), tuple(self._sums)

    def restore(self, state: tuple[tuple[float, ...], ...]) -> None:
        self._weights, self._sums = list(state[0]), list(state[1])
        self._apply()

    def _apply(self) -> None:
        seen = [each / weight if weight else 0.0 for each, weight in zip(self._sums, self._weights, strict=True)]
        bend = smooth(seen, self._weights, _OCTAVE_STIFFNESS, 1 / 0.2**2)
        self._values = rising(bent(self._prior, bend), [weight + 1.0 for weight in self._weights])


class DecodeModel:
    """All that a question needs is laid out by refit(), so that asking is cheap."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._prior = prior_values(start.decode_speed)
        self._first = (start.decode_ms / 1e3, start.decode_sequence_ms / 1e3, start.decode_context_ms / 1e3)
        self._ridge = _ridge(start.sure, _APART * min(1.0, start.sure))
        self._pull = 1 / start.sure**2
        self._sums = [[0.0] * _TERMS for _ in range(KNOTS)]
        self._bend = [0.0] * KNOTS  # log of true speed over prior speed
        self._parts: Three = (1.0, 1.0, 1.0)
        self.natural = Natural(start)
        self._apply()

    # ---- questions ----

    def step_s(self, batch: float, context_tokens: float, speed: float) -> float:
        """Seconds of a step of batch sequences with so much context each."""
        first, sequence, context, host, host_sequence = self._times
        return (first + batch * (sequence + context * context_tokens)) / speed + host + host_sequence * batch

    # ---- evidence ----

    def add(self, x: float, batch: float, context_tokens: float, step_s: float, error: float) -> None:
        """A mean step at limit / natural draw x. error: its relative standard deviation."""
        start = self._start
        speed = start.decode_speed(x) if x < 1.0 else 1.0
        a, b, c = self._first
        fa, fb, fc = a / speed, b * batch / speed, c * batch * context_tokens / speed
        work_s = step_s - (start.host_ms + start.host_sequence_ms * batch) / 1e3
        if work_s <= 0.0:
            return
        knot = nearest(x)
        pa, pb, pc = self._parts
        expected_s = (pa * fa + pb * fb + pc * fc) / exp(self._bend[knot] - self._bend[TOP])
        # What is far slower than believed must not count for more than what comes after it.
        weight = 1.0 / (error * max(expected_s, work_s)) ** 2
        wa, wb, wc = weight * fa, weight * fb, weight * fc
        new = (wa * fa, wa * fb, wa * fc, wb * fb, wb * fc, wc * fc, wa * work_s, wb * work_s, wc * work_s)
        self._sums[knot] = [old + more for old, more in zip(self._sums[knot], new, strict=True)]

    def forget(self, keep: float) -> None:
        """All evidence counts `keep` of what it did."""
        self._sums = [[term * keep for term in terms] if terms[0] > _GONE else [0.0] * _TERMS for terms in self._sums]
        self.natural.forget(keep)

    def refit(self) -> None:
        """Take the evidence in: coefficients at the speeds believed, then speeds at those coefficients."""
        self.natural.refit()
        self._fit_parts()
        weights = self._weights()
        seen = [0.0] * KNOTS
        pa, pb, pc = self._parts
        for knot, terms in enumerate(self._sums):
            if terms[0]:
                seen[knot] = log(_square(self._parts, terms) / (pa * terms[6] + pb * terms[7] + pc * terms[8]))
        self._bend = smooth(seen, weights, _STIFFNESS, self._pull)
        self._apply()

    # ---- memory ----

    def state(self) -> DecodeState:
        return tuple(tuple(terms) for terms in self._sums), tuple(self._bend), self._parts, self.natural.state()

    def restore(self, state: DecodeState) -> None:
        sums, bend, self._parts, natural = state
        self._sums, self._bend = [list(terms) for terms in sums], list(bend)
        self.natural.restore(natural)
        self._apply()

    def _fit_parts(self) -> None:
        """Ridge regression around the start profile, no coefficient below _LEAST."""
        total = [0.0] * _TERMS
        for knot, terms in enumerate(self._sums):
            if terms[0]:
                slow = exp(self._bend[TOP] - self._bend[knot])
                for term in range(6):
                    total[term] += slow * slow * terms[term]
                for term in range(6, _TERMS):
                    total[term] += slow * terms[term]
        aa, ab, ac, bb, bc, cc, va, vb, vc = total
        own, cross = self._ridge
        matrix = [
            [aa + own, ab + cross, ac + cross],
            [ab + cross, bb + own, bc + cross],
            [ac + cross, bc + cross, cc + own],
        ]
        at_start = own + 2 * cross
        self._parts = _not_below(_LEAST, matrix, [va + at_start, vb + at_start, vc + at_start])

    def _weights(self) -> list[float]:
        """The precision of the log speed at each knot."""
        top, pairs = self._bend[TOP], zip(self._bend, self._sums, strict=True)
        return [_square(self._parts, terms) * exp(2 * (top - by)) if terms[0] else 0.0 for by, terms in pairs]

    def _apply(self) -> None:
        weights, top = self._weights(), self._bend[TOP]
        values = rising(bent(self._prior, [each - top for each in self._bend]), [weight + 1.0 for weight in weights])
        self.speed = Curve([min(1.0, value / values[TOP]) for value in values])
        start, first = self._start, self._first
        pa, pb, pc = self._parts
        self._times = (
            pa * first[0],
            pb * first[1],
            pc * first[2],
            start.host_ms / 1e3,
            start.host_sequence_ms / 1e3,
        )
        precision = sum(weights) + self._pull
        self.confidence = precision / (precision + _SURE_PRECISION)  # 0 to 1


def _square(parts: Three, terms: list[float]) -> float:
    a, b, c = parts
    aa, ab, ac, bb, bc, cc = terms[:6]
    return a * a * aa + b * b * bb + c * c * cc + 2 * (a * b * ab + a * c * ac + b * c * bc)


def _ridge(shared: float, apart: float) -> tuple[float, float]:
    """Diagonal and other entries of the precision of three numbers with errors shared by all and errors apart."""
    own, together = apart**2, shared**2
    cross = -together / (own * (own + 3 * together))
    return 1 / own + cross, cross


def _not_below(least: float, matrix: list[list[float]], rights: list[float]) -> Three:
    """The solution of matrix x = rights with those coefficients held at `least` that would fall below it."""
    held: list[int] = []
    while True:
        free = [index for index in range(3) if index not in held]
        reduced = [[matrix[row][column] for column in free] for row in free]
        right = [rights[row] - least * sum([matrix[row][column] for column in held]) for row in free]
        solved = dict(zip(free, _solve(reduced, right), strict=True))
        low = [index for index in free if solved[index] < least]
        if not low:
            return (solved.get(0, least), solved.get(1, least), solved.get(2, least))
        held.append(min(low, key=lambda index: solved[index]))


def _solve(matrix: list[list[float]], rights: list[float]) -> list[float]:
    """Gauss without pivoting: the matrix is symmetric and positive definite."""
    size = len(rights)
    for column in range(size):
        for row in range(column + 1, size):
            factor = matrix[row][column] / matrix[column][column]
            matrix[row] = [each - factor * above for each, above in zip(matrix[row], matrix[column], strict=True)]
            rights[row] -= factor * rights[column]
    solved = [0.0] * size
    for row in range(size - 1, -1, -1):
        rest = sum([matrix[row][column] * solved[column] for column in range(row + 1, size)])
        solved[row] = (rights[row] - rest) / matrix[row][row]
    return solved
