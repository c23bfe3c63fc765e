"""A finding, and how findings are put together and laid out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

GRADE_COLUMNS = 8  # of the longest grade and a gap
ABOUT_SHOWN = 8  # of the things that one finding is about; the rest are counted
LEAST_WIDTH = 40  # columns of text, however narrow the terminal


class Grade(Enum):
    """GREEN: as it should be. YELLOW: works, and should be put right. RED: does not work, or a promise is at risk."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is, and what to do about it.

    topic  what was looked at, in a word or two
    what   how it is, one line
    todo   what an operator does about it, one line; empty exactly when it is green
    about  which things of the kind, GPUs or nodes; empty: there is only one
    """

    grade: Grade
    topic: str
    what: str
    todo: str = ""
    about: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert (self.grade is Grade.GREEN) is not bool(self.todo), f"only what is not green needs doing: {self}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a laid-out finding; `grade` is None on the lines after its first."""

    grade: Grade | None
    text: str


def green(topic: str, what: str, *about: str) -> Finding:
    return Finding(Grade.GREEN, topic, what, "", about)


def yellow(topic: str, what: str, todo: str, *about: str) -> Finding:
    return Finding(Grade.YELLOW, topic, what, todo, about)


def red(topic: str, what: str, todo: str, *about: str) -> Finding:
    return Finding(Grade.RED, topic, what, todo, about)


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, those that say the same about several things made one, where the first of them stood."""
    together: dict[Finding, list[str]] = {}
    for finding in findings:
        together.setdefault(replace(finding, about=()), []).extend(finding.about)
    return tuple(replace(finding, about=tuple(about)) for finding, about in together.items())


def is_red(findings: Iterable[Finding]) -> bool:
    """Whether anything is; then the exit code is 1."""
    return any(finding.grade is Grade.RED for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """Such as "1 red, 2 yellow, 9 green"."""
    counts = {grade: sum(finding.grade is grade for finding in findings) for grade in reversed(Grade)}
    return ", ".join(f"{count} {grade.value}" for grade, count in counts.items() if count) or "nothing to look at"


def documents(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """The findings as JSON has them; `do` is empty for what is green."""
    return [
        {"grade": f.grade.value, "topic": f.topic, "about": list(f.about), "what": f.what, "do": f.todo}
        for f in findings
    ]


# ---- layout ----


def laid_out(findings: Sequence[Finding], width: int | None) -> list[Row]:
    """The findings as lines that fit beside their grades in `width` columns (None: no line is too long)."""
    topics = max((len(finding.topic) for finding in findings), default=0) + 2
    room = None if width is None else max(LEAST_WIDTH, width - GRADE_COLUMNS - topics)
    rows: list[Row] = []
    for finding in findings:
        about = f"{_names(finding.about)}: " if finding.about else ""
        texts = wrapped(_printable(about + finding.what), room)
        if finding.todo:
            texts += wrapped(_printable(f"do: {finding.todo}"), room)
        rows.append(Row(finding.grade, finding.topic.ljust(topics) + texts[0]))
        rows += [Row(None, " " * topics + text) for text in texts[1:]]
    return rows


def wrapped(text: str, room: int | None) -> list[str]:
    """The text in lines of at most `room` columns, as far as its words allow."""
    lines = [""]
    for word in text.split(" "):
        if room is not None and lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _printable(text: str) -> str:
    """No process and no node can move a person's cursor by what it calls itself."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _names(about: Sequence[str]) -> str:
    shown = ", ".join(about[:ABOUT_SHOWN])
    return shown if len(about) <= ABOUT_SHOWN else f"{shown} and {len(about) - ABOUT_SHOWN} more"
