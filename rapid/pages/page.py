"""One page of Prometheus text, read as it comes in: only the series that are wanted are parsed and kept.

An engine shows some thousand series and we want a few dozen, so picking lines by name before they are parsed makes a
page ten times cheaper. Everything is bounded while it is read: nobody can make us hold, or parse, a flood.
"""

import math
import re
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from rapid.core.cluster import Histogram
from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import histogram

PAGE_MAX_BYTES = 8 * 2**20  # assumed: engines with many ranks show a tenth of it
LINE_MAX_BYTES = 16 * 2**10  # labels are short; HELP lines too
SERIES_MAX = 4096  # wanted ones: 16 data-parallel ranks of vLLM show 1,000
BUCKETS_MAX = 256  # upper bounds of one histogram, as in a report
COUNT_MAX = 2**53  # a float counts no further
GAUGE_MAX = 10_000_000  # requests that wait or run in one engine (assumed: more is a mistake)

Labels = dict[str, str]
Series = tuple[Labels, float]


class Picker:
    """Which series are wanted, by name; made once for each kind of engine."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(f"{name}{end}".encode() for name in names for end in ("", "_bucket"))

    def pick(self, lines: bytes) -> list[bytes]:
        """The lines of wanted series. A set of names is five times faster here than a pattern of them."""
        names = self._names
        return [
            line for line in lines.split(b"\n") if (name := line.partition(b"{")[0].split(None, 1)) and name[0] in names
        ]


class Page:
    """Feed it what comes in, say `end`, then ask. Raises ScrapeFailed, whatever it is fed."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker
        self._series: dict[str, list[Series]] = {}
        self._seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        self._rest = b""
        self._bytes = 0
        self.engine = ""  # whose metrics these are, by the first part of their names; empty: nobody's we know

    def feed(self, data: bytes) -> None:
        """Take the next piece of the page."""
        self._bytes += len(data)
        if self._bytes > PAGE_MAX_BYTES:
            raise ScrapeFailed(f"its page is longer than {PAGE_MAX_BYTES // 2**20} MiB, the most that is read")
        text = self._rest + data
        lines, newline, self._rest = text.rpartition(b"\n")
        if len(self._rest) > LINE_MAX_BYTES:
            raise ScrapeFailed(f"its page has a line longer than {LINE_MAX_BYTES // 2**10} KiB")
        if newline:
            self._take(lines + newline)

    def end(self) -> None:
        """The page is whole."""
        self._take(self._rest + b"\n")
        self._rest = b""

    # ---- what the tables of engines ask ----

    def of(self, name: str, **labels: str) -> list[Series]:
        """Every series of this name that has these labels."""
        wanted = labels.items()
        return [series for series in self._series.get(name, ()) if wanted <= series[0].items()]

    def has(self, name: str) -> bool:
        return name in self._series or f"{name}_bucket" in self._series

    def count(self, name: str, **labels: str) -> int:
        """The sum of counters; 0 where there is none."""
        return total(name, self.of(name, **labels))

    def requests(self, name: str, **labels: str) -> int:
        """The sum of gauges that count requests; 0 where there is none."""
        return total(name, self.of(name, **labels), GAUGE_MAX)

    def fraction(self, name: str) -> float:
        """The greatest of gauges from 0 to 1: what is full first holds up the rest. 0 where there is none."""
        values = [value for _, value in self.of(name)]
        for value in values:
            if not 0.0 <= value <= 1.01:  # a ratio of counts may be a little off
                raise ScrapeFailed(f"{name} is {value:g}, outside 0..1")
        return min(1.0, max(values, default=0.0))

    def histogram(self, name: str, **labels: str) -> Histogram | None:
        """The sum of histograms; None where there is none."""
        grouped: dict[frozenset[tuple[str, str]], dict[float, int]] = {}
        for named, value in self.of(f"{name}_bucket", **labels):
            group = frozenset((label, text) for label, text in named.items() if label != "le")
            grouped.setdefault(group, {})[_bound(name, named)] = _count(f"{name}_bucket", value, COUNT_MAX)
        if not grouped:
            return None
        first, *others = grouped.values()
        if len(first) > BUCKETS_MAX + 1:
            raise ScrapeFailed(f"{name} has {len(first)} buckets, at most {BUCKETS_MAX + 1} are taken")
        if any(other.keys() != first.keys() for other in others):
            raise ScrapeFailed(f"{name} has not the same buckets in all of its series")
        try:
            return histogram({bound_s: sum(group[bound_s] for group in grouped.values()) for bound_s in first})
        except ScrapeFailed as wrong:
            raise ScrapeFailed(f"{name}: {wrong}") from wrong

    def label(self, name: str, label: str, **labels: str) -> set[str]:
        """Every value that a label has in the series of this name."""
        return {named[label] for named, _ in self.of(name, **labels) if label in named}

    # ---- inside ----

    def _take(self, lines: bytes) -> None:
        if not self.engine and (found := _ENGINES.search(lines)):
            self.engine = found[1].decode()
        wanted = self._picker.pick(lines)
        if not wanted:
            return
        if len(self._seen) + len(wanted) > SERIES_MAX:
            raise ScrapeFailed(f"more than {SERIES_MAX} series of the metrics that count: a flood of labels")
        try:
            text = b"\n".join(wanted).decode()
        except UnicodeDecodeError as error:
            raise ScrapeFailed("its page is not UTF-8 text") from error
        self._parse(text + "\n")

    def _parse(self, text: str) -> None:
        try:
            families = list(text_string_to_metric_families(text))
            samples = [(each.name, each.labels, float(each.value)) for one in families for each in one.samples]
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ScrapeFailed(f"its page is no Prometheus text: {str(error)[:80]!a}") from error
        for name, labels, value in samples:
            key = (name, frozenset(labels.items()))
            if key in self._seen:
                raise ScrapeFailed(f"{name} is there twice with the same labels")
            self._seen.add(key)
            self._series.setdefault(name, []).append((labels, value))


def total(name: str, series: Iterable[Series], most: int = COUNT_MAX) -> int:
    """The sum of series that count something, each and all at most `most`. Raises ScrapeFailed."""
    counted = sum(_count(name, value, most) for _, value in series)
    return _count(name, counted, most)


_ENGINES = re.compile(rb"^(vllm|sglang|dynamo_frontend|dynamo_component|smg)[:_]", re.MULTILINE)


def _count(name: str, value: float, most: int) -> int:
    """A whole number of things; a counter is a float on the wire."""
    if not 0 <= value <= most:  # NaN as well
        raise ScrapeFailed(f"{name} is {value:.16g}, outside 0..{most}")
    if value != int(value):
        raise ScrapeFailed(f"{name} is {value:g}, which is no whole number")
    return int(value)


def _bound(name: str, labels: Labels) -> float:
    try:
        bound_s = float(labels["le"])
    except (KeyError, ValueError) as error:
        raise ScrapeFailed(f"{name} has a bucket with le={labels.get('le', '')[:40]!a}, which is no bound") from error
    if math.isnan(bound_s) or bound_s < 0:
        raise ScrapeFailed(f"{name} has a bucket with le={labels['le'][:40]!a}, which is no bound")
    return bound_s
