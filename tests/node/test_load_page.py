"""A page of Prometheus text is read within its bounds, and whatever it holds, it is a page or one line of complaint."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid.core.errors import ScrapeFailed
from rapid.core.scraped import Follower
from rapid.pages.kinds import KINDS, read
from rapid.pages.page import BUCKETS_MAX, COUNT_MAX, GAUGE_MAX, LINE_MAX_BYTES, PAGE_MAX_BYTES, SERIES_MAX, Page, Picker
from rapid.wire.common import decode_push, encode_push
from tests.node.engines import PAGES, Sglang, Vllm, paged

PICKER = Picker(("waits", "done_total", "took_seconds", "full"))


def page(text: str | bytes) -> Page:
    return paged(PICKER, text.encode() if isinstance(text, str) else text)


# ---- what is taken ----


def test_only_wanted_series_are_kept() -> None:
    found = page("# HELP waits x\n# TYPE waits gauge\nwaits 2\nwaits_long 3\nawaits 4\nother{a='} 5\n")
    assert found.requests("waits") == 2
    assert not found.has("waits_long")


def test_series_are_chosen_by_their_labels() -> None:
    found = page('waits{a="1",b="x"} 2\nwaits{a="2",b="x"} 3\n')
    assert (found.requests("waits"), found.requests("waits", a="2")) == (5, 3)
    assert found.requests("waits", a="3") == 0
    assert found.label("waits", "a", b="x") == {"1", "2"}


def test_a_page_may_come_in_any_pieces() -> None:
    text = Vllm(ranks=2).page()
    whole = read("vllm", paged(KINDS["vllm"].picker, text))
    for size in (1, 7, 4096):
        pieces = Page(KINDS["vllm"].picker)
        for at in range(0, len(text), size):
            pieces.feed(text[at : at + size])
        pieces.end()
        assert read("vllm", pieces) == whole


def test_a_last_line_without_its_end_counts() -> None:
    assert page("waits 2").requests("waits") == 2


def test_a_number_may_be_written_as_the_format_allows_and_bear_a_time() -> None:
    found = page("waits +1.2e1 1795000000000\ndone_total\t7.0\n")
    assert (found.requests("waits"), found.count("done_total")) == (12, 7)


def test_histograms_are_summed_over_their_series() -> None:
    found = page(
        'took_seconds_bucket{a="1",le="0.5"} 1\ntook_seconds_bucket{a="1",le="+Inf"} 3\n'
        'took_seconds_bucket{a="2",le="0.5"} 10\ntook_seconds_bucket{a="2",le="+Inf"} 10\n'
    )
    histogram = found.histogram("took_seconds")
    assert histogram is not None
    assert (histogram.bounds_s, histogram.counts) == ((0.5,), (11, 2))
    assert found.histogram("took_seconds", a="3") is None


# ---- what is refused, and how ----


def complaints() -> Iterator[tuple[str | bytes, str]]:
    yield "waits NaN\n", "waits is nan, outside 0..10000000"
    yield "waits +Inf\n", "waits is inf, outside 0..10000000"
    yield "waits -1\n", "waits is -1, outside 0..10000000"
    yield "waits 1e300\n", "waits is 1e+300, outside 0..10000000"
    yield "waits 10000001\n", "waits is 10000001, outside 0..10000000"
    yield 'waits{a="1"} 10000000\nwaits{a="2"} 1\n', "waits is 10000001, outside 0..10000000"
    yield "waits 0.5\n", "waits is 0.5, which is no whole number"
    yield f"done_total {COUNT_MAX + 2}\n", "done_total is 9007199254740994, outside 0..9007199254740992"
    yield f"waits {'9' * 400}\n", "its page is no Prometheus text: 'int too large to convert to float'"
    yield "full 50\n", "full is 50, outside 0..1"
    yield "full NaN\n", "full is nan, outside 0..1"
    yield "waits x\n", "its page is no Prometheus text: \"could not convert string to float: 'x'\""
    yield "waits\n", "its page is no Prometheus text: "
    yield 'waits{a="1} 2\n', "its page is no Prometheus text: "
    yield b"waits\xff 2\nwaits 1\n", ""
    yield b'waits{a="\xff"} 2\n', "its page is not UTF-8 text"
    yield "waits 1\nwaits 1\n", "waits is there twice with the same labels"
    yield 'took_seconds_bucket{le="1"} 1\n', 'took_seconds: has no bucket le="+Inf"'
    yield 'took_seconds_bucket{le="x"} 1\n', "took_seconds has a bucket with le='x', which is no bound"
    yield 'took_seconds_bucket{le="NaN"} 1\n', "took_seconds has a bucket with le='NaN', which is no bound"
    yield 'took_seconds_bucket{le="-1"} 1\n', "took_seconds has a bucket with le='-1', which is no bound"
    yield "took_seconds_bucket 1\n", "took_seconds has a bucket with le='', which is no bound"
    yield (
        'took_seconds_bucket{le="1"} 2\ntook_seconds_bucket{le="+Inf"} 1\n',
        "took_seconds: its bucket le=inf holds 1, fewer than the 2 of le=1",
    )
    yield (
        'took_seconds_bucket{a="1",le="1"} 2\ntook_seconds_bucket{a="2",le="2"} 1\n',
        "took_seconds has not the same buckets in all of its series",
    )
    many = "".join(f'took_seconds_bucket{{le="{bound}"}} 1\n' for bound in range(BUCKETS_MAX + 1))
    yield (
        f'{many}took_seconds_bucket{{le="+Inf"}} 1\n',
        f"took_seconds has {BUCKETS_MAX + 2} buckets, at most {BUCKETS_MAX + 1} are taken",
    )
    flood = "".join(f'waits{{a="{number}"}} 1\n' for number in range(SERIES_MAX + 1))
    yield flood, f"more than {SERIES_MAX} series of the metrics that count: a flood of labels"
    yield f"# {'x' * LINE_MAX_BYTES}", "its page has a line longer than 16 KiB"
    yield "#\n" * (PAGE_MAX_BYTES // 2 + 1), "its page is longer than 8 MiB, the most that is read"


@pytest.mark.parametrize(("text", "complaint"), list(complaints()), ids=[text for _, text in complaints()])
def test_what_makes_no_sense_is_named(text: str | bytes, complaint: str) -> None:
    def look() -> None:
        found = page(text)
        found.requests("waits")
        found.count("done_total")
        found.fraction("full")
        found.histogram("took_seconds")

    if not complaint:
        look()
        return
    with pytest.raises(ScrapeFailed) as caught:
        look()
    assert str(caught.value).startswith(complaint)


def test_bounds_are_kept_at_their_edges() -> None:
    assert page(f"waits {GAUGE_MAX}\ndone_total {COUNT_MAX}\nfull 1.005\n").fraction("full") == 1.0
    flood = "".join(f'waits{{a="{number}"}} 1\n' for number in range(SERIES_MAX))
    assert page(flood).requests("waits") == SERIES_MAX


def test_a_flood_is_refused_while_it_comes_in_and_not_after() -> None:
    endless, piece = Page(PICKER), b"other 1\n" * 1024
    for _ in range(PAGE_MAX_BYTES // len(piece)):
        endless.feed(piece)
    with pytest.raises(ScrapeFailed, match="longer than 8 MiB"):
        endless.feed(b"\n")


# ---- fuzz: a page or a complaint, never anything else ----

REAL = [Vllm(2).page(), Sglang().page(), *(path.read_bytes() for path in sorted(PAGES.glob("*.txt")))]
names = st.sampled_from(["waits", "done_total", "took_seconds_bucket", "full", "other"])
values = st.sampled_from(["0", "1", "NaN", "-Inf", "+Inf", "1e308", "-0", "0x1", "1_0", "", "2 3", "2 3 4"])
values |= st.floats().map(repr) | st.integers().map(str)
labels = st.dictionaries(st.sampled_from(["a", "le", "engine", "__x", "0", 'q"']), st.text(max_size=8), max_size=3).map(
    lambda pairs: "{" + ",".join(f'{name}="{text}"' for name, text in pairs.items()) + "}"
)
lines = st.builds(lambda *parts: "".join(parts), names, labels | st.just(""), st.sampled_from([" ", "", "\t"]), values)
texts = st.lists(lines, max_size=12).map(lambda many: "\n".join(many).encode())


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A real page with a few of its bytes changed, dropped or doubled."""
    text = bytearray(draw(st.sampled_from(REAL)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text) - 1))
        end = min(len(text), at + draw(st.integers(0, 40)))
        text[at:end] = draw(
            st.sampled_from([b"", b"\n", b'"', b"{", b" -1", bytes(text[at:end]) * 2]) | st.binary(max_size=4)
        )
    return bytes(text)


def complaint_of(look: Callable[[], object]) -> str:
    """What it complains of; empty: nothing."""
    try:
        look()
    except ScrapeFailed as complaint:
        return str(complaint)
    return ""


def is_a_page_or_a_complaint(reader: Callable[[bytes], Page], text: bytes) -> None:
    """What is promised of any text; tests/fuzz shows that it would catch a bug."""

    def look() -> None:
        found = reader(text)
        assert found.requests("waits") >= 0
        assert found.count("done_total") >= 0
        assert 0 <= found.fraction("full") <= 1
        found.histogram("took_seconds")

    complaint = complaint_of(look)
    assert complaint.isprintable()
    assert len(complaint) < 300


@settings(max_examples=400, deadline=None)
@given(texts | st.binary(max_size=200))
def test_whatever_comes_is_a_page_or_a_complaint(text: bytes) -> None:
    is_a_page_or_a_complaint(page, text)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.lists(spoiled(), min_size=1, max_size=3))
def test_a_spoiled_page_of_an_engine_is_a_load_or_a_complaint(kind: str, looks: list[bytes]) -> None:
    follower = Follower("i0")

    def look(text: bytes, at_s: float) -> None:
        load = follower.take(read(kind, paged(KINDS[kind].picker, text)), at_s)
        assert decode_push(encode_push(load)) == load

    for at_s, text in enumerate(looks):
        complaint = complaint_of(partial(look, text, float(at_s)))
        assert complaint.isprintable()
        assert len(complaint) < 400
