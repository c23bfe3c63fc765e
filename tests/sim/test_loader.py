"""Traces from files and from the package."""

import gzip
import os
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from rapid.core.errors import TraceInvalid
from rapid.sim.traces.forms import Arrival
from rapid.sim.traces.loader import MAX_LINE_CHARACTERS, PIECE_BYTES, SHIPPED, Shipped, open_trace
from rapid.sim.traces.reading import Reading, read
from rapid.sim.traces.stats import scan
from tests.sim.traces import HEADER

Pack = Callable[[str], bytes]
GOOD = f"{HEADER}\n0.0,100,10\n1.5,200,1\n"
ARRIVALS = [Arrival(0.0, 100, 10), Arrival(1.5, 200, 1)]
KIMI = '{"timestamp": 1500, "input_length": 200, "output_length": 1, "hash_ids": [7]}\n'
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,100,10\n"


def arrivals(path: Path) -> list[Arrival]:
    return list(read(open_trace(str(path)), Reading(jitter_s=0.0)))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a"])
@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())], ids=["plain", "packed"])
def test_neither_packing_nor_form_is_told_by_the_name(tmp_path: Path, name: str, pack: Pack) -> None:
    path = tmp_path / name
    path.write_bytes(pack(GOOD))
    assert arrivals(path) == ARRIVALS
    path.write_bytes(pack(KIMI))
    assert arrivals(path) == [ARRIVALS[1]]
    path.write_bytes(pack(AZURE))
    assert arrivals(path) == [ARRIVALS[0]]


@pytest.mark.parametrize("text", [GOOD[:-1], GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD])
def test_ends_of_lines_and_marks_of_other_systems_do_no_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert arrivals(tmp_path / "a.csv") == ARRIVALS


@pytest.mark.parametrize("packed", [False, True])
def test_lines_over_the_ends_of_pieces_are_whole(tmp_path: Path, packed: bool) -> None:
    lines = [f"{number},{1 + number % 977},{1 + number % 13}" for number in range(100_000)]
    content = "\n".join([HEADER, *lines]).encode()
    assert len(content) > 2 * PIECE_BYTES
    (tmp_path / "a").write_bytes(gzip.compress(content, 1) if packed else content)
    shares: list[float] = []
    found = read(open_trace(str(tmp_path / "a")), Reading(), progress=shares.append)
    for number, arrival in enumerate(found):
        assert arrival == Arrival(number, 1 + number % 977, 1 + number % 13)
    assert number == 99_999
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) >= 3


def test_a_trace_can_be_handed_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    for name in (str(tmp_path / "a.csv"), "azure", "burst"):
        trace = open_trace(name)
        assert scan(pickle.loads(pickle.dumps(trace)), Reading()) == scan(trace, Reading())


def test_a_gzip_file_that_was_cut_says_after_which_line(tmp_path: Path) -> None:
    lines = "".join(f"{number},1,1\n" for number in range(300_000))
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "\n" + lines).encode())[:-1000])
    with pytest.raises(TraceInvalid) as caught:
        arrivals(path)
    found = re.fullmatch(
        r"trace .*cut\.csv\.gz: damaged gzip after line (\d+): Compressed file ended.*", str(caught.value)
    )
    assert found
    assert 100_000 < int(found[1]) < 300_000


def test_a_gzip_file_whose_sum_does_not_fit_is_damaged(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(GOOD.encode()))
    packed[-8] ^= 1
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(TraceInvalid, match=r"a\.gz: damaged gzip after line 0: CRC check failed"):
        arrivals(tmp_path / "a.gz")


THREE = "CSV with the header arrival_s,input_tokens,output_tokens, Azure's with TIMESTAMP,"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", f": the file is empty; a trace is {THREE}"),
        (b"arrival,in,out\n0,1,1\n", f", line 1: 'arrival,in,out' begins no trace: that is {THREE}"),
        (b"0,1,1\n", ", line 1: '0,1,1' begins no trace"),
        (b"\n" + GOOD.encode(), ", line 1: '' begins no trace"),
        (b"\x89PNG\r\n", f", line 1: byte 0x89 is not text; a trace is {THREE}"),
        (GOOD.encode() + b"2,1,\xb5\n", ", line 4: byte 0xb5 is not text"),
        (b"x" * (MAX_LINE_CHARACTERS + 1), ", line 1: longer than 1,048,576 characters"),
        (GOOD.encode() + b"x" * (MAX_LINE_CHARACTERS + 1), ", line 4: longer than 1,048,576 characters"),
        (GOOD.encode() + b"x" * 1000 + b"\n", ", line 4: 'xxxx"),
    ],
)
def test_what_is_no_trace_says_so_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(TraceInvalid) as caught:
        arrivals(path)
    assert str(caught.value).startswith(f"trace {path}{words}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_file_that_is_not_there_names_what_is() -> None:
    known = ", ".join(shipped.name for shipped in SHIPPED)
    with pytest.raises(TraceInvalid, match=f"^trace azur: No such file or directory; give a file, or one of: {known}$"):
        open_trace("azur")


def test_what_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(TraceInvalid, match="not a file that can be read more than once; save it as one first"):
            open_trace(f"/dev/fd/{read_end}")
    finally:
        os.close(read_end)
        os.close(write_end)
    with pytest.raises(TraceInvalid, match="Is a directory"):
        open_trace(str(tmp_path))


def test_a_shipped_name_wins_and_a_path_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("burst").write_text(GOOD)
    assert scan(open_trace("burst"), Reading()).requests > 7000
    assert scan(open_trace("./burst"), Reading()).requests == 2


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
def test_every_shipped_trace_can_be_read_and_is_accounted_for(shipped: Shipped) -> None:
    stats = scan(open_trace(shipped.name), Reading(max_tokens=200_000))
    assert stats.name == shipped.name
    assert stats.requests >= 2000
    folder = Path(__file__).parents[2] / "rapid/sim/data"
    attribution = (folder / "README.md").read_text()
    assert f"| `{shipped.name}` |" in attribution
    assert all((folder / f"{file}_dev.csv.gz").exists() for file in shipped.files)


def test_every_file_of_the_package_belongs_to_a_trace_and_is_attributed() -> None:
    folder = Path(__file__).parents[2] / "rapid/sim/data"
    files = {path.name for path in folder.glob("*.gz")}
    assert files == {f"{file}_dev.csv.gz" for shipped in SHIPPED for file in shipped.files}
    assert all(f"`{name}`" in (folder / "README.md").read_text() for name in files)


def test_azure_is_both_services_at_once() -> None:
    conv, code, both = (list(read(open_trace(name), Reading())) for name in ("azure-conv", "azure-code", "azure"))
    end_s = both[-1].arrival_s
    assert sorted(both) == sorted(arrival for arrival in conv + code if arrival.arrival_s <= end_s)
    assert all(before.arrival_s <= after.arrival_s for before, after in pairwise(both))
    assert end_s == min(conv[-1].arrival_s, code[-1].arrival_s)


def test_burst_flips_its_mix_every_20_s() -> None:
    found = list(read(open_trace("burst"), Reading()))
    assert {(item.input_tokens, item.output_tokens) for item in found if item.arrival_s % 40 < 20} == {(8192, 128)}
    assert {(item.input_tokens, item.output_tokens) for item in found if item.arrival_s % 40 >= 20} == {(512, 512)}
    stats = scan(open_trace("burst"), Reading())
    assert stats.rate_rps == pytest.approx(12.0, rel=0.02)
    assert stats.gap_cv == pytest.approx(1.0, abs=0.03)
