"""The forms in which traces are published, line by line: ours, Azure's and Mooncake's.

A form is known by the first line of its file, never by the file's name.

rapid     CSV: seconds from the start of the trace, sorted
azure     CSV of Azure/AzurePublicDataset, 2023 and 2024; the first request arrives at 0 s
mooncake  JSON lines of kvcache-ai/Mooncake: milliseconds, rounded to steps of 3 s; other keys are ignored
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from math import isfinite
from typing import Any

SHOWN = 60  # characters of a bad line in its error
Columns = tuple[str, str, str]


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One line of a trace; arrival_s counts from the trace's start."""

    arrival_s: float
    input_tokens: int
    output_tokens: int


class Fault(Enum):
    """Why a line is no request; by these values skipped lines are counted."""

    MALFORMED = "malformed"
    MISSING = "missing value"
    NOT_A_NUMBER = "not a number"
    NEGATIVE = "negative or no tokens"
    UNSORTED = "unsorted"
    GAP = "a day or more after the last"
    CAPACITY = "beyond KV capacity"


class BadLine(ValueError):
    """A line that is no request; the text says why, without its place."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


LineReader = Callable[[str], Arrival]


@dataclass(frozen=True, slots=True)
class Form:
    """How lines become arrivals. `reader` makes one that reads the lines of a file in order; it raises BadLine."""

    name: str
    columns: Columns
    has_header: bool
    reader: Callable[[], LineReader]
    step_s: float = 0.0  # to which its arrivals are rounded down


def form_of(first_line: str) -> Form | None:
    """The form that begins with this line; None: it is no trace."""
    names = tuple(name.strip() for name in first_line.split(","))
    for form in (RAPID, AZURE):
        if names == form.columns:
            return form
    try:
        record = _record(first_line)
    except BadLine:
        return None
    return MOONCAKE if record.keys() >= set(MOONCAKE.columns) else None


def _rapid_reader() -> LineReader:
    return _read_rapid


def _read_rapid(line: str) -> Arrival:
    at, *tokens = _values(line, RAPID.columns)
    try:
        arrival_s = float(at)
    except ValueError:
        raise _no_number(RAPID.columns[0], at, "number of seconds") from None
    _check_time(RAPID.columns[0], arrival_s)
    return Arrival(arrival_s, *_tokens(RAPID.columns, tokens))


def _azure_reader() -> LineReader:
    start: datetime | None = None

    def read(line: str) -> Arrival:
        nonlocal start
        at, *tokens = _values(line, AZURE.columns)
        try:
            moment = datetime.fromisoformat(at.strip())  # To the microsecond: a seventh digit is dropped.
            start = start or moment
            arrival_s = (moment - start).total_seconds()
        except (ValueError, TypeError):  # The latter, if only one of the two has a zone.
            raise _no_number(AZURE.columns[0], at, "date and time as in the line before") from None
        return Arrival(arrival_s, *_tokens(AZURE.columns, tokens))

    return read


def _mooncake_reader() -> LineReader:
    return _read_mooncake


def _read_mooncake(line: str) -> Arrival:
    record = _record(line)
    for column in MOONCAKE.columns:
        if column not in record:
            raise BadLine(Fault.MISSING, f"{column} is missing in {shown(line)}")
    at_ms, *tokens = (record[column] for column in MOONCAKE.columns)
    for column, value in zip(MOONCAKE.columns[1:], tokens, strict=True):
        if type(value) is not int:  # A bool is an int by birth only.
            raise _no_number(column, json.dumps(value), "whole number")
    try:
        arrival_s = at_ms / 1e3
    except (TypeError, OverflowError):
        raise _no_number("timestamp", json.dumps(at_ms), "number of milliseconds") from None
    _check_time("timestamp", arrival_s)
    return Arrival(arrival_s, *tokens)


RAPID = Form("rapid", ("arrival_s", "input_tokens", "output_tokens"), True, _rapid_reader)
AZURE = Form("azure", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), True, _azure_reader)
MOONCAKE = Form("mooncake", ("timestamp", "input_length", "output_length"), False, _mooncake_reader, step_s=3.0)
FORMS = (
    f"CSV with the header {','.join(RAPID.columns)}, Azure's with {','.join(AZURE.columns)}, "
    f"or Mooncake's JSON lines with {', '.join(MOONCAKE.columns)}"
)


def shown(text: str) -> str:
    """As much of what was read as an error line can hold."""
    return repr(text[:SHOWN])


def _values(line: str, columns: Columns) -> list[str]:
    values = line.split(",")
    if len(values) != len(columns):
        fault = Fault.MISSING if len(values) < len(columns) else Fault.MALFORMED
        raise BadLine(fault, f"{shown(line)} is not the {len(columns)} values {','.join(columns)}")
    return values


def _tokens(columns: Columns, texts: list[str]) -> tuple[int, int]:
    try:
        return int(texts[0]), int(texts[1])
    except ValueError:
        pass
    for column, text in zip(columns[1:], texts, strict=True):
        try:
            int(text)
        except ValueError:
            raise _no_number(column, text, "whole number") from None
    raise AssertionError(texts)


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadLine(Fault.MALFORMED, f"{shown(line)} is not a JSON object")
    return record


def _check_time(column: str, arrival_s: float) -> None:
    if not isfinite(arrival_s):
        raise BadLine(Fault.NOT_A_NUMBER, f"{column} {arrival_s} is not a time")
    if arrival_s < 0:
        raise BadLine(Fault.NEGATIVE, f"{column} {arrival_s:g} s is before the start of the trace")


def _no_number(column: str, text: str, what: str) -> BadLine:
    if not text.strip():
        return BadLine(Fault.MISSING, f"{column} is missing")
    return BadLine(Fault.NOT_A_NUMBER, f"{column} {shown(text.strip())} is not a {what}")
