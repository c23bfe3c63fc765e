"""When a statement counts as reproduced: written down before anything was measured, the same for every claim.

ratio    the paper says that x is s times y. Reproduced: ours is within 15 % of s and on the same side of 1, by 2 % or
         more. Partly: on the same side, at another distance. Not: a tie within 2 %, or the other side.
order    the paper says that x is better than y. Reproduced: by 2 % or more. Partly: a tie within 2 %. Not: worse.
band     the paper gives a number or a band. Reproduced: within it, widened as the claim says. Partly: within a second,
         wider band that still has the stated sense. Not: outside.
A claim of several parts is reproduced if all are, not if none is even partly, and else partly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

TOLERANCE = 0.15  # of a stated ratio
TIE = 0.02  # two rates or attainments that differ by less are equal: it is what the search for a rate resolves


class Verdict(Enum):
    """Whether what the paper states comes out of the simulation, too."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT = "not"


@dataclass(frozen=True, slots=True)
class Part:
    """One number of ours, in words, and whether it is as stated."""

    text: str
    verdict: Verdict


def ratio(stated: float, ours: float) -> Verdict:
    """Both above 0; stated is not 1."""
    same_side = ours >= 1 + TIE if stated > 1 else ours <= 1 - TIE
    if not same_side:
        return Verdict.NOT
    return Verdict.REPRODUCED if abs(ours / stated - 1) <= TOLERANCE else Verdict.PARTLY


def order(better: float, worse: float) -> Verdict:
    """better is stated to exceed worse; both above 0."""
    if better >= worse * (1 + TIE):
        return Verdict.REPRODUCED
    return Verdict.PARTLY if better > worse * (1 - TIE) else Verdict.NOT


def band(ours: float, stated: tuple[float, float], sense: tuple[float, float]) -> Verdict:
    """Within (low, high), bounds included; sense holds stated."""
    assert sense[0] <= stated[0] <= stated[1] <= sense[1]
    if stated[0] <= ours <= stated[1]:
        return Verdict.REPRODUCED
    return Verdict.PARTLY if sense[0] <= ours <= sense[1] else Verdict.NOT


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Of the parts of a claim, at least one."""
    first = verdicts[0]
    return first if all(verdict is first for verdict in verdicts) else Verdict.PARTLY


def overall(own: Verdict, elsewhere: Sequence[Verdict]) -> Verdict:
    """Of a claim that was judged in the profile's own corner and in others: a claim that only holds elsewhere is partly
    reproduced, since nobody has measured which corner is the true one."""
    if own is Verdict.NOT and Verdict.REPRODUCED in elsewhere:
        return Verdict.PARTLY
    return own
