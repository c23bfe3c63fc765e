"""`rapidctl sim trace`: what is in a trace, and which traces there are."""

from typing import TYPE_CHECKING

import click

from rapidctl import output
from rapidctl.commands._verb import Options, Verb
from rapidctl.output import Block, Cell, Column, Document, Page, Table, Tone, line
from rapidctl.sim.options import jitter_option

if TYPE_CHECKING:
    from rapid.sim.traces.loader import Shipped
    from rapid.sim.traces.reading import Reading
    from rapid.sim.traces.stats import Lengths, TraceStats

EXAMPLES = """
rapidctl sim trace                              the traces that come with RAPID
rapidctl sim trace azure                        rates, bursts and lengths of one
rapidctl sim trace my.csv.gz --skip-bad         a trace of yours; bad lines are left out and counted
rapidctl sim trace mooncake --max-input 8192 --json
"""
SHAPE = """
of a trace:
{"name", "requests", "duration_s", "rate_rps", "gap_cv", "peak_to_mean", "fano" (null: under two minutes),
 "input", "output": {"mean", "p50", "p95", "p99", "max"} (tokens), "in_out_ratio", "jitter_s",
 "long_prompts" (left out), "skipped": {"malformed", "missing value", "not a number", "negative or no tokens",
 "unsorted", "a day or more after the last", "beyond KV capacity": lines left out}}
without a trace: {"traces": [{"name", "about"}]}
"""
LENGTH_COLUMNS = (Column("TOKENS"), *(Column(title, right=True) for title in ("MEAN", "P50", "P95", "P99", "MAX")))
PACE_COLUMNS = (Column("PACE"), Column("", right=True), Column("", elastic=True))
NAME_COLUMNS = (Column("TRACE"), Column("WHAT IT IS", elastic=True))


@click.command(
    "trace",
    cls=Verb,
    examples=EXAMPLES,
    shape=SHAPE,
    help="Check a trace line by line and show its rates, bursts and lengths; without one, list what is shipped.\n\n"
    "A file is CSV, plain or in gzip, with the header arrival_s,input_tokens,output_tokens, or Azure's "
    "(TIMESTAMP,ContextTokens,GeneratedTokens), or Mooncake's JSON lines. The first bad line is an error.",
)
@click.argument("trace", required=False, metavar="[NAME|FILE]")
@click.option("--skip-bad", is_flag=True, help="Leave out bad lines and count them, instead of stopping.")
@click.option("--max-input", type=click.IntRange(1), metavar="TOKENS", help="Leave out requests with longer prompts.")
@jitter_option
@click.pass_obj
def command(
    options: Options, /, trace: str | None, skip_bad: bool, max_input: int | None, jitter_s: float | None
) -> None:
    from rapid.sim.traces.loader import SHIPPED
    from rapid.sim.traces.reading import Reading

    if trace is None:
        output.show(_list(SHIPPED), as_json=options.as_json)
        return
    reading = Reading(skip_bad=skip_bad, max_input=max_input, jitter_s=jitter_s)
    stats = _scan(trace, reading)
    output.show(Page(to_document(stats), tuple(blocks(stats, reading))), as_json=options.as_json)


def _scan(name: str, reading: "Reading") -> "TraceStats":
    from rapid.sim.traces.loader import open_trace
    from rapid.sim.traces.reading import LineInvalid
    from rapid.sim.traces.stats import scan
    from rapidctl.sim.progress import Progress

    with Progress(f"reading {name}") as progress:
        try:
            return scan(open_trace(name), reading, progress=progress)
        except LineInvalid as error:
            raise LineInvalid(f"{error} (--skip-bad leaves such lines out)") from error


def to_document(stats: "TraceStats") -> Document:
    """The statistics for machines."""
    return {
        "name": stats.name,
        "requests": stats.requests,
        "duration_s": stats.duration_s,
        "rate_rps": stats.rate_rps,
        "gap_cv": stats.gap_cv,
        "peak_to_mean": stats.peak_to_mean,
        "fano": stats.fano,
        "input": _lengths_document(stats.input),
        "output": _lengths_document(stats.output),
        "in_out_ratio": stats.in_out_ratio,
        "jitter_s": stats.jitter_s,
        "long_prompts": stats.long_prompts,
        "skipped": dict(stats.skipped),
    }


def blocks(stats: "TraceStats", reading: "Reading") -> list[Block]:
    """The statistics for people."""
    found: list[Block] = [
        line(f"{stats.name}: {stats.requests:,} requests in {stats.duration_s:,.0f} s", Tone.STRONG),
        *(line(text, Tone.WARN) for text in _left_out(stats, reading)),
    ]
    if stats.jitter_s:
        found.append(line(f"each arrival is put off by up to {stats.jitter_s:g} s (--jitter)"))
    found += [line(), _pace(stats), line()]
    rows = (_length_row("prompts", stats.input), _length_row("answers", stats.output))
    return [*found, Table(LENGTH_COLUMNS, rows)]


def _left_out(stats: "TraceStats", reading: "Reading") -> list[str]:
    """What is in the trace and not in the statistics."""
    found = []
    if stats.long_prompts:
        found.append(f"left out: {stats.long_prompts:,} with prompts of more than {reading.max_input:,} tokens")
    found += [f"skipped as bad: {number:,} ({why})" for why, number in stats.skipped]
    return found


def _pace(stats: "TraceStats") -> Table:
    facts = (
        ("rate", stats.rate_rps, "requests per second"),
        ("gaps", stats.gap_cv, "standard deviation / mean; 1 for Poisson, more for bursts"),
        ("busiest minute", stats.peak_to_mean, "times the mean minute"),
        ("minutes", stats.fano, "variance / mean of the requests per minute; 1 for Poisson"),
        ("in:out", stats.in_out_ratio, "tokens of prompts per token of answers"),
    )
    rows = tuple(
        (Cell(name), Cell("-" if value is None else f"{value:,.2f}"), Cell(meaning, Tone.DIM))
        for name, value, meaning in facts
    )
    return Table(PACE_COLUMNS, rows)


def _length_row(name: str, lengths: "Lengths") -> tuple[Cell, ...]:
    values = (lengths.mean, lengths.p50, lengths.p95, lengths.p99, lengths.most)
    return (Cell(name), *(Cell(f"{value:,.0f}") for value in values))


def _lengths_document(lengths: "Lengths") -> Document:
    return {
        "mean": lengths.mean,
        "p50": lengths.p50,
        "p95": lengths.p95,
        "p99": lengths.p99,
        "max": lengths.most,
    }


def _list(shipped: "tuple[Shipped, ...]") -> Page:
    document = {"traces": [{"name": item.name, "about": item.about} for item in shipped]}
    rows = tuple((Cell(item.name, Tone.STRONG), Cell(item.about)) for item in shipped)
    return Page(document, (Table(NAME_COLUMNS, rows), line(), line("or give a file; its first line tells its form")))
