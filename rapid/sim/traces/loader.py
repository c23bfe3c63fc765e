"""Traces from the package and from files: the one module of rapid.sim that reads anything.

It is here, and not in a shell, because a trace is part of the question that a simulation answers, and every shell that
asks (the demo, the simulator's commands, tests) needs the same traces. What it returns depends on nothing but the bytes
it reads; a trace that is streamed is read again at each pass.
"""

import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from gzip import BadGzipFile, GzipFile
from importlib import resources
from importlib.resources.abc import Traversable
from io import SEEK_END
from itertools import islice
from pathlib import Path
from typing import IO

from rapid.core.errors import TraceInvalid
from rapid.sim.traces.burst import burst_trace
from rapid.sim.traces.forms import FORMS, MOONCAKE, RAPID, form_of, shown
from rapid.sim.traces.reading import MixedTrace, Piece, Reading, TextTrace, Trace, read
from rapid.sim.traces.workload import MAX_REQUESTS, TraceWorkload, Workload, split_shift

PIECE_BYTES = 512 * 1024  # read at once
MAX_LINE_CHARACTERS = 1024 * 1024
GZIP_MAGIC, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A trace of the package: its name, one line about it, and its files: several are mixed; none: it is made."""

    name: str
    about: str
    files: tuple[str, ...]
    step_s: float = 0.0


_CONV, _CODE = "azure2023_conv", "azure2023_code"
SHIPPED = (
    Shipped("azure", "Azure 2023, chat and code services at once; code comes in bursts", (_CONV, _CODE)),
    Shipped("azure-conv", "Azure 2023, chat service in production", (_CONV,)),
    Shipped("azure-code", "Azure 2023, code completion in production: very bursty, tiny answers", (_CODE,)),
    Shipped("mooncake", "Kimi chat in production, long prompts", ("mooncake_conversation",), MOONCAKE.step_s),
    Shipped("mooncake-synthetic", "Mooncake's synthetic mix, Poisson; prompts grow", ("mooncake_synthetic",)),
    Shipped(
        "servegen-mlarge", "generated from a fleet's statistics; swings from prompts to answers", ("servegen_mlarge",)
    ),
    Shipped("servegen-r1", "generated likewise, reasoning: long answers", ("servegen_r1",)),
    Shipped("longbench", "LongBench up to 8K, Poisson at 1/s", ("rapid_longbench_le8k_unitpoisson",)),
    Shipped("longbench-trunc8k", "LongBench cut to 8K, Poisson at 1/s", ("rapid_longbench_trunc8k_unitpoisson",)),
    Shipped("sonnet", "1,000 x 8192 in, 128 out; then 1,000 x 512/512; 1/s", ("rapid_sonnet_shift_unitpoisson",)),
    Shipped("sonnet4", "sonnet twice over", ("rapid_sonnet_shift4_unitpoisson",)),
    Shipped("burst", "8192/128 and 512/512 in turns of 20 s, Poisson at 12/s", ()),
)


def open_trace(name: str) -> Trace:
    """A trace by the name of a shipped one, or from a file, plain or in gzip, in one of the forms of trace_forms.

    A shipped name wins over a file of that name; ./NAME is the file. Raises TraceInvalid for a file that cannot be
    read, or whose first line is of no known form; what is wrong further on is found when it is read.
    """
    shipped = next((item for item in SHIPPED if item.name == name), None)
    return _from_file(name) if shipped is None else _from_package(shipped)


def load_workload(name: str, max_tokens: int) -> Workload:
    """The whole of a trace in memory, as a workload for `rate` and the demo. No request may hold more than max_tokens.

    The two halves of `sonnet` become steady loads that last half of the time each. Raises TraceInvalid for a trace that
    cannot be opened, is bad or too long, or could not be replayed since nothing arrives after 0 s.
    """
    trace = open_trace(name)
    arrivals = tuple(islice(read(trace, Reading(max_tokens=max_tokens)), MAX_REQUESTS + 1))
    if len(arrivals) > MAX_REQUESTS:
        raise TraceInvalid(f"trace {name}: more than {MAX_REQUESTS:,} requests")
    if not arrivals or arrivals[-1].arrival_s == 0.0:
        raise TraceInvalid(f"trace {name}: no request arrives after 0 s, so it cannot be replayed")
    return split_shift(name, arrivals) if name == "sonnet" else TraceWorkload(name, arrivals)


def _from_package(shipped: Shipped) -> Trace:
    parts = tuple(
        TextTrace(shipped.name, RAPID, partial(_pieces, shipped.name, _packaged(file)), shipped.step_s)
        for file in shipped.files
    )
    if not parts:
        return burst_trace()
    return parts[0] if len(parts) == 1 else MixedTrace(shipped.name, parts)


def _packaged(file: str) -> Traversable:
    return resources.files("rapid.sim").joinpath("data", f"{file}_dev.csv.gz")


def _from_file(name: str) -> TextTrace:
    pieces = partial(_pieces, name, Path(name))
    with closing(pieces()) as begun:
        piece = next(begun, None)
    if piece is None:
        raise TraceInvalid(f"trace {name}: the file is empty; a trace is {FORMS}")
    form = form_of(piece.lines[0])
    if form is None:
        raise TraceInvalid(f"trace {name}, line 1: {shown(piece.lines[0])} begins no trace: that is {FORMS}")
    return TextTrace(name, form, pieces, form.step_s)


def _pieces(name: str, file: Traversable) -> Generator[Piece, None, None]:
    """The lines of a file, without their ends, as it is read. At least one line in each piece."""
    read_lines = 0
    try:
        with file.open("rb") as raw:
            for lines, share in _split(raw):
                yield Piece(lines, share)
                read_lines += len(lines)
    except UnicodeDecodeError as error:
        line = read_lines + 1 + error.object[: error.start].count(b"\n")
        byte = error.object[error.start]
        raise TraceInvalid(f"trace {name}, line {line}: byte {byte:#04x} is not text; a trace is {FORMS}") from error
    except (EOFError, BadGzipFile, zlib.error) as error:
        raise TraceInvalid(f"trace {name}: damaged gzip after line {read_lines}: {error}") from error
    except _TooLong as error:
        raise TraceInvalid(
            f"trace {name}, line {read_lines + 1}: longer than {MAX_LINE_CHARACTERS:,} characters"
        ) from error
    except OSError as error:
        hint = f"; give a file, or one of: {', '.join(item.name for item in SHIPPED)}"
        raise TraceInvalid(f"trace {name}: {error.strerror or error}{hint}") from error


class _TooLong(Exception):
    """A line that goes on and on."""


def _split(raw: IO[bytes]) -> Iterator[tuple[list[str], float]]:
    """Some whole lines, and the share of the file that has been read for them."""
    if not raw.seekable():
        raise OSError("not a file that can be read more than once; save it as one first")
    size = raw.seek(0, SEEK_END) or 1  # A device has no size.
    raw.seek(0)
    packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    raw.seek(0)
    with GzipFile(fileobj=raw) if packed else nullcontext(raw) as content:
        rest, begun = "", False
        while chunk := content.read(PIECE_BYTES):
            text = rest + (chunk if begun else chunk.removeprefix(BYTE_ORDER_MARK)).decode("ascii")
            *lines, rest = text.split("\n")
            begun = True
            if len(rest) > MAX_LINE_CHARACTERS:
                raise _TooLong
            if lines:
                yield lines, min(1.0, raw.tell() / size)
        if rest:
            yield [rest], 1.0
