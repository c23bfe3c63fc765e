"""All that rapidctl prints: blocks become an aligned table or JSON. stdout is data, stderr is talk.

Colours go only to a terminal, and never while NO_COLOR is set. Text that came from afar loses its control characters,
so that no engine and no node can write to the operator's terminal.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TextIO

import click

GAP = "  "  # between columns
INDENT = "  "  # before what a line too long goes on with
LEAST_ELASTIC = 8  # columns that an elastic cell keeps, however narrow the terminal


class Tone(Enum):
    """What a text means, not how it looks."""

    PLAIN = "plain"
    STRONG = "strong"
    DIM = "dim"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


LOOKS: dict[Tone, dict[str, Any]] = {
    Tone.STRONG: {"bold": True},
    Tone.DIM: {"dim": True},
    Tone.GOOD: {"fg": "green"},
    Tone.WARN: {"fg": "yellow"},
    Tone.BAD: {"fg": "red", "bold": True},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One text with one meaning."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """`right` is for numbers. On a terminal that is too narrow, an `elastic` column is cut; the others never are."""

    title: str
    right: bool = False
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Cells side by side; no cells: an empty line."""

    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under aligned titles. Without rows nothing is printed."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


Block = Line | Table
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """What a verb has to say: `document` for machines, `blocks` for people."""

    document: Document
    blocks: tuple[Block, ...]


def line(text: str = "", tone: Tone = Tone.PLAIN) -> Line:
    """A line of one cell, or an empty one."""
    return Line((Cell(text, tone),)) if text else Line()


def show(page: Page, *, as_json: bool) -> None:
    """Print data on stdout."""
    if as_json:
        _put(to_json(page.document))
    else:
        for text in render(page.blocks, width=terminal_width(sys.stdout), colour=colourful(sys.stdout)):
            _put(text)


def talk(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Print one line for a person on stderr."""
    for rendered in render((line(text, tone),), width=None, colour=colourful(sys.stderr)):
        print(rendered, file=sys.stderr, flush=True)


def can_ask() -> bool:
    """Whether a person is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Ask a person, on stderr; the default is no, and so are Ctrl-C and the end of input."""
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort:
        talk("")
        return False


@contextmanager
def live() -> Iterator[Callable[[Sequence[Block]], None]]:
    """A full screen that each call of the yielded function draws anew; at the end the terminal is as it was before."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    with Live(console=console, screen=True, auto_refresh=False) as screen:

        def draw(blocks: Sequence[Block]) -> None:
            lines = render(blocks, width=console.width, colour=colourful(sys.stdout))
            if len(lines) > console.height:
                lines[console.height - 1 :] = [f"{len(lines) - console.height + 1} more lines need a taller terminal"]
            picture = Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop")
            screen.update(picture, refresh=True)

        yield draw


def is_terminal() -> bool:
    """Whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def colourful(stream: TextIO) -> bool:
    """Whether to colour what goes to this stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal; None: no terminal, so nothing need be cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def to_json(document: Document) -> str:
    """One line of JSON. Infinite and undefined numbers are our own mistake: JSON has none."""
    import json

    return json.dumps(document, allow_nan=False)


def render(blocks: Sequence[Block], *, width: int | None, colour: bool) -> list[str]:
    """The blocks as lines of text, no wider than `width` as far as words and columns allow."""
    lines: list[str] = []
    for block in blocks:
        lines += _table_lines(block, width, colour) if isinstance(block, Table) else _text_lines(block, width, colour)
    return lines


def _text_lines(block: Line, width: int | None, colour: bool) -> list[str]:
    """One line, or as many as its words need, the later ones indented."""
    lines, used = [""], 0
    for cell in block.cells:
        words = printable(cell.text).split(" ") if width else [printable(cell.text)]
        for number, word in enumerate(words):
            gap = " " if number else ""
            if width and used + len(gap + word) > width and used > len(INDENT):
                lines.append(INDENT)
                used, gap = len(INDENT), ""
            lines[-1] += _paint(gap + word, cell.tone, colour)
            used += len(gap + word)
    return lines


def _table_lines(table: Table, width: int | None, colour: bool) -> list[str]:
    if not table.rows:
        return []
    titles = tuple(Cell(column.title, Tone.DIM) for column in table.columns)
    rows = [tuple(Cell(printable(cell.text), cell.tone) for cell in row) for row in (titles, *table.rows)]
    sizes = _sizes(table.columns, rows, width)
    return [_row_line(table.columns, row, sizes, colour) for row in rows]


def _sizes(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> list[int]:
    sizes = [max(len(row[i].text) for row in rows) for i in range(len(columns))]
    if width is None:
        return sizes
    over = sum(sizes) + len(GAP) * (len(columns) - 1) - width
    for i in reversed(range(len(columns))):
        if columns[i].elastic and over > 0:
            cut = min(over, max(0, sizes[i] - max(LEAST_ELASTIC, len(columns[i].title))))
            sizes[i] -= cut
            over -= cut
    return sizes


def _row_line(columns: Sequence[Column], row: Sequence[Cell], sizes: Sequence[int], colour: bool) -> str:
    parts = []
    for column, cell, size in zip(columns, row, sizes, strict=True):
        text = cell.text if len(cell.text) <= size else cell.text[: size - 2] + ".."
        painted, pad = _paint(text, cell.tone, colour), " " * (size - len(text))
        parts.append(pad + painted if column.right else painted + pad)
    return GAP.join(parts).rstrip()


def _paint(text: str, tone: Tone, colour: bool) -> str:
    return click.style(text, **LOOKS[tone]) if colour and text and tone in LOOKS else text


def printable(text: str) -> str:
    """The text without control characters, line ends and other things that move a cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _put(text: str) -> None:
    print(text, flush=True)
