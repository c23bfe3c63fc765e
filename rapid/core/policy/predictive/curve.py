"""Relative speed over a grid of fractions of full power, bent by evidence: small sums in closed form, no iteration.

A curve is a prior shape times exp(bend). The bend is one power of the prior's shape, steeper or flatter all over, and a
random walk from knot to knot. So a bin nobody visited follows the prior's shape, as it is known from the others.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp

FIRST, STEP, KNOTS = 0.25, 0.05, 16  # fractions .25, .30 .. 1.0
XS = tuple(FIRST + STEP * knot for knot in range(KNOTS))
TOP = KNOTS - 1


def nearest(x: float) -> int:
    """The knot next to x."""
    return max(0, min(TOP, int((x - FIRST) / STEP + 0.5)))


class Curve:
    """Linear between the knots; in proportion to x below the first, constant above the last."""

    __slots__ = ("_slopes", "_values")

    def __init__(self, values: Sequence[float]) -> None:
        self._values = tuple(values)
        rises = [(right - left) / STEP for left, right in pairwise(values)]
        self._slopes = (*rises, 0.0)

    @property
    def values(self) -> tuple[float, ...]:
        return self._values

    def at(self, x: float) -> float:
        """The speed at a fraction above 0."""
        place = (x - FIRST) / STEP
        if place < 0.0:
            return self._values[0] * x / FIRST
        knot = int(place)
        if knot >= TOP:
            return self._values[TOP]
        return self._values[knot] + self._slopes[knot] * STEP * (place - knot)

    def slope(self, x: float) -> float:
        """What a little more of x adds, per unit of x."""
        place = (x - FIRST) / STEP
        if place < 0.0:
            return self._values[0] / FIRST
        knot = int(place)
        return 0.0 if knot >= TOP else self._slopes[knot]


def smooth(seen: Sequence[float], weights: Sequence[float], stiffness: float, pull: float) -> list[float]:
    """The bend m that minimises sum weights (m - seen)^2 + stiffness sum (m[k+1] - m[k])^2 + pull m[last]^2.

    A tridiagonal system (Thomas' algorithm). weights, stiffness and pull are precisions, one over variance.
    """
    last = len(seen) - 1
    pivots: list[float] = []
    rights: list[float] = []
    for knot, (value, weight) in enumerate(zip(seen, weights, strict=True)):
        diagonal = weight + stiffness * ((knot > 0) + (knot < last)) + (pull if knot == last else 0.0)
        right = weight * value
        if knot:
            factor = stiffness / pivots[-1]
            diagonal -= factor * stiffness
            right += factor * rights[-1]
        pivots.append(diagonal)
        rights.append(right)
    bend = [0.0] * len(pivots)
    bend[last] = rights[last] / pivots[last]
    for knot in range(last - 1, -1, -1):
        bend[knot] = (rights[knot] + stiffness * bend[knot + 1]) / pivots[knot]
    return bend


def bend_of(
    seen: Sequence[float],
    weights: Sequence[float],
    shape: Sequence[float],
    *,
    stiffness: float,
    pull: float,
    give: float,
) -> list[float]:
    """smooth(), with a multiple of `shape` (the log of the prior) besides; give: standard deviation of that multiple.

    The multiple is found first, in closed form, from what smoothing alone leaves over.
    """
    alone = smooth(seen, weights, stiffness, pull)
    smoothed = smooth(shape, weights, stiffness, pull)
    left, power = 0.0, 1 / give**2
    for weight, direction, value, calm, calm_shape in zip(weights, shape, seen, alone, smoothed, strict=True):
        if weight:
            left += weight * direction * (value - calm)
            power += weight * direction * (direction - calm_shape)
    multiple = left / power
    return [
        calm + multiple * (direction - calm_shape)
        for calm, direction, calm_shape in zip(alone, shape, smoothed, strict=True)
    ]


def concave(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """An increasing concave curve from the origin through values over XS, moved to their weighted mean.

    Slopes that rise are pooled (pool adjacent violators), which gives the least concave majorant; the scale then takes
    out what a majorant is too high by.
    """
    rises = [values[0] / FIRST, *((right - left) / STEP for left, right in pairwise(values))]
    widths = [FIRST, *([STEP] * TOP)]
    slopes = [-slope for slope in _pool([-rise for rise in rises], widths)]
    curve: list[float] = []
    height = 0.0
    for slope, width in zip(slopes, widths, strict=True):
        height += max(slope, 0.0) * width
        curve.append(height)
    return _moved(curve, values, weights)


def rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest curve that never falls (isotonic regression, pool adjacent violators). weights above 0."""
    return _pool(values, weights)


def prior_values(speed: Callable[[float], float]) -> tuple[float, ...]:
    """A prior shape on the knots."""
    return tuple(speed(x) for x in XS)


def bent(prior: Sequence[float], bend: Sequence[float]) -> list[float]:
    return [value * exp(by) for value, by in zip(prior, bend, strict=True)]


def _pool(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to values."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        count = 1
        while blocks and blocks[-1][0] >= value:
            mean, heavy, many = blocks.pop()
            value = (mean * heavy + value * weight) / (heavy + weight)
            weight, count = weight + heavy, count + many
        blocks.append((value, weight, count))
    return [mean for mean, _, many in blocks for _ in range(many)]


def _moved(curve: Sequence[float], values: Sequence[float], weights: Sequence[float]) -> list[float]:
    wanted = sum([weight * value for weight, value in zip(weights, values, strict=True)])
    there = sum([weight * value for weight, value in zip(weights, curve, strict=True)])
    scale = wanted / there
    return [value * scale for value in curve]
