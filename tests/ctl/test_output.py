"""How blocks become text and JSON."""

import pytest

from rapidctl.output import Cell, Column, Line, Page, Table, Tone, line, render, show, to_json

TABLE = Table(
    (Column("NODE", elastic=True), Column("HELD W", right=True), Column("STATE", elastic=True)),
    (
        (Cell("h1"), Cell("600"), Cell("reporting", Tone.GOOD)),
        (Cell("a-node-with-a-long-name"), Cell("1200"), Cell("silent for 12 s", Tone.BAD)),
    ),
)


def test_columns_are_aligned_and_numbers_stand_right() -> None:
    assert render((TABLE,), width=None, colour=False) == [
        "NODE                     HELD W  STATE",
        "h1                          600  reporting",
        "a-node-with-a-long-name    1200  silent for 12 s",
    ]


def test_a_narrow_terminal_cuts_the_last_elastic_column_first() -> None:
    assert render((TABLE,), width=45, colour=False) == [
        "NODE                     HELD W  STATE",
        "h1                          600  reporting",
        "a-node-with-a-long-name    1200  silent for..",
    ]
    assert render((TABLE,), width=32, colour=False) == [
        "NODE            HELD W  STATE",
        "h1                 600  report..",
        "a-node-with-..    1200  silent..",
    ]


@pytest.mark.parametrize("width", range(1, 60))
def test_no_line_is_wider_than_the_terminal_unless_every_elastic_column_is_at_its_least(width: int) -> None:
    assert max(map(len, render((TABLE,), width=width, colour=False))) <= max(width, 8 + 2 + 6 + 2 + 8)


def test_colour_says_what_the_tone_means_and_moves_no_column() -> None:
    plain, coloured = (render((TABLE,), width=None, colour=colour) for colour in (False, True))
    assert coloured[1] == "h1                          600  \x1b[32mreporting\x1b[0m"
    assert "\x1b[31m\x1b[1msilent for 12 s\x1b[0m" in coloured[2]
    assert [row.count("\x1b") for row in plain] == [0, 0, 0]


def test_a_long_line_is_broken_between_words_on_a_terminal_alone() -> None:
    long = Line((Cell("d7", Tone.STRONG), Cell("  ago by rapid: watts from here to there")))
    assert render((long,), width=24, colour=False) == ["d7  ago by rapid: watts", "  from here to there"]
    assert render((long,), width=None, colour=False) == ["d7  ago by rapid: watts from here to there"]
    assert render((line("x" * 30 + " y"),), width=10, colour=False) == ["x" * 30, "  y"]


@pytest.mark.parametrize("width", range(3, 30))
def test_breaking_a_line_loses_no_word(width: int) -> None:
    words = "a bb ccc dddd eeeee f gg hhh iiii jjjjj"
    rows = render((line(words),), width=width, colour=False)
    assert " ".join(row.strip() for row in rows) == words
    assert all(len(row) <= max(width, 2 + 5) for row in rows)


def test_text_from_afar_cannot_move_the_cursor_or_break_the_line() -> None:
    evil = Cell("out\x1b[2J of\nmemory\x07\x9b1A")
    (text,) = render((Line((evil,)),), width=None, colour=True)
    assert text == "out?[2J of?memory??1A"
    table = render((Table((Column("X"),), ((evil,),)),), width=None, colour=False)
    assert table == ["X", "out?[2J of?memory??1A"]


def test_a_table_without_rows_prints_nothing() -> None:
    assert render((Table((Column("X"),), ()), line(), line("end")), width=80, colour=False) == ["", "end"]


def test_json_is_one_line_and_has_no_infinity() -> None:
    assert to_json({"a": "b\nc", "n": [1.5, None]}) == '{"a": "b\\nc", "n": [1.5, null]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"age_s": float("inf")})


def test_what_is_not_a_terminal_gets_whole_lines_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    show(Page({"long": 1}, (line("x" * 500, Tone.BAD),)), as_json=False)
    show(Page({"long": 1}, (line("x" * 500, Tone.BAD),)), as_json=True)
    assert capsys.readouterr() == ("x" * 500 + '\n{"long": 1}\n', "")
