"""Traces as text, for tests."""

from collections.abc import Iterable, Iterator
from functools import partial

from rapid.sim.traces.forms import RAPID, form_of
from rapid.sim.traces.reading import Piece, TextTrace

HEADER = ",".join(RAPID.columns)


def trace_of(*lines: str, name: str = "x") -> TextTrace:
    """A trace of these lines, in the form of the first."""
    form = form_of(lines[0])
    assert form is not None, lines[0]
    return TextTrace(name, form, lambda: [Piece(list(lines), 1.0)], form.step_s)


def rapid_trace(*lines: str) -> TextTrace:
    """A trace of these lines below our header."""
    return trace_of(HEADER, *lines)


def steady_trace(requests: int, gap_s: float = 0.1) -> TextTrace:
    """A trace that is made as it is read, with as many requests as you like."""
    return TextTrace("steady", RAPID, partial(_steady_pieces, requests, gap_s), 0.0)


def _steady_pieces(requests: int, gap_s: float) -> Iterator[Piece]:
    yield Piece([HEADER], 0.0)
    for start in range(0, requests, 100):
        numbers: Iterable[int] = range(start, min(start + 100, requests))
        lines = [f"{number * gap_s:.3f},{100 + number % 50},{1 + number % 7}" for number in numbers]
        yield Piece(lines, start / requests)
